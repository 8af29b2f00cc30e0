"""A student's maps as HTML: one scale over its epochs, told in words and numbers, and little work for whoever polls."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from app.ui import maps
from app.ui.maps import find_scales, list_epochs, paint, show_maps

PICTURE = {"file": "0.jpg", "width": 40, "height": 30, "labels": ["<b>"]}


def write(folder: Path, name: str, value: float, score: float = 0.75) -> None:
    """As `app.probes` does it: a new file under the old name."""
    content = {"pictures": [[{"label": "<b>", "score": score, "rows": [[0.0, value], [0.0, 0.0]]}]]}
    (folder / ".part").write_text(json.dumps(content))
    (folder / ".part").replace(folder / f"{name}.json")
    # As if some time had passed since the last one.
    for path in (folder / f"{name}.json", folder):
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 30), "white").save(tmp_path / "0.jpg")
    (tmp_path / "pictures.json").write_text(json.dumps({"pictures": [PICTURE]}))
    for name, value in {"0001": 1.0, "0002": 4.0}.items():
        write(tmp_path, name, value)
    return tmp_path


def test_one_scale_over_all_epochs_shows_evidence_grow(folder: Path):
    assert list_epochs(folder) == [1, 2]
    assert find_scales(folder) == {(0, "<b>"): 16.0}, "per picture area: the map has four cells"
    grey = Image.new("RGB", (40, 30), (100, 100, 100))
    weak, strong = (np.asarray(paint(grey, np.array([[0.0, value]], np.float32), 4.0), int) for value in (1.0, 4.0))
    assert abs(strong - 100).sum() > abs(weak - 100).sum() > 0
    assert np.array_equal(paint(grey, np.zeros((2, 2), np.float32), 0.0), grey), "no evidence is the bare picture"


@pytest.mark.parametrize(("value", "share"), [(0.0, 0.0), (2.0, 0.5), (4.0, 1.0), (9.0, 1.0)])
def test_paint_lies_over_a_grey_picture_as_thick_as_the_evidence(value: float, share: float):
    picture = Image.new("RGB", (8, 6), (200, 100, 0))
    painted = np.asarray(paint(picture, np.full((2, 3), value, np.float32), 4.0), float)
    grey, ink = 118.0, 255 * np.array(colormaps["inferno"](share)[:3])
    assert painted.shape == (6, 8, 3)
    assert np.abs(painted - (grey * (1 - 0.85 * share) + ink * 0.85 * share)).max() <= 2


def test_scales_and_what_they_are_for_are_told(folder: Path):
    alone = show_maps(folder, 1)
    assert "0 to 16<" in alone, "the student's scale goes as far as in its best epoch"
    assert "in any epoch" in alone
    assert "teacher" not in alone
    write(folder, "teacher", 9.0)
    write(folder, "0003", 0.0)
    taught = show_maps(folder, 3)
    assert ("0 to 16<" in taught, "0 to 36<" in taught) == (True, True)
    assert "its own strongest" in taught
    assert "<b>" not in taught


@pytest.mark.parametrize(("score", "told"), [(0.75, "0.75"), (0.9971, "&gt;0.99"), (0.0031, "&lt;0.01")])
def test_no_probability_reads_as_certain_that_is_not(folder: Path, score: float, told: str):
    write(folder, "0003", 1.0, score)
    assert f"<span>{told} <small>" in show_maps(folder, 3)


def test_columns_are_called_as_those_of_the_figures(folder: Path):
    assert re.findall("<th>(.*?)</th>", show_maps(folder, 1)) == ["Photograph", "Label", "Student"]


def test_a_map_without_evidence_says_so(folder: Path):
    write(folder, "0001", 0.0)
    write(folder, "0002", 0.0)
    assert "no evidence" in show_maps(folder, 1)


def test_a_poll_draws_nothing_again_and_a_new_epoch_reads_only_what_is_new(folder: Path, monkeypatch: pytest.MonkeyPatch):
    first, read = show_maps(folder, 1), []
    monkeypatch.setattr(maps, "_read", lambda path, real=maps._read: read.append(path.name) or real(path))
    assert show_maps(folder, 1) == first
    assert read == []
    write(folder, "0003", 8.0)
    assert "0 to 32<" in show_maps(folder, 1)
    assert sorted(read) == ["0001.json", "0003.json", "pictures.json", "teacher.json"]


def test_before_the_first_epoch_there_are_words(folder: Path, tmp_path: Path):
    for place, epoch in ((tmp_path / "nothing", 1), (folder, 9)):
        assert "No maps so far" in show_maps(place, epoch)


@pytest.mark.parametrize("damage", [b"", b"\xff", b'{"pictures": 7}', b"[]", b'{"pictures": [[{"label": "<b>"}]]}'])
def test_a_damaged_file_is_told_and_spoils_no_other_epoch(folder: Path, damage: bytes):
    (folder / "0002.json").write_bytes(damage)
    assert "a file of them is damaged" in show_maps(folder, 2)
    assert "0 to 4.0<" in show_maps(folder, 1), "the scale of what is whole"
