"""Every teacher-student pair of the paper's tables: builds, learns a step with every method, gives maps."""

import math

import pytest
import torch

from l2d.cam import label_maps
from l2d.checkpoint import ModelCard, Network
from l2d.data.images import Index
from l2d.distill import METHODS
from l2d.model import create_model
from l2d.published import TABLES, name_pair, read_recipes, read_rows
from l2d.recipe import Recipe
from l2d.train import fit

SIDE = 64
# The others take minutes.
CHEAPEST = {("resnet50", "mobilenetv2_100"), ("resnet50", "repvgg_a0")}


def read_pairs() -> list[tuple[str, str]]:
    figure, backbones = read_recipes()["figure1"], read_recipes()["backbones"]
    pairs = [name_pair(row) for table in TABLES for row in read_rows(table)]
    return list(dict.fromkeys([*pairs, (backbones[figure["teacher"]], backbones[figure["student"]])]))


def mark_slow(pair: tuple[str, str]) -> object:
    return pytest.param(pair, id="-".join(pair), marks=[] if pair in CHEAPEST else [pytest.mark.slow])


def make_network(backbone: str, labels: tuple[str, ...], seed: int) -> Network:
    torch.manual_seed(seed)
    model = create_model(backbone, len(labels), image_size=SIDE, width=32, feedforward=32)
    sizes = {"image_size": SIDE, "width": 32, "feedforward": 32}
    card = ModelCard(name=backbone, title=backbone, role="student", method="l2d", backbone=backbone, labels=labels, **sizes)
    return Network(model, card)


@pytest.fixture(scope="module", params=[mark_slow(pair) for pair in read_pairs()])
def pair(request: pytest.FixtureRequest, bands: Index) -> tuple[Network, Network]:
    """Teacher and student; one pair at a time is in memory."""
    teacher, student = request.param
    return make_network(teacher, bands.labels, 0), make_network(student, bands.labels, 1)


@pytest.mark.parametrize("method", METHODS)
def test_pair_learns_a_step_with_every_method(pair: tuple[Network, Network], bands: Index, method: str):
    teacher, student = pair
    before = [parameter.clone() for parameter in student.model.parameters()]
    recipe = Recipe(method=method, epochs=1, batch_size=4, train_size=SIDE, teacher_size=SIDE)
    (report,) = fit(student, bands.select(range(4)), recipe, teacher=teacher)
    assert set(report.losses) == {"bce", *METHODS[method]}
    assert all(math.isfinite(loss) for loss in report.losses.values())
    assert all(parameter.isfinite().all() for parameter in student.model.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, student.model.parameters(), strict=True))


def test_pair_gives_maps(pair: tuple[Network, Network]):
    for network in pair:
        network.model.eval()
        maps = label_maps(network.model, torch.rand(1, 3, SIDE, SIDE), [0, 2])
        assert maps.shape == (2, SIDE // 32, SIDE // 32)
        assert maps.isfinite().all()
        assert (maps >= 0).all()


def test_every_row_of_the_tables_is_tried():
    assert len(read_pairs()) == 10
    assert set(read_pairs()) > CHEAPEST
