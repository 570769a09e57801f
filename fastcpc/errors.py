"""Errors that a user can fix. A command prints their message as one line and ends with their exit code."""


class InputError(ValueError):
    """What the user gave cannot be used: a setting, a path, a label file, a data set. Exit code 2."""

    exit_code = 2
    on_all_ranks = False  # several processes: each of them raises it, and rank 0 alone tells it


class RunError(RuntimeError):
    """A run that has started cannot continue: a damaged checkpoint, a full disk, losses of NaN. Exit code 1."""

    exit_code = 1
    on_all_ranks = False


class LostContactError(RunError):
    """Another process of the run went away: its own error, not this one, says why."""
