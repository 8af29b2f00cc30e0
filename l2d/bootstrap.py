"""How far a difference between two networks would move with other pictures: the paired bootstrap.

Both are scored on the same random draws of the test pictures, as many as there are, with replacement; the interval holds the middle 95% of
the differences. It tells luck with the pictures, not luck with the training: that takes several seeds.

Source: B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (the percentile interval).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from l2d.progress import Progress

DRAWS = 1000
LOW, HIGH = 0.025, 0.975

Differences = dict[str, float]
Intervals = dict[str, dict[str, float | None]]


def find_intervals(differ: Callable[[Tensor], Differences], pictures: int, *, progress: Progress | None = None) -> Intervals:
    """The differences on all pictures, and the intervals that they move in.

    Args:
        differ: the differences by name on some pictures, given as a tensor of their numbers, in which one may come up again; NaN where
            one is not defined.
        pictures: how many there are.
        progress: called with the draws done and the number of draws.

    Returns:
        `difference`, `low` and `high` by name, None where it is not defined. The same draws at every call.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for done in range(1, DRAWS + 1):
        drawn.append(differ(torch.randint(pictures, (pictures,), generator=generator)))
        if progress is not None:
            progress(done, DRAWS)
    return {name: _describe(value, [draw[name] for draw in drawn]) for name, value in differ(torch.arange(pictures)).items()}


def _describe(difference: float, drawn: list[float]) -> dict[str, float | None]:
    low, high = torch.tensor(drawn, dtype=torch.float64).nanquantile(torch.tensor([LOW, HIGH], dtype=torch.float64)).tolist()
    numbers = {"difference": difference, "low": low, "high": high}
    return {name: None if math.isnan(difference) else value for name, value in numbers.items()}
