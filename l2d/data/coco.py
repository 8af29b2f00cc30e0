"""MS-COCO 2014 and 2017, as the official downloads lie on disk."""

import json
import math
from pathlib import Path
from typing import Any

import torch

from l2d.data.files import find_spelled, name_some, require_annotations, require_labels, require_split
from l2d.data.images import Boxes, Index

PARTS = {"train": "train", "test": "val"}
# What the entries of each list must have, and of which kind.
NEEDED: dict[str, dict[str, type]] = {
    "images": {"id": int, "file_name": str},
    "annotations": {"image_id": int, "category_id": int},
    "categories": {"id": int, "name": str},
}
KINDS = {int: "a whole number", str: "a text"}


def read_coco(root: Path, split: str, year: int = 2014) -> Index:
    """Read ROOT/annotations/instances_{train,val}2014.json; the pictures lie in ROOT/train2014 and ROOT/val2014.

    The labels are the file's categories in the order of their ids, so the official files give the usual 80. A picture shows a label
    if any annotation says so, crowds (`iscrowd`: 1) included. The box of a crowd is left out: it covers much that is not the label,
    and COCO's own evaluation ignores it. So a label may be present without a box. Boxes are None if no other annotation has one. No
    picture is opened.

    Source: Lin et al., "Microsoft COCO" (ECCV 2014); train2014 to train and val2014 to test, as in L2D. The release of 2017 has the same
    pictures, most of val2014 among those to train on: scores on both do not compare. The authors' lists hold the
    annotated pictures alone; a picture without any annotation (some in the official download) is kept here, with zero targets.

    Args:
        root: the folder that holds `annotations`.
        split: "train" or "test".
        year: of the release, which the names of files and folders end in.

    Raises:
        FileNotFoundError: if the annotations are missing.
        ValueError: for an unknown split, a file in another form, or annotations of unknown pictures or categories.
    """
    require_split(split, "COCO")
    folder = f"{PARTS[split]}{year}"
    source = root / "annotations" / f"instances_{folder}.json"
    require_annotations(source, f"COCO's layout: {source.name} in annotations/ beside the folder {folder}/ with the pictures")
    content = _parse(source)
    categories = sorted(content["categories"], key=lambda category: category["id"])
    labels = require_labels([category["name"] for category in categories], source)
    columns = {category["id"]: column for column, category in enumerate(categories)}
    rows = {image["id"]: row for row, image in enumerate(content["images"])}
    _check_ids(content, rows, columns, source)
    paths = list(map(Path, find_spelled(root / folder, [image["file_name"] for image in content["images"]])))

    targets = torch.zeros(len(paths), len(labels))
    pairs = [(rows[annotation["image_id"]], columns[annotation["category_id"]]) for annotation in content["annotations"]]
    if pairs:
        targets[tuple(torch.tensor(pairs).T)] = 1.0
    return Index(paths, targets, labels, _read_boxes(content["annotations"], pairs, len(paths), source))


def _parse(source: Path) -> dict[str, Any]:
    try:
        content = json.loads(source.read_bytes(), object_hook=_drop_outlines)
    except (ValueError, RecursionError) as error:  # the latter of lists within lists without end
        raise ValueError(f"{source} is not valid JSON (cut off while downloading?): {error}.") from error
    for part, kinds in NEEDED.items():
        entries = content.get(part) if isinstance(content, dict) else None
        wrong = next((entry for entry in entries if not _has(entry, kinds)), kinds) if isinstance(entries, list) else entries
        if wrong is not kinds:
            wanted = " and ".join(f"{key} ({KINDS[kind]})" for key, kind in kinds.items())
            raise ValueError(f"{source} is not in COCO's form: expected a list {part!r} of objects with {wanted}; got {wrong!r:.80}.")
    return content


def _drop_outlines(entry: dict[str, Any]) -> dict[str, Any]:
    # Most of the official files, and several times as large in memory. What is read at one go would also hold up a server's other threads.
    entry.pop("segmentation", None)
    return entry


def _has(entry: Any, kinds: dict[str, type]) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(key), kind) for key, kind in kinds.items())


def _is_finite(number: Any) -> bool:
    return isinstance(number, int | float) and math.isfinite(number)


def _check_ids(content: dict[str, Any], rows: dict[int, int], columns: dict[int, int], source: Path) -> None:
    if len(rows) < len(content["images"]) or len(columns) < len(content["categories"]):
        raise ValueError(f"{source} gives two pictures or two categories the same id.")
    for key, known in (("image_id", rows), ("category_id", columns)):
        unknown = [annotation[key] for annotation in content["annotations"] if annotation[key] not in known]
        if unknown:
            raise ValueError(f"{source} has annotations with an unknown {key}, {len(unknown)} in all: {name_some(unknown)}.")


def _read_boxes(annotations: list[dict[str, Any]], pairs: list[tuple[int, int]], count: int, source: Path) -> list[Boxes] | None:
    # Some programs write null, or an empty list, where they have no box.
    objects = [(entry.get("bbox"), pair) for entry, pair in zip(annotations, pairs, strict=True) if entry.get("iscrowd") != 1]
    found = [(box, pair) for box, pair in objects if box]
    if not found:
        return None
    if len(found) < len(objects):
        raise ValueError(f"{source} has boxes for {len(found)} of its {len(objects)} annotations, crowds aside; expected all or none.")
    boxes: list[Boxes] = [{} for _ in range(count)]
    for box, (row, column) in found:
        if not isinstance(box, list) or len(box) != 4 or not all(_is_finite(number) for number in box):
            raise ValueError(f"{source} has a bbox that is not four numbers (x, y, width, height): {box!r:.80}.")
        x, y, width, height = map(float, box)
        boxes[row].setdefault(column, []).append((x, y, width, height))
    return boxes
