"""From files to batches: decoding, scaling, and what reads ahead: a thread, and processes."""

import io
import multiprocessing
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from l2d.data import images
from l2d.data.decoders import StartError
from l2d.data.images import Index, Pictures, PixelKindError, choose_fraction, normalise, open_image, squash, upright_size

# Since Python 3.12 a process that has threads is warned when it forks.
FORKED = pytest.param(
    2,
    marks=[
        pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pictures are decoded by threads"),
        pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    ],
    id="processes",
)


def draw(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"{number}.png" for number in range(10)]
    for number, path in enumerate(found):
        draw(seed=number).save(path)
    return found


@pytest.fixture(params=[pytest.param(0, id="threads"), FORKED])
def decoders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Processes that decode what is for a GPU, here without one; 0 for threads."""
    monkeypatch.setattr(images, "count_decoders", lambda pictures: request.param)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda batch: batch)
    return request.param


def readers() -> list[Any]:
    """What is still at work: threads that read ahead, and processes that decode."""
    return [thread for thread in threading.enumerate() if "_fill" in thread.name] + multiprocessing.active_children()


def test_select_keeps_rows_together(paths: list[Path]) -> None:
    index = Index(paths, torch.eye(10), tuple("abcdefghij"), [{row: [(0.0, 0.0, 1.0, 1.0)]} for row in range(10)])
    some = index.select([7, 2])
    assert some.paths == [paths[7], paths[2]]
    assert some.targets.argmax(1).tolist() == [7, 2]
    assert some.boxes == [{7: [(0.0, 0.0, 1.0, 1.0)]}, {2: [(0.0, 0.0, 1.0, 1.0)]}]
    assert some.labels == index.labels
    assert index._replace(boxes=None).select([]).paths == []
    assert repr(some) == "<Index of 2 pictures with 10 labels (a, b, c, ...), with boxes>"


def test_select_takes_masks_and_numbers_of_torch_and_numpy(paths: list[Path]) -> None:
    index = Index(paths, torch.eye(10), tuple("abcdefghij"))
    shown = index.targets[:, 2:4].any(1)
    for rows in (shown, shown.numpy(), shown.tolist(), shown.nonzero().flatten(), np.array([2, 3])):
        some = index.select(rows)
        assert (some.paths, some.targets.argmax(1).tolist()) == (paths[2:4], [2, 3])
    with pytest.raises(IndexError, match="10"):
        index.select(shown[:4])


def test_the_checksum_stays_what_cards_keep_and_copies_no_targets() -> None:
    index = Index([Path("a/1.jpg"), Path("2.jpg")], torch.eye(2, 100_000), ("x",) * 100_000)
    tracemalloc.start()
    try:
        checksum = index.checksum
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert checksum == zlib.crc32(b"1.jpg\n2.jpg" + index.targets.numpy().tobytes())
    assert index._replace(paths=list(map(str, index.paths))).checksum == checksum, "of one made by hand"
    assert peak < 100_000


def test_open_image_turns_upright_and_gives_rgb(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    draw(60, 40).save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg").size == (40, 60)
    for mode in ("L", "P", "RGBA", "CMYK", "1"):
        buffer = io.BytesIO()
        draw().convert(mode).save(buffer, "TIFF")
        buffer.seek(0)
        assert open_image(buffer).mode == "RGB"


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_the_upright_size_is_known_before_a_picture_is_decoded(kind: str, orientation: int) -> None:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    draw(60, 40).save(buffer, kind, exif=exif)
    with Image.open(buffer) as image:
        assert upright_size(image) == open_image(buffer).size == ((40, 60) if orientation >= 5 else (60, 40))


def test_sixteen_bits_become_eight_and_white_shows_through(tmp_path: Path) -> None:
    ramp = (np.arange(2400, dtype=np.uint16) * 27).reshape(40, 60)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    assert np.array_equal(np.asarray(open_image(tmp_path / "deep.png"))[..., 0], ramp >> 8)
    clear = draw().convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    assert np.asarray(open_image(tmp_path / "clear.png")).min() == 255
    clear.putalpha(255)
    clear.save(tmp_path / "solid.png")
    assert np.array_equal(np.asarray(open_image(tmp_path / "solid.png")), np.asarray(draw()))


@pytest.mark.parametrize(("size", "fraction"), [((512, 512), 8), ((511, 900), 4), ((900, 256), 4), ((2000, 128), 2), ((127, 2000), 1)])
def test_photographs_are_shrunk_while_their_shorter_side_stays_twice_what_is_needed(size: tuple[int, int], fraction: int) -> None:
    for kind, expected in (("JPEG", fraction), ("PNG", 1)):
        buffer = io.BytesIO()
        Image.new("RGB", size).save(buffer, kind)
        with Image.open(buffer) as image:
            assert choose_fraction(image, 32) == expected


def test_squash_keeps_the_whole_picture() -> None:
    picture = Image.new("RGB", (90, 30), "white")
    picture.paste((255, 0, 0), (0, 0, 45, 30))
    pixels = squash(picture, 12)
    assert pixels.shape == (3, 12, 12)
    assert pixels.dtype == torch.uint8
    assert pixels[1, :, 0].max() == 0
    assert pixels[1, :, -1].min() == 255
    for mode in ("L", "P", "RGBA", "CMYK"):
        with pytest.raises(ValueError, match=f"this one is in {mode}. read_image and to_rgb give RGB"):
            squash(Image.new(mode, (90, 30)), 12)


@pytest.mark.parametrize("given", [np.zeros((4, 4, 3), dtype=np.uint8), torch.zeros(3, 4, 4), "photo.jpg"], ids=["array", "tensor", "text"])
def test_what_is_no_picture_is_not_resized(given: Any) -> None:
    with pytest.raises(ValueError, match=f"a picture of Pillow's, .*; got {type(given).__name__}"):
        squash(given, 8)


def test_bytes_are_not_scaled_as_if_they_were_shares() -> None:
    with pytest.raises(ValueError, match=r"in floating point; got torch.uint8. Bytes become such by"):
        normalise(squash(draw(), 8)[None], (0.5,) * 3, (0.2,) * 3)


def test_normalise_is_per_channel() -> None:
    pixels = torch.rand(2, 3, 4, 5)
    scaled = normalise(pixels, (0.1, 0.2, 0.3), (0.5, 1.0, 2.0))
    for channel, (mean, std) in enumerate(((0.1, 0.5), (0.2, 1.0), (0.3, 2.0))):
        torch.testing.assert_close(scaled[:, channel], (pixels[:, channel] - mean) / std)


def test_a_large_photograph_decoded_at_a_fraction_of_its_size_looks_the_same(tmp_path: Path) -> None:
    smooth = draw(8, 6).resize((1600, 1200), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "large.jpg", quality=95)
    assert open_image(tmp_path / "large.jpg", 64).size == (200, 150)
    fast = Pictures([tmp_path / "large.jpg"], 64).read([0])[0].float()
    assert (fast - squash(open_image(tmp_path / "large.jpg"), 64).float()).abs().max() <= 4


@pytest.mark.parametrize("keep", [True, False])
def test_pictures_come_in_the_order_asked_for(paths: list[Path], keep: bool) -> None:
    pictures = Pictures(paths, 16, keep=keep)
    for rows in ([4, 1, 9], [1, 1], [9]):
        expected = torch.stack([squash(open_image(paths[row]), 16) for row in rows])
        assert torch.equal(pictures.read(rows), expected)


def test_small_sets_are_decoded_once_and_large_ones_again(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    size = 10 * 3 * 16 * 16
    # Two processes of a machine keep half of its free memory together.
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for limit, free, opened in ((images.MEMORY_LIMIT, 4 * size, 3), (size - 1, 4 * size, 6), (images.MEMORY_LIMIT, 4 * size - 1, 6)):
        monkeypatch.setattr(images, "MEMORY_LIMIT", limit)
        monkeypatch.setattr(images, "find_free_memory", lambda free=free: free)
        pictures, decoded = Pictures(paths, 16), []
        monkeypatch.setattr(
            pictures, "_decode", lambda row, pictures=pictures, seen=decoded: (seen.append(row), Pictures._decode(pictures, row))[1]
        )
        for _ in range(2):
            pictures.read([0, 1, 2])
        assert len(decoded) == opened


@pytest.mark.parametrize("keep", [True, False])
def test_batches_in_order(paths: list[Path], decoders: int, keep: bool) -> None:
    order = [[0, 1, 2], [3], [9, 8], [3, 0], [*range(10)]]
    pictures, random = Pictures(paths, 16, keep=keep, pinned=True), torch.get_rng_state()
    batches = list(pictures.batches(order))
    expected = [torch.stack([squash(open_image(paths[row]), 16) for row in rows]) for rows in order]
    assert all(torch.equal(batch, other) and batch.stride() == other.stride() for batch, other in zip(batches, expected, strict=True))
    assert list(pictures.batches([])) == []
    assert torch.equal(torch.get_rng_state(), random)
    assert readers() == []


def test_only_what_is_not_in_memory_is_decoded(paths: list[Path], decoders: int) -> None:
    pictures = Pictures(paths, 16, pinned=True)
    first = pictures.read([1, 4])
    for row in (1, 4):
        paths[row].unlink()
    batches = list(pictures.batches([[4, 2], [1], [7, 1, 8]]))
    assert torch.equal(torch.stack([batches[1][0], batches[0][0]]), first)
    assert pictures.decoded.nonzero()[0].tolist() == [1, 2, 4, 7, 8]


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_reading_ahead_ends_with_a_consumer_that_stops_early(paths: list[Path], decoders: int, taken: int) -> None:
    batches: Any = Pictures(paths, 16, pinned=True).batches([[row] for row in range(10)])
    for _ in range(taken):
        next(batches)
    # Time to fill the queue and to wait for room in it.
    time.sleep(0.1)
    batches.close()
    assert readers() == []


def test_a_broken_file_is_named_at_its_turn(paths: list[Path], decoders: int) -> None:
    paths[5].write_bytes(paths[5].read_bytes()[:200])
    batches = Pictures(paths, 16, pinned=True).batches([[0, 1], [5], [6]])
    assert next(batches).shape == (2, 3, 16, 16)
    with pytest.raises(ValueError) as error:
        next(batches)
    with pytest.raises(ValueError) as expected:
        images.read_image(paths[5])
    assert str(error.value) == str(expected.value)
    assert readers() == []


@pytest.mark.parametrize("given", [0, 4])
@pytest.mark.parametrize("keep", [True, False])
def test_threads_go_on_where_processes_cannot_be_started(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, keep: bool, given: int
) -> None:
    def start(decode: Callable[[int], Any], rows: list[int], count: int) -> Iterator[Any]:
        yield from map(decode, rows[:given])
        raise StartError("Resource temporarily unavailable")

    monkeypatch.setattr(images, "count_decoders", lambda pictures: 2)
    monkeypatch.setattr(images, "decode_in_processes", start)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda batch: batch)
    images._tell_of_threads.cache_clear()
    order, pictures = [[0, 1, 2], [3, 4], [9, 8, 7]], Pictures(paths, 16, keep=keep, pinned=True)
    expected = [torch.stack([squash(open_image(paths[row]), 16) for row in rows]) for rows in order]
    for _ in range(2):
        assert all(torch.equal(batch, other) for batch, other in zip(pictures.batches(order), expected, strict=True))
    told = ["Pictures are decoded by threads, more slowly: processes for that cannot be started (Resource temporarily unavailable)."]
    assert [record.getMessage() for record in caplog.records] == told


def test_threads_decode_what_is_not_for_a_gpu(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "count_decoders", lambda pictures: 2)
    batches = Pictures(paths, 16).batches([[row] for row in range(10)])
    next(batches)
    assert multiprocessing.active_children() == []


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)


@pytest.mark.parametrize("content", [b"", b"text", HEIC, b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_what_is_no_picture_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.jpg"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"odd\.jpg cannot be read as a picture: it is damaged, or of a format .*save it as JPEG or PNG\.$"
    ):
        Pictures([path], 16).read([0])


def test_what_the_system_says_of_a_file_stands_beside_its_name_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        images.read_image(tmp_path)
    assert str(error.value) == f"{tmp_path} cannot be read as a picture: Is a directory."


def test_pixels_without_a_range_are_refused_in_one_sentence(tmp_path: Path) -> None:
    Image.new("F", (4, 4)).save(tmp_path / "depth.tif")
    with pytest.raises(PixelKindError):
        open_image(tmp_path / "depth.tif")
    with pytest.raises(ValueError, match=r"depth\.tif cannot be read as a picture: Pixels of the kind 'F' have no agreed range here\.$"):
        Pictures([tmp_path / "depth.tif"], 16).read([0])


def test_a_missing_file_and_a_decompression_bomb_are_named(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"0\.png cannot be read as a picture"):
        Pictures(paths, 16).read([0])
    with pytest.raises(ValueError, match=r"There is no picture nowhere\.png"):
        Pictures([Path("nowhere.png")], 16).read([0])
