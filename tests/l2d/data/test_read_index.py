"""Data sets by name."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from l2d.data import READERS, Index, check_splits, find_spec, read_annotations, read_index
from l2d.data.files import find_missing, name_some, read_lines
from l2d.data.shapes import read_shapes

Save = Callable[..., Path]
Write = Callable[[Path, str], Path]


def test_the_word_before_the_colon_chooses_the_reader(tmp_path: Path, save_picture: Save, write: Write):
    write(tmp_path / "own.csv", "file,labels,split\na.png,dog,train\n")
    save_picture(tmp_path / "a.png")
    assert read_index(f"csv:{tmp_path / 'own.csv'}", "train").labels == ("dog",)
    for kind in READERS:
        with pytest.raises(FileNotFoundError, match=r"There is no .*gone"):
            read_index(f"{kind}:{tmp_path / 'gone'}", "train")


def test_the_releases_of_coco_are_told_apart(tmp_path: Path, save_picture: Save, write: Write):
    content = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    write(tmp_path / "annotations" / "instances_train2017.json", json.dumps(content))
    save_picture(tmp_path / "train2017" / "1.jpg")
    assert find_spec(tmp_path) == f"coco2017:{tmp_path}"
    assert read_index(f"coco2017:{tmp_path}", "train").paths == [tmp_path / "train2017" / "1.jpg"]
    with pytest.raises(FileNotFoundError, match=r"instances_val2017\.json in annotations/ beside the folder val2017/"):
        read_index(f"coco2017:{tmp_path}", "test")
    with pytest.raises(FileNotFoundError, match=rf"instances_train2014\.json .* It looks like coco2017:{tmp_path}\.$"):
        read_index(f"coco:{tmp_path}", "train")
    write(tmp_path / "annotations" / "instances_train2014.json", json.dumps(content))
    assert find_spec(tmp_path) == f"coco:{tmp_path}"


def test_home_folders_are_found(tmp_path: Path, save_picture: Save, write: Write, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "own.csv", "file,labels,split\na.png,dog,train\n")
    save_picture(tmp_path / "a.png")
    assert read_index("csv:~/own.csv", "train").paths == [tmp_path / "a.png"]
    with pytest.raises(FileNotFoundError, match=r"There is no file ~nobody-of-that-name/own\.csv"):
        read_index("csv:~nobody-of-that-name/own.csv", "train")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"targets": torch.zeros(4, 3)},
            r"The reader of own must give targets of shape \(2, 3\), pictures and labels; it gives \(4, 3\)\.",
        ),
        ({"targets": torch.zeros(3, 2)}, r"it gives \(3, 2\)"),
        ({"boxes": [{}]}, "The reader of own must give boxes for each of 2 pictures; it gives 1"),
    ],
)
def test_a_reader_that_mixes_up_its_rows_is_refused(monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], sentence: str):
    index = Index([Path("a.png"), Path("b.png")], torch.zeros(2, 3), ("cat", "cow", "dog"))
    monkeypatch.setitem(READERS, "own", lambda root, split: index._replace(**given))
    with pytest.raises(ValueError, match=sentence):
        read_annotations("own:here", "train")


def test_shapes_take_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("L2D_CACHE", str(tmp_path))
    assert len(read_index("shapes:7", "train").paths) == 7
    assert len(read_index("shapes:7", "test").paths) == 2


@pytest.mark.parametrize("spec", ["", "coco", "coco:", "imagenet:/data", "/data/coco"])
def test_another_name_lists_the_known_ones(spec: str):
    with pytest.raises(ValueError, match=r"coco:ROOT, .*csv:FILE, .*shapes or shapes:COUNT; got"):
        read_index(spec, "train")


@pytest.mark.parametrize("count", ["0", "-3", "many", "1.5", "1000001", "9" * 5000])
def test_shapes_refuse_another_count(count: str):
    with pytest.raises(ValueError, match="number of training pictures"):
        read_index(f"shapes:{count}", "train")


def test_an_unknown_split_lists_the_known_ones(tmp_path: Path):
    with pytest.raises(ValueError, match=r"'val'; the known ones are train, test\."):
        read_index("shapes:1", "val")
    for read in READERS.values():
        with pytest.raises(ValueError, match=r"'val' of (a table|[A-Z][\w-]+); the known ones are train, test\."):
            read(tmp_path, "val")
    with pytest.raises(ValueError, match=r"'val' of shapes; the known ones are train, test\."):
        read_shapes("val")


def test_missing_pictures_are_counted_and_named(tmp_path: Path, save_picture: Save, write: Write):
    table = write(tmp_path / "own.csv", "file,labels,split\na.png,dog,train\nb.png,dog,train\nc/d.png,dog,train\n")
    save_picture(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match=r"Files named in csv:.*own\.csv \(train\) are missing, 2 of 3: .*b\.png, .*d\.png\."):
        read_index(f"csv:{table}", "train")
    assert len(read_annotations(f"csv:{table}", "train").paths) == 3


def test_a_data_set_without_a_picture_is_refused(tmp_path: Path, write: Write):
    empty = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "dog"}]}
    write(tmp_path / "annotations" / "instances_train2014.json", json.dumps(empty))
    with pytest.raises(ValueError, match=r"coco:.* names no picture for train"):
        read_annotations(f"coco:{tmp_path}", "train")


def write_coco(root: Path, write: Write, split: str, *labels: str, images: int = 1) -> None:
    categories = [{"id": number, "name": label} for number, label in enumerate(labels)]
    pictures = [{"id": number, "file_name": f"{number}.png"} for number in range(images)]
    content = {"images": pictures, "annotations": [], "categories": categories}
    write(root / "annotations" / f"instances_{split}2014.json", json.dumps(content))


def make_training(*labels: str, paths: Sequence[Path] = ()) -> Index:
    return Index(list(paths), torch.zeros(len(paths), len(labels)), labels)


def test_pictures_of_both_splits_are_counted(tmp_path: Path, write: Write):
    write_coco(tmp_path, write, "val", "cat", images=3)
    shared = [tmp_path / "val2014" / f"{number}.png" for number in (2, 1)]
    with pytest.warns(UserWarning, match=r"both to train and to test on: 2, the first: .*1\.png\."):
        check_splits(f"coco:{tmp_path}", make_training("cat", paths=[tmp_path / "0.png", *shared]))


def test_test_pictures_of_other_labels_are_refused(tmp_path: Path, write: Write):
    spec = f"coco:{tmp_path}"
    write_coco(tmp_path, write, "val", "cat", "dog", "cow")
    check_splits(spec, make_training("cat", "dog", "cow"))
    sentence = rf"The test pictures of {spec} do not have .* training pictures: 1 unknown \(cow\), 2 missing \(fox, hen\)\."
    with pytest.raises(ValueError, match=sentence):
        check_splits(spec, make_training("cat", "dog", "fox", "hen"))
    with pytest.raises(ValueError, match=r"the same labels in another order \(dog, cat\)"):
        check_splits(spec, make_training("dog", "cat", "cow"))


def test_a_data_set_without_test_pictures_passes(tmp_path: Path, write: Write):
    check_splits(f"coco:{tmp_path}", make_training("dog"))
    write_coco(tmp_path, write, "val", "cat", images=0)
    check_splits(f"coco:{tmp_path}", make_training("dog"))
    table = write(tmp_path / "own.csv", "file,labels,split\na.png,dog,train\n")
    check_splits(f"csv:{table}", make_training("dog"))


def test_nothing_is_drawn_to_know_the_labels_of_drawn_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("L2D_CACHE", str(tmp_path / "cache"))
    check_splits("shapes:8", read_index("shapes:8", "train"))
    assert [path.name for path in tmp_path.glob("cache/*/*")] == ["train"]


def test_pictures_that_are_missing_for_testing_are_not_told_before_they_are_needed(tmp_path: Path, save_picture: Save, write: Write):
    write(tmp_path / "ImageList" / "TestImagelist.txt", "a.jpg\ngone.jpg\n")
    write(tmp_path / "Concepts81.txt", "sky\n")
    write(tmp_path / "TrainTestLabels" / "Labels_sky_Test.txt", "1\n0\n")
    save_picture(tmp_path / "Flickr" / "a.jpg")
    check_splits(f"nuswide:{tmp_path}", make_training("sky"))


def test_missing_files_keep_their_order(tmp_path: Path, save_picture: Save):
    there = save_picture(tmp_path / "a" / "1.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    gone = [tmp_path / "b" / "2.png", tmp_path / "a" / "3.png", tmp_path / "folder.png", tmp_path / "loop.png", there / "4.png"]
    assert find_missing([gone[0], there, *gone[1:]]) == gone


def test_a_file_is_there_by_another_spelling_than_its_folder_lists_where_the_system_says_so(
    tmp_path: Path, save_picture: Save, monkeypatch: pytest.MonkeyPatch
):
    there = save_picture(tmp_path / "img_1.png")
    monkeypatch.setattr("l2d.data.files._list_files", lambda folder: {"IMG_1.PNG"})
    # The system is not asked for what no spelling leads to: many thousands may be missing, on another host.
    gone = [tmp_path / "img_2.png", save_picture(tmp_path / "img_3.png")]
    assert find_missing([gone[0], there, gone[1]]) == gone


def test_a_list_in_another_encoding_is_named(tmp_path: Path):
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf one \r\n\n two\n")
    assert read_lines(tmp_path / "list.txt") == ["one", "two"]
    (tmp_path / "list.txt").write_bytes("Vögel".encode("latin-1"))
    with pytest.raises(ValueError, match=r"list\.txt is not a text in UTF-8"):
        read_lines(tmp_path / "list.txt")


def test_long_lists_are_shortened():
    assert name_some([1, 2, 3]) == "1, 2, 3"
    assert name_some([1, 2, 3, 4]) == "1, 2, 3, ..."
