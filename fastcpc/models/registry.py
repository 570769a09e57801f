"""Registry of the networks of fastcpc. A network registers itself; ``build.py`` imports all of them.

A network of your own: write a function as ``Backbone.build`` describes, decorate it with ``register_backbone``, append
its name to ``fastcpc.config.names.BACKBONES``, and train with model.name=NAME.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from fastcpc.config import names

Build = Callable[[int, int, int], nn.Module]
LoadNamed = Callable[[nn.Module, str], None]


@dataclass(frozen=True)
class Backbone:
    """How a network is built and gets its first weights.

    build: from in_channels, image_size (pixels) and width (model.width) to a module with random weights. The module
    maps images (B, in_channels, image_size, image_size) to features (B, D).
    load_named: copies weights into the module, by the name in model.weights; None where there are no such weights.
    classifier: modules that a weights file of the whole model has and the module has not.
    """

    build: Build
    load_named: LoadNamed | None = None
    classifier: tuple[str, ...] = ()


_BACKBONES: dict[str, Backbone] = {}


def register_backbone(
    name: str, *, load_named: LoadNamed | None = None, classifier: tuple[str, ...] = ()
) -> Callable[[Build], Build]:
    """Decorator: make a network known as model.name=NAME. ValueError where the name is missing in config/names.py."""
    if name not in names.BACKBONES:
        raise ValueError(f"{name}: add the name to BACKBONES of fastcpc.config.names, which settings are checked with")

    def register(build: Build) -> Build:
        _BACKBONES[name] = Backbone(build, load_named, classifier)
        return build

    return register


def unregister_backbone(name: str) -> None:
    """Remove a network that ``register_backbone`` added; its name stays in config/names.py."""
    del _BACKBONES[name]


def registered_backbones() -> dict[str, Backbone]:
    """Every registered network by name."""
    return dict(_BACKBONES)
