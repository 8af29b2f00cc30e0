"""NUS-WIDE: both layouts, Windows separators, and pictures that are gone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from l2d.data import read_index
from l2d.data.nuswide import read_nuswide

Save = Callable[..., Path]
Write = Callable[[Path, str], Path]


@pytest.fixture
def root(tmp_path: Path, save_picture: Save, write: Write) -> Path:
    write(tmp_path / "ImageList" / "TrainImagelist.txt", "actor\\0001_21.jpg\r\nzoo\\0002_34.jpg\r\nzoo\\0003_55.jpg\r\n")
    write(tmp_path / "Concepts81.txt", "airport\nsky\n")
    write(tmp_path / "TrainTestLabels" / "Labels_airport_Train.txt", "1\n0\n0\n")
    write(tmp_path / "TrainTestLabels" / "Labels_sky_Train.txt", "1\n1\n0\n")
    for name in ("actor/0001_21.jpg", "zoo/0002_34.jpg", "zoo/0003_55.jpg"):
        save_picture(tmp_path / "Flickr" / name)
    return tmp_path


def test_windows_separators_and_pictures_without_concepts(root: Path):
    index = read_nuswide(root, "train")
    assert index.paths == [root / "Flickr" / name for name in ("actor/0001_21.jpg", "zoo/0002_34.jpg", "zoo/0003_55.jpg")]
    assert index.targets.tolist() == [[1, 1], [0, 1], [0, 0]]
    assert index.labels == ("airport", "sky")
    assert index.boxes is None


def test_layout_of_the_official_archives(root: Path):
    (root / "Groundtruth").mkdir()
    (root / "TrainTestLabels").rename(root / "Groundtruth" / "TrainTestLabels")
    (root / "ConceptsList").mkdir()
    (root / "Concepts81.txt").rename(root / "ConceptsList" / "Concepts81.txt")
    (root / "Flickr").rename(root / "images")
    assert read_nuswide(root, "train").paths[0] == root / "images" / "actor" / "0001_21.jpg"


def test_pictures_that_are_gone_are_counted_and_left_out(root: Path):
    (root / "Flickr" / "zoo" / "0002_34.jpg").unlink()
    with pytest.warns(UserWarning, match=r"left out, 1 of 3: .*0002_34\.jpg"):
        index = read_nuswide(root, "train")
    assert [path.name for path in index.paths] == ["0001_21.jpg", "0003_55.jpg"]
    assert index.targets.tolist() == [[1, 1], [0, 0]]


def test_no_picture_at_all_is_an_error(root: Path):
    (root / "Flickr").rename(root / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"No picture named in .*, of 3 in all"):
        read_nuswide(root, "train")


def test_an_empty_list_is_an_error(root: Path, write: Write):
    for name in ("ImageList/TrainImagelist.txt", *(f"TrainTestLabels/{path.name}" for path in (root / "TrainTestLabels").glob("*Train*"))):
        write(root / name, "")
    with pytest.raises(ValueError, match="names no picture"):
        read_index(f"nuswide:{root}", "train")


@pytest.mark.parametrize("name", ["ImageList/TrainImagelist.txt", "Concepts81.txt", "TrainTestLabels/Labels_sky_Train.txt"])
def test_a_missing_list_is_named(root: Path, name: str):
    (root / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"There is no .*{Path(name).name}"):
        read_nuswide(root, "train")


@pytest.mark.parametrize(("text", "sentence"), [("1\n0\n", "2 labels for 3 pictures"), ("1\n0\n-1\n", "also holds '-1'")])
def test_wrong_labels_are_refused(root: Path, write: Write, text: str, sentence: str):
    write(root / "TrainTestLabels" / "Labels_sky_Train.txt", text)
    with pytest.raises(ValueError, match=sentence):
        read_nuswide(root, "train")
