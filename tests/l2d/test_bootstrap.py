"""The paired bootstrap: the textbook's interval of a mean, repeatable draws, and what is not defined."""

import math

import pytest
import torch
from torch import Tensor

from l2d.bootstrap import DRAWS, find_intervals


def test_the_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    """For the mean of many numbers the percentile interval is the mean +- 1.96 standard errors (Efron and Tibshirani, chapter 13)."""
    numbers = torch.randn(2000, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3 + 5
    found = find_intervals(lambda rows: {"mean": float(numbers[rows].mean())}, len(numbers))["mean"]
    error = float(numbers.std()) / math.sqrt(len(numbers))
    assert found["difference"] == pytest.approx(float(numbers.mean()))
    assert found["low"] == pytest.approx(float(numbers.mean()) - 1.96 * error, abs=0.15 * error)
    assert found["high"] == pytest.approx(float(numbers.mean()) + 1.96 * error, abs=0.15 * error)


def test_draws_repeat_and_progress_counts_them() -> None:
    seen: list[tuple[int, int]] = []

    def differ(rows: Tensor) -> dict[str, float]:
        assert rows.shape == (7,)
        assert set(rows.tolist()) <= set(range(7))
        return {"sum": float(rows.sum())}

    first = find_intervals(differ, 7, progress=lambda done, total: seen.append((done, total)))
    assert first == find_intervals(differ, 7)
    assert first["sum"]["difference"] == 21
    assert seen == [(done, DRAWS) for done in range(1, DRAWS + 1)]


def test_draws_without_a_value_are_left_out() -> None:
    found = find_intervals(lambda rows: {"first": 1.0 if (rows == 0).any() else math.nan}, 5)
    assert found == {"first": {"difference": 1.0, "low": 1.0, "high": 1.0}}


def test_what_is_defined_nowhere_is_none() -> None:
    assert find_intervals(lambda rows: {"never": math.nan}, 5) == {"never": {"difference": None, "low": None, "high": None}}
