"""Untrusted bytes to pixels: what is not a still picture of reasonable size is refused with a sentence."""

import contextlib
import io
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from app.errors import PictureError, PictureFormatError, RequestError, TooLargeError
from l2d.data.images import PixelKindError, choose_fraction, shrink, squash, to_rgb, upright_size

# What is decoded, by Pillow's name.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MIN_SIDE = 8

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


@contextlib.contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """A picture whose header is read and accepted; whatever its decoding meets is told in a sentence."""
    if not data:
        raise PictureError("Expected the bytes of a picture; the file is empty. Choose another file.")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image.width, image.height, max_pixels)
            _check_still(image)
            yield image
    except UnidentifiedImageError:
        raise PictureFormatError(f"Expected a picture as {_KNOWN}; these {len(data)} bytes are none of them. {_CONVERT}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
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


def _too_many_pixels(pixels: str, max_pixels: int) -> str:
    return f"Expected at most {max_pixels} pixels; this picture has {pixels}. Scale it down and send it again."
