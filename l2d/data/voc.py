"""PASCAL VOC 2007, as the official archives unpack."""

import math
from pathlib import Path
from xml.etree import ElementTree

import torch

from l2d.data.files import read_lines, require_annotations, require_files, require_split
from l2d.data.images import Box, Boxes, Index

LABELS = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
SETS = {"train": "trainval", "test": "test"}
# Where the folder with the annotations lies below what people give as root.
NESTED = ("", "VOC2007", "VOCdevkit/VOC2007")


def read_voc(root: Path, split: str, difficult: bool = True) -> Index:
    """Read ImageSets/Main, Annotations and the names in JPEGImages; trainval is the train split, test the test split.

    The labels are VOC's 20 in alphabetical order, whether or not they occur. No picture is opened.

    Source: Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge" (IJCV 2010). L2D's published code counts objects
    marked `difficult` as positive: hence the default. VOC's own evaluation judges no picture by them; here, left out, they are absent.

    Args:
        root: VOC2007, or VOCdevkit, or the folder that holds it.
        split: "train" or "test".
        difficult: whether objects marked difficult count, as labels and as boxes.

    Raises:
        FileNotFoundError: if a list or an annotation is missing, by name.
        ValueError: for an unknown split, a file that is not VOC's XML, an object without a box, or a label that VOC does not have.
    """
    require_split(split, "VOC")
    folder = next((root / name for name in NESTED if (root / name / "ImageSets").is_dir()), root)
    source = folder / "ImageSets" / "Main" / f"{SETS[split]}.txt"
    require_annotations(source, "VOC's layout: ImageSets/Main/, Annotations/ and JPEGImages/ below VOC2007")
    names = [line.split()[0] for line in read_lines(source)]
    paths = [folder / "JPEGImages" / f"{name}.jpg" for name in names]
    annotations = [folder / "Annotations" / f"{name}.xml" for name in names]
    require_files(annotations, source)

    boxes = [_read_objects(path, difficult) for path in annotations]
    targets = torch.zeros(len(paths), len(LABELS))
    for row, found in enumerate(boxes):
        targets[row, list(found)] = 1.0
    return Index(paths, targets, LABELS, boxes)


def _read_objects(path: Path, difficult: bool) -> Boxes:
    """Label index -> boxes of one picture."""
    boxes: Boxes = {}
    try:
        for thing in ElementTree.parse(path).iter("object"):
            if difficult or thing.findtext("difficult", "0").strip() != "1":
                name = thing.findtext("name", "").strip()
                if name not in LABELS:
                    raise ValueError(f"{name!r} is none of its {len(LABELS)} labels; data with others can be read as coco: or csv:")
                boxes.setdefault(LABELS.index(name), []).append(_read_box(thing))
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{path} is not an annotation of VOC: {error}.") from error
    return boxes


def _read_box(thing: ElementTree.Element) -> Box:
    """VOC's corners count pixels from 1 and belong to the box."""
    corners = {corner: thing.findtext(f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")}
    absent = [corner for corner, text in corners.items() if text is None]
    if absent:
        raise ValueError(f"an object has no {' and no '.join(absent)} in a bndbox")
    left, top, right, bottom = (float(text or "") for text in corners.values())
    if not all(map(math.isfinite, (left, top, right, bottom))):
        raise ValueError(f"an object has a bndbox that is not four numbers: {', '.join(map(str, corners.values()))}")
    return left - 1, top - 1, right - left + 1, bottom - top + 1
