"""What users get wrong: each fault ends in one line that says where, which key, what it got and what to do."""

import os
import re
from pathlib import Path

import pytest

from fastcpc.config.load import load_config
from fastcpc.errors import InputError


def faults(files: list[Path], overrides: list[str] | None = None) -> list[str]:
    with pytest.raises(InputError) as caught:
        load_config(files, overrides or [])
    return str(caught.value).split("\n")


def only_fault(files: list[Path], overrides: list[str] | None = None) -> str:
    lines = faults(files, overrides)
    assert len(lines) == 1, lines
    assert lines[0].isprintable()
    return lines[0]


BAD_YAML = {
    "syntax": ("train: {lr: 0.1\nrun: x\n", "FILE:2:4: not valid YAML: expected ',' or '}', but got ':'"),
    "tab": ("train:\n\tlr: 1\n", r"FILE:2:1: not valid YAML: found character '\t' that cannot start any token"),
    "control_character": ("run:\n  name: a\x07b\n", "FILE: not valid YAML: unacceptable character #x0007"),
    "two_documents": (
        "train:\n  lr: 1\n---\ntrain:\n  lr: 2\n",
        "FILE:3:1: not valid YAML: but found another document",
    ),
    "unknown_alias": ("train:\n  lr: *rate\n", "FILE:2:7: not valid YAML: found undefined alias 'rate'"),
    "deep": ("train: " + "[" * 600, "FILE: nested too deeply"),
    "list_at_the_top": ("- train\n- run\n", "FILE:1: a list at the top; must be sections"),
    "text_at_the_top": ("train.lr=0.1\n", "FILE:1: the text train.lr=0.1 at the top; must be sections"),
    "duplicate_key": ("train:\n  lr: 1\n  epochs: 20\n  lr: 2\n", "FILE:4: train.lr: given twice, first in line 2"),
    "duplicate_section": (
        "train:\n  lr: 1\nrun: {}\ntrain:\n  epochs: 20\n",
        "FILE:4: train: given twice, first in line 1",
    ),
    "list_as_key": ("? [a, b]\n: 1\n", "FILE:1: a key is a list; must be a name"),
    "merge_key": ("train: &t\n  lr: 1\nsemisup:\n  <<: *t\n", "FILE:4: in semisup: <<: is not supported; use base:"),
    "dotted_key": ("train.lr: 0.1\n", "FILE:1: train.lr: in a file, write lr: below train:"),
    "unknown_key": ("train:\n  lrr: 0.1\n", "FILE:2: train.lrr: no such setting (did you mean train.lr?)"),
    "unknown_far": ("train:\n  zzz: 1\n", "FILE:2: train.zzz: no such setting; train has epochs, warmup_epochs, "),
    "key_of_another_section": (
        "train:\n  tau: 0.4\n",
        "FILE:2: train.tau: no such setting (did you mean cleaner.tau?)",
    ),
    "key_without_its_section": ("lambda_u: 4\n", "FILE:1: lambda_u: no such setting (did you mean semisup.lambda_u?)"),
    "empty_key": ("'': 4\n", "FILE:1: '': no such setting; there are run, data, "),
    "unprintable_key": ('"a\\nb": 4\n', r"FILE:1: 'a\nb': no such setting; there are run, "),
    "unknown_section": ("trian:\n  lr: 1\n  epochs: 3\n", "FILE:1: trian: no such setting (did you mean train?)"),
    "section_as_text": ("train: fast\n", "FILE:1: train: got fast; it is a section, whose settings are epochs, "),
    "section_as_list": ("train: [lr]\n", "FILE:1: train: got a list; must be one value"),
    "section_as_null": ("train: null\n", "FILE:1: train: got nothing; it is a section, whose settings are epochs, "),
    "setting_as_list": ("train:\n  lr: [0.1, 0.2]\n", "FILE:2: train.lr: got a list; must be one value"),
    "setting_as_mapping": ("train:\n  lr: {a: 1}\n", "FILE:2: train.lr: got a mapping; must be one value"),
    "top_setting_as_section": ("device:\n  name: cpu\n", "FILE:1: device=a mapping: must be auto, cpu or cuda"),
    "null_number": ("train:\n  lr:\n", "FILE:2: train.lr: got nothing (null); must be a number above 0"),
    "null_text": ("run:\n  dir: ~\n", "FILE:2: run.dir: got nothing (null); must be text; for an empty one write ''"),
    "null_choice": ("noise:\n  kind: null\n", "FILE:2: noise.kind: got nothing (null); must be none, sym, "),
    "text_for_number": ("train:\n  lr: fast\n", "FILE:2: train.lr=fast: must be a number above 0"),
    "quoted_number": ("train:\n  lr: '0.1'\n", "FILE:2: train.lr=0.1: must be a number above 0, without quotes"),
    "bool_for_float": ("train:\n  lr: true\n", "FILE:2: train.lr=true: must be a number above 0"),
    "bool_for_int": ("train:\n  epochs: yes\n", "FILE:2: train.epochs=yes: must be a whole number 1 or more"),
    "float_for_int": ("train:\n  epochs: 20.0\n", "FILE:2: train.epochs=20.0: must be a whole number 1 or more"),
    "exponent_for_int": ("data:\n  subset: 1e3\n", "FILE:2: data.subset=1e3: must be a whole number 0 or more"),
    "clock_time_for_int": ("train:\n  epochs: 1:30\n", "FILE:2: train.epochs=1:30: must be a whole number"),
    "int_for_bool": ("run:\n  deterministic: 1\n", "FILE:2: run.deterministic=1: must be true or false"),
    "quoted_bool": (
        "run:\n  deterministic: 'true'\n",
        "FILE:2: run.deterministic=true: must be true or false, without",
    ),
    "bool_for_choice": ("compile: true\n", "FILE:1: compile=true: must be false, default or max-autotune"),
    "wrong_choice": (
        "noise:\n  kind: symm\n",
        "FILE:2: noise.kind=symm: must be none, sym, asym, asym_superclass, asym_block5, asym_next, asym_pairs or file "
        "(did you mean sym?)",
    ),
    "choice_in_capitals": (
        "cleaner:\n  kind: CPC_AWR\n",
        "FILE:2: cleaner.kind=CPC_AWR: must be none, gmm_agn, gmm_awr, cpc_agn, cpc_awr or cpc_only (did you "
        "mean cpc_awr?)",
    ),
    "nan": ("train:\n  lr: .nan\n", "FILE:2: train.lr=.nan: must be a number above 0"),
    "infinity": ("semisup:\n  lambda_u: .inf\n", "FILE:2: semisup.lambda_u=.inf: must be a number 0 or more"),
    "too_large_a_float": ("train:\n  lr: 1e999\n", "FILE:2: train.lr=inf: must be a number above 0"),
    "huge_integer": (
        "run:\n  seed: " + "9" * 6000,
        "FILE:2: run.seed=" + "9" * 60 + "... (6,000 characters): must be a whole",
    ),
    "integer_beyond_64_bits": (
        f"run:\n  seed: {2**63}\n",
        "FILE:2: run.seed=an integer of 64 bits: must be a whole number",
    ),
    "python_tag": (
        "run:\n  name: !!python/object/apply:os.system ['touch x']\n",
        "FILE:2: run.name: got the tag !!python/object/apply:os.system, and tags are not followed",
    ),
    "python_tag_at_the_top": (
        "!!python/object/new:dict {run: {name: x}}\n",
        "FILE:1: the tag !!python/object/new:dict, and tags are not followed at the top",
    ),
    "path_tag": (
        "run:\n  dir: !!python/object/apply:pathlib.Path [a]\n",
        "FILE:2: run.dir: got the tag !!python/object/apply:pathlib.Path",
    ),
    "own_tag": ("train: !include other.yaml\n", "FILE:1: train: got the tag !include, and tags are not followed"),
    "binary_tag": ("run:\n  name: !!binary aGk=\n", "FILE:2: run.name: got the tag !!binary"),
    "interpolation": ("run:\n  name: ${oc.env:HOME}\n", "FILE:2: run.name=${oc.env:HOME}: ${...} is not expanded"),
    "interpolation_of_a_number": (
        "train:\n  lr: ${train.momentum}\n",
        "FILE:2: train.lr=${train.momentum}: must be a number",
    ),
    "interpolated_choice": (
        "device: ${oc.env:DEVICE,cpu}\n",
        "FILE:1: device=${oc.env:DEVICE,cpu}: must be auto, cpu or cuda",
    ),
    "broken_interpolation": (
        "run:\n  name: 'a${'\n",
        "FILE:2: run.name=a${: ${...} is not expanded; give the value itself",
    ),
    "missing_mark": ("run:\n  name: ???\n", "FILE:2: run.name=???: is the config library's word for a missing value"),
    "line_break_in_text": (
        "run:\n  name: |\n    a\n    b\n",
        r"FILE:2: run.name='a\nb\n': must be one line of printable text",
    ),
    "base_null": ("base:\n", "FILE:1: base: got nothing; must be the path of a file"),
    "base_list": ("base: [a.yaml, b.yaml]\n", "FILE:1: base: got a list; must be one value"),
    "base_missing": ("base: nowhere.yaml\n", "FILE:1: base=nowhere.yaml: no such file: FOLDER/nowhere.yaml"),
    "base_is_a_folder": ("base: .\n", "FILE:1: base=.: is a folder: FOLDER"),
    "base_is_itself": ("base: bad.yaml\n", "FILE:1: base=bad.yaml: a base cannot have a base itself"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_YAML)
def test_file_faults(tmp_path: Path, case: str) -> None:
    text, message = BAD_YAML[case]
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    line = only_fault([path])
    assert line.startswith(message.replace("FILE", str(path)).replace("FOLDER", str(tmp_path))), line


BAD_OVERRIDES = {
    "no_equals": ("train.lr", "command line: train.lr: must be key=value, such as train.lr=0.01"),
    "empty": ("", "command line: '': must be key=value"),
    "no_key": ("=3", "command line: =3: no key before the '='"),
    "blank_key": ("  =3", "command line: '  =3': no key before the '='"),
    "base": (
        "base=configs/base/digits.yaml",
        "command line: base=configs/base/digits.yaml: works only inside a file; use --config",
    ),
    "unknown": ("train.epochz=3", "command line: train.epochz: no such setting (did you mean train.epochs?)"),
    "short": ("lr=3", "command line: lr: no such setting (did you mean train.lr?)"),
    "too_deep": ("train.lr.x=3", "command line: train.lr.x: no such setting (did you mean train.lr?)"),
    "plus": ("+train.lr=3", "command line: +train.lr: no such setting (did you mean train.lr?)"),
    "section": ("train=fast", "command line: train: got fast; it is a section"),
    "section_as_yaml": ("train={lr: 1}", "command line: train: got {lr: 1}; it is a section"),
    "null": ("train.lr=null", "command line: train.lr: got nothing (null)"),
    "empty_number": ("train.lr=", "command line: train.lr='': must be a number above 0"),
    "comma": ("train.lr=0,1", "command line: train.lr=0,1: must be a number above 0"),
    "list": ("train.lr=[1]", "command line: train.lr=[1]: must be a number above 0"),
    "second_equals": ("train.lr==1", "command line: train.lr==1: must be a number above 0"),
    "nan": ("noise.rate=nan", "command line: noise.rate=nan: must be a number in [0, 1]"),
    "environment": ("data.root=${oc.env:HOME}/x", "command line: data.root=${oc.env:HOME}/x: ${...} is not expanded"),
    "bytes_that_are_no_text": ("run.dir=a\udcff", r"command line: run.dir='a\udcff': must be one line of "
    r"printable text"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_OVERRIDES)
def test_override_faults(case: str) -> None:
    override, message = BAD_OVERRIDES[case]
    assert only_fault([], [override]).startswith(message)


RANGES = [
    ("run.seed", "-1", "be 0 or more"), ("run.keep_every", "-1", "be 0 or more"), ("data.subset", "-1", "be 0 or more"),
    ("noise.rate", "1.5", "lie in [0, 1]"), ("noise.rate", "-0.5", "lie in [0, 1]"), ("noise.seed", "-2", "be "
    "-1 or more"),
    ("model.width", "8", "be 16 or more"), ("augment.randaugment_ops", "0", "be 1 or more"),
    ("augment.randaugment_magnitude", "31", "lie in [0, 30]"), ("cleaner.tau", "0.0", "lie in (0, 1)"),
    ("cleaner.tau", "1.0", "lie in (0, 1)"), ("cleaner.alpha", "-1.0", "be 0 or more"),
    ("cleaner.warmup", "1.5", "lie in [0, 1]"), ("cleaner.loss_history", "0", "be 1 or more"),
    ("cpc.embedding_dim", "0", "be 1 or more"), ("cpc.passes", "-1", "be 0 or more"),
    ("cpc.temperature", "0.0", "be above 0"), ("semisup.lambda_u", "-1.0", "be 0 or more"),
    ("semisup.rampup_epochs", "0", "be 1 or more"), ("semisup.temperature", "0.0", "be above 0"),
    ("semisup.mixup_alpha", "0.0", "be above 0"), ("semisup.batches_per_epoch", "-1", "be 0 or more"),
    ("train.epochs", "0", "be 1 or more"), ("train.warmup_epochs", "-1", "be 0 or more"),
    ("train.batch_size", "1", "be 2 or more"), ("train.lr", "0.0", "be above 0"),
    ("train.lr_drop_epoch", "-1", "be 0 or more"), ("train.lr_drop_factor", "0.5", "be 1 or more"),
    ("train.momentum", "1.0", "lie in [0, 1)"), ("train.weight_decay", "-0.1", "be 0 or more"),
    ("train.score_batch_size", "0", "be 1 or more"), ("train.pool_batches", "-1", "be 0 or more"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "limits"), RANGES)
def test_ranges(key: str, value: str, limits: str) -> None:
    assert only_fault([], [f"{key}={value}"]) == f"command line: {key}={value}: must {limits}"


EDGES = [
    "noise.seed=-1", "cleaner.warmup=1", "cleaner.warmup=0", "train.momentum=0", "train.lr_drop_factor=1",
    "augment.randaugment_magnitude=30", "model.width=16", "train.batch_size=2", "cleaner.tau=1e-9",
    f"run.seed={2**63 - 1}",
]  # fmt: skip


@pytest.mark.parametrize("override", EDGES)
def test_edges_of_ranges_are_fine(override: str) -> None:
    load_config([], [override])


CLASHES = {
    "warmup_is_all": ("train.epochs=10", "train.warmup_epochs=10: must be below train.epochs=10, or no epoch cleans"),
    "pool_without_size": (
        "cleaner.scored=pool",
        "command line: cleaner.scored=pool: there is no pool while train.pool_batches is 0",
    ),
    "pool_with_history": (
        "cleaner.scored=pool train.pool_batches=9 cleaner.loss_history=5",
        "command line: cleaner.loss_history=5: needs the losses of the same samples in every epoch",
    ),
    "file_without_path": ("noise.kind=file", "noise.file is empty: noise.kind=file needs the path of a label file"),
    "path_without_file": ("noise.file=a.npy", "command line: noise.file=a.npy: is read only with noise.kind=file"),
    "key_without_file": (
        "noise.key=worse_label",
        "command line: noise.key=worse_label: is read only with noise.kind=file",
    ),
    "rate_without_kind": (
        "noise.rate=0.5",
        "command line: noise.rate=0.5: noise.kind=none draws no noise; choose a kind",
    ),
    "rate_with_file": (
        "noise.kind=file noise.file=a.npy noise.rate=0.5",
        "command line: noise.rate=0.5: noise.kind=file draws no noise",
    ),
    "sym_without_rate": ("noise.kind=sym", "noise.rate=0: noise.kind=sym needs a rate above 0"),
    "asym_without_rate": ("noise.kind=asym", "noise.rate=0: noise.kind=asym needs a rate above 0"),
    "asym_on_cifar100": (
        "data.name=cifar100 data.root=d noise.kind=asym noise.rate=0.4",
        "command line: noise.kind=asym has two meanings on cifar100: choose asym_superclass (inside the "
        "superclass) or asym_block5",
    ),
    "superclass_on_digits": (
        "noise.kind=asym_superclass noise.rate=0.4",
        "command line: noise.kind=asym_superclass: exists only on cifar100; on digits choose asym",
    ),
    "block5_on_cifar10": (
        "data.name=cifar10 data.root=d noise.kind=asym_block5 noise.rate=0.4",
        "command line: noise.kind=asym_block5: exists only on cifar100; on cifar10 choose asym",
    ),
    "asym_on_photos": (
        "data.name=imagefolder data.root=d noise.kind=asym noise.rate=0.4",
        "command line: noise.kind=asym: is a map between the classes of CIFAR-10; on imagefolder choose asym_pairs",
    ),
    "pairs_missing": (
        "data.name=imagefolder data.root=d noise.kind=asym_pairs noise.rate=0.4",
        "noise.pairs is empty: noise.kind=asym_pairs needs classes",
    ),
    "pairs_elsewhere": (
        "data.name=imagefolder data.root=d noise.kind=sym noise.rate=0.4 noise.pairs=a->b",
        "command line: noise.pairs=a->b: is read only with noise.kind=asym_pairs, which is sym",
    ),
    "block5_on_photos": (
        "data.name=webvision data.root=d noise.kind=asym_block5 noise.rate=0.4",
        "command line: noise.kind=asym_block5: exists only on cifar100; on webvision choose asym_next",
    ),
    "list_elsewhere": (
        "data.name=clothing1m data.root=d data.list=a.csv",
        "command line: data.list=a.csv: is read only with data.name=imagefolder, which is clothing1m",
    ),
    "flickr_elsewhere": (
        "data.name=imagefolder data.root=d data.flickr=true",
        "command line: data.flickr=true: is read only with data.name=webvision, which is imagefolder",
    ),
    "index_of_digits": ("data.index=i", "command line: data.index=i: digits is read whole and needs no index"),
    "crop_beyond_resize": (
        "data.name=imagefolder data.root=d data.resize=64 data.crop=96",
        "command line: data.crop=96: must not exceed data.resize=64, the shorter side it is cut from",
    ),
    "no_root_of_photos": (
        "data.name=webvision",
        "data.root is empty: data.name=webvision needs the folder of its files",
    ),
    "no_root": ("data.name=cifar10", "data.root is empty: data.name=cifar10 needs the folder of its files"),
    "unknown_model": (
        "model.name=resnet5",
        "command line: model.name=resnet5: must be preact_resnet18, digits_cnn, small_cnn, resnet50 or timm/NAME (did "
        "you mean resnet50?)",
    ),
    "timm_without_name": ("model.name=timm/", "command line: model.name=timm/: must be preact_resnet18, digits_cnn, "),
    "digits_net_elsewhere": (
        "data.name=cifar10 data.root=d model.name=digits_cnn",
        "command line: model.name=digits_cnn: is made for data.name=digits; on cifar10 choose preact_resnet18",
    ),
    "weights_by_name": (
        "model.weights=IMAGENET1K_V1",
        "command line: model.weights=IMAGENET1K_V1: preact_resnet18 has no weights by name; give the path",
    ),
    "name_leaves_runs": ("run.name=../x", "command line: run.name=../x: must name a folder below runs"),
    "name_is_absolute": ("run.name=/x", "command line: run.name=/x: must name a folder below runs"),
    "name_is_empty": ("run.name=", "command line: run.name='': must name a folder below runs"),
    "no_resume": ("run.resume=", "run.resume is empty: must be auto, never, or the path"),
}  # fmt: skip


@pytest.mark.parametrize("case", CLASHES)
def test_clashes(case: str) -> None:
    overrides, message = CLASHES[case]
    assert message in only_fault([], overrides.split(" "))


FINE = [
    "cleaner.kind=none train.epochs=3", "noise.kind=file noise.file=a.pt noise.key=worse_label",
    "noise.kind=sym noise.rate=1",
    "data.name=cifar100 data.root=d noise.kind=asym_block5 noise.rate=0.4", "model.name=resnet50 "
    "model.weights=IMAGENET1K_V1",
    "model.name=timm/vit_tiny model.weights=DEFAULT", "model.weights=a.safetensors", "model.weights=here/weights",
    "run.name= run.dir=x", "run.name=sweep/1",
]  # fmt: skip


@pytest.mark.parametrize("overrides", FINE)
def test_settings_that_fit_each_other(overrides: str) -> None:
    load_config([], overrides.split(" "))


def test_a_clash_names_the_place_of_the_setting_to_change(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("noise:\n  rate: 0.5\n")
    assert only_fault([path]).startswith(f"{path}:2: noise.rate=0.5: noise.kind=none draws no noise")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").write_text("")
    (tmp_path / "latin.yaml").write_bytes("run:\n  name: Z\xfcrich\n".encode("latin-1"))
    (tmp_path / "wide.yaml").write_bytes("run:\n  name: x\n".encode("utf-16"))
    (tmp_path / "large.yaml").write_text("#" * 100_001)
    assert only_fault([tmp_path / "digit.yaml"]) == f"{tmp_path}/digit.yaml: no such file (did you mean digits.yaml?)"
    assert only_fault([tmp_path / "no" / "x.yaml"]) == f"{tmp_path}/no/x.yaml: no such file"
    assert only_fault([tmp_path]) == f"{tmp_path}: is a folder, not a config file"
    assert only_fault([tmp_path / "latin.yaml"]) == f"{tmp_path}/latin.yaml:2: not UTF-8 text; save the file as UTF-8"
    assert only_fault([tmp_path / "wide.yaml"]) == f"{tmp_path}/wide.yaml:1: not UTF-8 text; save the file as UTF-8"
    assert only_fault([tmp_path / "large.yaml"]).startswith(f"{tmp_path}/large.yaml: more than 100,000 bytes")
    assert only_fault([tmp_path / "digits.yaml" / "x"]) == f"{tmp_path}/digits.yaml/x: cannot be read: Not a directory"
    assert only_fault([Path("a\0b")]).startswith(r"'a\x00b': cannot be read: ")
    assert only_fault([Path("/dev/zero")]).startswith("/dev/zero: more than 100,000 bytes")


def test_a_file_name_never_breaks_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a\nb.yaml"
    path.write_text("train:\n  lr: x\n")
    assert only_fault([path]) == f"'{tmp_path}/a\\nb.yaml':2: train.lr=x: must be a number above 0"


def test_a_base_has_no_base(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("base: two.yaml\n")
    (tmp_path / "two.yaml").write_text("run: {seed: 2}\nbase: three.yaml\n")
    (tmp_path / "three.yaml").write_text("")
    line = only_fault([tmp_path / "one.yaml"])
    assert line == f"{tmp_path}/two.yaml:2: base=three.yaml: a base cannot have a base itself"


def test_faults_in_a_base_name_the_base(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("base: two.yaml\n")
    (tmp_path / "two.yaml").write_text("train:\n  lr: x\n")
    assert only_fault([tmp_path / "one.yaml"]).startswith(f"{tmp_path}/two.yaml:2: train.lr=x")


def test_all_faults_at_once(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("train:\n  lr: -1.0\n  lr: 2\n  epochz: 3\nmodle: {}\nnoise:\n  rate: 0.5\n")
    second.write_text("train: [\n")
    lines = faults([first, second, tmp_path / "gone.yaml"], ["data.name=cifar10", "cleaner.tau=2", "x", "run.name=.."])
    expected = [
        f"{first}:3: train.lr: given twice", f"{first}:2: train.lr=-1.0: must be above 0",
        f"{first}:4: train.epochz: no such setting (did you mean train.epochs?)",
        f"{first}:5: modle: no such setting (did you mean model?)", f"{second}:2:1: not valid YAML",
        f"{tmp_path}/gone.yaml: no such file", "command line: x: must be key=value",
        "command line: cleaner.tau=2.0: must lie in (0, 1)", f"{first}:7: noise.rate=0.5: noise.kind=none draws "
        "no noise",
        "command line: data.root is empty", "command line: run.name=..: must name",
    ]  # fmt: skip
    assert len(lines) == len(expected)
    assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True)), lines


@pytest.mark.parametrize("wrong", ["noise.kind=symm", "noise.kidn=sym", "noise.kind"])
def test_a_wrong_setting_brings_no_second_fault_of_its_own_making(wrong: str) -> None:
    only_fault([], ["noise.rate=0.5", wrong])


def test_nothing_comes_from_the_environment_and_no_tag_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FASTCPC_DATA", "FASTCPC_TRAIN_LR", "TRAIN_LR"):
        monkeypatch.setenv(name, "0.5")
    path = tmp_path / "a.yaml"
    path.write_text(f"run:\n  name: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n")
    only_fault([path])
    assert os.listdir(tmp_path) == ["a.yaml"]
    config = load_config([], ["data.root=here"])
    assert (config.data.root, config.train.lr) == ("here", 0.02)


def test_an_old_library_is_named_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omegaconf.__version__", "2.3.1")
    line = faults([Path("nowhere.yaml")], ["train.lr=x"])[0]
    assert re.fullmatch(
        r"omegaconf is 2\.3\.1, 2\.4 or newer is needed .*hydra-core.*pip install 'omegaconf>=2\.4'", line
    )
