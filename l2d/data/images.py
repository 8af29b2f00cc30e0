"""Pictures between annotations and networks: the index of a data set, decoding, and batches."""

import contextlib
import functools
import logging
import os
import queue
import threading
import zlib
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from l2d import processes
from l2d.data.decoders import Pixels, StartError, count_decoders, decode_in_processes
from l2d.data.files import name_some
from l2d.device import find_free_memory
from l2d.outputs import check_tensors

logger = logging.getLogger(__name__)

# Decoded pictures are kept in memory up to this many bytes, and this share of what is free; a larger data set is decoded again in every
# epoch.
MEMORY_LIMIT, MEMORY_SHARE = 8 * 2**30, 0.5
PREFETCHED_BATCHES = 3
# What shows through a transparent picture.
BACKGROUND = (255, 255, 255)
# EXIF orientations that stand a picture on its side.
LYING = (5, 6, 7, 8)

Box = tuple[float, float, float, float]
Boxes = dict[int, list[Box]]
# Batches, then None; or what went wrong.
Ready = queue.Queue[Tensor | Exception | None]


class Index(NamedTuple):
    """What is known of a data set before any picture is opened.

    Attributes:
        paths: one file per picture.
        targets: 1 where the picture shows the label, else 0, float (N, C).
        labels: the names of the C labels, in the order of the columns.
        boxes: per picture, label index -> boxes (x, y, width, height) in pixels of that picture; None where the data set has none.
    """

    paths: list[Path]
    targets: Tensor
    labels: tuple[str, ...]
    boxes: list[Boxes] | None = None

    @property
    def checksum(self) -> int:
        """Tells these pictures and what they show from others, wherever they lie."""
        names = "\n".join(map(os.path.basename, self.paths))
        return zlib.crc32(self.targets.contiguous().numpy().data, zlib.crc32(names.encode()))

    def __repr__(self) -> str:
        """Short, as a notebook shows it."""
        boxes = "" if self.boxes is None else ", with boxes"
        return f"<Index of {len(self.paths)} pictures with {len(self.labels)} labels ({name_some(self.labels)}){boxes}>"

    def select(self, rows: Sequence[int] | Tensor | NDArray[Any]) -> "Index":
        """The same data set with only these pictures, in this order; a mask, (N,), keeps those where it is True."""
        given = rows.tolist() if isinstance(rows, Tensor | np.ndarray) else list(rows)
        chosen = np.arange(len(self.paths))[given].tolist()
        boxes = None if self.boxes is None else [self.boxes[row] for row in chosen]
        return Index([self.paths[row] for row in chosen], self.targets[chosen], self.labels, boxes)


def check_index(index: Index, maker: str = "An Index") -> None:
    """Refuse what a reader, or whoever makes an index, may give by mistake: pictures would go by the labels of others.

    Raises:
        ValueError: for targets or boxes of other pictures or labels, or targets that are no tensor.
    """
    check_tensors(index.targets)
    expected, found = (len(index.paths), len(index.labels)), tuple(index.targets.shape)
    if found != expected:
        raise ValueError(f"{maker} must give targets of shape {expected}, pictures and labels; it gives {found}.")
    if index.boxes is not None and len(index.boxes) != len(index.paths):
        raise ValueError(f"{maker} must give boxes for each of {len(index.paths)} pictures; it gives {len(index.boxes)}.")


class PixelKindError(ValueError):
    """Pixels that have no agreed range."""


class PictureError(ValueError):
    """A picture of a data set that is not there or cannot be decoded."""


def open_image(source: Path | str | BinaryIO, size: int | None = None) -> Image.Image:
    """Decode a picture as `to_rgb` does, turned upright as its EXIF data says; with `size`, no larger than its input to a network needs."""
    try:
        with Image.open(source) as image:
            if size is not None:
                shrink(image, choose_fraction(image, size))
            return to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        # Pillow's own sentence names the file alone.
        raise UnidentifiedImageError("it is damaged, or of a format that is not read here, as HEIC: save it as JPEG or PNG.") from None


def read_image(path: Path | str, size: int | None = None) -> Image.Image:
    """`open_image` of one of many files.

    Raises:
        PictureError: naming the file that is not there or cannot be decoded.
    """
    try:
        return open_image(path, size)
    except FileNotFoundError:
        raise PictureError(f"There is no picture {path}.") from None
    except Exception as error:  # Pillow's readers meet damaged files with almost any exception
        # The system's own errors name the file once more, and a number.
        reason = getattr(error, "strerror", None) or str(error).removesuffix(".")
        raise PictureError(f"{path} cannot be read as a picture: {reason}.") from error


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of a picture whose header is read, once it is turned upright as its EXIF data says."""
    # Pillow gives the size of a TIFF as it stands.
    lying = image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation) in LYING
    return (image.height, image.width) if lying else image.size


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB. Training, evaluation and serving all use this one.

    Transparency is laid on white, 16 bits become 8 by keeping the upper ones, CMYK is converted by the plain formula (embedded profiles
    are ignored).

    Raises:
        PixelKindError: for 32 bits, floating point and CIELAB.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F", "LAB"):
        raise PixelKindError(f"Pixels of the kind {image.mode!r} have no agreed range here.")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    background = Image.new("RGB", layer.size, BACKGROUND)
    background.paste(layer, mask=layer.getchannel("A"))
    return background


def choose_fraction(image: Image.Image, size: int) -> int:
    """By how much a picture may be shrunk while it is decoded for a network: JPEGs by 8, 4 or 2 if that still leaves `size` twice.

    Much faster for large photographs. Training, evaluation and serving all choose by this one.
    """
    if image.format not in ("JPEG", "MPO"):
        return 1
    return next((fraction for fraction in (8, 4, 2) if min(image.size) >= fraction * 2 * size), 1)


def shrink(image: Image.Image, fraction: int) -> None:
    """Have a JPEG that is open, but not decoded yet, decoded at 1 / fraction of its width and height."""
    image.draft(None, (image.width // fraction, image.height // fraction))


def squash(image: Image.Image, size: int) -> Tensor:
    """Resize an RGB picture to a square without cropping: bytes (3, size, size). Training, evaluation and serving all use this one.

    Raises:
        ValueError: for what is no picture of Pillow's, or one of another mode, as it opens grey, transparent and indexed ones.
    """
    if not isinstance(image, Image.Image):
        raise ValueError(f"Expected a picture of Pillow's, as read_image and Image.fromarray give one; got {type(image).__name__}.")
    if image.mode != "RGB":
        raise ValueError(f"Expected a picture in RGB; this one is in {image.mode}. read_image and to_rgb give RGB.")
    return torch.from_numpy(_resize(image, size)).permute(2, 0, 1)


def _resize(image: Image.Image, size: int) -> Pixels:
    return np.array(image.resize((size, size), Image.Resampling.BICUBIC))


def normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Bring pixels in [0, 1], (N, 3, H, W), to the scaling that a network was trained with.

    Raises:
        ValueError: for whole numbers, such as bytes.
    """
    if not pixels.is_floating_point():
        raise ValueError(f"Expected pixels in [0, 1], in floating point; got {pixels.dtype}. Bytes become such by `.float() / 255`.")
    # Without waiting for the device, as `new_tensor` would.
    shift, scale = (
        torch.tensor(values, dtype=pixels.dtype).view(1, 3, 1, 1).to(pixels.device, non_blocking=True) for values in (mean, std)
    )
    return (pixels - shift) / scale


def to_input(image: Image.Image, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """One picture in RGB, as `read_image` gives it, as a network's input, (1, 3, size, size); errors as of `squash`."""
    return normalise(squash(image, size)[None].float() / 255, mean, std)


class Pictures:
    """The pictures of an index as bytes (3, size, size), decoded side by side and, where they fit, once only.

    Args:
        keep: hold on to what was decoded; of no use when every picture is read once.
        pinned: the batches are for a GPU: give them in page-locked memory, from which it copies while it computes, and decode many
            pictures in processes, see `count_decoders`.
    """

    def __init__(self, paths: Sequence[Path], size: int, keep: bool = True, pinned: bool = False):
        self.paths, self.size, self.pinned = list(paths), size, pinned
        self.pool = ThreadPoolExecutor(processes.count_processors(), thread_name_prefix="decode")
        room = min(MEMORY_LIMIT, MEMORY_SHARE * find_free_memory() / processes.count_here())
        fits = keep and len(self.paths) * 3 * size * size <= room
        self.memory = torch.empty((len(self.paths), 3, size, size), dtype=torch.uint8) if fits else None
        self.decoded = np.zeros(len(self.paths), dtype=bool)

    def read(self, rows: Sequence[int]) -> Tensor:
        """Bytes (len(rows), 3, size, size).

        Raises:
            PictureError: naming a file that cannot be decoded.
        """
        missing = self._find_missing(rows)
        return self._collect(rows, missing, self.pool.map(self._decode, missing))

    def batches(self, order: Sequence[Sequence[int]]) -> Generator[Tensor, None, None]:
        """Read these batches ahead of their use, in a thread that ends with the iteration, also an iteration that stops early."""
        ready: Ready = queue.Queue(PREFETCHED_BATCHES)
        stop = threading.Event()
        reader = threading.Thread(target=self._fill, args=(order, ready, stop), daemon=True)
        reader.start()
        try:
            while (batch := ready.get()) is not None:
                if isinstance(batch, Exception):
                    raise batch
                yield batch
        finally:
            stop.set()
            while not ready.empty():
                ready.get_nowait()
            reader.join()

    def _fill(self, order: Sequence[Sequence[int]], ready: Ready, stop: threading.Event) -> None:
        try:
            with contextlib.closing(self._read_all(order)) as batches:
                while not stop.is_set() and (batch := next(batches, None)) is not None:
                    ready.put(batch.pin_memory() if self.pinned else batch)
            ready.put(None)
        except Exception as error:  # handed to the thread that reads
            ready.put(error)

    def _read_all(self, order: Sequence[Sequence[int]]) -> Generator[Tensor, None, None]:
        missing = [self._find_missing(rows) for rows in order]
        count = count_decoders(sum(map(len, missing))) if self.pinned else 0
        if not count:
            yield from map(self.read, order)
            return
        done = 0
        with contextlib.closing(decode_in_processes(self._decode, list(chain(*missing)), count)) as decoded:
            try:
                for rows, absent in zip(order, missing, strict=True):
                    yield self._collect(rows, absent, decoded)
                    done += 1
            except StartError as error:
                _tell_of_threads(str(error))
        yield from map(self.read, order[done:])

    def _find_missing(self, rows: Sequence[int]) -> Sequence[int]:
        return rows if self.memory is None else [row for row in rows if not self.decoded[row]]

    def _collect(self, rows: Sequence[int], missing: Sequence[int], decoded: Iterator[Pixels]) -> Tensor:
        """The batch of these rows, of which those missing are the next ones decoded."""
        pictures = map(torch.from_numpy, islice(decoded, len(missing)))
        if self.memory is None:
            return torch.stack(list(pictures))
        for row, picture in zip(missing, pictures, strict=True):
            self.memory[row] = picture
            self.decoded[row] = True
        return self.memory[list(rows)]

    def _decode(self, row: int) -> Pixels:
        # In the order of a batch's memory: whoever collects the pictures of many decoders would spend most of its time on that.
        return np.ascontiguousarray(_resize(read_image(self.paths[row], self.size), self.size).transpose(2, 0, 1))


@functools.cache
def _tell_of_threads(reason: str) -> None:
    """Once, though every epoch tries anew."""
    logger.warning("Pictures are decoded by threads, more slowly: processes for that cannot be started (%s).", reason)
