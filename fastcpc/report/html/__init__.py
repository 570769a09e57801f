"""The HTML report: page, figures, gallery, comparison of runs."""
