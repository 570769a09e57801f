"""Streams of both feeds of image files: the same views of the same files, in any order, from one decode each."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_images import (
    FOUR,
    batches_of,
    dataset_of,
    levels,
    loader_of,
    odd_files,
    plain_files,
    same,
    texture,
    turned,
    xmp,
)
from PIL import Image

from fastcpc.data.image_files import decode_image, read_image_header
from fastcpc.data.loaders import dali_decoder, image_loader
from fastcpc.data.loaders.base import Batch
from fastcpc.data.loaders.dali_files import dali_bytes
from fastcpc.data.loaders.dali_pipeline import DaliPipeline, dali_problem
from fastcpc.data.loaders.image_loader import DecodedChunk, DecodeRequest
from fastcpc.data.sampler import sequential_batches

needs_dali = pytest.mark.skipif(bool(dali_problem()), reason="needs nvidia.dali")
each_loader = pytest.mark.parametrize("name", ["torch", pytest.param("dali", marks=needs_dali)])


@needs_dali
@pytest.mark.parametrize("resized", [False, True])
def test_both_decoders_agree(tmp_path: Path, resized: bool) -> None:
    """Same geometry on the same numbers, same index for every image, whatever the file holds."""
    dataset = dataset_of([*odd_files(tmp_path), *plain_files(tmp_path, 5)], resized=resized)
    batches, views = batches_of(len(dataset.train)), ("test", "weak", "weak", "strong")
    torch_batches, dali_batches = (
        list(loader_of(dataset, name).stream(batches, views, 5)) for name in ("torch", "dali")
    )
    for ours, theirs, asked in zip(torch_batches, dali_batches, batches, strict=True):
        assert ours.index.equal(asked) and theirs.index.equal(asked)
        for a, b in zip(ours.views[:3], theirs.views[:3], strict=True):
            assert a.shape == (len(asked), 3, 24, 24) and a.is_contiguous(memory_format=torch.channels_last)
            apart = (levels(a) - levels(b)).abs()
            assert apart.mean(dim=(1, 2, 3)).max() < 0.7  # level of 255
            assert apart.max() < 6.1  # black and white pixels side by side; 4.1 for other files
        for strong in (levels(ours.views[3]), levels(theirs.views[3])):  # normalised: whole levels once that is undone
            assert (strong - strong.round()).abs().max() < 1e-2
            assert strong.min() > -1e-2 and strong.max() < 255.01
        apart = (levels(ours.views[3]) - levels(theirs.views[3])).abs()
        assert apart.mean() < 4  # solarize and posterize turn one level into many


@each_loader
@pytest.mark.parametrize("start", [0, 1, 3])
def test_a_later_start_is_the_tail_of_the_stream(tmp_path: Path, name: str, start: int) -> None:
    loader, batches = loader_of(dataset_of(plain_files(tmp_path, 13), resized=True), name), batches_of(13)
    whole = list(loader.stream(batches, FOUR, 11))
    assert len(whole) == 3
    assert same(whole[start:], list(loader.stream(batches, FOUR, 11, start)))
    assert not same(whole, list(loader.stream(batches, FOUR, 12)))
    for i in range(4):
        assert not any(whole[0].views[i].equal(whole[0].views[j]) for j in range(i))


@each_loader
def test_part_equals_those_positions_of_whole_batches(tmp_path: Path, name: str) -> None:
    dataset, batches, part = dataset_of(plain_files(tmp_path, 13)), batches_of(12, 4), torch.tensor([3, 1])
    whole = list(loader_of(dataset, name).stream(batches, FOUR, 2))
    parts = list(loader_of(dataset, name).stream(batches, FOUR, 2, part=part))
    expected = [Batch(batch.index[part], tuple(view[part] for view in batch.views)) for batch in whole]
    assert len(parts) == 3 and same(parts, expected)


@each_loader
def test_batches_larger_than_a_chunk(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, batches = dataset_of(plain_files(tmp_path, 13)), batches_of(13, 9)
    whole = list(loader_of(dataset, name).stream(batches, FOUR, 2))
    monkeypatch.setattr(image_loader, "CHUNK", 4)
    assert same(whole, list(loader_of(dataset, name).stream(batches, FOUR, 2)))


@each_loader
@pytest.mark.parametrize("workers", [1, 3])
def test_batches_do_not_depend_on_the_number_of_threads(tmp_path: Path, name: str, workers: int) -> None:
    dataset, batches = dataset_of(plain_files(tmp_path, 13)), batches_of(13, 11)
    expected = list(loader_of(dataset, name, workers=2).stream(batches, FOUR, 2))
    assert same(expected, list(loader_of(dataset, name, workers=workers).stream(batches, FOUR, 2)))


@each_loader
def test_each_image_is_decoded_once_for_four_views(tmp_path: Path, name: str) -> None:
    loader, batches = loader_of(dataset_of(plain_files(tmp_path, 13)), name), batches_of(13)
    assert sorted(torch.cat([batch.index for batch in loader.stream(batches, FOUR, 1)]).tolist()) == list(range(13))
    assert loader.decoder.num_decoded == 13


def test_views_decoded_on_the_device_are_not_copied_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU without a number and the same one with it are two devices to torch; "meta" stands for it here."""

    class OnDevice:
        num_decoded = 0

        def decode(self, requests: Iterable[DecodeRequest]) -> Iterator[DecodedChunk]:
            for request in requests:
                yield DecodedChunk(request, request.rows, (torch.empty(len(request.rows), 24, 24, 3, device="meta"),))

    def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        assert tensor.device.type == "cpu" and device.type == "cuda"
        return tensor

    loader: Any = loader_of(dataset_of(plain_files(tmp_path, 13)), "torch")
    loader.decoder, loader.device = OnDevice(), torch.device("cuda")
    monkeypatch.setattr(image_loader, "send", send)
    monkeypatch.setattr(image_loader, "CHUNK", 4)
    shapes = [batch.views[0].shape for batch in loader.stream(batches_of(13, 9), ("weak",), 2)]
    assert shapes == [(9, 3, 24, 24), (4, 3, 24, 24)]  # of three chunks, and of one


def test_pillow_opens_each_file_once_for_four_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[bytes] = []
    true_read = decode_image
    monkeypatch.setattr(
        "fastcpc.data.loaders.pillow_decoder.decode_image", lambda raw: opened.append(raw) or true_read(raw)
    )
    paths = plain_files(tmp_path, 7)
    assert len(list(loader_of(dataset_of(paths), "torch").stream(batches_of(7), FOUR, 1))) == 2
    assert sorted(opened) == sorted(path.read_bytes() for path in paths)


@pytest.fixture
def pipelines(monkeypatch: pytest.MonkeyPatch) -> list[DaliPipeline]:
    """The pipelines that decoders build from now on."""
    built: list[DaliPipeline] = []

    class Noted(DaliPipeline):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            built.append(self)

    monkeypatch.setattr(dali_decoder, "DaliPipeline", Noted)
    return built


@needs_dali
def test_dalis_graph_decodes_once_and_is_built_once(tmp_path: Path, pipelines: list[DaliPipeline]) -> None:
    loader: Any = loader_of(dataset_of(plain_files(tmp_path, 13)), "dali")
    for epoch in range(3):
        list(loader.stream(batches_of(13, seed=epoch), FOUR, epoch))
        list(loader.stream(sequential_batches(13, 8), ("test",), 0))
    assert loader.decoder.num_built == len(pipelines) == 2  # one for four views, one for one
    graphs = {len(pipeline.kinds): pipeline.graph() for pipeline in pipelines}
    assert sorted(graphs) == [1, 4]
    for num_views, graph in graphs.items():
        assert graph.count(b"decoders__Image") == graphs[1].count(b"decoders__Image") == 1
        assert graph.count(b"Resize") == graphs[1].count(b"Resize") > 0  # once per image, whatever the views
        assert graph.count(b"CropMirrorNormalize") == num_views * graphs[1].count(b"CropMirrorNormalize") > 0


@needs_dali
def test_dali_gets_the_cuda_stream_that_reads_its_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nvidia.dali import Pipeline

    streams, run = list[Any](), Pipeline.run

    def noted(self: Any, stream: Any) -> Any:
        """Takes the stream away again: there is no GPU."""
        streams.append(stream)
        return run(self)

    monkeypatch.setattr(Pipeline, "run", noted)
    loader = loader_of(dataset_of(plain_files(tmp_path, 13)), "dali")
    list(loader.stream(batches_of(13), ("weak",), 1))
    assert set(streams) == {None}  # on a CPU
    streams.clear()
    monkeypatch.setattr(dali_decoder, "reading_stream", lambda device: "a stream")
    list(loader.stream(batches_of(13), ("weak",), 1))
    assert set(streams) == {"a stream"}


@pytest.mark.parametrize("orientation", [1, 6])
def test_dali_sees_the_orientation_that_pillow_found(orientation: int) -> None:
    buffer, rgb = io.BytesIO(), Image.fromarray(texture(60, 70, 1))
    rgb.save(buffer, "JPEG", exif=turned(3), xmp=xmp(8))
    content = dali_bytes(buffer.getvalue(), orientation)
    assert read_image_header(content).orientation == orientation
    assert content.count(b"Exif") == (orientation != 1) and b"xmpmeta" not in content
    upright = np.asarray(decode_image(content))
    assert np.array_equal(np.rot90(upright, 1) if orientation == 6 else upright, np.asarray(Image.open(buffer)))
    plain = io.BytesIO()
    rgb.save(plain, "JPEG")
    assert dali_bytes(plain.getvalue(), 1) == plain.getvalue()


@needs_dali
def test_files_for_dali_need_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Phones write JPEG files with a second image: DALI reads the first. Pillow decodes GIF files in memory."""
    rgb = Image.fromarray(texture(60, 70, 1))
    rgb.save(tmp_path / "phone.mpo", save_all=True, append_images=[rgb])
    rgb.quantize(64).save(tmp_path / "a.gif")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    by_pillow = set[bytes]()
    monkeypatch.setattr(dali_decoder, "decode_image", lambda raw: by_pillow.add(raw) or decode_image(raw))
    loader = loader_of(dataset_of([tmp_path / "phone.mpo", tmp_path / "a.gif"]), "dali")
    list(loader.stream(batches_of(2), FOUR, 1))
    assert by_pillow == {(tmp_path / "a.gif").read_bytes()}
    assert not list((tmp_path / "temporary").iterdir())


@each_loader
def test_reused_pipeline_delivers_no_batch_of_an_earlier_stream(tmp_path: Path, name: str) -> None:
    """A new list right after a whole stream, after a stream that was left early, and beside an open one."""
    loader = loader_of(dataset_of(plain_files(tmp_path, 13)), name)
    old, new = batches_of(13, 3, seed=1), batches_of(13, 3, seed=2)
    expected = list(loader.stream(new, ("weak", "strong"), 4))
    list(loader.stream(old, ("weak", "strong"), 3))
    assert same(expected, list(loader.stream(new, ("weak", "strong"), 4)))
    left = iter(loader.stream(old, ("weak", "strong"), 3))
    assert next(left).index.equal(old[0])
    assert same(expected, list(loader.stream(new, ("weak", "strong"), 4)))
    assert next(left).index.equal(old[1])
    left.close()  # type: ignore[attr-defined]
    assert same(expected, list(loader.stream(new, ("weak", "strong"), 4)))


@each_loader
def test_empty_list_gives_no_batches_and_wrong_requests_raise(tmp_path: Path, name: str) -> None:
    loader = loader_of(dataset_of(plain_files(tmp_path, 2)), name)
    assert list(loader.stream([], ("weak",), 1)) == []
    for batches, views, start in (([torch.tensor([2])], ("weak",), 0), ([torch.tensor([0])], ("side",), 0),
                                  ([torch.tensor([0])], ("weak",), 2)):  # fmt: skip
        with pytest.raises(ValueError):
            loader.stream(batches, views, 1, start)  # type: ignore[arg-type]
