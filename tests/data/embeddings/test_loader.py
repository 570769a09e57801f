"""The loader of embeddings: standardised rows, views that depend on their position only, and no copy of the file."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_embeddings import clusters

from fastcpc.config.schema import AugmentConfig
from fastcpc.data.dataset import EmbeddingSplit
from fastcpc.data.embeddings.loader import EmbeddingLoader
from fastcpc.data.embeddings.statistics import column_statistics
from fastcpc.data.loaders.base import ViewName

CPU = torch.device("cpu")
BATCHES = [torch.tensor([5, 3, 9, 3]), torch.tensor([0, 1, 2, 39])]
VIEWS: tuple[ViewName, ...] = ("test", "weak", "weak", "strong")


def loader_of(kind: str = "noise", strength: float = 0.4) -> tuple[EmbeddingLoader, np.ndarray]:
    values, labels = clusters(80)
    values = values.astype(np.float16)
    rows = np.arange(1, 80, 2)
    mean, std = column_statistics("x", values, rows)
    split = EmbeddingSplit(values, rows, labels[rows], None, rows, tuple(map(str, rows)))
    augment = AugmentConfig(embeddings=kind, embeddings_strength=strength)
    expected = (values[rows].astype(np.float32) - mean) / std
    return EmbeddingLoader(split, tuple(mean.tolist()), tuple(std.tolist()), augment, CPU), expected


def test_a_test_view_is_the_standardised_row() -> None:
    loader, expected = loader_of()
    for batch, index in zip(loader.stream(BATCHES, ("test",), 1), BATCHES, strict=True):
        assert batch.views[0].shape == (4, 24, 1, 1) and batch.views[0].dtype == torch.float32
        np.testing.assert_allclose(batch.views[0][:, :, 0, 0], expected[index], atol=1e-5)


def test_float16_rows_become_exactly_the_float32_of_numpy() -> None:
    values = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(-1, 64)
    values = values[np.isfinite(values).all(1)]  # all finite numbers, subnormal ones too
    rows = np.arange(len(values))
    split = EmbeddingSplit(values, rows, np.zeros_like(rows), None, rows, tuple(map(str, rows)))
    loader = EmbeddingLoader(split, (0.0,) * 64, (1.0,) * 64, AugmentConfig(), CPU)
    np.testing.assert_array_equal(loader.standardised(torch.from_numpy(rows)), values.astype(np.float32))


def test_noise_has_its_strength_and_weak_views_half_of_it() -> None:
    loader, _ = loader_of("noise", 0.4)
    many = [torch.arange(40).repeat(50)]
    test, weak, other, strong = next(loader.stream(many, VIEWS, 1)).views
    assert (weak - test).std().item() == pytest.approx(0.2, rel=0.02)
    assert (strong - test).std().item() == pytest.approx(0.4, rel=0.02)
    assert not torch.equal(weak, other)


def test_dropout_sets_values_to_zero_and_keeps_the_mean() -> None:
    loader, _ = loader_of("dropout", 0.4)
    many = [torch.arange(40).repeat(50)]
    test, weak, _, strong = next(loader.stream(many, VIEWS, 1)).views
    for view, share in ((weak, 0.2), (strong, 0.4)):
        gone = view == 0
        assert gone.float().mean().item() == pytest.approx(share, rel=0.03)
        torch.testing.assert_close(view[~gone], test[~gone] / (1 - share))


def test_without_augmentation_all_views_are_the_test_view() -> None:
    loader, _ = loader_of("none")
    test, weak, other, strong = next(loader.stream(BATCHES, VIEWS, 1)).views
    assert torch.equal(test, weak) and torch.equal(test, other) and torch.equal(test, strong)


@pytest.mark.parametrize("kind", ["noise", "dropout"])
def test_a_batch_depends_on_its_number_and_its_parts_join_to_it(kind: str) -> None:
    loader, _ = loader_of(kind)
    whole = list(loader.stream(BATCHES, VIEWS, 7))
    tail = next(loader.stream(BATCHES, VIEWS, 7, start=1))
    parts = [list(loader.stream(BATCHES, VIEWS, 7, part=torch.tensor(part))) for part in ([0, 1], [2, 3])]
    for view in range(len(VIEWS)):
        assert torch.equal(tail.views[view], whole[1].views[view])
        for number in range(2):
            joined = torch.cat([part[number].views[view] for part in parts])
            assert torch.equal(joined, whole[number].views[view])


def test_a_large_file_is_read_from_the_map_without_a_copy(tmp_path: Path) -> None:
    """Own memory of the process, without the pages of the map: 160 MB of float16 are 320 MB as float32."""
    shape = (200_000, 400)
    header = {"descr": "<f2", "fortran_order": False, "shape": shape}
    with open(tmp_path / "x.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 2 * shape[0] * shape[1])  # a sparse file
    np.save(tmp_path / "y.npy", np.arange(shape[0]) % 2)
    code = (
        "import sys, torch\nfrom pathlib import Path\nfrom fastcpc.config.schema import AugmentConfig, DataConfig\n"
        "from fastcpc.data.loaders.factory import make_loader\nfrom fastcpc.data.registry import load_dataset\n"
        "from fastcpc.data.sampler import sequential_batches\n"
        "def own(): return int(Path('/proc/self/status').read_text().split('RssAnon:')[1].split()[0]) / 1e3\n"
        "data = DataConfig(name='embeddings', embeddings=sys.argv[1], labels=sys.argv[2], holdout=0.0)\n"
        "before = own()\ndataset = load_dataset(data)\n"
        "loader = make_loader(dataset.train, dataset, data, AugmentConfig(), torch.device('cpu'))\n"
        "peak = 0\n"
        "for batch in loader.stream(sequential_batches(200_000, 512), ('weak',), 1): peak = max(peak, own())\n"
        "print(peak - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    print(f"own memory grew by {done.stdout.strip()} MB")
    assert float(done.stdout) < 120
