"""A run on 60 tiny image files that was stopped, and changes of its data set; not a test itself."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from image_sets import jpeg
from small_run import StopAfter, run, small_config

from fastcpc import distributed
from fastcpc.config.load import load_config, to_yaml
from fastcpc.config.schema import Config, DataConfig
from fastcpc.engine.launch import train
from fastcpc.engine.outputs.run_dir import open_run_dir
from fastcpc.engine.step_loop import Stopped
from fastcpc.errors import InputError

CLASSES = ("blue", "green", "red")
Change = Callable[[Path], object]


def sixty_images(root: Path, parts: tuple[str, ...] = ("train", "test"), each: int = 20) -> Path:
    """20 training images and 4 test images of each class; parts ("",): one folder per class, no test part."""
    for part in parts:
        for k, name in enumerate(CLASSES):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(4 if part == "test" else each):
                (folder / f"{name[0]}{number:03d}.jpg").write_bytes(
                    jpeg(100 * k + number + 1000 * (part == "test"), (24, 20))
                )
    return root


def config_of(root: Path, folder: Path, **data: object) -> Config:
    """A run of 3 epochs, one of warm-up. data: more settings of the data set."""
    config = small_config(folder, noise={"kind": "none", "rate": 0.0})
    settings = {
        "name": "imagefolder",
        "root": str(root),
        "feed": "torch",
        "workers": 1,
        "resize": 18,
        "crop": 16,
        "max_bad": 0.1,
    }
    return replace(
        config,
        data=DataConfig(**settings | data),  # type: ignore[arg-type]
        model=replace(config.model, name="small_cnn", width=16),
        cleaner=replace(config.cleaner, loss_history=3),
        train=replace(config.train, epochs=3, batch_size=16, score_batch_size=32, lr_drop_epoch=2),
    )


def stopped_run(config: Config, looks: int) -> Path:
    """The folder of the run, stopped at this look for a stop, with a config file beside it."""
    with pytest.raises(Stopped):
        run(config, StopAfter(looks))
    folder = Path(config.run.dir)
    folder.with_suffix(".yaml").write_text(to_yaml(config))
    return folder


def refused_then_accepted(file: str) -> None:
    """On each rank: resume the run of a config file, print the error, then resume it with the changed data set."""
    config = load_config([Path(file)], [])
    with open_run_dir(config) as folder:
        try:
            train(config, folder, StopAfter())
        except InputError as error:
            print(f"rank {distributed.rank()}, reported {error.on_all_ranks}: {error}", flush=True)
    with open_run_dir(config) as folder:
        train(config, folder, StopAfter(), accept_changed_data=True)


def copied(source: Path, target: Path) -> Path:
    """A copy of the folder with the images, the run and its config file; paths in the config are those of the copy."""
    shutil.copytree(source, target)
    for file in (target / "run.yaml", target / "run" / "config.yaml"):
        file.write_text(file.read_text().replace(str(source), str(target)))
    return target
