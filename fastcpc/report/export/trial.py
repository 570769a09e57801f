"""Tries the export of a config's networks before they are trained, for ``fastcpc-train --dry-run``.

The networks of fastcpc always export, so that only those of timm are tried. The result is a note, not an error: a run
is of use without an export.
"""

import dataclasses
import importlib.util

from fastcpc import distributed
from fastcpc.config.names import TIMM_PREFIX
from fastcpc.config.schema import Config
from fastcpc.data.registry import inference_transform
from fastcpc.errors import InputError, RunError
from fastcpc.models.build import build_network
from fastcpc.report.export.ensemble import ExportedModel
from fastcpc.report.export.model_folder import plain_networks
from fastcpc.report.export.onnx_file import NEEDED, onnx_bytes

CLASSES = ("0", "1")  # the number of classes changes nothing


def export_problem(config: Config) -> str:
    """Why networks of this architecture cannot be exported, in one line; empty where they can be.

    ONNX is tried where its packages are installed. Only rank 0 tries.
    """
    if not config.model.name.startswith(TIMM_PREFIX) or not distributed.is_rank0():
        return ""
    try:
        model = _untrained(config)
    except RunError as error:
        return f"fastcpc-export and fastcpc-predict cannot read this model: {error}"
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        return ""
    try:
        onnx_bytes(model)
    except RunError as error:
        return f"this model cannot be exported to ONNX: {error}"
    return ""


def _untrained(config: Config) -> ExportedModel:
    """Two networks of the config with random weights, as ``fastcpc-export`` makes them. RunError."""
    inputs = inference_transform(config.data)
    model = dataclasses.replace(config.model, weights="")
    network = build_network(
        model, config.cpc, num_classes=len(CLASSES), in_channels=inputs.channels, image_size=inputs.crop, seed=0
    )
    try:
        architecture, plain = plain_networks(model, [network, network], inputs, model.name)
    except InputError as error:
        raise RunError(str(error)) from error
    return ExportedModel(plain, architecture, inputs, CLASSES)
