"""labels.npz, read back by numpy."""

from pathlib import Path

import numpy as np
import pytest

from fastcpc.data.labels.noise import Labels
from fastcpc.engine.outputs.labels_file import write_labels


@pytest.mark.parametrize("trusted", [np.array([1, 2, 0]), None])
def test_labels_round_trip(tmp_path: Path, trusted: np.ndarray | None) -> None:
    labels = Labels(np.array([1, 0, 0]), trusted, "sym", 0.5, None if trusted is None else 1 / 3, 7)
    write_labels(tmp_path / "labels.npz", labels, np.array([4, 9, 11]), ["zéro", "one", ""])
    with np.load(tmp_path / "labels.npz", allow_pickle=False) as stored:
        assert stored["given"].tolist() == [1, 0, 0]
        assert stored["source_index"].tolist() == [4, 9, 11]
        assert stored["class_names"].tolist() == ["zéro", "one", ""]
        assert (str(stored["noise_kind"]), float(stored["nominal_rate"]), int(stored["seed"])) == ("sym", 0.5, 7)
        assert ("trusted" in stored) == (trusted is not None)
        if trusted is None:
            assert np.isnan(stored["actual_rate"])
        else:
            assert stored["trusted"].tolist() == [1, 2, 0]
            assert float(stored["actual_rate"]) == 1 / 3


def test_labels_of_different_lengths_are_rejected(tmp_path: Path) -> None:
    labels = Labels(np.array([1, 0, 0]), np.array([1, 0]), "sym", 0.5, 0.5, 7)
    with pytest.raises(ValueError, match="trusted has 2 entries for 3 labels"):
        write_labels(tmp_path / "labels.npz", labels, np.arange(3), ["a", "b"])
