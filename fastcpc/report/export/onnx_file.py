"""Both networks as one ONNX file, compared with PyTorch. The only module that imports onnx."""

import importlib
import importlib.util
import io
import logging
import warnings

import numpy as np
import torch

from fastcpc.errors import InputError, RunError
from fastcpc.models.pretrained.weights import first_line
from fastcpc.report.export.ensemble import ExportedModel

NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # largest difference from PyTorch's logits
CHECKED = (1, 2, 5)  # batch sizes of the comparison
LARGEST = 2**31 - 2**26  # bytes of weights: protobuf allows 2 GiB per file, and the graph needs some


def require_onnx() -> None:
    """InputError with the pip command where a library is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"--onnx: {', '.join(missing)} not installed; pip install 'fastcpc[onnx]'")


def onnx_bytes(model: ExportedModel) -> bytes:
    """The ensemble as ONNX: input ``pixels`` float32 (B, C, S, S) in [0, 1], any B; output ``logits`` (B, K).

    The model normalises its input. RunError: more weights than a file can have, a model that torch cannot convert,
    or logits of ONNX Runtime that differ from PyTorch's by more than 1e-4.
    """
    require_onnx()
    _check_size(model)
    ensemble, side = model.ensemble(), model.inputs.crop
    example = torch.zeros(2, model.inputs.channels, side, side)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation warnings of the exporter itself
        try:
            program = torch.onnx.export(
                ensemble, (example,), input_names=["pixels"], output_names=["logits"], dynamo=True, verbose=False,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )  # fmt: skip
        except Exception as error:  # the exporter raises many types, with reports of many lines
            raise RunError(
                f"--onnx: torch cannot convert {model.architecture.name} ({first_line(error)[:200]}); export without "
                "--onnx: PyTorch loads that folder"
            ) from error
    assert program is not None
    buffer = io.BytesIO()
    importlib.import_module("onnx").save_model(program.model_proto, buffer)
    content = buffer.getvalue()
    check(content, model)
    return content


def _check_size(model: ExportedModel) -> None:
    """RunError where the weights of both networks are too large for one ONNX file."""
    tensors = [tensor for network in model.networks for tensor in network.state_dict().values()]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if size > LARGEST:
        raise RunError(
            f"--onnx: the networks have {size / 2**30:.1f} GiB of weights, more than one ONNX file can have (2 GiB); "
            "export without --onnx"
        )


@torch.no_grad()
def check(content: bytes, model: ExportedModel) -> None:
    """RunError where ONNX Runtime's logits of an ONNX file differ from the model's, at several batch sizes."""
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    ensemble, side = model.ensemble(), model.inputs.crop
    draws = torch.Generator().manual_seed(0)
    for num_images in CHECKED:
        pixels = torch.rand(num_images, model.inputs.channels, side, side, generator=draws)
        (found,) = session.run(["logits"], {"pixels": pixels.numpy()})
        difference = float(np.abs(found - ensemble(pixels).numpy()).max())
        if found.shape != (num_images, len(model.class_names)) or not difference <= TOLERANCE:
            raise RunError(
                f"--onnx: ONNX Runtime's logits differ from PyTorch's by {difference:.1e} at batch size {num_images}, "
                f"more than {TOLERANCE:g}; no ONNX file is written (other versions of onnx and torch may agree)"
            )
