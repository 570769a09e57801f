"""README.md of an exported model: the YAML header that model hubs read, results, usage, licence, classes."""

import html
from typing import Any

import yaml  # type: ignore[import-untyped]

import fastcpc
from fastcpc.data.registry import dataset_spec
from fastcpc.report.export.ensemble import OWN, ExportedModel
from fastcpc.report.results.run import Run

MOST_CLASSES = 100  # listed in the card; config.json has all


def card(
    run: Run, model: ExportedModel, metrics: dict[str, Any], *, checkpoint: str, has_onnx: bool, licence: str = ""
) -> str:
    """The card's text. metrics: the checkpoint's line of metrics.jsonl. licence: replaces the data set's."""
    data = dataset_spec(run.config.data.name)
    is_timm = not model.architecture.name.startswith(OWN)
    accuracy = metrics.get("test_top1")
    header: dict[str, Any] = {
        "license": licence or data.licence,
        "library_name": "timm" if is_timm else "fastcpc",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "noisy-labels", "fastcpc", *(["timm"] if is_timm else [])],
        "datasets": [data.name],
        "metrics": ["accuracy"],
    }
    if accuracy is not None:
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"name": data.name, "type": data.name, "split": "test"},
            "metrics": [{"type": "accuracy", "value": round(accuracy / 100, 6), "name": "both networks, top-1"}],
        }
        header["model-index"] = [{"name": run.config.run.name, "results": [result]}]
    front = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
    sections = [
        f"---\n{front}---",
        f"# {_safe(run.config.run.name)}",
        _about(run, model, metrics, checkpoint),
        "## Use\n\n" + (_timm_use(model) if is_timm else _own_use(model)) + _all_use(has_onnx),
        f"## Data and licence\n\n{data.terms}. The terms of the images may apply to weights trained on them.",
        _classes(model),
    ]
    return "\n\n".join(sections) + "\n"


def _about(run: Run, model: ExportedModel, metrics: dict[str, Any], checkpoint: str) -> str:
    config, labels, architecture = run.config, run.labels, model.architecture
    rate = "unknown" if labels.actual_rate is None else f"{100 * labels.actual_rate:.1f} %"
    rows = [
        ("architecture", f"{len(model.networks)} x {architecture.name}, {architecture.num_classes} classes"),
        ("input", f"{model.inputs.channels} x {model.inputs.crop} x {model.inputs.crop} pixels, shorter side "
                  f"{model.inputs.resize} before the centre crop, {model.inputs.interpolation}"),
        ("data", f"{config.data.name}, {run.num_samples:,} training images; label noise {labels.noise_kind}, wrong "
                 f"labels: {rate}"),
        ("method", f"cleaner {config.cleaner.kind}, {len(run.metrics)} of {config.train.epochs} epochs, checkpoint "
                   f"{checkpoint}"),
    ]  # fmt: skip
    for key, title in (
        ("test_top1", "test top-1, both networks"), ("test_top5", "test top-5, both networks"),
        ("net1_top1", "test top-1, network 1 alone"), ("net2_top1", "test top-1, network 2 alone"),
    ):  # fmt: skip
        if metrics.get(key) is not None:
            rows.append((title, f"{metrics[key]:.2f} %"))
    table = "\n".join(f"| {title} | {_safe(value)} |" for title, value in rows)
    return (
        f"Two networks trained on noisy labels by fastcpc {fastcpc.__version__} (CPC-DivideMix). Accuracies are "
        f"measured on the run's test split.\n\n| | |\n|---|---|\n{table}"
    )


def _timm_use(model: ExportedModel) -> str:
    return (
        "```python\nimport timm\n\n"
        'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()        # network 1\n'
        'second = timm.create_model("local-dir:FOLDER/net2", pretrained=True).eval()  # network 2\n'
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))\n"
        "logits = (model(images) + second(images)) / 2\n```\n\n"
    )


def _own_use(model: ExportedModel) -> str:
    architecture = model.architecture
    sizes = f"{architecture.channels}, {architecture.image_size}, {architecture.width}"
    made = f'own_backbone("{architecture.name.removeprefix(OWN)}", {sizes})'
    return (
        "```python\nfrom collections import OrderedDict\n\nfrom safetensors.torch import load_file\n"
        "from torch import nn\n\nfrom fastcpc.models.build import own_backbone\n\n"
        f"layers = OrderedDict(backbone={made}, "
        f"classifier=nn.Linear({architecture.num_features}, {architecture.num_classes}))\n"
        "model = nn.Sequential(layers).eval()\n"
        'model.load_state_dict(load_file("FOLDER/model.safetensors"))  # network 2: FOLDER/net2/model.safetensors\n'
        f"# images: pixels in [0, 1], minus {model.inputs.mean}, divided by {model.inputs.std}\n"
        "logits = model(images)\n```\n\n"
    )


def _all_use(has_onnx: bool) -> str:
    text = "Both networks with the test transform:\n\n```bash\nfastcpc-predict FOLDER images/*.jpg\n```"
    if has_onnx:
        text += (
            "\n\n`model.onnx` has both networks: input `pixels`, float32 (batch, channels, height, width) in "
            "[0, 1], normalised inside; output `logits`: the mean of both networks."
        )
    return text


def _classes(model: ExportedModel) -> str:
    names = [f"{number}. {_safe(name)}" for number, name in enumerate(model.class_names[:MOST_CLASSES])]
    if len(model.class_names) > MOST_CLASSES:
        names.append(f"... {len(model.class_names) - MOST_CLASSES:,} more in config.json")
    return "## Classes\n\n" + "\n".join(names)


def _safe(text: str) -> str:
    """Untrusted text escaped for Markdown: one line, no HTML, no markup."""
    plain = html.escape(" ".join(text.split()))
    return "".join(f"\\{character}" if character in "\\`*_[]|#" else character for character in plain)
