"""Files and overrides become a Config: precedence, parsing of values, round trip through YAML."""

import dataclasses
import math
import string
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from fastcpc.config.constraints import LARGEST_INTEGER, Range, choices_of
from fastcpc.config.describe import describe
from fastcpc.config.load import load_config, run_folder, to_yaml
from fastcpc.config.load import settings as all_settings
from fastcpc.config.names import DATASETS
from fastcpc.config.normalise import normalise_text
from fastcpc.config.schema import Config, RunConfig, TrainConfig
from fastcpc.errors import InputError


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def value_of(config: Config, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def test_no_files_and_overrides_give_the_defaults() -> None:
    assert load_config([], []) == Config()


def test_later_layers_win(tmp_path: Path) -> None:
    write(tmp_path, "base/b.yaml", "train: {epochs: 101, warmup_epochs: 1, batch_size: 11, lr: 0.1}\n")
    first = write(tmp_path, "first.yaml", "base: base/b.yaml\ntrain: {warmup_epochs: 2, batch_size: 12, lr: 0.2}\n")
    second = write(tmp_path, "second.yaml", "train: {batch_size: 13, lr: 0.3}\n")
    train = load_config([first, second], ["train.lr=0.35", "train.lr=0.4"]).train
    assert (train.epochs, train.warmup_epochs, train.batch_size, train.lr) == (101, 2, 13, 0.4)
    assert train.momentum == TrainConfig().momentum


def test_all_bases_come_before_all_files(tmp_path: Path) -> None:
    write(tmp_path, "b.yaml", "train: {lr: 0.1}\n")
    first = write(tmp_path, "first.yaml", "train: {lr: 0.2}\n")
    second = write(tmp_path, "second.yaml", "base: b.yaml\n")
    assert load_config([first, second], []).train.lr == 0.2


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("train.lr", "1e-3", 1e-3),
        ("train.lr", "2e-2", 0.02),
        ("train.lr", "1", 1.0),
        ("train.weight_decay", "5.0E-4", 5e-4),
        ("train.weight_decay", ".5", 0.5),
        ("train.epochs", "30", 30),
        ("run.deterministic", "true", True),
        ("run.deterministic", "Yes", True),
        ("run.deterministic", "off", False),
        ("compile", "false", "false"),
        ("compile", "False", "false"),
        ("noise.kind", "none", "none"),
        ("run.name", "007", "007"),
        ("run.name", "2026-11-20", "2026-11-20"),
        ("run.name", "1_000", "1_000"),
        ("run.name", "0x1F", "0x1F"),
        ("run.name", "yes", "yes"),
        ("run.name", "1e3", "1e3"),
        ("run.dir", "a=b", "a=b"),
    ],
)
def test_a_text_means_the_same_in_a_file_and_on_the_command_line(
    tmp_path: Path, key: str, text: str, value: object
) -> None:
    section, _, name = key.rpartition(".")
    file = write(tmp_path, "c.yaml", f"{section}: {{{name}: {text}}}\n" if section else f"{name}: {text}\n")
    for config in (
        load_config([file], ["train.warmup_epochs=1"]),
        load_config([], [f"{key}={text}", "train.warmup_epochs=1"]),
    ):
        assert value_of(config, key) == value
        assert type(value_of(config, key)) is type(value)


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "\ufefftrain:\n", "train:\n# lr: 3\n", "train: {}\n", "{}\n"]
)
def test_an_empty_file_gives_the_defaults(tmp_path: Path, text: str) -> None:
    assert load_config([write(tmp_path, "c.yaml", text)], []) == Config()


def test_an_empty_override_is_an_empty_text() -> None:
    assert load_config([], ["run.dir=somewhere", "run.dir="]).run.dir == ""


def test_environment_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRAIN_LR", "FASTCPC_DATA", "FASTCPC_TRAIN_LR", "RUN_SEED"):
        monkeypatch.setenv(name, "7")
    assert load_config([], []) == Config()


def test_run_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of/somebody")
    assert run_folder(load_config([], ["run.name=x"])) == Path("runs/x")
    assert run_folder(load_config([], ["run.name=x", "run.dir=/tmp/y"])) == Path("/tmp/y")
    assert run_folder(load_config([], ["run.dir=~/y"])) == Path("/home/of/somebody/y")  # no shell expands it there


def test_sections_are_frozen_and_checked_at_creation() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().train.epochs = 3  # type: ignore[misc]
    with pytest.raises(
        ValueError, match=r"^train\.epochs=0: must be 1 or more\ntrain\.lr=nan: must be a number above 0$"
    ):
        TrainConfig(epochs=0, lr=math.nan)
    with pytest.raises(InputError, match=r"^run\.seed=True: must be a whole number 0 or more$"):
        RunConfig(seed=True)


def test_every_setting_has_a_meaning_and_every_number_a_range() -> None:
    for key, field, kind in all_settings():
        assert (field.metadata["allowed"] is not None) == (kind in (int, float)), key
        assert field.metadata["meaning"].endswith("."), key
        assert field.metadata["source"], key


def test_help_names_every_setting_with_default_choices_meaning_and_source() -> None:
    text = describe()
    flat = " ".join(text.split())
    for key, field, _ in all_settings():
        assert f"  {key} = " in text, key
        assert f"{' '.join(field.metadata['meaning'].split())} [{field.metadata['source']}]" in flat, key
    assert "  cleaner.tau = 0.5    a number in (0, 1)" in text
    assert "  run.deterministic = false    true or false" in text
    names = "digits, cifar10, cifar100, clothing1m, webvision, imagefolder, webdataset, parquet or embeddings"
    assert f"  data.name = digits    {names}" in text
    assert max(len(line) for line in text.splitlines()) <= 120


WORDS = st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), max_size=120).filter(
    lambda text: text.isprintable() and "${" not in text
)
NAMES = st.text(string.ascii_letters + string.digits + "_-. ", min_size=1).filter(lambda text: text not in (".", ".."))


THREE = st.tuples(*[st.floats(1e-9, 1.0)] * 3)


def number(kind: type, limits: Range) -> st.SearchStrategy[Any]:
    if kind is int:
        high = LARGEST_INTEGER if math.isinf(limits.high) else int(limits.high)
        return st.integers(int(limits.low), high)
    return st.floats(
        limits.low,
        None if math.isinf(limits.high) else limits.high,
        exclude_min=limits.low_open,
        exclude_max=limits.high_open,
        allow_nan=False,
        allow_infinity=False,
    )


def strategy(key: str, field: Any, kind: Any) -> st.SearchStrategy[Any]:
    fixed: dict[str, st.SearchStrategy[Any]] = {
        "run.name": NAMES,
        "run.resume": WORDS.filter(bool),
        "data.root": WORDS.filter(bool),
        "model.name": st.one_of(st.sampled_from(["preact_resnet18", "resnet50"]), NAMES.map("timm/{}".format)),
        "model.weights": WORDS.map("{}.safetensors".format),
        "cleaner.kind": st.just("none"),  # then any warm-up fits any number of epochs
        "noise.kind": st.just("file"),
        "noise.file": WORDS.filter(bool),
        "noise.rate": st.just(0.0),
        **dict.fromkeys(("data.index", "noise.pairs"), st.just("")),
        # settings that only one data set reads keep their defaults, and embeddings need theirs
        **{f"data.{name}": st.just(getattr(Config().data, name)) for own in DATASETS.values() for name in own.settings},
        "data.name": st.sampled_from([name for name in DATASETS if name != "embeddings"]),
        "semisup.labelled_half_only": st.just(False),  # only with lambda_u = 0
        "parallel.lr_scaling": st.just("none"),  # linear needs batch_size=per_rank
        "optim.name": st.just("sgd"),  # adamw needs another backend than apex
        "train.warmup_steps": st.just(0),  # not with one_cycle
        "model.freeze": st.just("none"),
        "model.drop_path": st.just(0.0),
        "optim.layer_decay": st.just(1.0),  # for networks of timm
        "data.feed": st.just("auto"),  # others serve some data sets only
        "augment.style": st.just("torchvision"),  # augdmix needs autoaugment
        "cleaner.scored": st.just("all"),  # pool needs train.pool_batches
        "data.crop": st.one_of(st.just(0), st.integers(8, 256)),
        "data.resize": st.one_of(st.just(0), st.integers(256, 1024)),
        "data.normalise": st.one_of(st.sampled_from(["auto", "data"]), st.builds(normalise_text, THREE, THREE)),
    }
    if key in fixed:
        return fixed[key]
    choices, limits = choices_of(field, kind), field.metadata["allowed"]
    if choices:
        return st.sampled_from(choices)
    if kind is bool:
        return st.booleans()
    if limits is None:
        return WORDS
    return number(kind, limits)


def config_of(values: dict[str, Any]) -> Config:
    parts: dict[str, dict[str, Any]] = {}
    tops: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        if section:
            parts.setdefault(section, {})[name] = value
        else:
            tops[name] = value
    kinds = {field.name: type(getattr(Config(), field.name)) for field in dataclasses.fields(Config)}
    return Config(**{section: kinds[section](**names) for section, names in parts.items()}, **tops)


CONFIGS = st.fixed_dictionaries({key: strategy(key, field, kind) for key, field, kind in all_settings()}).map(config_of)


@settings(
    max_examples=25,  # each example draws all settings
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(config=CONFIGS)
def test_round_trip_of_any_config_through_yaml(tmp_path: Path, config: Config) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    again = load_config([path], [])
    assert again == config
    assert to_yaml(again) == path.read_text(encoding="utf-8")


def test_yaml_has_the_order_of_the_schema() -> None:
    lines = [line.partition(":")[0].strip() for line in to_yaml(Config()).splitlines()]
    expected = []
    for field in dataclasses.fields(Config):
        expected.append(field.name)
        default = getattr(Config(), field.name)
        if dataclasses.is_dataclass(default):
            expected += [item.name for item in dataclasses.fields(default)]
    assert lines == expected
