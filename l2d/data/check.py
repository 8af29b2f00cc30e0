"""What a data set on disk really holds: the function behind `l2d data check`."""

import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from l2d.data import check_splits, read_annotations
from l2d.data.files import name_some
from l2d.data.images import Box, Index, open_image
from l2d.progress import Progress

# Pictures decoded at once.
THREADS = 4
# The counts of all labels are in the report, too.
MOST_NAMED = 20

Size = tuple[int, int]


def check_data(spec: str, split: str, *, progress: Progress | None = None) -> dict[str, Any]:
    """`check_index` of a data set by name, with what its reader warned about (pictures that are not on disk) in the report."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        index = read_annotations(spec, split)
    report = check_index(index, progress=progress)
    return report | {"warnings": [str(warning.message) for warning in caught] + report["warnings"]}


def check_both(spec: str) -> None:
    """What the splits of a data set say of each other: errors and warnings as of `l2d.data.check_splits`."""
    with warnings.catch_warnings():
        # What is doubtful about this split alone is in its report.
        warnings.simplefilter("ignore")
        training = read_annotations(spec, "train")
    check_splits(spec, training)


def check_index(index: Index, *, progress: Progress | None = None) -> dict[str, Any]:
    """Decode every picture and count every label.

    Args:
        progress: called with the pictures done and the number of pictures.

    Returns:
        pictures, labels (name -> pictures that show it), labels_per_picture (mean), pictures_without_labels, broken (a sentence for
        each picture that is missing or cannot be decoded), sizes (smallest and largest width x height by area, None if none can be
        decoded), boxes (their number, or None), and warnings: sentences about what will disturb training or scores. Ready for JSON.
    """
    found: list[Size | str] = []
    with ThreadPoolExecutor(THREADS, thread_name_prefix="check") as pool:
        for size_or_fault in pool.map(_decode, index.paths):
            found.append(size_or_fault)
            if progress is not None:
                progress(len(found), len(index.paths))
    broken = [fault for fault in found if isinstance(fault, str)]
    sizes = sorted((size for size in found if not isinstance(size, str)), key=lambda size: size[0] * size[1])
    counts = {label: int(count) for label, count in zip(index.labels, index.targets.sum(0).tolist(), strict=True)}
    return {
        "pictures": len(index.paths),
        "labels": counts,
        "labels_per_picture": float(index.targets.sum(1).mean()),
        "pictures_without_labels": int((index.targets.sum(1) == 0).sum()),
        "broken": broken,
        "sizes": [f"{width} x {height}" for width, height in (sizes[0], sizes[-1])] if sizes else None,
        "boxes": None if index.boxes is None else sum(len(same) for boxes in index.boxes for same in boxes.values()),
        "warnings": list(_warn(index, counts, broken, found)),
    }


def _decode(path: Path) -> Size | str:
    """Width and height of a picture, or why there is none."""
    try:
        # Nor is a pipe, which would keep its reader waiting for ever.
        if not path.is_file():
            return f"{path}: there is no such file."
        return open_image(path).size
    except Exception as error:  # a damaged file makes decoders raise almost anything
        # The system's own errors name the file once more, and a number.
        return f"{path}: {getattr(error, 'strerror', None) or error}"


def _warn(index: Index, counts: dict[str, int], broken: list[str], found: list[Size | str]) -> Iterator[str]:
    if broken:
        yield f"pictures that are missing or cannot be decoded: {len(broken)}, the first: {broken[0]}"
    empty = [label for label, count in counts.items() if not count]
    if empty:
        yield f"labels in no picture, which mAP leaves out: {_name_most(empty)}"
    everywhere = [label for label, count in counts.items() if count == len(index.paths)]
    if everywhere:
        yield f"labels in every picture, about which nothing can be learnt: {_name_most(everywhere)}"
    unlabelled = int((index.targets.sum(1) == 0).sum())
    if unlabelled:
        yield f"pictures that show no label, and train and count as such: {unlabelled}"
    twice = [path for path, count in Counter(index.paths).items() if count > 1]
    if twice:
        yield f"pictures that are named more than once: {len(twice)}, the first: {twice[0]}"
    outside = _find_outside(index, found)
    if outside:
        yield f"pictures with boxes that reach out of them: {len(outside)}, the first: {outside[0]}"


def _name_most(labels: list[str]) -> str:
    """Labels by name, with their number where there are too many for that."""
    return name_some(labels, MOST_NAMED) + (f" ({len(labels)} in all)" if len(labels) > MOST_NAMED else "")


def _find_outside(index: Index, found: list[Size | str]) -> list[Path]:
    """Pictures with a box that lies outside by more than a pixel, or has no area: boxes of another size of the picture, mostly."""
    outside = []
    for path, boxes, size in zip(index.paths, index.boxes or [{}] * len(index.paths), found, strict=True):
        if not isinstance(size, str) and not all(_fits(box, size) for same in boxes.values() for box in same):
            outside.append(path)
    return outside


def _fits(box: Box, size: Size) -> bool:
    x, y, width, height = box
    return x >= -1 and y >= -1 and x + width <= size[0] + 1 and y + height <= size[1] + 1 and width > 0 and height > 0
