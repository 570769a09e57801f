"""The report pages: self-contained HTML files with escaped text, so that names of files and classes cannot run."""

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import fastcpc
from fastcpc.engine.outputs.sample_table import SampleTable
from fastcpc.engine.outputs.score_file import FIRST, LAST, ScoreArrays
from fastcpc.errors import InputError
from fastcpc.report.audits.figures import estimated_confusion_figure
from fastcpc.report.audits.record import AuditRecord, read_audit
from fastcpc.report.html.canvas import ReportFigure, plain_name
from fastcpc.report.html.class_figures import (
    confusion,
    confusion_figure,
    map_figure,
    probability_figure,
    prototype_figure,
    worst_pairs,
)
from fastcpc.report.html.comparison import Comparison, spread_of
from fastcpc.report.html.cost_figures import cost_figures, flops_figure
from fastcpc.report.html.curves import comparison_figures, curves
from fastcpc.report.html.gallery import MOST_TEXT, as_script, find_similar, make_gallery, names_of
from fastcpc.report.html.headline import (
    AccuracySummary,
    accuracy_of,
    describe_noise,
    describe_state,
    estimate_noise,
)
from fastcpc.report.html.limits import MOST_CARDS
from fastcpc.report.html.loss_figures import class_panels, density_figures, loss_figures, loss_tests
from fastcpc.report.html.review import KEYS, past_of, review_script
from fastcpc.report.results.corrected_list import past_decisions
from fastcpc.report.results.images import TrainingImages
from fastcpc.report.results.run import Run
from fastcpc.report.results.samples import samples_of
from fastcpc.report.results.suspects import find_suspects

_TEMPLATES = Path(__file__).parent / "templates"
_PARTS = (("report.js", "review.js"), ("report.css",))
FIRST_SHOWN = 20  # cards before "show all"


@dataclass(frozen=True)
class PageSection:
    """A section of figures, and a sentence for each figure that cannot be drawn."""

    title: str
    figures: list[ReportFigure]
    missing: list[str]


def run_page(run: Run, *, root: str = "", most_cards: int = MOST_CARDS, baseline: Run | None = None) -> str:
    """The report of a run, finished or not.

    root: folder of the images, if not data.root. baseline: another run to compare accuracy with.
    InputError where the run's files are damaged.
    """
    samples, no_samples = samples_of(run)
    first, last = run.scores(FIRST), run.scores(LAST)
    audit = read_audit(run.path, len(run.class_names))
    content: dict[str, Any] = {
        "title": run.path.resolve().name,
        "settings": _settings(run),
        "state": describe_state(run),
        "accuracy": accuracy_of(run),
        "baseline": _baseline(baseline),
        "no_samples": no_samples,
        "audit": audit,
        "sections": _sections(run, samples, first, last) if audit is None else _audit_sections(run, samples, audit),
        "class_panels": class_panels(run, last),
        "num_classes": len(run.class_names),
        "tests": loss_tests(run, first),
        "trusted": run.labels.trusted_N is not None,
        "first_shown": FIRST_SHOWN,
        "past": None,
        "similar": None,
    }
    if samples is not None:
        suspects = find_suspects(run, samples)
        past = past_decisions(run)
        images = TrainingImages(run, samples, root)
        similar = find_similar(run, samples, suspects, images, most_cards)
        gallery = make_gallery(run, samples, suspects, images, most_cards, similar.groups)
        content |= {
            "noise": estimate_noise(run, samples, suspects),
            "quality": suspects.quality,
            "gallery": gallery,
            "rows": Markup(as_script(gallery.table)),
            "review": Markup(review_script(run, samples, past)),
            "keys": KEYS,
            "past": past_of(past),
            "similar": similar,
            "given_names": names_of([card.given_label for card in gallery.cards], run),
            "suggested_names": names_of([card.predicted_label for card in gallery.cards], run),
            "pairs": worst_pairs(confusion(samples.given_N, samples.predicted_N, len(run.class_names))),
        }
    return render("run.html.j2", list(run.class_names), content)


def comparison_page(comparison: Comparison) -> str:
    """The report of several runs."""
    figures = [*comparison_figures(comparison), flops_figure(comparison)]
    shown = [figure for figure in figures if figure is not None]
    content = {"title": "Comparison", "comparison": comparison, "figures": shown, "spread_of": spread_of}
    return render("compare.html.j2", [], content)


def render(template: str, class_names: list[str], content: dict[str, Any]) -> str:
    """A page from its template; class_names are for the filter ``class_name`` of ids."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["class_name"] = lambda label: plain_name(class_names[label], MOST_TEXT)
    environment.filters["percent"] = lambda share: "-" if share is None else f"{100 * share:.1f} %"
    script, style = ("\n".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in names) for names in _PARTS)
    text = environment.get_template(template).render(
        {
            "version": fastcpc.__version__,
            "made": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "style": Markup(style),
            "script": Markup(script),
            "policy": (
                "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-"
                + _sha256(script)
                + "'"
            ),
        }
        | content
    )
    return text.encode("utf-8", "replace").decode("utf-8")


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def _sections(
    run: Run, samples: SampleTable | None, first: ScoreArrays | None, last: ScoreArrays | None
) -> list[PageSection]:
    over_epochs, missing = curves(run)
    over_cost, unknown = cost_figures(run) if run.metrics else ([], [])
    sections = [PageSection("Training", [*over_epochs, *over_cost], [*missing, *unknown])]
    distributions = [*loss_figures(run, first, last), *density_figures(run, first)]
    absent = []
    if last is None:
        absent.append("No cleaning has been made yet, so there are no per-sample losses to draw.")
    elif run.labels.trusted_N is None:
        absent.append(
            "True labels are unknown, so the losses of correct and wrong labels are not separated, and there are no "
            "tests per class."
        )
    elif first is None:
        absent.append("This run has no losses of its first cleaning, so there are no tests per class.")
    sections.append(PageSection("Losses", distributions, absent))
    figures = [confusion_figure(run, samples) if samples is not None else None, probability_figure(run, last)]
    figures += [prototype_figure(run, last), map_figure(run, samples, last)]
    shown = [figure for figure in figures if figure is not None]
    sections.append(PageSection("Classes and cleaners", shown, _absent_of_classes(run, last)))
    return sections


def _audit_sections(run: Run, samples: SampleTable | None, audit: AuditRecord) -> list[PageSection]:
    figure = confusion_figure(run, samples) if samples is not None else None
    estimated = estimated_confusion_figure(run.class_names, audit)
    shown = [one for one in (estimated, figure) if one is not None]
    many = f"{len(run.class_names)} classes are too many for a matrix; see the table of changes."
    return [PageSection("Classes", shown, [] if shown else [many])]


def _absent_of_classes(run: Run, last: ScoreArrays | None) -> list[str]:
    absent = []
    if last is not None and "prototypes" not in last.arrays:
        absent.append(f"cleaner.kind={run.config.cleaner.kind} has no prototypes, so there is no map or similarity.")
    elif last is not None and len(last.cleaners) < 2:
        absent.append("This run has one cleaner, so clean probabilities are not compared.")
    if len(run.class_names) > 50:
        absent.append(f"{len(run.class_names)} classes are too many for a matrix; see the table of changes.")
    return absent


def _baseline(baseline: Run | None) -> tuple[str, AccuracySummary] | None:
    if baseline is None:
        return None
    accuracy = accuracy_of(baseline)
    if accuracy is None:
        raise InputError(f"--baseline {baseline.path}: no finished epoch; give a run that has one")
    return baseline.path.resolve().name, accuracy


def _settings(run: Run) -> list[tuple[str, str]]:
    config = run.config
    return [
        ("data", f"{config.data.name}, {run.num_samples:,} training labels, {len(run.class_names)} classes"),
        ("labels", describe_noise(run)),
        ("cleaner", f"{config.cleaner.kind}, tau {config.cleaner.tau:g}"),
        ("networks", f"2 x {config.model.name}"),
        ("seed", str(config.run.seed)),
    ]
