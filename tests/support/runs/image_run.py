"""A run of a few seconds on image files, for the tests of whole runs; not a test itself."""

from dataclasses import replace
from pathlib import Path

from made_images import texture
from PIL import Image
from small_run import small_config

from fastcpc.config.schema import AugmentConfig, Config, DataConfig


def coloured_images(root: Path) -> None:
    """42 training and 9 test images as JPEG files, of three classes that differ in their colour."""
    for part, each in (("train", 14), ("test", 3)):
        for k, colour in enumerate(("red", "green", "blue")):
            (root / part / colour).mkdir(parents=True)
            for number in range(each):
                pixels = texture(40, 50, 100 * k + number) // 2
                pixels[..., k] += 100
                Image.fromarray(pixels).save(root / part / colour / f"{number}.jpg")


def image_config(root: Path, folder: Path, loader: str) -> Config:
    config = small_config(folder, noise={"kind": "asym_next", "rate": 0.3})
    data = DataConfig(name="imagefolder", root=str(root), feed=loader, workers=2, resize=36, crop=32, max_bad=0.05)  # type: ignore[arg-type]
    return replace(
        config,
        data=data,
        model=replace(config.model, name="preact_resnet18", width=16),
        train=replace(config.train, epochs=2, warmup_epochs=1, batch_size=8, lr_drop_epoch=1, score_batch_size=32),
        cleaner=replace(config.cleaner, warmup=0.0),
        augment=AugmentConfig(strong="autoaugment"),
    )
