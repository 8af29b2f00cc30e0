"""What the cells of a figure show, and what shares a scale."""

import numpy as np
import pytest

from l2d.layers import Layer, build_layers, find_limits, format_number, format_probability, measure_by_area

MAPS = [{"cat": np.array([[0.0, 2.0]]), "dog": np.array([[1.0]])}, {"cat": np.array([[1.0], [4.0]]), "dog": np.array([[-3.0]])}, {}]
LABELS = ["cat", "dog"]


@pytest.mark.parametrize(
    ("scale", "limits"),
    [("row", [[8, 8, 8], [1, 1, 1]]), ("map", [[4, 8, 0], [1, 0, 0]]), ("grid", [[8, 8, 8], [8, 8, 8]])],
)
def test_a_scale_ends_at_the_largest_evidence_of_what_shares_it(scale: str, limits: list[list[float]]) -> None:
    assert find_limits(build_layers(MAPS, LABELS, scale), scale) == limits


def test_what_is_subtracted_keeps_a_scale_of_its_own() -> None:
    layers = build_layers(MAPS, LABELS, "row", minus=0)
    assert layers[1][1] is not None
    assert layers[1][1].spread((1, 1), smooth=False).item() == -4
    # Largest difference of either sign: 8 - 0 for the cat, -3 - 1 for the dog.
    assert find_limits(layers, "row", minus=0) == [[4, 8, 8], [1, 4, 4]]
    assert layers[0][2] is None


def test_on_scales_of_their_own_the_shares_of_each_maximum_are_compared() -> None:
    maps = [{"cat": np.array([[0.0, 2.0]])}, {"cat": np.array([[0.0, 10.0]])}]
    assert find_limits(build_layers(maps, ["cat"], "map", minus=0), "map", minus=0) == [[4, 0]]
    ((_, more),) = build_layers([*maps[:1], {"cat": np.array([[10.0, 10.0]])}], ["cat"], "map", minus=0)
    assert more is not None
    np.testing.assert_array_equal(more.spread((2, 1), smooth=False), [[1, 0]])


@pytest.mark.parametrize(("minus", "limits"), [(0, [[0, 1]]), (1, [[1, 20]])])
def test_a_map_without_evidence_has_a_share_of_nothing(minus: int, limits: list[list[float]]) -> None:
    maps = [{"cat": np.array([[0.0, 0.0]])}, {"cat": np.array([[0.0, 10.0]])}]
    assert find_limits(build_layers(maps, ["cat"], "map", minus=minus), "map", minus=minus) == limits


def test_a_difference_to_a_network_that_does_not_know_the_label_is_unknown() -> None:
    assert build_layers(MAPS, ["cat"], "row", minus=2) == [[None, None, None]]


def test_maps_of_different_sizes_are_subtracted_place_by_place() -> None:
    difference = Layer(np.array([[1.0, 3.0]]), np.array([[2.0], [1.0]])).spread((2, 2), smooth=False)
    np.testing.assert_array_equal(difference, [[-1, 1], [0, 2]])


def test_a_scale_ends_at_the_largest_difference_as_it_is_drawn() -> None:
    maps = [{"cat": np.array([[1.0, 2.0]]) / 2}, {"cat": np.array([[0.0, 4.0, 0.0, 0.0]]) / 4}]
    layers = build_layers(maps, ["cat"], "row", minus=0)
    assert find_limits(layers, "row", minus=0, smooth=False) == [[2, 3]]
    # At the second of four places the smaller map is 1.25 where it is interpolated, and 1 cell by cell.
    assert find_limits(layers, "row", minus=0, smooth=True) == [[2, 2.75]]


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 7)])
@pytest.mark.parametrize("finer", [(2, 2), (1, 3), (4, 2)])
def test_the_same_evidence_on_a_finer_grid_is_the_same_layer(size: tuple[int, int], finer: tuple[int, int]) -> None:
    field = np.random.default_rng(0).random(size).astype(np.float32)
    # Every cell's evidence shared among the smaller ones that it is divided into.
    maps = [{"cat": field}, {"cat": np.kron(field, np.ones(finer, np.float32)) / np.prod(finer)}]
    layers = build_layers(maps, ["cat"], "map")
    assert find_limits(layers, "map") == [pytest.approx([field.max() * field.size] * 2)]
    (coarse, fine), width, height = layers[0], 8 * size[1] * finer[1], 8 * size[0] * finer[0]
    assert coarse is not None
    assert fine is not None
    np.testing.assert_allclose(coarse.spread((width, height), smooth=False), fine.spread((width, height), smooth=False), rtol=1e-5)
    assert fine.evidence.mean() == pytest.approx(field.sum())
    differences = build_layers(maps, ["cat"], "row", minus=0)
    assert find_limits(differences, "row", minus=0, smooth=False)[0][1] == pytest.approx(0, abs=1e-4)


def test_an_area_of_one_cell_has_its_evidence() -> None:
    np.testing.assert_array_equal(measure_by_area([[0.5]]), [[0.5]])
    np.testing.assert_array_equal(measure_by_area([[0.5, 0.0], [0.25, np.nan]]), [[2, 0], [1, 0]])


PROBABILITIES = [
    (0.0, "0.00"),
    (1e-9, "<0.01"),
    (0.0049, "<0.01"),
    (0.005, "0.01"),
    (0.914, "0.91"),
    (0.9949, "0.99"),
    (0.997, ">0.99"),
    (1.0, "1.00"),
]


NUMBERS = [
    (0.0, "0"),
    (0.27111, "0.27"),
    (0.05, "0.050"),
    (0.01, "0.010"),
    (3.14, "3.1"),
    (4.0, "4.0"),
    (-9.96, "−10"),
    (99.4, "99"),
    (99.7, "100"),
    (-1234.6, "−1235"),
    (0.00031, "3e−4"),
    (-0.00031, "−3e−4"),
]


@pytest.mark.parametrize(("value", "text"), NUMBERS)
def test_numbers_are_short(value: float, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize(("probability", "text"), PROBABILITIES)
def test_no_probability_reads_as_certain_that_is_not(probability: float, text: str) -> None:
    assert format_probability(probability) == text
