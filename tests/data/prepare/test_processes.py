"""Worker processes: order, how far they are ahead, and how they end."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import part_work
import pytest

from fastcpc.data.image_store import ImageFiles
from fastcpc.data.prepare.processes import in_processes
from fastcpc.errors import RunError

DIED = "a decoding process died, out of memory perhaps: try fewer --jobs"


def images(num: int, bad: int = -1) -> ImageFiles:
    return ImageFiles([f"bad{row}" if row == bad else f"image{row}" for row in range(num)])


def workers_end() -> bool:
    deadline = time.monotonic() + 60
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not multiprocessing.active_children()


@pytest.mark.parametrize(("num", "jobs", "chunk"), [(0, 2, 3), (1, 2, 3), (6, 2, 3), (7, 3, 2), (5, 4, 2)])
def test_results_come_in_the_order_of_the_images(num: int, jobs: int, chunk: int) -> None:
    results = list(in_processes(part_work.paths, images(num), jobs, chunk))
    assert results == [images(num).paths[first : first + chunk] for first in range(0, num, chunk)]
    assert not multiprocessing.active_children()


def test_a_process_is_only_a_few_chunks_ahead_of_a_slow_one(tmp_path: Path) -> None:
    files = [tmp_path / ("slow" if number == 1 else f"{number:03}") for number in range(40)]
    results = in_processes(part_work.noted, ImageFiles(list(map(str, files))), 2, 1)
    for _ in range(2):
        assert len(next(results)) == part_work.LARGE
    assert sum(path.exists() for path in files[::2]) <= 4
    results.close()


def test_a_process_may_end_long_before_a_slow_one(tmp_path: Path) -> None:
    files = ImageFiles([str(tmp_path / name) for name in ("first", "slow", "third")])
    assert [len(result) for result in in_processes(part_work.noted, files, 2, 1)] == [part_work.LARGE] * 3


def test_close_while_processes_write_ends_them() -> None:
    """Each has more to write than its pipe holds, and nobody reads it."""
    for _ in range(3):
        results = in_processes(part_work.large, images(30), 2, 1)
        next(results)
        results.close()
        assert not multiprocessing.active_children()


@pytest.mark.parametrize("wait", [0.0, 0.5])
def test_a_process_killed_while_it_writes_is_an_error(wait: float) -> None:
    """The end of its message never comes. wait: seconds in which it begins to write."""
    results = in_processes(part_work.large, images(30), 2, 1)
    next(results)
    time.sleep(wait)
    multiprocessing.active_children()[0].kill()
    with pytest.raises(RunError, match=DIED):
        list(results)
    assert workers_end()


def test_a_process_that_ends_by_itself_is_an_error() -> None:
    with pytest.raises(RunError, match=DIED):
        list(in_processes(part_work.ended, images(9, bad=5), 2, 2))
    assert workers_end()


def test_an_exception_is_raised_where_its_result_is_due() -> None:
    results = in_processes(part_work.refused, images(9, bad=5), 2, 2)
    assert [next(results) for _ in range(2)] == [("image0", "image1"), ("image2", "image3")]
    with pytest.raises(KeyError, match="bad5"):
        next(results)
    assert workers_end()


def test_processes_do_not_get_the_interrupt_of_their_parent(capfd: pytest.CaptureFixture[str]) -> None:
    """Also while they start, when a traceback of each would hide the parent's line."""
    results = in_processes(part_work.paths, images(40), 2, 1)
    assert next(results) == ("image0",)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for process in multiprocessing.active_children():
        assert process.pid is not None
        blocked = Path(f"/proc/{process.pid}/status").read_text().split("SigBlk:")[1].split()[0]
        assert int(blocked, 16) >> (signal.SIGINT - 1) & 1
        os.kill(process.pid, signal.SIGINT)
    assert len(list(results)) == 39
    assert capfd.readouterr().err == ""


def test_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(process: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "start", start)
    with pytest.raises(RunError, match=r"cannot be started \(Resource temporarily unavailable\): try fewer --jobs"):
        list(in_processes(part_work.paths, images(4), 2, 1))
