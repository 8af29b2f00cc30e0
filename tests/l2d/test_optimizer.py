"""Adam, its weight decay and its one-cycle schedule, against their formulas; averaged weights and frozen stages."""

import math

import pytest
import torch
from torch import Tensor, nn

from l2d.data.images import Index
from l2d.model import LabelNet, create_model
from l2d.optimizer import create_optimizer, freeze_stages
from l2d.recipe import Recipe
from l2d.train import fit
from tests.l2d.conftest import make_network, make_recipe, train_out, weights


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


@pytest.mark.parametrize(("decay", "first", "second"), [(0.15, 0.15, 0.15), (0.2, 2 / 11, 0.2), (0.9, 2 / 11, 3 / 12)])
def test_the_average_is_the_exponential_one_and_forgets_the_first_steps_sooner(
    bands: Index, decay: float, first: float, second: float
) -> None:
    network, seen = make_network(), []
    recipe = make_recipe(epochs=3, batch_size=24, averaging=decay)
    for report in fit(network, bands, recipe):
        assert report.model is not network.model
        seen.append(weights(network.model))
        averaged = weights(report.model)
    for name in ("head.bias", "backbone.bn1.running_mean"):
        expected = second * (first * seen[0][name] + (1 - first) * seen[1][name]) + (1 - second) * seen[2][name]
        torch.testing.assert_close(averaged[name], expected)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet"])
def test_frozen_stages_stay_as_they_were(bands: Index, backbone: str) -> None:
    network = make_network(backbone=backbone)
    with torch.no_grad():
        for parameter in network.model.parameters():  # some start at zero, and would hide what lies before them
            parameter.add_(0.1)
    before = weights(network.model)
    early = stage_of_every_tensor(network.model, 2)
    train_out(bands, make_recipe(freeze_stages=2, averaging=0.9, holdout=0.25), network)
    after = weights(network.model)
    assert any("running_mean" in name for name in early)
    assert [name for name in early if not torch.equal(before[name], after[name])] == []
    late = [name for name in before if name.startswith("backbone") and name not in early]
    assert late
    assert [name for name in late if torch.equal(before[name], after[name])] == []


def test_frozen_stages_drop_no_paths() -> None:
    torch.manual_seed(0)
    model, images = create_model("swin_tiny_patch4_window7_224", 3, image_size=64, width=16, feedforward=16), torch.randn(8, 3, 64, 64)
    frozen = freeze_stages(model, 3, 64)
    model.train()
    for module in frozen:
        module.eval()
    with torch.no_grad():
        first, second = model(images).features, model(images).features
    torch.testing.assert_close(first[2], second[2], rtol=0, atol=0)
    assert not torch.equal(first[3], second[3]), "the later ones do"


def stage_of_every_tensor(model: LabelNet, count: int) -> set[str]:
    """Names of what the first stages are computed from: changing anything else leaves them as they are."""
    found, images = set(), torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    model.eval()
    state = model.state_dict()
    with torch.no_grad():
        expected = model(images).features[count - 1]
        for name, tensor in state.items():
            kept = tensor.clone()
            tensor.copy_(tensor + 1)
            # Counters of batches are read by nothing: they belong to their layer.
            changed = not torch.equal(model(images).features[count - 1], expected)
            tensor.copy_(kept)
            if changed:
                found.add(name)
    layers = {name.rpartition(".")[0] for name in found}
    return {name for name in state if name.rpartition(".")[0] in layers}


def test_too_many_frozen_stages_are_refused(bands: Index) -> None:
    with pytest.raises(ValueError, match="freeze_stages must be at most 5, the number of the backbone's stages; got 6"):
        train_out(bands, make_recipe(freeze_stages=6))
