"""What the cells of a figure show, and what shares a scale."""

import numpy as np
import pytest

from l2d.layers import Layer, build_layers, find_limits, format_probability

MAPS = [{"cat": np.array([[0.0, 2.0]]), "dog": np.array([[1.0]])}, {"cat": np.array([[1.0], [4.0]]), "dog": np.array([[-3.0]])}, {}]
LABELS = ["cat", "dog"]


@pytest.mark.parametrize(
    ("scale", "limits"),
    [("row", [[4, 4, 4], [1, 1, 1]]), ("map", [[2, 4, 0], [1, 0, 0]]), ("grid", [[4, 4, 4], [4, 4, 4]])],
)
def test_a_scale_ends_at_the_largest_evidence_of_what_shares_it(scale: str, limits: list[list[float]]) -> None:
    assert find_limits(build_layers(MAPS, LABELS, scale), scale) == limits


def test_what_is_subtracted_keeps_a_scale_of_its_own() -> None:
    layers = build_layers(MAPS, LABELS, "row", minus=0)
    # Largest difference of either sign: 4 - 0 for the cat, -3 - 1 for the dog.
    assert find_limits(layers, "row", minus=0) == [[2, 4, 4], [1, 4, 4]]
    assert layers[0][2] is None


def test_on_scales_of_their_own_the_shares_of_each_maximum_are_compared() -> None:
    maps = [{"cat": np.array([[0.0, 2.0]])}, {"cat": np.array([[0.0, 10.0]])}]
    assert find_limits(build_layers(maps, ["cat"], "map", minus=0), "map", minus=0) == [[2, 0]]


@pytest.mark.parametrize(("minus", "limits"), [(0, [[0, 1]]), (1, [[1, 10]])])
def test_a_map_without_evidence_has_a_share_of_nothing(minus: int, limits: list[list[float]]) -> None:
    maps = [{"cat": np.array([[0.0, 0.0]])}, {"cat": np.array([[0.0, 10.0]])}]
    assert find_limits(build_layers(maps, ["cat"], "map", minus=minus), "map", minus=minus) == limits


def test_a_difference_to_a_network_that_does_not_know_the_label_is_unknown() -> None:
    assert build_layers(MAPS, ["cat"], "row", minus=2) == [[None, None, None]]


def test_maps_of_different_sizes_are_subtracted_place_by_place() -> None:
    difference = Layer(np.array([[1.0, 3.0]]), np.array([[2.0], [1.0]])).spread((2, 2), smooth=False)
    np.testing.assert_array_equal(difference, [[-1, 1], [0, 2]])


def test_a_scale_ends_at_the_largest_difference_as_it_is_drawn() -> None:
    maps = [{"cat": np.array([[1.0, 2.0]])}, {"cat": np.array([[0.0, 4.0, 0.0, 0.0]])}]
    layers = build_layers(maps, ["cat"], "row", minus=0)
    assert find_limits(layers, "row", minus=0, smooth=False) == [[2, 3]]
    # At the second of four places the smaller map is 1.25 where it is interpolated, and 1 cell by cell.
    assert find_limits(layers, "row", minus=0, smooth=True) == [[2, 2.75]]


def test_what_is_not_a_number_is_no_evidence() -> None:
    ((layer,),) = build_layers([{"cat": np.array([[np.nan, -1.0]])}], ["cat"], "row")
    assert layer is not None
    assert layer.find_peak(smooth=True) == 0


PROBABILITIES = [
    (0.0, "0.00"),
    (1e-9, "<0.01"),
    (0.0049, "<0.01"),
    (0.006, "0.01"),
    (0.914, "0.91"),
    (0.9949, "0.99"),
    (0.997, ">0.99"),
    (1.0, "1.00"),
]


@pytest.mark.parametrize(("probability", "text"), PROBABILITIES)
def test_no_probability_reads_as_certain_that_is_not(probability: float, text: str) -> None:
    assert format_probability(probability) == text
