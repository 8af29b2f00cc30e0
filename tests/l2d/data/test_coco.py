"""MS-COCO: official form, without boxes, and every way in which a download can be wrong."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from l2d.data.coco import read_coco

Save = Callable[..., Path]
CATEGORIES = [{"id": 7, "name": "train"}, {"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}]


def describe(boxes: bool = True) -> dict[str, Any]:
    """Annotations of three pictures: two labels, one label as an object and two as crowds, none."""
    annotations: list[dict[str, Any]] = [
        {"id": 1, "image_id": 11, "category_id": 1, "bbox": [1, 2, 3.5, 4], "iscrowd": 0},
        {"id": 2, "image_id": 11, "category_id": 7, "bbox": [0, 0, 5, 5], "iscrowd": 0},
        {"id": 3, "image_id": 5, "category_id": 90, "bbox": [2, 2, 2, 2], "iscrowd": 0},
        {"id": 4, "image_id": 5, "category_id": 90, "bbox": [4, 4, 2, 2], "iscrowd": 1},
        {"id": 5, "image_id": 5, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    ]
    if not boxes:
        annotations = [{key: entry[key] for key in ("id", "image_id", "category_id")} for entry in annotations]
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in (11, 5, 8)]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


def make_tree(root: Path, content: object, save_picture: Save, split: str = "train2014") -> Path:
    source = root / "annotations" / f"instances_{split}.json"
    source.parent.mkdir(parents=True)
    source.write_text(json.dumps(content))
    for number in (11, 5, 8):
        save_picture(root / split / f"{number}.jpg")
    return root


@pytest.mark.parametrize(("split", "folder"), [("train", "train2014"), ("test", "val2014")])
def test_labels_targets_and_boxes(tmp_path: Path, save_picture: Save, split: str, folder: str):
    index = read_coco(make_tree(tmp_path, describe(), save_picture, folder), split)
    assert index.labels == ("person", "train", "toothbrush")
    assert index.paths == [tmp_path / folder / f"{number}.jpg" for number in (11, 5, 8)]
    assert index.targets.tolist() == [[1, 1, 0], [1, 0, 1], [0, 0, 0]]
    assert index.boxes == [{0: [(1, 2, 3.5, 4)], 1: [(0, 0, 5, 5)]}, {2: [(2, 2, 2, 2)]}, {}]


@pytest.mark.parametrize("crowd_box", [None, [4, 4, 2, 2]])
def test_boxes_of_all_objects_or_of_none_whatever_crowds_have(tmp_path: Path, save_picture: Save, crowd_box: object):
    content = describe()
    for entry in content["annotations"]:
        entry["bbox"] = crowd_box if entry["iscrowd"] else entry["bbox"]
    boxes = read_coco(make_tree(tmp_path / "boxes", content, save_picture), "train").boxes
    assert boxes is not None
    assert boxes[1] == {2: [(2, 2, 2, 2)]}
    for entry in content["annotations"]:
        entry["bbox"] = crowd_box if entry["iscrowd"] else None
    assert read_coco(make_tree(tmp_path / "none", content, save_picture), "train").boxes is None


def test_annotations_without_boxes(tmp_path: Path, save_picture: Save):
    index = read_coco(make_tree(tmp_path, describe(boxes=False), save_picture), "train")
    assert index.boxes is None
    assert index.targets.sum() == 4


def test_accents_may_be_coded_as_on_a_mac(tmp_path: Path, save_picture: Save):
    content, there = describe(), save_picture(tmp_path / "train2014" / "Mo\u0308we.jpg")
    content["images"][1]["file_name"] = "M\u00f6we.jpg"
    assert read_coco(make_tree(tmp_path, content, save_picture), "train").paths[1].samefile(there)


@pytest.mark.parametrize("nothing", [None, []])
def test_an_empty_box_is_none(tmp_path: Path, save_picture: Save, nothing: object):
    content = describe(boxes=False)
    content["annotations"] = [entry | {"bbox": nothing} for entry in content["annotations"]]
    assert read_coco(make_tree(tmp_path, content, save_picture), "train").boxes is None


def test_pictures_without_any_annotation_at_all(tmp_path: Path, save_picture: Save):
    index = read_coco(make_tree(tmp_path, describe() | {"annotations": []}, save_picture), "train")
    assert not index.targets.any()
    assert index.boxes is None


def test_outlines_of_objects_take_no_memory(tmp_path: Path, save_picture: Save):
    content = describe()
    content["annotations"] = [entry | {"segmentation": [[0.25] * 1000]} for entry in content["annotations"] * 40]
    root = make_tree(tmp_path, content, save_picture)
    tracemalloc.start()
    try:
        read_coco(root, "train")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The file, and its text.
    assert peak < 2.5 * (root / "annotations" / "instances_train2014.json").stat().st_size


def test_no_picture_is_opened(tmp_path: Path, save_picture: Save):
    make_tree(tmp_path, describe(), save_picture)
    (tmp_path / "train2014" / "5.jpg").write_bytes(b"")
    assert len(read_coco(tmp_path, "train").paths) == 3


def test_missing_annotations_say_what_was_expected(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no .*instances_val2014\.json.*annotations/ beside the folder val2014/"):
        read_coco(tmp_path, "test")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"annotations": [{"id": 1, "image_id": 99, "category_id": 1}]}, "annotations with an unknown image_id, 1 in all: 99"),
        ({"annotations": [{"id": 1, "image_id": 5, "category_id": 2}]}, "annotations with an unknown category_id, 1 in all: 2"),
        ({"annotations": [*describe()["annotations"], {"image_id": 5, "category_id": 1}]}, "for 3 of its 4 annotations, crowds aside"),
        ({"categories": [*CATEGORIES, {"id": 2, "name": "person"}]}, "names person more than once"),
        ({"categories": [*CATEGORIES, {"id": 7, "name": "tram"}]}, "the same id"),
        ({"categories": [], "annotations": []}, "names none at all"),
        ({"categories": [{"name": "person"}]}, r"expected a list 'categories' of objects with id \(a whole number\) and name \(a text\)"),
        (
            {"categories": [{"id": 1, "name": "a"}, {"id": "2", "name": "b"}]},
            "expected a list 'categories' .*; got {'id': '2', 'name': 'b'}",
        ),
        ({"categories": [{"id": [1], "name": "a"}]}, "expected a list 'categories'"),
        ({"images": [{"id": 5, "file_name": None}]}, "expected a list 'images'"),
        ({"annotations": [{"image_id": 5, "category_id": None}]}, "expected a list 'annotations'"),
        ({"annotations": [{"image_id": 5, "category_id": 1, "bbox": [1, 2]}]}, r"not four numbers .*: \[1, 2\]"),
        ({"annotations": [{"image_id": 5, "category_id": 1, "bbox": [1, 2, "3", 4]}]}, "not four numbers"),
        ({"annotations": [{"image_id": 5, "category_id": 1, "bbox": [1, 2, float("nan"), 4]}]}, "not four numbers"),
        ({"annotations": [{"image_id": 5, "category_id": 1, "bbox": {"x": 1}}]}, "not four numbers"),
        ({"images": "none"}, "expected a list 'images' .*; got 'none'"),
        ({"annotations": [5]}, "expected a list 'annotations' of objects"),
    ],
)
def test_nonsense_is_refused_in_words(tmp_path: Path, save_picture: Save, change: dict[str, Any], sentence: str):
    make_tree(tmp_path, describe() | change, save_picture)
    with pytest.raises(ValueError, match=sentence):
        read_coco(tmp_path, "train")


def test_categories_that_differ_in_spaces_alone_are_doubted(tmp_path: Path, save_picture: Save):
    make_tree(tmp_path, describe() | {"categories": [*CATEGORIES, {"id": 2, "name": "person "}]}, save_picture)
    with pytest.warns(UserWarning, match=r"instances_train2014\.json has labels .*: 'person' and 'person '"):
        read_coco(tmp_path, "train")


def test_other_json_is_refused(tmp_path: Path, save_picture: Save):
    make_tree(tmp_path, [1, 2], save_picture)
    with pytest.raises(ValueError, match="not in COCO's form"):
        read_coco(tmp_path, "train")


def test_truncated_annotations_are_refused(tmp_path: Path, save_picture: Save):
    source = make_tree(tmp_path, describe(), save_picture) / "annotations" / "instances_train2014.json"
    for text in (source.read_text()[:-20], "[" * 100_000):
        source.write_text(text)
        with pytest.raises(ValueError, match="not valid JSON"):
            read_coco(tmp_path, "train")
