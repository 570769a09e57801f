"""Errors caused by user input or environment: a command prints one line and exits with their code."""


class InputError(ValueError):
    """What the user gave cannot be used: a setting, a path, a label file, a data set. Exit code 2."""

    exit_code = 2
    on_all_ranks = False  # with several processes: whether each of them raises it, so that rank 0 reports it


class RunError(RuntimeError):
    """A run that started well cannot continue: a damaged checkpoint, a full disk, losses of NaN. Exit code 1."""

    exit_code = 1
    on_all_ranks = False


class LostContactError(RunError):
    """Another process of the run went away: its own error, not this one, says why."""
