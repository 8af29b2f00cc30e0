"""A recipe: bad numbers are refused before anything starts."""

import dataclasses
import math
import re
from typing import Any

import pytest
import torch

from l2d.distill import METHODS
from l2d.losses import LOSSES
from l2d.outputs import Outputs
from l2d.published import read_recipes
from l2d.recipe import BOUNDS, Recipe, count_held_out, count_trained


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds(name: str) -> None:
    low, high = BOUNDS[name]
    step = 1 if isinstance(low, int) else 1e-6
    assert getattr(Recipe(**{name: low}), name) == low
    assert getattr(Recipe(**{name: high}), name) == high
    for outside in (low - step, high + step):
        with pytest.raises(ValueError, match=f"^{name} must lie between"):
            Recipe(**{name: outside})


def test_a_share_is_no_more_than_the_whole_and_some_are_less() -> None:
    for names, above in ((("min_area", "cutout", "share"), 1.001), (("warmup", "averaging", "holdout"), 1.0)):
        for name in names:
            with pytest.raises(ValueError, match=f"^{name} must lie between"):
                Recipe(**{name: above})


def test_every_number_has_bounds() -> None:
    numbers = {field.name for field in dataclasses.fields(Recipe) if isinstance(field.default, int | float)}
    assert numbers == BOUNDS.keys()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"lr": math.nan}, "lr must lie between 1e-08 and 10; got nan"),
        ({"seed": -1}, "seed must lie between 0 and 2147483648; got -1"),
        ({"lr": "fast"}, "lr must be a number; got 'fast'"),
        ({"epochs": 2.5}, "epochs must be a whole number; got 2.5"),
        ({"epochs": True}, "epochs must be a whole number; got True"),
        ({"method": "kd"}, "Unknown method 'kd'; the known ones are vanilla, .*l2d"),
        ({"augmentation": "mixup"}, "Unknown augmentation 'mixup'; the known ones are crops, randaugment"),
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
    recorded = {name: value for name, value in recipe.as_dict().items() if name != "share"}
    assert recipe.find_changes(recorded) == []
    assert recipe.find_changes(recorded | {"mixup": 0.5}) == ["mixup, which only a newer revision knows"]
    assert recipe.find_changes(recorded | {"weights": {}}) == []  # the method's own
    assert dataclasses.replace(recipe, share=0.5, lr=1e-4).find_changes(recorded) == ["lr", "share"]
    assert dataclasses.replace(recipe, weights={"cd": 1.0}).find_changes(recorded) == ["weights"]


@pytest.mark.parametrize(
    ("method", "batch_size", "sentences"),
    [
        ("l2d", 64, []),
        ("mld", 2, []),
        # Each of 30 labels stands in 10 of 100 pictures: 30 x 120 triples, of which 1 in 161700 meets in a batch of three.
        (
            "mld+cd",
            3,
            ["The loss cd compares pictures of a batch that show the same label, .* of such groups a batch of 3 has 0.022 on av"],
        ),
        ("l2d", 2, ["The loss cd .* of such groups a batch of 2 has 0 on average"]),
    ],
)
def test_a_batch_too_small_for_groups_is_doubted(method: str, batch_size: int, sentences: list[str]) -> None:
    targets = torch.eye(10).repeat(10, 1)
    targets = torch.cat([targets, targets.roll(1, 1), targets.roll(2, 1)], 1)
    doubts = Recipe(method=method, batch_size=batch_size).find_doubts(targets)
    assert len(doubts) == len(sentences)
    for doubt, sentence in zip(doubts, sentences, strict=True):
        assert re.match(sentence, doubt)


@pytest.mark.parametrize("shown", [1, 2])
def test_too_few_labels_a_picture_are_doubted_where_id_would_teach_nothing(shown: int) -> None:
    targets = torch.eye(5).repeat(20, 1)
    targets = targets + targets.roll(1, 1) * (shown - 1)
    assert learn("id", targets) == (0, 0)
    (doubt,) = Recipe(method="l2d").find_doubts(targets)
    assert doubt.startswith(
        "The loss id compares labels that a picture shows at once, and learns where there are at least 3: of such groups a batch"
    )
    assert Recipe(method="l2d", weights={"id": 0.5}).find_doubts(targets) == [doubt]
    assert Recipe(method="l2d", weights={"id": 0.0}).find_doubts(targets) == []


def test_three_labels_in_every_picture_teach_and_raise_no_doubt() -> None:
    targets = torch.eye(5).repeat(20, 1)
    targets = targets + targets.roll(1, 1) + targets.roll(2, 1)
    assert min(learn("id", targets)) > 0
    assert Recipe(method="l2d").find_doubts(targets) == []


@pytest.mark.parametrize("shown", [12, 48, 60])
def test_a_single_label_that_many_pictures_show_teaches_and_raises_no_doubt(shown: int) -> None:
    targets = (torch.arange(60) < shown).float()[:, None]
    assert min(learn("cd", targets)) > 0
    assert Recipe(method="mld+cd", batch_size=16).find_doubts(targets) == []


@pytest.mark.parametrize("targets", [torch.ones(40, 1), torch.tensor([[0.0], [1.0]] * 20), torch.zeros(40, 3), torch.ones(40, 3)])
def test_pictures_without_a_label_and_another_that_is_absent_are_doubted_where_ps_would_teach_nothing(targets: torch.Tensor) -> None:
    mine, theirs = (Outputs((), torch.empty(0), torch.randn(targets.shape, generator=torch.Generator().manual_seed(n))) for n in (0, 1))
    assert float(LOSSES["ps"](mine, theirs, targets)) == 0
    (doubt,) = Recipe(method="ps", batch_size=16).find_doubts(targets)
    assert doubt.startswith(
        "The loss ps compares labels that a picture shows with labels that it does not: of pictures with both a batch of 16 has 0 "
    )
    assert Recipe(method="ps", weights={"ps": 0.0}).find_doubts(targets) == Recipe(method="mld").find_doubts(targets) == []


def test_how_few_pictures_of_a_batch_teach_ps_is_told() -> None:
    targets = torch.cat([torch.eye(2), torch.ones(198, 2)])
    (doubt,) = Recipe(method="ps", batch_size=16, weights={"ps": 0.5}).find_doubts(targets)
    assert "of pictures with both a batch of 16 has 0.16 on average" in doubt
    assert Recipe(method="ps", batch_size=64).find_doubts(targets) == []


def test_one_label_in_each_picture_and_another_that_is_absent_raise_no_doubt_of_ps() -> None:
    assert Recipe(method="ps").find_doubts(torch.eye(2).repeat(20, 1)) == []


def test_labels_as_sparse_as_those_of_coco_need_more_than_a_batch_of_eight() -> None:
    targets = (torch.rand(5000, 80, generator=torch.Generator().manual_seed(0)) < 2.9 / 80).float()
    (doubt,) = Recipe(method="l2d", batch_size=8).find_doubts(targets)
    assert doubt.startswith("The loss cd")
    assert Recipe(method="l2d", **read_recipes()["recipes"]["shipped"]["recipe"]).find_doubts(targets) == []


def test_the_expected_number_of_groups_is_the_mean_over_batches() -> None:
    targets = (torch.rand(30, 8, generator=torch.Generator().manual_seed(0)) < 0.12).float()
    orders = [torch.randperm(30, generator=torch.Generator().manual_seed(seed)) for seed in range(4000)]
    counted = [int((targets[order[:6]].sum(0) >= 3).sum()) for order in orders]
    (doubt, _) = Recipe(method="l2d", batch_size=6).find_doubts(targets)
    assert float(re.search(r"has ([\d.e-]+) on average", doubt)[1]) == pytest.approx(sum(counted) / len(counted), rel=0.1)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_pictures_are_doubted_too(count: int) -> None:
    assert len(Recipe(method="l2d").find_doubts(torch.ones(count, 2))) == 2


def learn(name: str, targets: torch.Tensor) -> tuple[float, float]:
    """A relation loss, and its largest gradient, for random embeddings, but for rounding."""
    generator = torch.Generator().manual_seed(0)
    mine, theirs = (torch.randn(*targets.shape, width, generator=generator) for width in (4, 6))
    value = LOSSES[name](Outputs((), mine.requires_grad_(), torch.empty(0)), Outputs((), theirs, torch.empty(0)), targets)
    value.backward()
    assert mine.grad is not None
    return round(float(value.detach()), 5), round(float(mine.grad.abs().max()), 5)


@pytest.mark.parametrize(
    ("pictures", "holdout", "share", "counts"),
    [(23, 0.25, 0.45, (6, 8)), (3, 0.1, 1.0, (1, 2)), (10, 0.0, 0.5, (0, 5)), (1000, 0.001, 1.0, (1, 999))],
)
def test_pictures_held_out_and_trained_on(pictures: int, holdout: float, share: float, counts: tuple[int, int]) -> None:
    assert (count_held_out(pictures, holdout), count_trained(pictures, holdout, share)) == counts


def test_the_defaults_are_the_papers() -> None:
    recipe = Recipe()
    assert (recipe.lr, recipe.batch_size, recipe.epochs, recipe.weight_decay, recipe.warmup) == (1e-4, 64, 80, 1e-4, 0.2)
    assert recipe.train_size == recipe.teacher_size == 224
