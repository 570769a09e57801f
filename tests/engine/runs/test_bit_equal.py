"""Short runs against tests/assets/golden: bit-identical on a CPU with a record, close elsewhere.

A change that is meant to compute something else runs `python tests/support/golden.py record` and says so.
"""

import json
from typing import Any

import pytest
from golden import STORED, Record, cpu_key, differences, make_record

pytestmark = pytest.mark.xdist_group("golden")  # one worker makes the record
LOSSES = ("loss_total", "loss_labelled", "loss_unlabelled", "loss_penalty")


@pytest.fixture(scope="module")
def record() -> Record:
    """What this version computes."""
    return make_record()


def stored_records() -> list[Record]:
    return [json.loads(path.read_text()) for path in sorted(STORED.glob("*.json"))]


@pytest.mark.slow
def test_runs_are_bit_identical_to_the_record_of_this_cpu(record: Record) -> None:
    same = [one for one in stored_records() if (one["key"], one["versions"]) == (record["key"], record["versions"])]
    if not same:
        pytest.skip(f"no record of {cpu_key()} and these versions: golden.py record makes one")
    assert not differences(same[0], record)


@pytest.mark.slow
def test_runs_are_close_to_the_records_of_other_cpus(record: Record) -> None:
    """Digits alone: the runs on image files amplify the last bit to another partition within an epoch."""
    assert stored_records()
    for stored in stored_records():
        for name in ("digits_cpc_awr", "digits_gmm_agn"):
            old, new = stored["runs"][name], record["runs"][name]
            for line, kept in zip(new["metrics"], old["metrics"], strict=True):
                assert far_off(line, kept) == [], (name, stored["key"], line["epoch"])
            assert new["summary"].keys() == old["summary"].keys()
            assert new["sha256"].keys() == old["sha256"].keys()


def far_off(line: dict[str, Any], kept: dict[str, Any]) -> list[str]:
    """The keys of an epoch's metrics that differ by more than another order of sums explains."""
    close = {key: pytest.approx(kept[key], rel=2e-2, abs=1e-3) for key in LOSSES}
    close["labelled"] = pytest.approx(kept["labelled"], abs=3)
    close["test_top1"] = pytest.approx(kept["test_top1"], abs=3)
    wrong = [key for key, value in close.items() if line[key] != value]
    return wrong + sorted(line.keys() ^ kept.keys())


def test_differing_record_is_named() -> None:
    line = {"loss_total": [1.0, 2.0], "labelled": [3]}
    one = {"runs": {"a": {"metrics": [line], "sha256": {"net1": "ab"}}}}
    two = {"runs": {"a": {"metrics": [{**line, "loss_total": [1.0, 2.0 + 2**-51]}], "sha256": {"net1": "ac"}}}}
    assert differences(one, one) == []
    assert [text.split(":")[0] for text in differences(one, two)] == ["a/metrics/0/loss_total/1", "a/sha256/net1"]
