"""PASCAL VOC 2007: lists, XML, difficult objects, and files that are wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest

from l2d.data import read_index
from l2d.data.voc import LABELS, read_voc

Save = Callable[..., Path]
Write = Callable[[Path, str], Path]

OBJECT = """<object><name>{name}</name><pose>Left</pose><truncated>0</truncated><difficult>{difficult}</difficult>
<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"""


def describe(*objects: tuple[str, int, tuple[int, int, int, int]]) -> str:
    things = "".join(OBJECT.format(name=name, difficult=difficult, box=box) for name, difficult, box in objects)
    return f"<annotation><filename>x.jpg</filename><size><width>12</width><height>8</height></size>{things}</annotation>"


@pytest.fixture
def root(tmp_path: Path, save_picture: Save, write: Write) -> Path:
    folder = tmp_path / "VOCdevkit" / "VOC2007"
    for name in ("000005", "000007", "000012"):
        save_picture(folder / "JPEGImages" / f"{name}.jpg")
    write(folder / "ImageSets" / "Main" / "trainval.txt", "000005\n000007\n")
    write(folder / "ImageSets" / "Main" / "test.txt", "000012\n")
    write(folder / "Annotations" / "000005.xml", describe(("dog", 0, (1, 1, 12, 8)), ("person", 1, (2, 3, 4, 5)), ("dog", 1, (3, 3, 5, 6))))
    write(folder / "Annotations" / "000007.xml", describe(("\n  tvmonitor\n", 0, (5, 5, 5, 5))))
    write(folder / "Annotations" / "000012.xml", describe())
    return tmp_path


@pytest.mark.parametrize("nested", ["", "VOCdevkit", "VOCdevkit/VOC2007"])
def test_found_from_any_of_the_folders(root: Path, nested: str):
    index = read_voc(root / nested, "train")
    assert [path.name for path in index.paths] == ["000005.jpg", "000007.jpg"]


def test_difficult_objects_count_as_published(root: Path):
    index = read_voc(root, "train")
    assert index.labels == LABELS
    dog, person, screen = (LABELS.index(name) for name in ("dog", "person", "tvmonitor"))
    assert [row.nonzero().flatten().tolist() for row in index.targets] == [[dog, person], [screen]]
    # Corners count from 1 and belong to the box.
    assert index.boxes == [{dog: [(0, 0, 12, 8), (2, 2, 3, 4)], person: [(1, 2, 3, 3)]}, {screen: [(4, 4, 1, 1)]}]


def test_difficult_objects_can_be_left_out(root: Path):
    index = read_index(f"voc-easy:{root}", "train")
    assert index.boxes is not None
    assert index.boxes[0] == {LABELS.index("dog"): [(0, 0, 12, 8)]}
    assert index.targets[0].sum() == 1


def test_a_picture_without_objects_is_kept(root: Path):
    index = read_voc(root, "test")
    assert (len(index.paths), float(index.targets.sum())) == (1, 0.0)
    assert index.boxes == [{}]


def test_labels_are_the_twenty_in_alphabetical_order():
    assert len(LABELS) == 20
    assert list(LABELS) == sorted(LABELS)


def test_missing_annotations_are_named(root: Path):
    (root / "VOCdevkit" / "VOC2007" / "Annotations" / "000007.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"are missing, 1 of 2: .*000007\.xml"):
        read_voc(root, "train")


def test_a_missing_list_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no .*test\.txt.*VOC's layout"):
        read_voc(tmp_path, "test")


@pytest.mark.parametrize(
    "text",
    [
        describe(("unicorn", 0, (1, 1, 2, 2))),
        describe()[:40],
        "",
        "<annotation><object><name>dog</name></object></annotation>",
        describe(("dog", 0, (1, 1, 3, 2))).replace(">3<", ">nan<"),
    ],
    ids=["unknown label", "cut off", "empty", "no box", "no number"],
)
def test_a_wrong_annotation_is_named(root: Path, write: Write, text: str):
    write(root / "VOCdevkit" / "VOC2007" / "Annotations" / "000007.xml", text)
    with pytest.raises(ValueError, match=r"000007\.xml is not an annotation of VOC"):
        read_voc(root, "train")


def test_an_object_without_a_box_is_told(root: Path, write: Write):
    place = root / "VOCdevkit" / "VOC2007" / "Annotations" / "000007.xml"
    write(place, "<annotation><object><name>dog</name><bndbox><xmin>1</xmin><ymin>1</ymin></bndbox></object></annotation>")
    with pytest.raises(ValueError, match="an object has no xmax and no ymax in a bndbox"):
        read_voc(root, "train")


def test_a_label_of_somebody_else_is_named(root: Path, write: Write):
    place = root / "VOCdevkit" / "VOC2007" / "Annotations" / "000007.xml"
    write(place, "<annotation><object><name>tractor</name></object></annotation>")
    with pytest.raises(ValueError, match="'tractor' is none of its 20 labels; data with others can be read as coco: or csv:"):
        read_voc(root, "train")
