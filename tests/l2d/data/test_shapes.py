"""The drawn data set: the same for a seed, labelled and boxed as drawn, and worth learning."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from l2d.data.shapes import FAVOURITES, LABELS, TEXTURES, draw_scene, imagine_scene, read_shapes


def draw(number: int, side: int = 96) -> tuple[np.ndarray, list[tuple[int, tuple[float, float, float, float]]], np.ndarray]:
    """A picture, its labels with boxes, and the same picture without its shapes."""
    scene = imagine_scene(np.random.default_rng(number), side)
    bare = draw_scene(scene._replace(shapes=[]), side)
    return np.array(draw_scene(scene, side)), [(shape.label, shape.box()) for shape in scene.shapes], np.array(bare)


def test_the_same_pictures_for_a_seed_however_many(tmp_path: Path):
    few, many = read_shapes("train", 4, folder=tmp_path / "a"), read_shapes("train", 9, folder=tmp_path / "b")
    assert (len(few.paths), len(many.paths)) == (4, 9)
    assert torch.equal(few.targets, many.targets[:4])
    assert few.boxes == many.boxes[:4]
    assert [path.read_bytes() for path in few.paths] == [path.read_bytes() for path in many.paths[:4]]


def test_splits_and_seeds_differ(tmp_path: Path):
    train, test = read_shapes("train", 8, folder=tmp_path), read_shapes("test", 8, folder=tmp_path)
    other = read_shapes("train", 8, seed=1, folder=tmp_path)
    assert (len(train.paths), len(test.paths)) == (8, 2)
    assert train.paths[0].read_bytes() not in (test.paths[0].read_bytes(), other.paths[0].read_bytes())


def test_pictures_are_drawn_once_and_again_when_lost(tmp_path: Path):
    index = read_shapes("train", 3, folder=tmp_path)
    written = [path.stat().st_mtime_ns for path in index.paths]
    lost = index.paths[1].read_bytes()
    index.paths[1].unlink()
    again = read_shapes("train", 3, folder=tmp_path)
    assert [path.stat().st_mtime_ns for path in again.paths[::2]] == written[::2]
    assert again.paths[1].read_bytes() == lost
    assert sorted(path.name for path in index.paths[0].parent.iterdir()) == ["000000.png", "000001.png", "000002.png"]


def test_pictures_have_the_side_asked_for(tmp_path: Path):
    (path,) = read_shapes("train", 1, side=50, folder=tmp_path).paths
    with Image.open(path) as image:
        assert (image.size, image.mode) == ((50, 50), "RGB")


def test_the_environment_says_where_they_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "users"))
    monkeypatch.delenv("L2D_CACHE", raising=False)
    assert tmp_path / "users" / "l2d" in read_shapes("train", 1).paths[0].parents
    monkeypatch.setenv("L2D_CACHE", str(tmp_path / "own"))
    assert tmp_path / "own" in read_shapes("train", 1).paths[0].parents


@pytest.mark.parametrize("number", range(12))
def test_every_shape_fills_its_box_and_nothing_else_changes(number: int):
    picture, shapes, bare = draw(number)
    changed = (picture != bare).any(-1)
    boxed = np.zeros_like(changed)
    for _, (x, y, width, height) in shapes:
        left, top, right, bottom = int(x), int(y), int(x + width), int(y + height)
        boxed[max(top - 1, 0) : bottom + 2, max(left - 1, 0) : right + 2] = True
        inside = changed[top : bottom + 1, left : right + 1]
        assert inside.any(0).mean() > 0.9
        assert inside.any(1).mean() > 0.9
        assert left >= 0
        assert top >= 0
        assert max(right, bottom) < 96
    assert not (changed & ~boxed).any()


def test_a_ring_has_a_hole():
    for number in range(200):
        picture, shapes, bare = draw(number)
        for label, (x, y, width, height) in shapes:
            if LABELS[label] == "ring":
                middle = (int(y + height / 2), int(x + width / 2))
                assert (picture[middle] == bare[middle]).all()
                return
    pytest.fail("no ring in 200 pictures")


def test_every_picture_shows_something_and_labels_are_balanced(tmp_path: Path):
    index = read_shapes("train", 300, side=16, folder=tmp_path)
    assert index.targets.sum(1).min() >= 1
    assert index.targets.sum(1).max() >= 4
    assert index.targets.mean(0).min() > 0.15
    assert index.targets.mean(0).max() < 0.45
    assert index.boxes is not None
    assert [sorted(boxes) for boxes in index.boxes] == [row.nonzero().flatten().tolist() for row in index.targets]


def test_backgrounds_keep_misleading_company():
    scenes = [imagine_scene(np.random.default_rng(number), 32) for number in range(600)]
    assert {scene.texture for scene in scenes} == set(TEXTURES) == set(FAVOURITES)
    favourites = [LABELS[shape.label] in FAVOURITES[scene.texture] for scene in scenes for shape in scene.shapes]
    assert 0.6 < np.mean(favourites) < 0.75  # 4 to 1 for three labels against six


def test_no_picture_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="at least one picture"):
        read_shapes("train", 0, folder=tmp_path)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="set L2D_CACHE to a folder"):
        read_shapes("train", 1, folder=tmp_path / "file")
