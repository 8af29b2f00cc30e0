"""What the cells of a figure show: a map's evidence, or how it differs from another network's, and what shares a scale."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

# What maps hold, and what shares a scale, in the words of the page and of a figure's caption.
KINDS = {
    "layercam": "LayerCAM evidence per picture area, from zero",
    "attention": "the head's attention in multiples of an even spread, whether the label is there or not",
}
SCALES = {"row": "one scale per row", "map": "every map up to its own maximum", "grid": "one scale for the whole grid"}

Numbers = NDArray[np.floating[Any]]


class Layer(NamedTuple):
    """One cell's numbers.

    Attributes:
        evidence: of a map, per picture area as `measure_by_area` gives it, (h, w).
        other: evidence that is subtracted from it, of any size, or None.
    """

    evidence: Numbers
    other: Numbers | None = None

    def find_peak(self, smooth: bool) -> float:
        """What full colour stands for on a scale of its own: the largest evidence, or the largest difference of either sign; 0 for none.

        Maps of different sizes are compared at the cells of the finer one, as `spread` gives their numbers there.
        """
        if self.other is None:
            return _find_largest(self.evidence)
        height, width = np.maximum(self.evidence.shape, self.other.shape).tolist()
        return float(np.abs(self.spread((width, height), smooth)).max())

    def spread(self, size: tuple[int, int], smooth: bool) -> Numbers:
        """The numbers at (width, height) pixels: bilinear between the centres of the cells, or the cells as they are."""
        field = _resize(self.evidence, size, smooth)
        return field if self.other is None else field - _resize(self.other, size, smooth)


def format_probability(probability: float) -> str:
    """A probability as people read it: with two decimals, but 0.00 or 1.00 only where it is just that."""
    if 0 < probability < 0.005:
        return "<0.01"
    return ">0.99" if 0.995 <= probability < 1 else f"{probability:.2f}"


def format_number(value: float) -> str:
    """A value of a map as people read it: two significant digits, or all those before the point; so does the page."""
    if value == 0:
        return "0"
    if abs(value) < 0.01:
        digit, _, power = f"{value:.0e}".partition("e")
        text = f"{digit}e{int(power)}"
    else:
        text = f"{value:.0f}" if abs(value) >= 99.5 else f"{value:#.2g}".removesuffix(".")
    return text.replace("-", "−")


def measure_by_area(evidence: ArrayLike) -> Numbers:
    """A raw map, (h, w), in evidence per picture area: every cell's times the number of cells. What is not a number is none.

    The head's attention shares 1 among all cells, and its gradients with it: on a finer grid a label has about as much evidence in all, and
    less in each cell. Only in this unit, whose mean is the map's sum, do maps with more and with fewer cells compare.
    """
    numbers = np.asarray(evidence, dtype=np.float32)
    return np.nan_to_num(numbers * numbers.size)


def build_layers(
    maps: Sequence[Mapping[str, NDArray[Any]]], labels: Sequence[str], scale: str, minus: int | None = None
) -> list[list[Layer | None]]:
    """A row of layers per label; None where a network, or the one that is subtracted, does not know the label.

    Args:
        maps: label -> raw evidence, per network.
        scale: one of `SCALES`. With one per map, differences are those of shares of each map's maximum.
        minus: the network whose evidence is subtracted from the others', or None. Its own is shown as it is.
    """
    rows = []
    for label in labels:
        found = [measure_by_area(each[label]) if label in each else None for each in maps]
        if minus is None:
            rows.append([None if evidence is None else Layer(evidence) for evidence in found])
        else:
            rows.append([_subtract(evidence, found[minus], scale, number == minus) for number, evidence in enumerate(found)])
    return rows


def find_limits(layers: Sequence[Sequence[Layer | None]], scale: str, minus: int | None = None, smooth: bool = True) -> list[list[float]]:
    """The end of every cell's scale, row by row. What is subtracted from the others has a scale of its own."""
    peaks = np.array([[0.0 if layer is None else layer.find_peak(smooth) for layer in row] for row in layers])
    others = peaks if minus is None else np.delete(peaks, minus, axis=1)
    shared = {"row": others.max(1, keepdims=True, initial=0), "map": peaks, "grid": others.max(initial=0)}[scale]
    limits = np.broadcast_to(shared, peaks.shape).copy()
    if minus is not None:
        limits[:, minus] = peaks[:, minus]
    return limits.tolist()


def _subtract(evidence: Numbers | None, other: Numbers | None, scale: str, itself: bool) -> Layer | None:
    if evidence is None or other is None:
        return None
    if itself:
        return Layer(evidence)
    if scale == "map":
        return Layer(evidence / (_find_largest(evidence) or 1), other / (_find_largest(other) or 1))
    return Layer(evidence, other)


def _find_largest(evidence: Numbers) -> float:
    return float(evidence.max(initial=0))


def _resize(numbers: Numbers, size: tuple[int, int], smooth: bool) -> Numbers:
    filtering = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(numbers.astype(np.float32)).resize(size, filtering))
