"""The report on a data set: every picture decoded, every doubt in a sentence."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from l2d.data.check import check_data, check_index
from l2d.data.images import Boxes, Index

Save = Callable[..., Path]
Write = Callable[[Path, str], Path]


@pytest.fixture
def index(tmp_path: Path, save_picture: Save) -> Index:
    paths = [save_picture(tmp_path / f"{number}.png", size) for number, size in enumerate([(30, 20), (10, 10), (16, 40)])]
    boxes: list[Boxes] = [{0: [(0, 0, 30, 20)]}, {1: [(2, 2, 3, 3), (5, 5, 5, 5)]}, {0: [(1, 1, 9, 9)]}]
    return Index(paths, torch.tensor([[1.0, 0], [0, 1], [1, 0]]), ("cat", "dog"), boxes)


def test_a_sound_data_set(index: Index):
    done: list[tuple[int, int]] = []
    report = check_index(index, progress=lambda *step: done.append(step))
    assert json.loads(json.dumps(report)) == {
        "pictures": 3,
        "labels": {"cat": 2, "dog": 1},
        "labels_per_picture": 1.0,
        "pictures_without_labels": 0,
        "broken": [],
        "sizes": ["10 x 10", "16 x 40"],
        "boxes": 4,
        "warnings": [],
    }
    assert done == [(1, 3), (2, 3), (3, 3)]


def test_what_a_reader_doubts_is_in_the_report(tmp_path: Path, save_picture: Save, write: Write):
    for name in ("a", "b"):
        save_picture(tmp_path / f"{name}.png")
    path = write(tmp_path / "own.csv", "file,labels,split\na.png,Cat,train\nb.png,cat,train\n")
    (doubt,) = check_data(f"csv:{path}", "train")["warnings"]
    assert "'Cat' and 'cat'" in doubt


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "gone", "pipe"])
def test_broken_pictures_are_named(index: Index, damage: str):
    path = index.paths[1]
    path.write_bytes({"truncated": path.read_bytes()[:50], "empty": b"", "text": b"<html>404</html>", "gone": b"", "pipe": b""}[damage])
    if damage in ("gone", "pipe"):
        path.unlink()
    if damage == "pipe":
        os.mkfifo(path)
    report = check_index(index)
    (broken,) = report["broken"]
    assert broken.startswith(f"{path}: ")
    assert report["warnings"] == [f"pictures that are missing or cannot be decoded: 1, the first: {broken}"]
    assert report["sizes"] == ["30 x 20", "16 x 40"]


def test_what_the_system_says_of_a_picture_stands_beside_its_name_alone(index: Index):
    path = index.paths[1].with_name("n" * 300)
    assert check_index(index._replace(paths=[index.paths[0], path, index.paths[2]]))["broken"] == [f"{path}: File name too long"]


def test_when_every_picture_is_broken_there_is_no_size(index: Index):
    for path in index.paths:
        path.write_bytes(b"")
    assert check_index(index)["sizes"] is None


def test_labels_in_no_picture_or_in_all(index: Index):
    targets = torch.tensor([[1.0, 0], [1, 0], [1, 0]])
    none, everywhere = check_index(index._replace(targets=targets))["warnings"]
    assert none == "labels in no picture, which mAP leaves out: dog"
    assert everywhere == "labels in every picture, about which nothing can be learnt: cat"
    many = tuple(f"label {number}" for number in range(1000))
    (none,) = check_index(index._replace(targets=torch.eye(3, 1000), labels=many, boxes=None))["warnings"]
    assert none.endswith(", label 21, label 22, ... (997 in all)")


def test_pictures_without_labels_or_named_twice(index: Index):
    twice = index._replace(
        paths=[index.paths[0], index.paths[1], index.paths[0]], targets=torch.tensor([[1.0, 0], [0, 1], [0, 0]]), boxes=None
    )
    report = check_index(twice)
    assert (report["pictures_without_labels"], report["boxes"]) == (1, None)
    assert report["warnings"] == [
        "pictures that show no label, and train and count as such: 1",
        f"pictures that are named more than once: 1, the first: {index.paths[0]}",
    ]


@pytest.mark.parametrize("box", [(5.0, 5.0, 9.0, 2.0), (-4.0, 0.0, 6.0, 6.0), (2.0, 2.0, 0.0, 4.0)], ids=["beyond", "before", "no area"])
def test_boxes_of_another_size_of_the_picture(index: Index, box: tuple[float, float, float, float]):
    assert index.boxes is not None
    index.boxes[1][1].append(box)
    (sentence,) = check_index(index)["warnings"]
    assert sentence == f"pictures with boxes that reach out of them: 1, the first: {index.paths[1]}"


def test_boxes_that_reach_out_by_a_pixel_are_rounding(index: Index):
    assert index.boxes is not None
    index.boxes[1][1].append((-1.0, -1.0, 12.0, 12.0))
    assert check_index(index)["warnings"] == []
