"""Small data sets that a network learns in seconds, small networks and recipes, and small series of trainings."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from l2d import comparison, published, reproduce
from l2d.checkpoint import ModelCard, Network, write_card
from l2d.data.images import Index
from l2d.model import create_model
from l2d.published import read_recipes
from l2d.recipe import Recipe
from l2d.reproduce import Settings
from l2d.series import Training
from l2d.train import EpochReport, fit

COLOURS = ("red", "green", "blue")
SIDE = 40


def draw_bands(shown: list[bool], seed: int) -> Image.Image:
    """A noisy grey picture with a bright block for every colour that is shown."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(90, 140, (SIDE, SIDE, 3), dtype=np.uint8)
    for colour, present in enumerate(shown):
        if present:
            pixels[:, 12 * colour + 2 : 12 * colour + 12] = 20
            pixels[:, 12 * colour + 2 : 12 * colour + 12, colour] = 230
    return Image.fromarray(pixels)


def make_targets(count: int) -> torch.Tensor:
    return (torch.rand(count, 3, generator=torch.Generator().manual_seed(5)) < 0.5).float()


@pytest.fixture(scope="session")
def bands(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """24 pictures, each with some of three colours."""
    folder, targets = tmp_path_factory.mktemp("bands"), make_targets(24)
    paths = [folder / f"{number}.png" for number in range(24)]
    for number, path in enumerate(paths):
        draw_bands([bool(shown) for shown in targets[number]], number).save(path)
    return Index(paths, targets, COLOURS)


@pytest.fixture(scope="session")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same kind of pictures in MS-COCO's layout: 12 to train on, 6 to test, with boxes."""
    root = tmp_path_factory.mktemp("coco")
    (root / "annotations").mkdir()
    for folder, count in (("train2014", 12), ("val2014", 6)):
        (root / folder).mkdir()
        targets = make_targets(count)
        targets[:, 0] = 1
        images = [{"id": number, "file_name": f"{number}.png"} for number in range(count)]
        for number in range(count):
            draw_bands([bool(shown) for shown in targets[number]], number).save(root / folder / f"{number}.png")
        annotations = [
            {"image_id": number, "category_id": colour + 1, "bbox": [12 * colour + 2, 0, 10, SIDE]}
            for number, colour in targets.nonzero().tolist()
        ]
        categories = [{"id": colour + 1, "name": name} for colour, name in enumerate(COLOURS)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{folder}.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def move_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes a port of this machine the hub, of which nothing is kept yet."""

    def move(port: int) -> None:
        address = f"http://127.0.0.1:{port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    return move


@pytest.fixture
def no_hub(move_hub: Callable[[int], None]) -> None:
    """A hub at a port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        move_hub(free.getsockname()[1])


def make_network(seed: int = 0, *, backbone: str = "test_resnet", labels: tuple[str, ...] = COLOURS, width: int = 16) -> Network:
    torch.manual_seed(seed)
    model = create_model(backbone, len(labels), image_size=32, width=width, feedforward=24)
    card = ModelCard(
        name="tiny", title="Tiny", role="student", method="vanilla", backbone=backbone, labels=labels, image_size=32, width=width,
        feedforward=24, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
    )  # fmt: skip
    return Network(model, card)


def make_recipe(**changes: Any) -> Recipe:
    return Recipe(**{"epochs": 2, "batch_size": 8, "lr": 1e-3, "train_size": 32, "teacher_size": 32, **changes})


def train_out(index: Index, recipe: Recipe, network: Network | None = None, **options: Any) -> list[EpochReport]:
    return list(fit(network or make_network(), index, recipe, **options))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def make_recipes() -> dict[str, Any]:
    """All networks are tiny ones."""
    recipes = read_recipes()
    recipes["backbones"] = dict.fromkeys(recipes["backbones"], "test_resnet") | {"MobileNet v2": "test_efficientnet"}
    for recipe in recipes["recipes"].values():
        recipe["network"] = {"image_size": 32, "width": 16, "feedforward": 24}
    recipes["drawn"] = {"image_size": 32}
    recipes["figure1"]["factors"] = [1]
    return recipes


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All networks are tiny ones, and 24 pictures are drawn at most."""
    recipes = make_recipes()
    for module in (comparison, published, reproduce):
        monkeypatch.setattr(module, "read_recipes", lambda: recipes)
    monkeypatch.setenv("L2D_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plot is drawn anew whenever a report is written, which takes longer than a tiny training does."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: path.touch())


def make_settings(out: Path = Path("out"), data: str = "shapes:24", **changes: Any) -> Settings:
    return Settings(data, out, **{"methods": ("vanilla", "l2d"), **changes})


def make_index(labels: int = 2, pictures: int = 4) -> Index:
    """Training pictures that are nowhere."""
    targets = torch.zeros(pictures, labels)
    return Index([Path(f"{row}.jpg") for row in range(pictures)], targets, tuple(map(str, range(labels))))


def finish(training: Training, score: float) -> None:
    """Leave a card as if the training had been run and scored."""
    training.plan.out.mkdir(parents=True)
    scores = {"mAP": score, "oracle_k": {"OF1": score + 1, "CF1": score + 2}, "held_out": {"images": 2, "mAP": score}}
    card = ModelCard("a", "A", "student", "l2d", training.plan.backbone, ("x",), 32, recipe=training.plan.recipe.as_dict(), scores=scores)
    write_card(training.plan.out, card)
