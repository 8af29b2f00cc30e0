"""Right pixels from every kind of picture, and a sentence for everything else."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.errors import PictureError, PictureFormatError, TooLargeError
from app.uploads import read_inputs, read_picture
from l2d.data.images import Pictures
from tests.app.conftest import encode

LIMIT = 50_000_000


def difference(left: Image.Image, right: Image.Image) -> float:
    assert left.mode == right.mode == "RGB"
    assert left.size == right.size
    return float(np.abs(np.asarray(left, dtype=int) - np.asarray(right, dtype=int)).max())


def read(data: bytes) -> Image.Image:
    return read_picture(data, LIMIT)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_the_same_pixels(photograph: Image.Image, kind: str):
    assert difference(read(encode(photograph, kind)), photograph) == 0


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 98, "subsampling": 0}), ("WEBP", {"quality": 100})])
def test_lossy_formats_give_nearly_the_same_pixels(photograph: Image.Image, kind: str, options: dict[str, int]):
    assert difference(read(encode(photograph, kind, **options)), photograph) <= 6


def test_grey_and_two_colours_become_rgb(photograph: Image.Image):
    grey = photograph.convert("L")
    assert difference(read(encode(grey)), grey.convert("RGB")) == 0
    bits = grey.convert("1")
    assert difference(read(encode(bits)), bits.convert("RGB")) == 0


def test_cmyk_jpeg_gives_the_colours_that_went_in(photograph: Image.Image):
    data = encode(photograph.convert("CMYK"), "JPEG", quality=98, subsampling=0)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert difference(read(data), photograph) <= 8


def test_cmyk_tiff_gives_the_colours_that_went_in(photograph: Image.Image):
    assert difference(read(encode(photograph.convert("CMYK"), "TIFF")), photograph) <= 2


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_brightness(photograph: Image.Image, kind: str):
    grey = photograph.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    assert difference(read(encode(deep, kind)), grey.convert("RGB")) == 0


def test_sixteen_bit_colour_keeps_its_brightness(photograph: Image.Image):
    assert difference(read(deep_png(np.asarray(photograph))), photograph) == 0


def test_transparent_palette_lies_on_white():
    indices = np.zeros((10, 12), dtype=np.uint8)
    indices[:5], indices[5:, :6] = 1, 2
    picture = Image.fromarray(indices).convert("P")
    picture.putpalette([0, 0, 0, 200, 30, 10, 20, 40, 220])
    decoded = np.asarray(read(encode(picture, transparency=0)))
    assert decoded[0, 0].tolist() == [200, 30, 10]
    assert decoded[9, 0].tolist() == [20, 40, 220]
    assert decoded[9, 11].tolist() == [255, 255, 255]


def test_half_transparent_pixels_are_mixed_with_white():
    decoded = np.asarray(read(encode(Image.new("RGBA", (9, 9), (0, 100, 200, 128)))))
    assert np.abs(decoded[0, 0].astype(int) - [127, 177, 227]).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_once(photograph: Image.Image, orientation: int, kind: str):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying = photograph.transpose(undo[orientation]) if orientation in undo else photograph
    options: dict[str, object] = {"quality": 98, "subsampling": 0} if kind == "JPEG" else {"quality": 100} if kind == "WEBP" else {}
    decoded = read(encode(lying, kind, exif=exif, **options))
    assert decoded.size == photograph.size
    assert difference(decoded, photograph) <= 6


def test_metadata_goes_no_further(photograph: Image.Image):
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    decoded = read(encode(photograph, "JPEG", exif=exif, comment=b"secret"))
    assert decoded.info == {}
    assert dict(decoded.getexif()) == {}


def test_photograph_with_a_preview_behind_it_is_read(photograph: Image.Image):
    data = encode(photograph, "MPO", save_all=True, append_images=[Image.new("RGB", (30, 20))], quality=98, subsampling=0)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert difference(read(data), photograph) <= 6


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_frames_are_refused(photograph: Image.Image, kind: str):
    data = encode(photograph, kind, save_all=True, append_images=[Image.new("RGB", photograph.size)])
    with pytest.raises(PictureFormatError, match=f"this {kind} holds several frames or pages"):
        read(data)


def test_still_gif_is_read():
    assert np.asarray(read(encode(Image.new("RGB", (16, 16), (255, 0, 0)), "GIF"))).reshape(-1, 3).tolist() == [[255, 0, 0]] * 256


def test_nothing_is_refused():
    with pytest.raises(PictureError, match="the file is empty"):
        read(b"")


@pytest.mark.parametrize(
    "data", [b"hello", b"%PDF-1.7 ...", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"PK\x03\x04" + bytes(90), bytes(5000)]
)
def test_what_is_not_a_picture_is_refused(data: bytes):
    with pytest.raises(PictureFormatError, match=f"as JPEG, PNG, WebP, GIF, BMP or TIFF; this file of {len(data)} bytes is none"):
        read(data)


def test_a_single_byte_is_told_as_one():
    with pytest.raises(PictureFormatError, match="this file of 1 byte is none of them"):
        read(b"0")


@pytest.mark.parametrize("kind", ["EPS", "ICO", "PPM", "TGA"])
def test_other_formats_are_refused_though_pillow_reads_them(photograph: Image.Image, kind: str):
    with pytest.raises(PictureFormatError, match="Expected a picture as JPEG, PNG, WebP, GIF, BMP or TIFF"):
        read(encode(photograph, kind))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_cut_off_picture_is_refused(photograph: Image.Image, kind: str):
    data = encode(photograph, kind)
    with pytest.raises(PictureError, match="damaged or cut off"):
        read(data[: len(data) * 2 // 3])


def test_pixels_without_a_range_are_refused():
    with pytest.raises(PictureFormatError, match="'F' have no agreed range"):
        read(encode(Image.new("F", (20, 20)), "TIFF"))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 7)])
def test_picture_without_a_view_is_refused(size: tuple[int, int]):
    with pytest.raises(PictureError, match=f"at least 8 x 8 pixels; got {size[0]} x {size[1]}"):
        read(encode(Image.new("RGB", size)))


def test_smallest_picture_is_read():
    assert read(encode(Image.new("RGB", (8, 8)))).size == (8, 8)


@pytest.mark.parametrize("size", [(20_000, 20_000), (60_000, 60_000), (10_000, 10_000)])
def test_enormous_picture_is_refused_before_it_is_decoded(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch):
    def decode(_: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", decode)
    with pytest.raises(TooLargeError, match=f"at most 50000000 pixels; this picture has .*{size[0] * size[1]}"):
        read(empty_png(*size))


def test_pixels_are_counted_to_the_limit(photograph: Image.Image):
    data = encode(photograph)
    assert read_picture(data, 120 * 90).size == (120, 90)
    with pytest.raises(TooLargeError, match="at most 10799 pixels; this picture has 120 x 90 = 10800"):
        read_picture(data, 120 * 90 - 1)


def directory(tags: dict[int, tuple[int, int, int]]) -> bytes:
    """A TIFF's directory: tag -> kind, count, and its value or where that stands."""
    entries = b"".join(struct.pack("<HHII", tag, *tags[tag]) for tag in sorted(tags))
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)


def shared_tags(number: int, size: int) -> bytes:
    """EXIF data whose entries all hold the same bytes."""
    tags = {20_000 + tag: (7, size, 8 + 6 + 12 * number) for tag in range(number)}
    return struct.pack("<2sHI", b"II", 42, 8) + directory(tags) + bytes(size)


def grey_tiff(tags: dict[int, tuple[int, int, int]], tail: bytes) -> bytes:
    """A picture of 8 x 8 pixels with further tags, and `tail` from byte 72 on."""
    own = {256: (3, 1, 8), 257: (3, 1, 8), 258: (3, 1, 8), 262: (3, 1, 1), 273: (4, 1, 8), 278: (3, 1, 8), 279: (4, 1, 64)}
    return struct.pack("<2sHI", b"II", 42, 72 + len(tail)) + bytes(64) + tail + directory(own | tags)


def jpeg_with(exif: bytes) -> bytes:
    """A JPEG with EXIF data in as many pieces as they need."""
    pieces = [b"Exif\0\0" + exif[start : start + 60_000] for start in range(0, len(exif), 60_000)]
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(piece) + 2) + piece for piece in pieces)
    return b"\xff\xd8" + segments + encode(Image.new("L", (8, 8)), "JPEG")[20:]


def png_with(name: bytes, content: bytes, behind: bool) -> bytes:
    """A PNG with one more chunk, before or behind its pixels."""
    picture = encode(Image.new("L", (8, 8)))
    place = len(picture) - 12 if behind else 33
    return picture[:place] + chunk(name, content) + picture[place:]


def test_tags_that_share_their_bytes_are_not_all_copied():
    assert read(grey_tiff({20_000: (7, 100_000, 72)}, bytes(100_000))).size == (8, 8)
    with pytest.raises(PictureError, match="too much memory or time"):
        read(grey_tiff(dict.fromkeys(range(20000, 20400), (7, 100000, 72)), bytes(100_000)))


def test_strips_are_counted_before_anything_is_made_of_each(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.uploads.MAX_STRIPS", 50)
    offsets = struct.pack("<60I", *[8] * 60)
    with pytest.raises(PictureError, match="at most 50 strips or tiles; this one has 60"):
        read(grey_tiff({273: (4, 60, 72), 279: (4, 60, 72)}, offsets))


@pytest.mark.parametrize("wrap", ["jpeg", "webp", "png", "png behind", "png text"])
def test_more_exif_data_than_a_camera_writes_are_refused(wrap: str):
    exif = shared_tags(400, 100_000)
    text = b"Raw profile type exif\0\0" + zlib.compress(b"\n\n\n" + exif.hex().encode())
    data = {
        "jpeg": lambda: jpeg_with(exif),
        "webp": lambda: encode(Image.new("RGB", (8, 8)), "WEBP", exif=exif),
        "png": lambda: png_with(b"eXIf", exif, behind=False),
        "png behind": lambda: png_with(b"eXIf", exif, behind=True),
        "png text": lambda: png_with(b"zTXt", text, behind=True),
    }[wrap]()
    with pytest.raises(PictureError, match="at most 65536 bytes of EXIF data; this picture has 1"):
        read(data)


def test_picture_of_endless_pieces_is_given_up(monkeypatch: pytest.MonkeyPatch):
    still = encode(Image.new("P", (8, 8)), "GIF")
    begin = still.index(b",", 13)
    data = still[:begin] + b"\x21\xfe\0" * 200_000 + still[begin:]
    monkeypatch.setattr("app.uploads.DECODE_SECONDS", 0.05)
    with pytest.raises(PictureError, match="too much memory or time"):
        read(data)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def empty_png(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels and holds almost none."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def deep_png(pixels: np.ndarray) -> bytes:
    """A PNG with 16 bits per channel, which Pillow cannot write."""
    height, width, _ = pixels.shape
    rows = (pixels.astype(">u2") * 257).reshape(height, -1)
    data = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.fixture
def large() -> Image.Image:
    """Smooth, as photographs of many pixels are."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((1200, 900))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "MPO"])
def test_networks_are_shown_what_they_were_trained_on(large: Image.Image, kind: str, tmp_path: Path):
    (tmp_path / "picture").write_bytes(data := encode(large, kind))
    inputs = read_inputs(data, LIMIT, {32, 64, 224, 288})
    assert (inputs.width, inputs.height) == large.size
    for size in (32, 64, 224, 288):
        assert torch.equal(inputs.pixels[size], Pictures([tmp_path / "picture"], size).read([0])[0])
        assert torch.equal(inputs.pixels[size], read_inputs(data, LIMIT, {size}).pixels[size]), "depends on who else is asked"


@pytest.mark.parametrize(("kind", "decoded"), [("JPEG", [150 * 112.5, 300 * 225, 1200 * 900]), ("PNG", [1200 * 900])])
def test_large_photographs_are_decoded_as_small_as_networks_need(
    large: Image.Image, kind: str, decoded: list[float], monkeypatch: pytest.MonkeyPatch
):
    seen, real = [], np.asarray
    monkeypatch.setattr("app.uploads.np.asarray", lambda image: (seen.append(image.width * image.height), real(image))[1])
    read_inputs(encode(large, kind), LIMIT, [48, 56, 100, 288])
    assert sorted(seen) == pytest.approx(decoded, rel=0.01)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_that_of_the_upright_picture(photograph: Image.Image, orientation: int, kind: str):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photograph, kind, exif=exif)
    # A JPEG is decoded at half its size for so small a network.
    inputs = read_inputs(data, LIMIT, {32})
    assert (inputs.width, inputs.height) == read(data).size == ((90, 120) if orientation > 4 else (120, 90))


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_cut_off_photographs_are_refused_at_any_fraction(large: Image.Image, share: float):
    data = encode(large, "JPEG")
    for size in (32, 288):
        with pytest.raises(PictureError, match="damaged or cut off"):
            read_inputs(data[: int(share * len(data))], LIMIT, {size})
