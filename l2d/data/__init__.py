"""Data sets by name: what `--data` takes, and the reader behind it."""

import functools
import os
import warnings
from collections.abc import Callable
from pathlib import Path

from l2d.data.coco import read_coco
from l2d.data.files import SPLITS, EmptySplitError, describe_differences, require_files
from l2d.data.images import Index, check_index
from l2d.data.nuswide import read_nuswide
from l2d.data.shapes import COUNT, read_shapes
from l2d.data.table import TABLE, read_table
from l2d.data.voc import read_voc

MOST_SHAPES = 1_000_000

# Readers of data sets on disk, by the word before the colon; the folder or file comes after it.
READERS: dict[str, Callable[[Path, str], Index]] = {
    "coco": read_coco,
    "coco2017": functools.partial(read_coco, year=2017),
    "voc": read_voc,
    # Without the objects that are marked difficult, which the published code counts.
    "voc-easy": functools.partial(read_voc, difficult=False),
    "nuswide": read_nuswide,
    "csv": read_table,
}

# What a data set of each kind holds below its folder; the first that is there decides.
MARKS = (
    ("coco", "annotations/instances_train2014.json"),
    ("coco2017", "annotations/instances_train2017.json"),
    ("voc", "ImageSets"),
    ("voc", "VOC2007/ImageSets"),
    ("voc", "VOCdevkit/VOC2007/ImageSets"),
    ("nuswide", "ImageList"),
    ("csv", TABLE),
)
LAYOUTS = f"annotations/instances_train2014.json or ..._train2017.json (COCO), ImageSets/ (VOC), ImageList/ (NUS-WIDE) or {TABLE} (a table)"


def find_spec(root: Path) -> str | None:
    """A folder as `read_index` takes it, by what lies in it, or a table; None if it is laid out in none of the known ways."""
    if root.suffix == ".csv" and root.is_file():
        return f"csv:{root}"
    found = ((kind, root / mark if kind == "csv" else root) for kind, mark in MARKS if (root / mark).exists())
    return next((f"{kind}:{place}" for kind, place in found), None)


def read_index(spec: str, split: str) -> Index:
    """Read a data set of which every picture must be there; none is opened.

    Args:
        spec, split: as `read_annotations` takes them.

    Raises:
        ValueError: as `read_annotations`.
        FileNotFoundError: naming what is missing; of pictures the first ones, and how many there are.
    """
    index = read_annotations(spec, split)
    require_files(index.paths, f"{spec} ({split})")
    return index


def read_annotations(spec: str, split: str) -> Index:
    """Read what a data set says of its pictures, wherever these may be.

    Args:
        spec: one of `READERS` with its place, as "coco:ROOT" or "csv:FILE"; "shapes", or "shapes:COUNT" with a number of training pictures.
        split: "train" or "test".

    Raises:
        ValueError: for an unknown kind or split, annotations that make no sense, or a reader that gives not one row for each picture.
        FileNotFoundError: if the annotations are missing.
    """
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}; the known ones are {', '.join(SPLITS)}.")
    kind, _, place = spec.partition(":")
    if kind == "shapes":
        return read_shapes(split, _parse_count(place))
    if kind not in READERS or not place:
        known = ", ".join(f"{name}:{'FILE' if name == 'csv' else 'ROOT'}" for name in READERS)
        raise ValueError(f"Expected data as {known}, shapes or shapes:COUNT; got {spec!r}.")
    # Not by pathlib, which ends with a RuntimeError where nobody has such a home: here its reader then says what is not there.
    root = Path(os.path.expanduser(place))
    try:
        index = READERS[kind](root, split)
    except FileNotFoundError as error:
        other = find_spec(root)
        # Of VOC's layout there are two kinds.
        if other in (None, f"{kind.partition('-')[0]}:{root}"):
            raise
        raise FileNotFoundError(f"{error} It looks like {other}.") from error
    if not index.paths:
        raise EmptySplitError(f"{spec} names no picture for {split}; a data set needs at least one.")
    check_index(index, f"The reader of {kind}")
    return index


def check_splits(spec: str, training: Index) -> None:
    """Refuse, before anything is trained, a data set whose test pictures could not be scored on; warn of those that are trained on, too.

    One without test pictures passes. What the program draws always has the same labels, and is not drawn for this.

    Raises:
        ValueError: naming the labels that differ; or for test annotations that make no sense.
    """
    if spec.partition(":")[0] not in READERS:
        return
    try:
        with warnings.catch_warnings():
            # What is missing is told when it is scored on.
            warnings.simplefilter("ignore")
            found = read_annotations(spec, "test")
    except (FileNotFoundError, EmptySplitError):
        return
    if differences := describe_differences(training.labels, found.labels):
        raise ValueError(
            f"The test pictures of {spec} do not have the labels of its training pictures: {differences}. Name the same labels in the same "
            "order for both."
        )
    if shared := sorted(set(training.paths) & set(found.paths)):
        warnings.warn(
            f"Pictures of {spec} that are both to train and to test on: {len(shared)}, the first: {shared[0]}. Scores on them are too "
            "good.",
            stacklevel=2,
        )


def _parse_count(text: str) -> int:
    if not text:
        return COUNT
    # That many are drawn one by one, and kept on the disk.
    if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= MOST_SHAPES:
        raise ValueError(
            f"shapes:COUNT takes a number of training pictures, at most {MOST_SHAPES:,}, for example shapes:{COUNT}; got {text!r:.40}."
        )
    return int(text)


__all__ = ["LAYOUTS", "MARKS", "READERS", "SPLITS", "Index", "check_splits", "find_spec", "read_annotations", "read_index"]
