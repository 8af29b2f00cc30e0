"""Localization: both measures against values worked out by hand, their limits, and the report over a small data set."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from l2d.bootstrap import DRAWS
from l2d.cam import label_maps
from l2d.checkpoint import ModelCard
from l2d.data.images import Index, open_image, to_input
from l2d.localization import Box, Pair, compare, energy_in_box, localize, mask_boxes, pointing_game, report_pairs, resize_map, summarize
from l2d.model import LabelNet, create_model

LABELS = ("circle", "square", "star")


def judge(evidence: Tensor, boxes: list[Box], width: int, height: int) -> tuple[bool, float]:
    resized, inside = resize_map(evidence, width, height), mask_boxes(boxes, width, height)
    return pointing_game(resized, inside), energy_in_box(resized, inside)


# A 2x2 map with evidence in its upper left cell, on a picture of 4x4. Bilinear weights of a cell's four rows (or columns) are
# 1, 3/4, 1/4, 0, so the resized map is their outer product, with the sum (1 + 3/4 + 1/4)^2 = 4.
CORNER = torch.tensor([[1.0, 0.0], [0.0, 0.0]])


@pytest.mark.parametrize(
    ("boxes", "hit", "energy"),
    [
        ([(0, 0, 1, 1)], True, 100 * 1 / 4),
        ([(0, 0, 2, 2)], True, 100 * 1.75**2 / 4),
        ([(1, 0, 1, 4)], False, 100 * 0.75 * 2 / 4),
        ([(2, 2, 2, 2)], False, 100 * 0.25**2 / 4),
        ([(3, 0, 1, 4)], False, 0.0),
        # The union, so an overlap counts once; and centres decide, so half a pixel more or less changes nothing.
        ([(0, 0, 2, 2), (1, 1, 1, 1), (0, 0, 1.4, 1.4)], True, 100 * 1.75**2 / 4),
        ([(-0.4, 0.6, 2.8, 2.0)], False, 100 * 1.75 * 1 / 4),
    ],
)
def test_golden_values_of_a_corner(boxes: list[Box], hit: bool, energy: float) -> None:
    assert judge(CORNER, boxes, 4, 4) == (hit, pytest.approx(energy, abs=1e-9))


def test_golden_values_of_a_wide_picture() -> None:
    # Columns of the 1x2 map on 4 pixels: 1, 1.5, 2.5, 3 in both rows: sum 16.
    evidence = torch.tensor([[1.0, 3.0]])
    assert judge(evidence, [(3, 0, 1, 2)], 4, 2) == (True, pytest.approx(100 * 6 / 16))
    assert judge(evidence, [(0, 0, 3, 2)], 4, 2) == (False, pytest.approx(100 * 10 / 16))


@pytest.mark.parametrize("evidence", [torch.zeros(3, 3), -torch.ones(3, 3), torch.full((3, 3), torch.nan)])
def test_no_evidence_is_a_miss_and_zero(evidence: Tensor) -> None:
    assert judge(evidence, [(0, 0, 30, 20)], 30, 20) == (False, 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_a_box_around_everything_wins_and_none_loses(seed: int) -> None:
    evidence = torch.rand(3 + seed, 7 - seed, generator=torch.Generator().manual_seed(seed))
    assert judge(evidence, [(0, 0, 50, 40)], 50, 40) == (True, pytest.approx(100))
    assert judge(evidence, [], 50, 40) == (False, 0.0)


@pytest.mark.parametrize("box", [(3, 5, 20, 11), (0, 0, 1, 40), (10.5, 0, 25, 33)])
def test_even_evidence_has_the_share_of_the_area(box: Box) -> None:
    _, energy = judge(torch.full((7, 5), 0.3), [box], 50, 40)
    assert energy == pytest.approx(100 * box[2] * box[3] / (50 * 40), abs=0.6)


@pytest.mark.parametrize("seed", range(5))
def test_scale_of_the_evidence_does_not_matter(seed: int) -> None:
    evidence = torch.rand(4, 4, generator=torch.Generator().manual_seed(seed))
    expected = judge(evidence, [(5, 5, 20, 20)], 50, 40)
    hit, energy = judge(evidence * 1e-6, [(5, 5, 20, 20)], 50, 40)
    assert (hit, energy) == (expected[0], pytest.approx(expected[1]))


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 2), (2, 0), (2, 2), (0, 1), (1, 0), (2, 1), (1, 1)])
def test_a_peak_lies_at_the_centre_of_its_cell_wherever_that_is(row: int, column: int) -> None:
    evidence = torch.zeros(3, 3)
    evidence[row, column] = 0.7
    # Cells of 10x10 pixels; the box is the middle of the cell, and the ones around it are not.
    around = [(column * 10 + dx, row * 10 + dy, 3.5, 3.5) for dx, dy in ((0, 0), (6.5, 0), (0, 6.5), (6.5, 6.5))]
    assert judge(evidence, [(column * 10 + 3.5, row * 10 + 3.5, 3, 3)], 30, 30)[0]
    assert not judge(evidence, around, 30, 30)[0]


def test_mask_is_the_union_of_pixels_whose_centre_is_inside() -> None:
    expected = torch.tensor([[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 1]], dtype=torch.bool)
    assert torch.equal(mask_boxes([(0.5, 0.6, 2, 2), (3.2, 2.5, 9, 9)], 4, 3), expected)


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((1.6, 1.6, 0.7, 0.7), [1], [1]),  # between centres
        ((2.6, 0, 0.7, 3), [0, 1, 2], [2]),
        ((0, 0.9, 3, 0.5), [1], [0, 1, 2]),
        ((0, 0, 0.5, 0.5), [0], [0]),
        ((2, 1, 0, 0), [1], [2]),
        ((3.6, 2.6, 0.4, 0.4), [2], [3]),
        ((-0.2, 0, 0.4, 0), [0], [0]),
    ],
)
def test_a_box_without_any_centre_has_the_pixels_around_its_own(box: Box, rows: list[int], columns: list[int]) -> None:
    assert mask_boxes([box], 4, 3).nonzero().tolist() == [[row, column] for row in rows for column in columns]


@pytest.mark.parametrize("box", [(4, 0, 1, 3), (0, 3, 4, 0.4), (-2, 0, 2, 3), (0, -1.2, 4, 1), (-0.2, 0, 0, 0), (9, 9, 0, 0)])
def test_a_box_beside_the_picture_holds_no_evidence(box: Box) -> None:
    assert judge(torch.ones(2, 2), [box], 4, 3) == (False, 0.0)


def test_summary_of_pairs() -> None:
    pairs = [Pair(True, 40.0, "small", 0.9), Pair(False, 10.0, "large", 0.1), Pair(True, 100.0, "large", 0.5)]
    assert summarize(pairs) == {"pairs": 3, "pointing_game": pytest.approx(200 / 3), "energy_in_box": pytest.approx(50)}
    assert summarize([]) == {"pairs": 0, "pointing_game": None, "energy_in_box": None}


def test_a_label_at_the_threshold_counts_as_predicted() -> None:
    pairs = [Pair(True, 40.0, "small", 0.5), Pair(False, 10.0, "small", 0.49)]
    assert report_pairs([pairs], 0.5)["predicted"] == {"threshold": 0.5, "pairs": 1, "pointing_game": 100, "energy_in_box": 40}


@pytest.fixture
def network() -> tuple[LabelNet, ModelCard]:
    torch.manual_seed(0)
    model = create_model("test_resnet", 3, width=32, feedforward=48).eval()
    return model, ModelCard("tiny", "Tiny", "student", "vanilla", "test_resnet", LABELS, 64, width=32, feedforward=48)


def write_index(folder: Path) -> Index:
    """Three noisy pictures of 200x120: with two labels, with one, with none; an object just small, one just medium, one just large."""
    paths = [folder / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        pixels = torch.randint(256, (120, 200, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))
        Image.fromarray(pixels.numpy()).save(path)
    boxes: list[dict[int, list[Box]]] = [
        {0: [(10, 10, 31, 32), (60, 60, 20, 20)], 2: [(0, 0, 5, 5), (60, 0, 96, 96)]},
        {1: [(3, 3, 32, 32), (100, 20, 8, 8)]},
        {1: []},
    ]
    targets = torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 0]])
    return Index(paths, targets, LABELS, boxes)


def test_report_is_the_mean_over_pairs(network: tuple[LabelNet, ModelCard], tmp_path: Path) -> None:
    (model, card), index, calls = network, write_index(tmp_path), []
    report = localize(model, card, index, threshold=0.0, progress=lambda *call: calls.append(call))
    judged = {}
    for path, boxes in zip(index.paths[:2], index.boxes or [], strict=False):
        image = to_input(open_image(path), card.image_size, card.mean, card.std)
        for label, found in boxes.items():
            judged[label] = judge(label_maps(model, image, [label])[0], found, 200, 120)
    names = {"small": 0, "medium": 1, "large": 2}
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert report["pairs"] == 3
    assert report["pointing_game"] == pytest.approx(100 * sum(hit for hit, _ in judged.values()) / 3)
    assert report["energy_in_box"] == pytest.approx(sum(energy for _, energy in judged.values()) / 3, abs=1e-3)
    for size, label in names.items():
        hit, energy = judged[label]
        assert report["by_size"][size] == {"pairs": 1, "pointing_game": 100.0 * hit, "energy_in_box": pytest.approx(energy, abs=1e-3)}
    overall = {key: report[key] for key in ("pairs", "pointing_game", "energy_in_box")}
    assert report["predicted"] == {"threshold": 0.0, **overall}


def test_a_large_photograph_is_seen_as_everywhere_else(
    network: tuple[LabelNet, ModelCard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoded at a fraction of its size; the boxes are in pixels of the whole, turned upright."""
    (model, card), path, seen = network, tmp_path / "large.jpg", []
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    noise = torch.randint(256, (400, 600, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(noise.numpy()).save(path, exif=exif)
    features = LabelNet.features
    monkeypatch.setattr(LabelNet, "features", lambda self, image: features(self, seen.append(image) or image))
    index = Index([path], torch.tensor([[1.0, 0, 0]]), LABELS, [{0: [(0, 0, 400, 600)]}])
    assert localize(model, card, index)["energy_in_box"] == pytest.approx(100)
    assert torch.equal(seen[0], to_input(open_image(path, card.image_size), card.image_size, card.mean, card.std))
    assert not torch.equal(seen[0], to_input(open_image(path), card.image_size, card.mean, card.std))


def test_only_labels_above_the_threshold_count_as_predicted(network: tuple[LabelNet, ModelCard], tmp_path: Path) -> None:
    model, card = network
    with torch.no_grad():
        model.head.classifier.zero_()
        model.head.bias.copy_(torch.tensor([2.0, -2.0, 2.0]))
    report = localize(model, card, write_index(tmp_path))
    assert report["predicted"]["pairs"] == 2
    # Without weights there is no gradient, so no evidence.
    assert report["pairs"] == 3
    assert (report["pointing_game"], report["energy_in_box"]) == (0.0, 0.0)


@pytest.mark.parametrize("kind", ["attention", "SmoothGradCAMpp"])
def test_other_kinds_of_map_are_measured_too(network: tuple[LabelNet, ModelCard], tmp_path: Path, kind: str) -> None:
    report = localize(*network, write_index(tmp_path), kind=kind)
    assert report["pairs"] == 3
    assert 0 <= report["energy_in_box"] <= 100


def test_a_data_set_without_boxes_or_with_those_of_no_label_is_refused(network: tuple[LabelNet, ModelCard], tmp_path: Path) -> None:
    index = write_index(tmp_path)
    with pytest.raises(ValueError, match="needs boxes"):
        localize(*network, index._replace(boxes=None))
    for label in (-1, len(LABELS)):
        boxes = [{label: [(0.0, 0.0, 4.0, 4.0)]}] * len(index.paths)
        with pytest.raises(ValueError, match=f"from 0 to {len(LABELS) - 1}; got one of {label}"):
            localize(*network, index._replace(boxes=boxes))


def test_a_data_set_with_other_labels_is_refused(network: tuple[LabelNet, ModelCard], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="another order"):
        localize(*network, write_index(tmp_path)._replace(labels=LABELS[::-1]))


def make_pairs(hits: str, energy: float) -> list[Pair]:
    return [Pair(hit == "x", energy, "large", 0.9) for hit in hits]


def test_what_maps_score_more_is_counted_over_pairs_and_drawn_by_pictures() -> None:
    ours = [make_pairs("xxxx", 40.0), make_pairs("x", 20.0), [], make_pairs("..", 10.0)]
    theirs = [make_pairs("xx..", 30.0), make_pairs("x", 20.0), [], make_pairs("..", 10.0)]
    draws: list[int] = []
    found = compare(ours, theirs, progress=lambda done, total: draws.append(total - done))
    assert draws == list(reversed(range(DRAWS)))
    assert found["pointing_game"]["difference"] == pytest.approx(100 * 2 / 7)
    assert found["energy_in_box"]["difference"] == pytest.approx(40 / 7)
    # A draw without the first picture has no difference, one of nothing else the largest; a draw of empty pictures alone has none at all.
    assert found["pointing_game"]["low"] == 0
    assert found["pointing_game"]["high"] == pytest.approx(50)
    assert found["energy_in_box"]["high"] == pytest.approx(10)


def test_maps_score_nothing_more_than_themselves() -> None:
    pictures = [make_pairs("x.", 40.0), make_pairs(".", 20.0)]
    # As text, since a negative zero, which nobody wants to read, is equal to the other.
    assert {str(number) for interval in compare(pictures, pictures).values() for number in interval.values()} == {"0.0"}
