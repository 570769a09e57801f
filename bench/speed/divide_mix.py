"""A checkout of the official DivideMix, made to run here with its own unchanged functions.

This repository stores none of its code. Its training script runs completely on import. Therefore only its functions and
classes are loaded, into a namespace that holds the globals they use. Three parts no longer run and are replaced:
``iterator.next()`` (Python 2), torchnet's AUC meter (an abandoned package; scikit-learn replaces it) and, without a
GPU, ``.cuda()``.
"""

import ast
import importlib.util
import json
import pickle
import random
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

SIZE = 50_000  # of the training set; a constant in its code
WORKERS = 5  # as in its training script


class Batches(list[Any]):
    """Batches in the place of a DataLoader."""

    dataset: Any = None


class DivideMix:
    """Its epochs on given networks.

    functions: what its Train_cifar.py defines. loaders: its cifar_dataloader, over the files in ``folder``.
    """

    def __init__(self, checkout: Path, folder: Path, *, batch_size: int, num_classes: int, lambda_u: float) -> None:
        self.functions = _functions(checkout / "Train_cifar.py")
        data = _module("divide_mix_data", checkout / "dataloader_cifar.py")
        with _quiet():
            self.loaders = data.cifar_dataloader(
                "cifar10",
                r=0.5,
                noise_mode="sym",
                batch_size=batch_size,
                num_workers=WORKERS,
                root_dir=str(folder),
                log=StringIO(),
                noise_file=str(folder / "labels.json"),
            )
        self.functions.update(
            args=SimpleNamespace(
                batch_size=batch_size, num_class=num_classes, lambda_u=lambda_u, r=0.5, noise_mode="sym", T=0.5,
                alpha=4.0, dataset="cifar10", num_epochs=300, p_threshold=0.5,
            ),
            CE=nn.CrossEntropyLoss(reduction="none"),
            criterion=self.functions["SemiLoss"](),
            warm_up=10,
        )  # fmt: skip

    def score(self, network: nn.Module) -> npt.NDArray[np.float64]:
        """Its eval_train: one pass over all images, normalised losses, a mixture. Clean probabilities (50000,)."""
        with _quiet(), _runnable():
            self.functions["eval_loader"] = self.loaders.run("eval_train")
            probability: npt.NDArray[np.float64] = self.functions["eval_train"](network, [])[0]
        return probability

    def batches(self, probability_N: npt.NDArray[np.float64]) -> tuple["Batches", "Batches"]:
        """The labelled and the unlabelled batches of an epoch, made once by its loaders, for any number of epochs."""
        with _quiet(), _runnable():
            labelled, unlabelled = self.loaders.run("train", probability_N > 0.5, probability_N)
            made = Batches(labelled)
            made.dataset = labelled.dataset
            return made, Batches(batch for batch, _ in zip(unlabelled, made, strict=False))

    def train(
        self,
        networks: Sequence[nn.Module],
        optimizers: Sequence[torch.optim.Optimizer],
        probability_N: npt.NDArray[np.float64],
        batches: tuple["Batches", "Batches"] | None = None,
    ) -> None:
        """An epoch of both networks on this partition of the data. batches: at hand; None: its loaders make them."""
        first, second = networks
        with _quiet(), _runnable():
            for own, other, optimizer in ((first, second, optimizers[0]), (second, first, optimizers[1])):
                pair = batches or self.loaders.run("train", probability_N > 0.5, probability_N)
                self.functions["train"](20, own, other, optimizer, *pair)


def write_cifar(folder: Path, pixels: npt.NDArray[np.uint8], labels: Sequence[int], given: Sequence[int]) -> None:
    """Images and labels in the layout that its loader reads. pixels: (50000, 3, 32, 32)."""
    for number in range(5):
        part = slice(number * SIZE // 5, (number + 1) * SIZE // 5)
        content = {"data": pixels[part].reshape(-1, 3072), "labels": [int(label) for label in labels[part]]}
        (folder / f"data_batch_{number + 1}").write_bytes(pickle.dumps(content))
    (folder / "labels.json").write_text(json.dumps([int(label) for label in given]))


class _Next(ast.NodeTransformer):
    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "next" and not node.args:
            return ast.copy_location(ast.Call(ast.Name("next", ast.Load()), [node.func.value], []), node)
        return node


def _functions(script: Path) -> dict[str, Any]:
    tree = ast.parse(script.read_text(encoding="utf-8"))
    tree.body = [part for part in tree.body if isinstance(part, (ast.FunctionDef, ast.ClassDef))]
    names = {"torch": torch, "nn": nn, "F": F, "np": np, "sys": sys, "GaussianMixture": GaussianMixture}
    exec(compile(ast.fix_missing_locations(_Next().visit(tree)), str(script), "exec"), names)
    return names


class _Meter:
    """torchnet.meter.AUCMeter, as far as its loader uses it."""

    def reset(self) -> None:
        self.scores, self.truth = None, None

    def add(self, scores: Any, truth: Any) -> None:
        self.scores, self.truth = scores, truth

    def value(self) -> tuple[float, None, None]:
        return float(roc_auc_score(self.truth, self.scores)), None, None


def _module(name: str, file: Path) -> ModuleType:
    meters: Any = ModuleType("torchnet.meter")
    meters.AUCMeter = _Meter
    sys.modules.update({"torchnet": ModuleType("torchnet"), "torchnet.meter": meters})
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # its loaders' workers look it up by name
    spec.loader.exec_module(module)
    return module


@contextmanager
def _runnable() -> Iterator[None]:
    """Without a GPU, ``.cuda()`` does nothing. Its own seeds go with its own generators, and torch has its defaults:
    deterministic algorithms, which fastcpc selects, would slow it down."""
    random.seed(123)
    kept, deterministic = (Tensor.cuda, nn.Module.cuda), torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    if not torch.cuda.is_available():
        Tensor.cuda = nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        Tensor.cuda, nn.Module.cuda = kept  # type: ignore[method-assign]
        torch.use_deterministic_algorithms(deterministic)


@contextmanager
def _quiet() -> Iterator[None]:
    """Discard its line per step, and the DataLoader's warning about five workers, which the peer chooses."""
    with redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        yield
