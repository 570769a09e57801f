"""Errors in files and overrides: each is one line with place, key, value and fix."""

import os
from pathlib import Path

import pytest
from config_errors import only_problem, problems

from fastcpc.config.load import load_config

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
    "section_as_text": ("train: fast\n", "FILE:1: train: got fast; it is a section with the settings epochs, "),
    "section_as_list": ("train: [lr]\n", "FILE:1: train: got a list; must be one value"),
    "section_as_null": ("train: null\n", "FILE:1: train: got nothing; it is a section with the settings epochs, "),
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
    "bool_for_choice": (
        "compile: true\n",
        "FILE:1: compile=true: must be auto, false, default, graphs or max-autotune",
    ),
    "wrong_choice": (
        "noise:\n  kind: symm\n",
        "FILE:2: noise.kind=symm: must be none, sym, asym, asym_superclass, asym_block5, asym_next, asym_pairs or file "
        "(did you mean sym?)",
    ),
    "choice_in_capitals": (
        "cleaner:\n  kind: CPC_AWR\n",
        "FILE:2: cleaner.kind=CPC_AWR: must be none, gmm_agn, gmm_awr, cpc_agn, cpc_awr, cpc_only, confusion or "
        "cpc_confusion (did you mean cpc_awr?)",
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
        "FILE:2: run.name: got the tag !!python/object/apply:os.system, and tags are not supported",
    ),
    "python_tag_at_the_top": (
        "!!python/object/new:dict {run: {name: x}}\n",
        "FILE:1: the tag !!python/object/new:dict, and tags are not supported at the top",
    ),
    "path_tag": (
        "run:\n  dir: !!python/object/apply:pathlib.Path [a]\n",
        "FILE:2: run.dir: got the tag !!python/object/apply:pathlib.Path",
    ),
    "own_tag": ("train: !include other.yaml\n", "FILE:1: train: got the tag !include, and tags are not supported"),
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
def test_errors_in_files(tmp_path: Path, case: str) -> None:
    text, message = BAD_YAML[case]
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    line = only_problem([path])
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
    "short": ("lr=3", "command line: lr: no such setting (did you mean cpc.lr or train.lr?)"),
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
def test_errors_in_overrides(case: str) -> None:
    override, message = BAD_OVERRIDES[case]
    assert only_problem([], [override]).startswith(message)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").write_text("")
    (tmp_path / "latin.yaml").write_bytes("run:\n  name: Z\xfcrich\n".encode("latin-1"))
    (tmp_path / "wide.yaml").write_bytes("run:\n  name: x\n".encode("utf-16"))
    (tmp_path / "large.yaml").write_text("#" * 100_001)
    assert only_problem([tmp_path / "digit.yaml"]) == f"{tmp_path}/digit.yaml: no such file (did you mean digits.yaml?)"
    assert only_problem([tmp_path / "no" / "x.yaml"]) == f"{tmp_path}/no/x.yaml: no such file"
    assert only_problem([tmp_path]) == f"{tmp_path}: is a folder, not a config file"
    assert only_problem([tmp_path / "latin.yaml"]) == f"{tmp_path}/latin.yaml:2: not UTF-8 text; save the file as UTF-8"
    assert only_problem([tmp_path / "wide.yaml"]) == f"{tmp_path}/wide.yaml:1: not UTF-8 text; save the file as UTF-8"
    assert only_problem([tmp_path / "large.yaml"]).startswith(f"{tmp_path}/large.yaml: more than 100,000 bytes")
    assert (
        only_problem([tmp_path / "digits.yaml" / "x"]) == f"{tmp_path}/digits.yaml/x: cannot be read: Not a directory"
    )
    assert only_problem([Path("a\0b")]).startswith(r"'a\x00b': cannot be read: ")
    assert only_problem([Path("/dev/zero")]).startswith("/dev/zero: more than 100,000 bytes")


def test_a_line_break_in_a_file_name_is_escaped(tmp_path: Path) -> None:
    path = tmp_path / "a\nb.yaml"
    path.write_text("train:\n  lr: x\n")
    assert only_problem([path]) == f"'{tmp_path}/a\\nb.yaml':2: train.lr=x: must be a number above 0"


def test_a_base_has_no_base(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("base: two.yaml\n")
    (tmp_path / "two.yaml").write_text("run: {seed: 2}\nbase: three.yaml\n")
    (tmp_path / "three.yaml").write_text("")
    line = only_problem([tmp_path / "one.yaml"])
    assert line == f"{tmp_path}/two.yaml:2: base=three.yaml: a base cannot have a base itself"


def test_errors_in_a_base_name_the_base(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("base: two.yaml\n")
    (tmp_path / "two.yaml").write_text("train:\n  lr: x\n")
    assert only_problem([tmp_path / "one.yaml"]).startswith(f"{tmp_path}/two.yaml:2: train.lr=x")


def test_all_errors_are_reported_together(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("train:\n  lr: -1.0\n  lr: 2\n  epochz: 3\nmodle: {}\nnoise:\n  rate: 0.5\n")
    second.write_text("train: [\n")
    lines = problems(
        [first, second, tmp_path / "gone.yaml"], ["data.name=cifar10", "cleaner.tau=2", "x", "run.name=.."]
    )
    expected = [
        f"{first}:3: train.lr: given twice", f"{first}:2: train.lr=-1.0: must be above 0",
        f"{first}:4: train.epochz: no such setting (did you mean train.epochs?)",
        f"{first}:5: modle: no such setting (did you mean model?)", f"{second}:2:1: not valid YAML",
        f"{tmp_path}/gone.yaml: no such file", "command line: x: must be key=value",
        "command line: cleaner.tau=2.0: must be in (0, 1)", f"{first}:7: noise.rate=0.5: noise.kind=none draws "
        "no noise",
        "command line: data.root is empty", "command line: run.name=..: must name",
    ]  # fmt: skip
    assert len(lines) == len(expected)
    assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True)), lines


def test_environment_variables_are_ignored_and_tags_do_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FASTCPC_DATA", "FASTCPC_TRAIN_LR", "TRAIN_LR"):
        monkeypatch.setenv(name, "0.5")
    path = tmp_path / "a.yaml"
    path.write_text(f"run:\n  name: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n")
    only_problem([path])
    assert os.listdir(tmp_path) == ["a.yaml"]
    config = load_config([], ["data.root=here"])
    assert (config.data.root, config.train.lr) == ("here", 0.02)
