"""Adam, its weight decay and its one-cycle schedule, against their formulas."""

import math

import pytest
import torch
from torch import Tensor, nn

from l2d.optimizer import create_optimizer
from l2d.recipe import Recipe


def one_cycle(step: int, steps: int, warmup: float, start: float, peak: float, end: float) -> float:
    """Half a cosine from start to peak over the first `warmup` of the steps, and another one down to the end."""
    rise = warmup * steps - 1
    if step <= rise:
        return peak + (start - peak) * (1 + math.cos(math.pi * step / rise)) / 2
    return end + (peak - end) * (1 + math.cos(math.pi * (step - rise) / (steps - 1 - rise))) / 2


@pytest.mark.parametrize("warmup", [0.2, 0.5])
def test_rates_follow_one_cycle_with_the_recipes_warm_up(warmup: float) -> None:
    """From a 25th of the peak up, and down to a 10,000th of that; Adam's momentum goes the other way, as the schedule's author has it."""
    recipe, steps = Recipe(epochs=5, lr=1e-3, warmup=warmup), 5 * 8
    optimizer, scheduler = create_optimizer(nn.Linear(2, 2), recipe, 8)
    rates, momenta = [], []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr())
        momenta.append(optimizer.param_groups[0]["betas"][0])
        optimizer.step()
        if len(rates) < steps:
            scheduler.step()
    expected = [one_cycle(step, steps, warmup, 1e-3 / 25, 1e-3, 1e-3 / 25e4) for step in range(steps)]
    # Matrices and vectors alike.
    assert rates == [pytest.approx([rate, rate], rel=1e-9) for rate in expected]
    assert momenta == pytest.approx([one_cycle(step, steps, warmup, 0.95, 0.85, 0.95) for step in range(steps)])


def test_weight_decay_joins_the_gradient_before_adam_scales_it() -> None:
    """Adam's own (L2) decay, as in the published code; AdamW's would shrink the weights beside the update."""
    recipe = Recipe(epochs=2, lr=0.01, weight_decay=0.1, warmup=0.5)
    layer = nn.Linear(3, 1).double()
    weight, bias = (torch.tensor(values, dtype=torch.float64) for values in ([[2.0, -1.0, 0.5]], [3.0]))
    for parameter, value in ((layer.weight, weight), (layer.bias, bias)):
        parameter.data.copy_(value)
        parameter.grad = torch.full_like(value, -0.15)
    optimizer, scheduler = create_optimizer(layer, recipe, 4)
    (rate, _) = scheduler.get_last_lr()
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), adam(weight, 0.1 * weight - 0.15, rate))
    torch.testing.assert_close(layer.bias.detach(), adam(bias, torch.full_like(bias, -0.15), rate))


def adam(value: Tensor, gradient: Tensor, rate: float) -> Tensor:
    """Its first update: both of its averages are that of a single gradient."""
    return value - rate * gradient / (gradient.square().sqrt() + 1e-8)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10])
def test_the_shortest_training_takes_a_step_at_nearly_the_peak_rate(steps: int) -> None:
    recipe = Recipe(epochs=1, lr=1e-3)
    optimizer, scheduler = create_optimizer(nn.Linear(2, 2), recipe, steps)
    rates = [scheduler.get_last_lr()[0]]
    for _ in range(steps - 1):
        optimizer.step()
        scheduler.step()
        rates.append(scheduler.get_last_lr()[0])
    assert 0.6 * recipe.lr < max(rates) <= recipe.lr


def test_weight_decay_is_on_matrices_and_kernels_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    optimizer, _ = create_optimizer(model, Recipe(weight_decay=0.01), 5)
    decays = {parameter: group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    assert decays == {parameter: 0.01 if parameter.ndim > 1 else 0.0 for parameter in model.parameters()}
