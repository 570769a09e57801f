"""Work done by a user without rights; not a test itself."""

import os
from collections.abc import Callable


def as_nobody(work: Callable[[], str]) -> str:
    """What work returns in a child process that has no rights."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            os.write(writer, work().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        text = file.read().decode()
    os.waitpid(child, 0)
    return text
