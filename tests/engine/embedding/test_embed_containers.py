"""fastcpc-embed and fastcpc-audit on shards and Parquet files."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from containers import folder_samples, image_table, members_of, write_parquet, write_shards, write_tar
from embed_sets import model_options, write_images, write_weights

from fastcpc.cli.embeddings.audit import main as audit
from fastcpc.cli.embeddings.embed import main as embed
from fastcpc.engine.embedding.source import list_source, source_kind
from fastcpc.errors import InputError

Samples = list[tuple[str, str, bytes]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embed")
    write_images(folder / "images", wrong=2)
    write_weights(folder / "w.pt")
    return folder


@pytest.fixture
def samples(made: Path) -> Samples:
    return folder_samples(made / "images")


def test_an_audit_of_shards_shows_their_images(made: Path, samples: Samples, tmp_path: Path) -> None:
    """The embeddings are those of the folder, and suspects and gallery name members."""
    write_shards(tmp_path / "s", "train", samples, 20)
    options = model_options(made / "w.pt")
    assert audit([str(tmp_path / "s" / "*.tar"), "--out", str(tmp_path / "run"), *options]) == 0
    assert embed([str(made / "images"), "--out", str(tmp_path / "out"), *options]) == 0
    of_shards = np.load(tmp_path / "run" / "embeddings" / "embeddings.npy")
    assert np.array_equal(of_shards, np.load(tmp_path / "out" / "embeddings.npy"))
    text = (tmp_path / "run" / "suspects.csv").read_text()
    assert "train-00000.tar/0000" in text
    assert "data:image/" in (tmp_path / "run" / "report.html").read_text()


def test_parquet_files_and_a_named_column(made: Path, samples: Samples, tmp_path: Path) -> None:
    plain = image_table(samples)
    path = write_parquet(tmp_path / "two.parquet", plain.append_column("mask", plain["image"]))
    with pytest.raises(InputError, match=r"'image' and 'mask' are both columns of images; name one in --image-key"):
        list_source(str(path))
    table = image_table(samples, ("red", "green", "blue")).append_column("copy", plain["image"])
    path = write_parquet(tmp_path / "p" / "test-00000-of-00001.parquet", table, row_group_size=9)
    assert list_source(str(path)).image_key == ""  # the file says which column has the images
    source = list_source(str(path), image_key="copy")
    assert source.class_names == ("red", "green", "blue") and source.image_key == "copy"
    assert [source.images.read(row) for row in (0, 41)] == [samples[0][2], samples[41][2]]
    assert source.names[41] == "test-00000-of-00001.parquet#41" and str(source.root) == str(tmp_path / "p")


def test_kinds_of_sources(made: Path, samples: Samples, tmp_path: Path) -> None:
    """A folder with images is a folder, and a Parquet file without images is a list."""
    assert source_kind(str(made / "images")) == "imagefolder"
    write_tar(tmp_path / "s" / "00000.tar", members_of(samples[::10]))
    pq.write_table(pa.table({"key": ["0"]}), tmp_path / "s" / "00000.parquet")  # as img2dataset writes it
    assert source_kind(str(tmp_path / "s")) == "webdataset"
    assert len(list_source(str(tmp_path / "s" / "0000[0-9].tar")).names) == 5
    rows = {"path": [f"{label}/{file}" for label, file, _ in samples], "label": [label for label, _, _ in samples]}
    listed = write_parquet(made / "images" / "list.parquet", pa.table(rows))
    assert source_kind(str(listed)) == "imagefolder" and len(list_source(str(listed)).names) == 42
    listed.unlink()
    write_parquet(tmp_path / "m" / "a.parquet", image_table(samples[:3]))
    assert source_kind(str(tmp_path / "m")) == "parquet"
    write_tar(tmp_path / "m" / "b.tar", members_of(samples))
    for source, problem in (
        (tmp_path / "m", "has shards .* and Parquet files; give a pattern of one kind"),
        (tmp_path / "m" / "*", "has parquet and webdataset files"),
        (made / "w.pt", "unknown kind of file"),
    ):
        with pytest.raises(InputError, match=problem):
            source_kind(str(source))
    with pytest.raises(InputError, match=r"--label-key=x: is for shards and Parquet files"):
        list_source(str(made / "images"), label_key="x")
