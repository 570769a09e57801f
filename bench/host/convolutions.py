"""The bare convolutions of a semi-supervised step: what is left of it if everything else takes no time.

``speed/peer.py`` uses it as the floor of an epoch. As a script it prints the rate of each layer of PreAct ResNet-18,
forward and backward, in both memory formats. The convolutions are torch's, which oneDNN computes on a CPU. Writes
results/<machine>/convolutions.json.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

BENCH = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(BENCH), str(BENCH / "speed")]  # the modules of all benches
from harness import Check, Report, Row, arguments, cpu_seconds, this_machine, time_in_turns

from fastcpc.models.backbones.preact_resnet import PreActResNet18

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
SIDE = 32  # of images of CIFAR


class Convolution:
    """One layer with made-up input, in one memory format and type.

    flops: of one image in the forward pass. The gradient of the images themselves is not computed.
    """

    def __init__(
        self, layer: nn.Conv2d, in_shape: torch.Size, num_images: int, form: torch.memory_format, dtype: torch.dtype
    ) -> None:
        """in_shape: of the layer's input, (B, C, H, W)."""
        self.layer = layer
        self.images = torch.randn(num_images, *in_shape[1:]).to(dtype=dtype, memory_format=form)
        self.weight = layer.weight.detach().to(dtype=dtype, memory_format=form, copy=True)
        self.gradient = self.forward(num_images)
        self.flops = 2 * self.weight[0].numel() * self.gradient[0].numel()
        self._is_first = in_shape[1] == 3

    def forward(self, num_images: int) -> Tensor:
        """The output of the first images."""
        return torch.conv2d(
            self.images[:num_images], self.weight, None, self.layer.stride, self.layer.padding, self.layer.dilation
        )

    def backward(self) -> None:
        """Gradients of the input and of the weight for all images."""
        torch.ops.aten.convolution_backward(
            self.gradient, self.images, self.weight, None, self.layer.stride, self.layer.padding, self.layer.dilation,
            False, [0, 0], 1, [not self._is_first, True, False],
        )  # fmt: skip


class StepConvolutions:
    """All convolutions of a step of B labelled and B unlabelled samples, two views each.

    The trained network guesses in 4 passes of B images, the fixed one in one of 2 B. Then 4 B images are trained on.
    """

    def __init__(self, network: nn.Module, batch: int, form: torch.memory_format, dtype: torch.dtype) -> None:
        self.batch = batch
        self.layers = [Convolution(layer, shape, 4 * batch, form, dtype) for layer, shape in layers_of(network).items()]

    def __call__(self) -> None:
        """Compute them once."""
        with torch.no_grad():
            for num_images in [*[self.batch] * 4, 2 * self.batch, 4 * self.batch]:
                for layer in self.layers:
                    layer.forward(num_images)
            for layer in reversed(self.layers):
                layer.backward()


def layers_of(network: nn.Module) -> dict[nn.Conv2d, torch.Size]:
    """Each convolution of a network for CIFAR with the shape of its input."""
    shapes: dict[nn.Conv2d, torch.Size] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.Conv2d)
        shapes[layer] = inputs[0].shape

    handles = [layer.register_forward_pre_hook(note) for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    was_training = network.training
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, SIDE, SIDE))
    network.train(was_training)
    for handle in handles:
        handle.remove()
    return shapes


def layer_row(layer: nn.Conv2d, shape: torch.Size, options: Any) -> Row:
    """Forward and backward passes of a layer in both formats."""
    calls: dict[str, Callable[[], Any]] = {}
    for name, form in FORMATS.items():
        made = Convolution(layer, shape, 4 * options.batch, form, torch.float32)
        calls |= {f"forward, {name}": partial(made.forward, 4 * options.batch), f"backward, {name}": made.backward}
    with torch.no_grad():
        timings = time_in_turns(calls, options.repeats or 5, "cpu", clock=cpu_seconds)
    work = 4 * options.batch * made.flops / 1e9
    rates = {f"GFLOP/s {name}": round((1 + name.startswith("b")) * work / t.median) for name, t in timings.items()}
    labels = {
        "width": options.width, "batch": 4 * options.batch, "channels": f"{layer.in_channels} to {layer.out_channels}",
        "size": shape[2], "kernel": layer.kernel_size[0], "stride": layer.stride[0],
    }  # fmt: skip
    return Row(labels, Check("none", 0.0, 0.0), "forward, channels_last", timings, notes=rates)


def main() -> int:
    """Print the table and write the JSON."""
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.add_argument("--width", type=int, default=16, help="of PreAct ResNet-18")
    parser.add_argument("--batch", type=int, default=64, help="B; a pass has 4 B images")
    options = parser.parse_args()
    report = Report("convolutions", this_machine("cpu"), options.results)
    for layer, shape in layers_of(PreActResNet18(3, options.width)).items():
        report.add(layer_row(layer, shape, options))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
