"""The shipped networks: they load, they are what their cards say, and the table beside them says what the cards say."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from l2d.checkpoint import load_checkpoint, read_card
from l2d.data.images import to_input
from l2d.distill import TITLES
from l2d.published import MEASURES
from l2d.published import read_rows as read_rows_of
from l2d.reproduce import Settings, plan_students

FOLDER = Path(__file__).parents[1] / "checkpoints"
NAMES = ("coco-edgetpu-teacher", "coco-mobilenetv2-vanilla", "coco-mobilenetv2-reviewkd", "coco-mobilenetv2-l2d")
STUDENTS = NAMES[1:]
MEGABYTE = 2**20
# What must be the same for three students that are compared: all but the method and its loss weights.
COMPARED = ("epochs", "batch_size", "lr", "weight_decay", "warmup", "train_size", "teacher_size", "min_area", "colour", "cutout")
COMPARED += ("freeze_stages", "averaging", "holdout", "seed")
# The L2D student's logits for a drawn picture. Computed from its file in double precision by timm's mobilenetv2_100 and torch's
# nn.MultiheadAttention (with the head's layers around it, see tests/l2d/test_head.py), without this project's code.
LOGITS = {"person": -0.984685, "bicycle": -5.149866, "car": -3.400493, "bird": 0.490684, "kite": -3.413496}


def read_rows() -> dict[str, list[str]]:
    """The rows of the table in checkpoints/README.md, by model."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = [[cell.strip(" *`") for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `coco-")]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize("name", NAMES)
def test_loads_and_tells_labels_apart(name: str) -> None:
    model, card = load_checkpoint(FOLDER / name)
    generator = torch.Generator().manual_seed(0)
    logits = model(torch.randn(2, 3, card.image_size, card.image_size, generator=generator)).logits
    assert logits.shape == (2, 80) == (2, len(card.labels))
    assert logits.std(1).min() > 0.1
    assert card.role == ("teacher" if "teacher" in name else "student")


def test_the_l2d_student_computes_what_its_file_says() -> None:
    """A changed architecture changes what was shipped, whether the file still fits it or not."""
    model, card = load_checkpoint(FOLDER / "coco-mobilenetv2-l2d")
    y, x, channel = np.mgrid[: card.image_size, : card.image_size, :3]
    picture = Image.fromarray(((x * (channel + 2) + (y - 100) ** 2 // 5) % 256).astype(np.uint8))
    with torch.inference_mode():
        logits = model(to_input(picture, card.image_size, card.mean, card.std)).logits[0]
    # Processors round differently, by about 1e-6.
    assert {label: float(logits[card.labels.index(label)]) for label in LOGITS} == pytest.approx(LOGITS, abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_table_repeats_the_card(name: str) -> None:
    scores = read_card(FOLDER / name).scores
    local = scores["localization"]
    numbers = (scores["mAP"], scores["oracle_k"]["OF1"], scores["oracle_k"]["CF1"], local["pointing_game"], local["energy_in_box"])
    assert [f"{number:.2f}" for number in numbers] == read_rows()[name][-5:]


@pytest.mark.parametrize("name", NAMES)
def test_so_does_the_front_page(name: str) -> None:
    card = read_card(FOLDER / name)
    methods = json.loads((FOLDER / "evidence-coco-all.json").read_text(encoding="utf-8"))["rows"][0]["methods"]
    seeds = f"{methods[card.method]['ours']['mAP']:.2f} ± {methods[card.method]['spread']['mAP']:.2f}" if name in STUDENTS else "–"
    local = card.scores["localization"]
    row = f"| {card.scores['mAP']:.2f} | {seeds} | {local['pointing_game']:.2f} | {local['energy_in_box']:.2f} |"
    assert row in (FOLDER.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("evidence-*.json")), ids=lambda path: path.stem)
def test_tables_of_series_repeat_their_files(path: Path) -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
        for method, entry in row["methods"].items():
            ours, spread = entry["ours"], entry["spread"]
            cells = [f"{ours[name]:.2f}" + (f" ± {spread[name]:.2f}" if name in spread else "") for name in MEASURES]
            if "gain" in entry:
                cells += [f"{entry[name]:+.2f}" for name in ("gain", "paper_gain")]
            # The shipped teacher stands in the first table, by its name.
            title = "" if method == "teacher" else TITLES[method]
            assert any(line.startswith(f"| {title}") and f" | {' | '.join(cells)} |" in line for line in text.splitlines()), cells


def test_so_does_the_table_of_weights() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for loss, curve in json.loads((FOLDER / "sweep-coco-quarter.json").read_text(encoding="utf-8"))["curves"].items():
        scores = " | ".join(f"{point['mAP']:.2f}" for point in curve["points"])
        assert f"| {loss} (**{curve['usual']:g}**) | {scores} |" in text


def test_students_differ_in_method_alone() -> None:
    cards = [read_card(FOLDER / name) for name in STUDENTS]
    for card in cards:
        assert [card.recipe[field] for field in COMPARED] == [cards[0].recipe[field] for field in COMPARED]
        assert card.lineage == cards[0].lineage
        assert card.data == cards[0].data
        taught = {"name": NAMES[0], "sha256": read_card(FOLDER / NAMES[0]).sha256}
        assert card.teacher == (None if card.method == "vanilla" else taught)
    assert [card.method for card in cards] == ["vanilla", "reviewkd", "l2d"]


def test_students_follow_the_recipe_that_is_called_theirs() -> None:
    """So the command that is said to make them does."""
    methods = ("vanilla", "reviewkd", "l2d")
    settings = Settings("coco:ROOT", Path("runs"), methods, recipe="shipped", teacher=FOLDER / NAMES[0], init=Path("init"))
    plans = {method: training.plan for (method, _), training in plan_students(read_rows_of("table4")[2], settings).items()}
    for card in map(read_card, [FOLDER / name for name in STUDENTS]):
        plan = plans[card.method]
        assert plan.recipe.find_changes(card.recipe) == []
        assert (card.backbone, card.image_size, card.width, card.feedforward) == (
            plan.backbone,
            plan.image_size,
            plan.width,
            plan.feedforward,
        )


def test_labels_are_the_same_for_all() -> None:
    assert len({read_card(FOLDER / name).labels for name in NAMES}) == 1


def test_small_enough_for_a_repository() -> None:
    sizes = [path.stat().st_size for path in FOLDER.rglob("*.safetensors")]
    assert sum(sizes) < 50 * MEGABYTE


def test_every_shipped_folder_is_described() -> None:
    folders = {path.name for path in FOLDER.iterdir() if path.is_dir()}
    assert folders == set(NAMES)
    assert set(read_rows()) >= folders
    assert re.search(r"l2d evaluate", (FOLDER / "README.md").read_text(encoding="utf-8"))
