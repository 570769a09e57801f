"""Folders of small images, and a small network of timm with weights in a file, for tests; not a test itself."""

from pathlib import Path

import numpy as np
import timm
import torch
from made_images import texture
from PIL import Image

MODEL, SIZE = "test_efficientnet", "32"  # the smallest of timm
COLOURS = {"blue": (40, 60, 200), "green": (40, 200, 60), "red": (200, 50, 40)}


def write_images(root: Path, per_class: int = 14, wrong: int = 0) -> None:
    """root/CLASS/NN.jpg: tinted textures of 40x48 pixels; the first ``wrong`` of each class show the next class."""
    names = list(COLOURS)
    for place, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            shown = names[(place + (number < wrong)) % len(names)]
            pixels = 0.3 * texture(40, 48, 100 * place + number) + 0.7 * np.array(COLOURS[shown])
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number:02}.jpg")


def write_weights(file: Path) -> None:
    """A state_dict of the whole model, with its classifier."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        torch.save(timm.create_model(MODEL).state_dict(), file)


def model_options(weights: Path) -> list[str]:
    """Of fastcpc-embed and fastcpc-audit, for this network."""
    return ["--model", MODEL, "--weights", str(weights), "--size", SIZE, "--device", "cpu"]


def embed_on_ranks(source: str, out: str, weights: str) -> None:
    """fastcpc-embed on ranks that are connected already, for ``several_ranks.on_ranks``."""
    from fastcpc.cli.actions.embed import embed_command
    from fastcpc.cli.embeddings.embed import arguments

    assert embed_command(arguments([source, "--out", out, *model_options(Path(weights))])) == 0
