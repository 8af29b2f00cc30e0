"""Small data sets that a network learns in seconds."""

import json
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image

from l2d.data.images import Index

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
