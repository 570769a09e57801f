"""Read a run and present it: tables, HTML report, exported models, the paper's experiments."""
