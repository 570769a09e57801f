"""Records the error of a command for torchrun, which shows the first error of all ranks."""

from collections.abc import Callable

from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from fastcpc.distributed.process_group import launched_by_torchrun
from fastcpc.errors import LostContactError


def recorded_error(command: Callable[[], int]) -> int:
    """Run a command and record its error where torchrun looks for it.

    A lost contact is not recorded: torchrun shows the first error, and that must be the error of the lost process.
    """
    handler = get_error_handler()
    try:
        return command()
    except LostContactError:
        raise
    except Exception as error:
        if launched_by_torchrun():
            handler.record_exception(error)
        raise
