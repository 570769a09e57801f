"""The figure of an audit's estimated confusion of labels."""

from collections.abc import Sequence

import numpy as np

from fastcpc.report.audits.record import AuditRecord
from fastcpc.report.html.canvas import ReportFigure, draw, plain_name
from fastcpc.report.html.class_figures import MOST_DRAWN, matrix_plot


def estimated_confusion_figure(class_names: Sequence[str], audit: AuditRecord) -> ReportFigure | None:
    """How often samples of a true class get each label, as the audit estimates it; None above MOST_DRAWN classes."""
    if len(class_names) > MOST_DRAWN:
        return None
    off_KK = audit.confusion_KK.copy()
    np.fill_diagonal(off_KK, 0)
    true, given = (int(place) for place in np.unravel_index(np.argmax(off_KK), off_KK.shape))
    names = [plain_name(class_names[k]) for k in (true, given)]
    text = (
        f"Estimated matrix of {len(class_names)} true classes by given labels. Most frequent mistake: {names[0]} "
        f"labelled as {names[1]}, {100 * off_KK[true, given]:.1f} % of {names[0]}."
    )
    caption = "Percent of the samples of a true class (row) that have the label of the column, estimated by the audit."
    plot = matrix_plot(audit.confusion_KK, class_names, "given", "true (estimated)")
    return draw("mistakes", "Estimated confusion of labels", caption, text, plot, height=1.4)
