"""One's own pictures in a CSV file."""

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from l2d.data.table import read_table

Save = Callable[..., Path]
Write = Callable[[Path, str], Path]


@pytest.fixture
def folder(tmp_path: Path, save_picture: Save) -> Path:
    for name in ("beach", "desk", "wall"):
        save_picture(tmp_path / "photos" / f"{name}.jpg")
    return tmp_path


def test_labels_of_either_separator_and_none(folder: Path, write: Write):
    path = write(
        folder / "own.csv",
        "file,labels,split\nphotos/beach.jpg,person; dog ;,train\nphotos/desk.jpg,cup|dog,test\nphotos/wall.jpg,,train\n",
    )
    train, test = read_table(path, "train"), read_table(path, "test")
    assert train.labels == test.labels == ("cup", "dog", "person")
    assert train.paths == [folder / "photos" / "beach.jpg", folder / "photos" / "wall.jpg"]
    assert train.targets.tolist() == [[0, 1, 1], [0, 0, 0]]
    assert test.targets.tolist() == [[1, 1, 0]]
    assert train.boxes is None


def test_columns_in_any_order_with_a_byte_order_mark(folder: Path):
    path = folder / "own.csv"
    path.write_bytes("\ufefflabels,note,split,file\r\nhund;Straße,x,train,photos/beach.jpg\r\n".encode())
    assert read_table(path, "train").labels == ("Straße", "hund")


def test_spaces_at_the_ends_of_columns_do_not_count(folder: Path, write: Write):
    path = write(folder / "own.csv", 'file, labels, split\nphotos/beach.jpg , "wild dog; cat", train \nphotos/desk.jpg, cat, test\n')
    train = read_table(path, "train")
    assert (train.paths, train.labels) == ([folder / "photos" / "beach.jpg"], ("cat", "wild dog"))


def test_labels_that_differ_in_case_or_spaces_alone_are_doubted_and_kept(folder: Path, write: Write):
    path = write(folder / "own.csv", "file,labels,split\nphotos/beach.jpg,Cat; hot dog,train\nphotos/wall.jpg,cat;hot  dog; Dog,train\n")
    with pytest.warns(UserWarning, match=r"own\.csv has labels .*: 'Cat' and 'cat', 'hot  dog' and 'hot dog'\. They count as different"):
        assert read_table(path, "train").labels == ("Cat", "Dog", "cat", "hot  dog", "hot dog")
    write(path, "file,labels,split\nphotos/beach.jpg,caf\u00e9,train\nphotos/wall.jpg,cafe\u0301,train\n")
    with pytest.warns(UserWarning, match=r"the coding of accents alone: 'cafe\u0301' and 'caf\u00e9'\."):
        assert len(read_table(path, "train").labels) == 2


def test_folders_may_be_separated_as_on_windows(folder: Path, save_picture: Save, write: Write):
    strange = save_picture(folder / "photos\\wall.jpg")
    path = write(folder / "own.csv", "file,labels,split\nphotos\\beach.jpg,dog,train\nphotos\\wall.jpg,,train\n")
    assert read_table(path, "train").paths == [folder / "photos" / "beach.jpg", strange]
    write(path, "file,labels,split\nphotos\\beach.jpg,dog,train\nphotos/beach.jpg,,test\n")
    with pytest.raises(ValueError, match="more than once, 1 in all"):
        read_table(path, "train")


def test_accents_may_be_coded_as_on_a_mac(folder: Path, save_picture: Save, write: Write):
    composed, apart = (unicodedata.normalize(form, "Vögel/Möwe.jpg") for form in ("NFC", "NFD"))
    for listed, lies in ((composed, apart), (apart, composed), (composed, composed[:6] + apart[7:])):
        there = save_picture(folder / lies)
        path = write(folder / "own.csv", f"file,labels,split\n{listed},gull,train\n")
        assert [found.samefile(there) for found in read_table(path, "train").paths] == [True]
        there.unlink()
    for name in (composed, apart):  # for a Mac, one and the same
        save_picture(folder / name)
    write(path, f"file,labels,split\n{composed},gull,train\n{apart},,test\n")
    with pytest.raises(ValueError, match="more than once, 1 in all"):
        read_table(path, "train")


def test_lines_of_empty_cells_do_not_count(folder: Path, write: Write):
    path = write(folder / "own.csv", ",,\nfile,labels,split\nphotos/beach.jpg,dog,train\n, ,\nphotos/wall.jpg,,train\n,,\n,,\n")
    assert read_table(path, "train").paths == [folder / "photos" / "beach.jpg", folder / "photos" / "wall.jpg"]


def test_without_a_split_column_a_stable_fifth_is_for_testing(tmp_path: Path, save_picture: Save, write: Write):
    names = [save_picture(tmp_path / f"{number}.png").name for number in range(60)]
    path = write(tmp_path / "own.csv", "file,labels\n" + "".join(f"{name},cat\n" for name in names))
    train, test = (read_table(path, split).paths for split in ("train", "test"))
    assert sorted(train + test) == sorted(tmp_path / name for name in names)
    assert 4 <= len(test) <= 20
    write(path, "file,labels\n" + "".join(f"{name},cat\n" for name in names[:30]))
    assert read_table(path, "test").paths == [one for one in test if one.name in names[:30]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("picture,tags\na.jpg,dog\n", "needs the columns file and labels .* it has picture, tags"),
        ("file;labels\nphotos/beach.jpg;dog\n", "separated by commas; it has file;labels"),
        ('file;labels\n"photos/beach.jpg";"dog"\n', "separated by commas; it has file;labels"),
        ("file,labels,labels\nphotos/beach.jpg,dog,cat\n", "once each .* it has file, labels, labels"),
        ("", "it has none"),
        ("file,labels\nphotos/beach.jpg\n", "Line 2 .* has 1 column; expected 2, as in the first line"),
        ("file,labels\nphotos/beach.jpg,dog,cat\n", "Line 2 .* 3 columns; expected 2, .* separated by ; or \\|"),
        ("file,labels\n\nphotos/beach.jpg,cat\n\n,dog\n", "Line 5 .* names no file"),
        ("file,labels,split\nphotos/beach.jpg,dog,val\n", "the split 'val'; expected train or test"),
        ("file,labels,split\nphotos/beach.jpg,dog,test\n", "no picture for train"),
        ("file,labels,split\nphotos/beach.jpg,,train\n", "names none at all"),
        (
            "file,labels,split\nphotos/beach.jpg,dog,train\nphotos/beach.jpg,cat,test\n",
            "pictures more than once, 1 in all: photos/beach.jpg",
        ),
        (
            "file,labels,split\nphotos/beach.jpg,dog,train\n./photos/beach.jpg,dog,test\n",
            "pictures more than once, 1 in all: photos/beach.jpg",
        ),
        (
            "file,labels,split\nphotos/beach.jpg,dog,train\nx/../photos/beach.jpg,dog,test\n",
            "pictures more than once, 1 in all: photos/beach.jpg",
        ),
        ('file,labels\nphotos/desk.jpg,dog\n"photos/beach.jpg,dog\n\n', "not a CSV file after its line 2: "),
        ('file,labels,split\nphotos/beach.jpg,"dog, cat",train\n', "a comma, 'dog, cat': separate the labels of a picture by ; or |"),
        (
            'file,labels,split\nphotos/beach.jpg,"dog\ncat",train\n',
            r"a line break, 'dog\\ncat': separate the labels of a picture by ; or |",
        ),
    ],
)
def test_nonsense_is_refused_in_words(folder: Path, write: Write, text: str, sentence: str):
    path = write(folder / "own.csv", text)
    with pytest.raises(ValueError, match=sentence):
        read_table(path, "train")


def test_a_picture_is_the_same_by_its_absolute_path(folder: Path, write: Write):
    path = write(folder / "own.csv", f"file,labels,split\nphotos/beach.jpg,dog,train\n{folder}/photos/beach.jpg,dog,test\n")
    with pytest.raises(ValueError, match=r"pictures more than once, 1 in all: photos/beach\.jpg"):
        read_table(path, "train")


def test_another_encoding_is_refused(folder: Path):
    path = folder / "own.csv"
    path.write_bytes("file,labels\nphotos/beach.jpg,Straße\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not in UTF-8; save it so"):
        read_table(path, "train")


def test_a_missing_table_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no .*own\.csv"):
        read_table(tmp_path / "own.csv", "train")


def test_neither_a_pipe_nor_a_device_is_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "device.csv").symlink_to("/dev/zero")
    for name in ("pipe.csv", "device.csv"):
        with pytest.raises(FileNotFoundError, match=f"There is no file .*{name}"):
            read_table(tmp_path / name, "train")
