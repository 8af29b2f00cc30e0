"""Where a network looks on a few pictures: which ones, what is kept of them, and that it is trained as before afterwards."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from app.probes import INDEX, choose_probes, save_maps, save_pictures
from l2d.cam import label_maps
from l2d.checkpoint import ModelCard
from l2d.data.images import Index, open_image, to_input
from l2d.model import create_model


def make_index(rows: list[list[int]], paths: list[Path] | None = None) -> Index:
    return Index(paths or [Path(f"{row}.jpg") for row in range(len(rows))], torch.tensor(rows).float(), tuple("abcde"[: len(rows[0])]))


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        # Several labels go first, but not those that were shown already.
        ([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]], [1, 3, 2, 0]),
        # A single label that is new, before two that are not.
        ([[1, 1, 0], [1, 1, 0], [0, 0, 1], [1, 1, 0], [1, 1, 0]], [0, 2, 1, 3]),
        ([[1, 0], [0, 1]], [0, 1]),
    ],
)
def test_probes_show_many_labels_and_differ(rows: list[list[int]], chosen: list[int]):
    assert choose_probes(make_index(rows)) == chosen


def test_copies_of_probes_are_small_upright_and_tell_nothing_of_their_maker(tmp_path: Path):
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "who took it", 6
    Image.new("RGB", (400, 200), "white").save(tmp_path / "large.jpg", exif=exif)
    Image.new("RGB", (40, 30), "white").save(tmp_path / "small.png")
    index = make_index([[0, 0, 0, 0, 1], [1, 1, 0, 1, 1]], [tmp_path / "small.png", tmp_path / "large.jpg"])
    save_pictures(tmp_path / "probes", index, [1, 0])
    assert json.loads((tmp_path / "probes" / INDEX).read_text())["pictures"] == [
        {"file": "0.jpg", "width": 96, "height": 192, "labels": ["a", "b", "d"]},
        {"file": "1.jpg", "width": 40, "height": 30, "labels": ["e"]},
    ]
    for name, size in {"0.jpg": (96, 192), "1.jpg": (40, 30)}.items():
        with Image.open(tmp_path / "probes" / name) as copy:
            assert (copy.size, dict(copy.getexif())) == (size, {})


def test_maps_are_those_of_the_network_on_its_own_input(tmp_path: Path):
    Image.linear_gradient("L").save(tmp_path / "0.png")
    index = make_index([[1, 0, 1]], [tmp_path / "0.png"])
    torch.manual_seed(0)
    model = create_model("test_resnet", 3, image_size=64, width=16, feedforward=16)
    scaling = {"mean": (0.5, 0.4, 0.3), "std": (0.3, 0.2, 0.2)}
    card = ModelCard("s", "S", "student", "vanilla", "test_resnet", index.labels, 64, width=16, feedforward=16, **scaling)
    save_maps(tmp_path, "0001", model, card, index, [0])
    model.eval()
    pixels = to_input(open_image(tmp_path / "0.png"), 64, card.mean, card.std)
    expected, scores = label_maps(model, pixels, [0, 2]), model(pixels).logits[0].sigmoid()
    (shown,) = json.loads((tmp_path / "0001.json").read_text())["pictures"]
    assert [found["label"] for found in shown] == ["a", "c"]
    assert [found["score"] for found in shown] == pytest.approx(scores[[0, 2]].tolist(), abs=6e-5)
    torch.testing.assert_close(torch.tensor([found["rows"] for found in shown]), expected, rtol=1e-3, atol=1e-9)


def test_a_look_leaves_frozen_parts_frozen(tmp_path: Path):
    Image.new("RGB", (40, 30), "white").save(tmp_path / "0.png")
    index = Index([tmp_path / "0.png"], torch.tensor([[1.0, 0.0]]), ("dark", "light"))
    model = create_model("test_resnet", 2, image_size=32, width=16, feedforward=16).train()
    frozen = model.backbone.eval()
    card = ModelCard("student", "Student", "student", "vanilla", "test_resnet", index.labels, 32, width=16, feedforward=16)
    save_maps(tmp_path, "0001", model, card, index, [0])
    assert (model.training, model.head.training) == (True, True)
    assert not any(module.training for module in frozen.modules())
    ((shown,),) = json.loads((tmp_path / "0001.json").read_text())["pictures"]
    assert shown["label"] == "dark"
