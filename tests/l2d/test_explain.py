"""The paper's figure from checkpoint folders."""

from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from l2d import explain
from l2d.cam import label_maps
from l2d.checkpoint import ModelCard, save_checkpoint
from l2d.data.images import open_image, to_input
from l2d.explain import explain_image
from l2d.figure import Column
from l2d.model import LabelNet, create_model

ANIMALS = ("cat", "dog", "horse", "sheep")


def make_network(folder: Path, labels: tuple[str, ...] = ANIMALS, seed: int = 0, **probabilities: float) -> LabelNet:
    """A network that gives about these probabilities, whatever it sees."""
    torch.manual_seed(seed)
    model = create_model("test_resnet", len(labels), image_size=64, width=16, feedforward=24).eval()
    with torch.no_grad():
        model.head.classifier *= 0.01
        for label, probability in probabilities.items():
            model.head.bias[labels.index(label)] = torch.tensor(probability).logit()
    card = ModelCard(folder.name, folder.name.title(), "student", "l2d", "test_resnet", labels, 64, width=16, feedforward=24)
    save_checkpoint(folder, model, card)
    return model


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.effect_noise((90, 60), 80).convert("RGB").save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the figure was drawn from."""
    seen: dict[str, Any] = {}
    draw = explain.draw_figure

    def watch(image: Image.Image, columns: list[Column], labels: list[str], **options: Any) -> Any:
        seen.update(columns=columns, labels=labels)
        return draw(image, columns, labels, **options)

    monkeypatch.setattr(explain, "draw_figure", watch)
    return seen


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("PNG", b"\x89PNG")])
def test_the_suffix_says_how_the_figure_is_written(tmp_path: Path, picture: Path, suffix: str, start: bytes) -> None:
    make_network(tmp_path / "one")
    out = tmp_path / "new" / f"figure.{suffix}"
    explain_image(str(picture), [str(tmp_path / "one")], str(out), ["cat"], "cpu")
    assert out.read_bytes().startswith(start)


def test_columns_hold_each_networks_own_maps_and_probabilities(tmp_path: Path, picture: Path, drawn: dict[str, Any]) -> None:
    make_network(tmp_path / "one", cat=0.9)
    make_network(tmp_path / "two", labels=("horse", "cat"), seed=1, cat=0.2)
    explain_image(picture, [tmp_path / "one", tmp_path / "two"], tmp_path / "out.png", ["cat", "dog", "cat"], "cpu")
    first, second = drawn["columns"]
    assert drawn["labels"] == ["cat", "dog"]
    assert [first.title, second.title] == ["One", "Two"]
    assert (list(first.maps), list(second.maps)) == (["cat", "dog"], ["cat"])
    assert first.probabilities["cat"] == pytest.approx(0.9, abs=0.05)
    assert second.probabilities["cat"] == pytest.approx(0.2, abs=0.05)
    network = explain.load_network(tmp_path / "two", torch.device("cpu"))
    expected = label_maps(network.model, to_input(open_image(picture), 64, network.card.mean, network.card.std), [1])
    torch.testing.assert_close(torch.from_numpy(second.maps["cat"]), expected[0])


def test_networks_of_one_title_are_told_apart_by_their_folders(tmp_path: Path, picture: Path, drawn: dict[str, Any]) -> None:
    folders = [tmp_path / "seed0" / "student", tmp_path / "seed1" / "student", tmp_path / "other"]
    for folder in folders:
        make_network(folder)
    explain_image(picture, folders, tmp_path / "out.png", ["cat"], "cpu")
    assert [column.title for column in drawn["columns"]] == [str(folders[0]), str(folders[1]), "Other"]


def test_rows_default_to_what_any_network_predicts(tmp_path: Path, picture: Path, drawn: dict[str, Any]) -> None:
    make_network(tmp_path / "one", cat=0.7, dog=0.1, horse=0.1, sheep=0.1)
    make_network(tmp_path / "two", cat=0.6, dog=0.95, horse=0.2, sheep=0.1)
    explain_image(picture, [tmp_path / "one", tmp_path / "two"], tmp_path / "out.png", device="cpu")
    assert drawn["labels"] == ["dog", "cat"]


def test_a_full_disk_leaves_the_earlier_figure(tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_disk(_: Figure, path: Path, kind: str) -> None:
        path.write_bytes(b"half a fi")
        raise OSError(28, "No space left on device")

    make_network(tmp_path / "one")
    explain_image(picture, [tmp_path / "one"], tmp_path / "out.png", device="cpu")
    before = (tmp_path / "out.png").read_bytes()
    monkeypatch.setattr(explain, "save_figure", fill_disk)
    with pytest.raises(OSError, match="No space left"):
        explain_image(picture, [tmp_path / "one"], tmp_path / "out.png", device="cpu")
    assert (tmp_path / "out.png").read_bytes() == before


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, picture: Path) -> None:
    make_network(tmp_path / "one")
    with pytest.raises(ValueError, match=r"written as \.png or \.pdf; got .*figure\.svg"):
        explain_image(picture, [tmp_path / "one"], tmp_path / "figure.svg")
    with pytest.raises(ValueError, match="at least one network"):
        explain_image(picture, [], tmp_path / "figure.png")
    with pytest.raises(ValueError, match=r"There is no picture .*nothing\.jpg"):
        explain_image(tmp_path / "nothing.jpg", [tmp_path / "one"], tmp_path / "figure.png")
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"text\.jpg cannot be read as a picture"):
        explain_image(tmp_path / "text.jpg", [tmp_path / "one"], tmp_path / "figure.png")
    with pytest.raises(ValueError, match="not a checkpoint folder"):
        explain_image(picture, [tmp_path / "two"], tmp_path / "figure.png")
    with pytest.raises(OSError, match=r"text\.jpg cannot be written: Not a directory"):
        explain_image(picture, [tmp_path / "two"], tmp_path / "text.jpg" / "figure.png")
    assert not (tmp_path / "figure.png").exists()
