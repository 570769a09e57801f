"""The log of a run: one console line and one JSON line per epoch, TensorBoard events, W&B, progress in a stage.

Text goes through the logger "fastcpc". No function reads the device: callers pass Python numbers.
"""

import logging
import math
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, TextIO

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from fastcpc import distributed
from fastcpc.atomic_io import write_failure
from fastcpc.config.schema import Config
from fastcpc.engine.checkpoint.config_diff import flat_settings
from fastcpc.engine.loggers.figure_schedule import DrawFigures, FigureImages, FigureSchedule
from fastcpc.engine.loggers.progress import Progress, Stage
from fastcpc.engine.loggers.wandb_logger import WandbLog
from fastcpc.engine.outputs.metric_keys import METRIC_KEYS, METRICS_FILE, SECONDS_KEYS
from fastcpc.engine.outputs.run_dir import RunDir, plain_json

logger = logging.getLogger("fastcpc")

_TITLES = (
    ("epoch/of", -9), ("phase", -6), ("top-1 (net 1 net 2)", 20), ("prot.", 5), ("|X1|   |X2|", 13), ("AUC gmm", 11),
    ("AUC cpc", 11), ("lr", 7), ("s", 6), ("img/s", 6), ("wait", 5),
)  # fmt: skip
_HEADER = "  ".join(f"{title:{'<' if width < 0 else '>'}{abs(width)}}" for title, width in _TITLES)
_HEADER_EVERY = 20


class RunLog:
    """metrics.jsonl, TensorBoard events and a console line for each epoch of a run; progress within its stages.

    folder: the run's open folder. epochs: how many the run has. progress: how stages show how far they are. figures:
    what is drawn of the run, and when; it goes to TensorBoard, and to W&B where log.wandb names a project.
    """

    def __init__(
        self, folder: RunDir, epochs: int, progress: Progress | None = None, figures: FigureSchedule | None = None
    ) -> None:
        self._folder = folder
        self._epochs = epochs
        self._progress = progress or Progress()
        self._figures = figures or FigureSchedule(None, folder.path, 0)
        self._wandb: WandbLog | None = None
        self._num_lines = 0
        self._writer: SummaryWriter | None = None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(failed=kind is not None)

    def start(self, epoch: int) -> None:
        """Prepare for this epoch: delete older lines and events of it and of later epochs.

        Call it once before the first stage; otherwise the first call of ``epoch`` does.
        """
        self._folder.truncate_json_lines(METRICS_FILE, epoch)
        events = self._folder.path / "tensorboard"
        purge = epoch if events.exists() else None
        try:
            self._writer = SummaryWriter(str(events), purge_step=purge)
        except OSError as error:
            raise write_failure(error, events, 0) from error
        config = self._folder.config
        if config.log.wandb:
            self._wandb = WandbLog(self._folder.path, config.log.wandb, flat_settings(config))

    def epoch(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Write one epoch everywhere and return the line as metrics.jsonl has it.

        metrics: "epoch", any others of METRIC_KEYS, and any keys beyond them; absent ones and NaN become null.
        """
        line = metrics_line(metrics)
        if self._writer is None:
            self.start(line["epoch"])
        self._folder.append_json_line(METRICS_FILE, line)
        if self._num_lines % _HEADER_EVERY == 0:
            logger.info(_HEADER)
        self._num_lines += 1
        logger.info(console_line(line, self._epochs))
        images = self._figures.after_epoch(line)
        scalars = _scalars(line)
        self._write_events(line["epoch"], scalars, images)
        if self._wandb is not None:
            self._wandb.epoch(line["epoch"], scalars, images)
        return line

    def stage(self, name: str, total_steps: int, done: int = 0) -> Stage:
        """Show a stage that starts, or resumes after ``done`` of its steps."""
        return self._progress.stage(name, total_steps, done)

    def info(self, text: str) -> None:
        """Log one line."""
        logger.info(text)

    def warning(self, text: str) -> None:
        """Log one line that a user should know of."""
        logger.warning(text)

    def finished(self, summary: Mapping[str, Any]) -> None:
        """Log the result and show the final figures."""
        images = self._figures.draw()
        self._write_events(self._epochs, {}, images)
        if self._wandb is not None:
            self._wandb.finished(self._epochs, summary, images)
        logger.info("finished: %s; everything is in %s", result_text(summary), self._folder.path)

    def _write_events(self, step: int, scalars: Mapping[str, float], images: FigureImages) -> None:
        if self._writer is None:  # a rank that writes none
            return
        try:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, step)
            for tag, pixels in images.items():
                self._writer.add_image(tag, pixels, step, dataformats="HWC")
            self._writer.flush()
        except OSError as error:
            raise write_failure(error, self._folder.path / "tensorboard", 0) from error

    def close(self, *, failed: bool = False) -> None:
        """Close the event file; events that cannot be written are lost with a warning.

        failed: the run did not come to its end.
        """
        if self._wandb is not None:
            self._wandb.close(failed=failed)
            self._wandb = None
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                writer.close()
        except OSError as error:
            logger.warning("TensorBoard's last events are lost: %s", error.strerror)


def open_log(folder: RunDir, config: Config, draw_figures: DrawFigures | None = None) -> RunLog:
    """The log of this rank; rank 0 alone shows progress, writes epochs and draws figures, by ``draw_figures``."""
    if not distributed.is_rank0():
        return RunLog(folder, config.train.epochs, Progress(interval=math.inf, bar=False))
    return RunLog(
        folder, config.train.epochs, None, FigureSchedule(draw_figures, folder.path, config.log.figures_every)
    )


def result_text(summary: Mapping[str, Any]) -> str:
    """A summary's accuracies in words; "-" where one is not known."""
    keys = (("best_top1", "best"), ("last10_top1", "mean of the last 10"), ("final_top1", "final"))
    return "top-1 " + ", ".join(f"{word} {_number(summary.get(key), '5.2f').strip()}" for key, word in keys)


def metrics_line(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A metrics.jsonl line: METRIC_KEYS in their order, null where nothing is known, then the other keys in theirs."""
    line = {key: metrics.get(key) for key in METRIC_KEYS} | dict(metrics)
    seconds = metrics.get("seconds") or {}
    line["seconds"] = {key: seconds.get(key) for key in SECONDS_KEYS} | seconds
    plain = plain_json(line)
    assert isinstance(plain, dict)
    return plain


def console_line(line: Mapping[str, Any], epochs: int) -> str:
    """An epoch in fixed columns; "-" where something is not known. line: as metrics_line returns it.

    Epochs count from 0 here as in metrics.jsonl and in the checkpoints' names.
    """
    sizes = line["labelled"] or ()
    rate = line["images_per_second"]
    columns = [
        f"{line['epoch']:>4}/{epochs:<4}",
        f"{line['phase'] or '-':<6}",
        f"{_number(line['test_top1'], '6.2f')} ({_numbers((line['net1_top1'], line['net2_top1']), '5.2f')})",
        _number(line["prototype_top1"], "5.2f"),
        _numbers(sizes, "6d"),
        _numbers(line["auc_gmm"] or (), "5.3f"),
        _numbers(line["auc_cpc"] or (), "5.3f"),
        _number(line["lr"], "7.2g"),
        _number(line["seconds"]["total"], "6.1f"),
        _number(None if rate is None else round(rate), "6d"),
        _number(line["data_wait"], "5.0%"),
    ]
    return "  ".join(columns)


def _number(value: Any, form: str) -> str:
    return f"{'-':>{int(form[0])}}" if value is None else format(value, form)


def _numbers(values: Sequence[Any], form: str) -> str:
    return " ".join(_number(value, form) for value in (*values, None, None)[:2])


def _scalars(line: Mapping[str, Any]) -> dict[str, float]:
    pairs: list[tuple[str, Any]] = []
    for key, value in line.items():
        if isinstance(value, list):
            pairs += [(f"{key}/net{number + 1}", item) for number, item in enumerate(value)]
        elif isinstance(value, dict):
            pairs += [(f"{key}/{name}", item) for name, item in value.items()]
        elif key != "epoch":
            pairs.append((key, value))
    return {name: float(value) for name, value in pairs if isinstance(value, (int, float))}


class ConsoleHandler(logging.Handler):
    """The logger on a terminal: news on stdout, warnings and errors on stderr, above a bar where one is drawn.

    A reader that has gone away (a closed pipe) ends the printing, not the run.
    """

    def __init__(self) -> None:
        super().__init__()
        self._closed: set[TextIO] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        warns = record.levelno >= logging.WARNING
        stream = sys.stderr if warns else sys.stdout
        if stream in self._closed:
            return
        try:
            tqdm.write(
                f"{record.levelname.lower()}: {record.getMessage()}" if warns else record.getMessage(), file=stream
            )
            stream.flush()
        except (OSError, ValueError):
            self._closed.add(stream)
