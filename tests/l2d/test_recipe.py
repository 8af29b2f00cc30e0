"""A recipe: bad numbers are refused before anything starts."""

import dataclasses
import math
import re
from typing import Any

import pytest
import torch

from l2d.distill import METHODS
from l2d.losses.relations import find_pairs
from l2d.recipe import BOUNDS, Recipe


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds(name: str) -> None:
    low, high = BOUNDS[name]
    step = 1 if isinstance(low, int) else 1e-6
    assert getattr(Recipe(**{name: low}), name) == low
    assert getattr(Recipe(**{name: high}), name) == high
    for outside in (low - step, high + step):
        with pytest.raises(ValueError, match=f"^{name} must lie between"):
            Recipe(**{name: outside})


def test_every_number_has_bounds() -> None:
    numbers = {field.name for field in dataclasses.fields(Recipe) if isinstance(field.default, int | float)}
    assert numbers == BOUNDS.keys()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"lr": math.nan}, "lr must lie between 1e-08 and 10; got nan"),
        ({"lr": "fast"}, "lr must be a number; got 'fast'"),
        ({"epochs": 2.5}, "epochs must be a whole number; got 2.5"),
        ({"epochs": True}, "epochs must be a whole number; got True"),
        ({"method": "kd"}, "Unknown method 'kd'; the known ones are vanilla, .*l2d"),
        ({"method": "mld", "weights": {"cd": 1.0}}, "Method mld has no loss 'cd'; it has mld"),
        ({"method": "mld", "weights": {"mld": -1.0}}, "The weight of mld must be a number from 0 on; got -1"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Recipe(**fields)


def test_a_recipe_tells_the_weights_that_are_really_used() -> None:
    recipe = Recipe(method="l2d", weights={"cd": 5.0})
    assert recipe.as_dict()["weights"] == METHODS["l2d"] | {"cd": 5.0}
    assert Recipe(**recipe.as_dict()).as_dict() == recipe.as_dict()


def test_a_recipe_on_record_differs_in_what_it_says_otherwise_not_in_what_it_does_not_know_yet() -> None:
    recipe = Recipe(method="l2d", lr=1e-3)
    recorded = {name: value for name, value in recipe.as_dict().items() if name != "share"} | {"gone": 1}
    assert recipe.find_changes(recorded) == []
    assert recipe.find_changes(recorded | {"weights": {}}) == []  # the method's own
    assert dataclasses.replace(recipe, share=0.5, lr=1e-4).find_changes(recorded) == ["lr", "share"]
    assert dataclasses.replace(recipe, weights={"cd": 1.0}).find_changes(recorded) == ["weights"]


@pytest.mark.parametrize(
    ("method", "batch_size", "sentences"),
    [
        ("l2d", 64, []),
        ("mld", 2, []),
        # Each of 20 labels stands in 10 of 100 pictures: 20 x 45 pairs, of which 1 in 4950 meets in a batch of two.
        ("mld+cd", 2, ["The loss cd compares pictures of a batch that show the same label; .* a batch of 2 has 0.18 on average"]),
        ("l2d", 2, ["The loss cd"]),
    ],
)
def test_a_batch_too_small_for_pairs_is_doubted(method: str, batch_size: int, sentences: list[str]) -> None:
    targets = torch.eye(10).repeat(10, 1)
    targets = torch.cat([targets, targets.roll(1, 1)], 1)
    doubts = Recipe(method=method, batch_size=batch_size).find_doubts(targets)
    assert len(doubts) == len(sentences)
    for doubt, sentence in zip(doubts, sentences, strict=True):
        assert re.match(sentence, doubt)


def test_one_label_a_picture_is_doubted() -> None:
    targets = torch.eye(5).repeat(20, 1)
    (doubt,) = Recipe(method="l2d").find_doubts(targets)
    assert doubt.startswith("The loss id compares labels that a picture shows at once; of such pairs a batch of 64 has 0 on average")
    assert Recipe(method="l2d", weights={"id": 0.0}).find_doubts(targets) == []


def test_the_expected_number_of_pairs_is_the_mean_over_batches() -> None:
    targets = (torch.rand(30, 4, generator=torch.Generator().manual_seed(0)) < 0.05).float()
    counted = [len(find_pairs(targets[torch.randperm(30, generator=torch.Generator().manual_seed(s))[:8]].T).first) for s in range(4000)]
    (doubt, _) = Recipe(method="l2d", batch_size=8).find_doubts(targets)
    assert float(re.search(r"has ([\d.e-]+) on average", doubt)[1]) == pytest.approx(sum(counted) / len(counted), rel=0.15)


def test_the_defaults_are_the_papers() -> None:
    recipe = Recipe()
    assert (recipe.lr, recipe.batch_size, recipe.epochs, recipe.weight_decay, recipe.warmup) == (1e-4, 64, 80, 1e-4, 0.2)
