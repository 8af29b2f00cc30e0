"""Untrusted bytes to pixels: what is not a still picture of reasonable size is refused with a sentence."""

import contextlib
import io
import time
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from app.errors import PictureError, PictureFormatError, RequestError, TooLargeError
from l2d.data.images import PixelKindError, choose_fraction, shrink, squash, to_rgb, upright_size

# What is decoded, by Pillow's name.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MIN_SIDE = 8
# Of one processor, each time that a picture is opened. The largest photographs take two.
DECODE_SECONDS = 5.0
# Readers come back to the same bytes, a few times. Only what is made for it has them copied again and again.
MOST_COPIES, SPARE_BYTES = 8, 2**20
# As much as a JPEG has room for in one piece. Its entries can share their bytes, too, and nobody counts what they copy.
MAX_EXIF_BYTES = 64 * 2**10
# A strip is a row of pixels at least; Pillow makes an object of each before anything else.
MAX_STRIPS = 100_000
# The third byte of a TIFF with room for more than 4 GB, whose header is longer.
BIG_TIFF = 43

_KNOWN = "JPEG, PNG, WebP, GIF, BMP or TIFF"
_CONVERT = "Save it as PNG or JPEG and send that."


class Inputs(NamedTuple):
    """A picture as networks take it.

    Attributes:
        pixels: side of a network's input -> bytes (3, side, side).
        width, height: of the upright picture, in pixels.
    """

    pixels: dict[int, Tensor]
    width: int
    height: int


def read_picture(data: bytes, max_pixels: int, fraction: int = 1) -> Image.Image:
    """Decode an upload to RGB, upright and without metadata.

    EXIF orientation is applied, and everything becomes RGB as it did in training (`l2d.data.images.to_rgb`).

    Args:
        data: the file as it was sent.
        max_pixels: width x height above which nothing is decoded.
        fraction: decode a JPEG at 1 / fraction of its width and height.

    Raises:
        PictureFormatError: not a picture, of another format, or animated.
        PictureError: nothing there, cut off, damaged, or too small to show anything.
        TooLargeError: too many pixels.
    """
    with _opened(data, max_pixels) as image:
        shrink(image, fraction)
        # A new image of the bare pixels: nothing of the file's metadata goes further.
        return Image.fromarray(np.asarray(to_rgb(ImageOps.exif_transpose(image))))


def read_inputs(data: bytes, max_pixels: int, sizes: Iterable[int]) -> Inputs:
    """Decode an upload for networks of these input sizes, at the smallest fraction that is enough for each, as in training.

    Raises: as `read_picture`.
    """
    with _opened(data, max_pixels) as image:
        width, height = upright_size(image)
        fractions = {size: choose_fraction(image, size) for size in sizes}
    pictures = {fraction: read_picture(data, max_pixels, fraction) for fraction in set(fractions.values())}
    return Inputs({size: squash(pictures[fraction], size) for size, fraction in fractions.items()}, width, height)


class _Ration(io.BytesIO):
    """A file that can be read so much and for so long: neither shared bytes nor empty pieces without end are followed to their end."""

    def __init__(self, data: bytes):
        super().__init__(data)
        self._left, self._due = MOST_COPIES * len(data) + SPARE_BYTES, time.thread_time() + DECODE_SECONDS
        self._exif = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file.

        Raises:
            PictureError: if this is too much by now.
        """
        piece = super().read(size)
        self._left -= len(piece)
        if self._left < 0 or time.thread_time() > self._due:
            raise PictureError(f"The picture takes too much memory or time to read. {_CONVERT}")
        # A JPEG may hold them in several pieces. Pillow joins these and reads what they say before it gives the picture.
        self._exif += len(piece) if piece.startswith(b"Exif\0\0") else 0
        if self._exif > MAX_EXIF_BYTES:
            raise PictureError(_describe_exif(self._exif))
        return piece


@contextlib.contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """A picture whose header is read and accepted; whatever its decoding meets is told in a sentence."""
    if not data:
        raise PictureError("Expected the bytes of a picture; the file is empty. Choose another file.")
    try:
        file = _Ration(data)
        _check_strips(file)
        with Image.open(file, formats=FORMATS) as image:
            _check_size(image.width, image.height, max_pixels)
            _check_still(image)
            _check_exif(image)
            yield image
    except UnidentifiedImageError:
        size = f"{len(data)} byte{'s' * (len(data) > 1)}"
        raise PictureFormatError(f"Expected a picture as {_KNOWN}; this file of {size} is none of them. {_CONVERT}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow's sentence begins: Image size (123 pixels) exceeds ...
        raise TooLargeError(_too_many_pixels(str(error).split(" (")[1].split(" ")[0], max_pixels)) from None
    except PixelKindError as error:
        raise PictureFormatError(f"{error} {_CONVERT}") from None
    except RequestError:
        raise
    except Exception as error:
        # Pillow's readers meet hostile bytes with almost any exception: all of them mean that this file is damaged.
        raise PictureError(f"The picture is damaged or cut off ({type(error).__name__}: {error}). Save or send it again.") from error


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise TooLargeError(_too_many_pixels(f"{width} x {height} = {width * height}", max_pixels))
    if min(width, height) < MIN_SIDE:
        raise PictureError(f"Expected a picture of at least {MIN_SIDE} x {MIN_SIDE} pixels; got {width} x {height}. Choose a larger one.")


def _check_still(image: Image.Image) -> None:
    # MPO is what many phones write into a .jpg: a photograph, and behind it a second view or a preview. The photograph counts.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise PictureFormatError(
            f"Expected one still picture; this {image.format} holds several frames or pages. Save the one you mean as PNG or JPEG."
        )


def _check_strips(file: BinaryIO) -> None:
    """Only of a TIFF. Leaves the file at its beginning."""
    header = file.read(16)
    file.seek(0)
    if not header.startswith(tuple(TiffImagePlugin.PREFIXES)):
        return
    tags = TiffImagePlugin.ImageFileDirectory_v2(header if header[2] == BIG_TIFF else header[:8])
    file.seek(tags.next)
    tags.load(file)
    file.seek(0)
    most = max(len(tags.get(tag, ())) for tag in (ExifTags.Base.StripOffsets, TiffImagePlugin.TILEOFFSETS))
    if most > MAX_STRIPS:
        raise PictureError(f"Expected a TIFF of at most {MAX_STRIPS} strips or tiles; this one has {most}. {_CONVERT}")


def _check_exif(image: Image.Image) -> None:
    if image.format == "PNG":
        # They may stand behind the pixels, too; and as hexadecimal text.
        image.load()
    size = max(len(image.info.get("exif", b"")), len(image.info.get("Raw profile type exif", "")) // 2)
    if size > MAX_EXIF_BYTES:
        raise PictureError(_describe_exif(size))


def _describe_exif(size: int) -> str:
    return f"Expected at most {MAX_EXIF_BYTES} bytes of EXIF data; this picture has {size}. Save it without them, and send that."


def _too_many_pixels(pixels: str, max_pixels: int) -> str:
    return f"Expected at most {max_pixels} pixels; this picture has {pixels}. Scale it down and send it again."
