"""Which of a network's weights are trained, how fast, and which average of them is the result."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from l2d.model import LabelNet
from l2d.outputs import Outputs
from l2d.recipe import Recipe

# As torch types what it averages.
Tensors = tuple[Tensor, ...] | list[Tensor]


def create_optimizer(model: nn.Module, recipe: Recipe, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Adam under a one-cycle schedule over `recipe.epochs` times `steps` steps; weight decay on matrices and kernels only."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    # On a GPU one operation instead of dozens; elsewhere the bits of a result would change.
    optimizer = torch.optim.Adam(groups, lr=recipe.lr, fused=all(parameter.is_cuda for parameter in trained))
    # The last step's rate is next to nothing. A training's only step is therefore the first of two.
    total = max(recipe.epochs * steps, 2)
    # A rise of a single step would start and end at once; torch divides by its length.
    warmup = float(recipe.warmup) if recipe.warmup * total != 1 else 0.0
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total, pct_start=warmup)


def create_average(model: LabelNet, decay: float) -> AveragedModel | None:
    """An exponential average of the weights and statistics, with this decay per step; None for 0.

    After n steps the decay is at most (1 + n) / (10 + n), as TensorFlow's: a short training would else end with hardly more than the
    weights that it began with.
    """
    if not decay:
        return None
    average = AveragedModel(model, use_buffers=True)

    def blend(averages: Tensors, values: Tensors, _: Tensor | int) -> None:
        if averages[0].is_floating_point():
            # The count on the host: to read the one that is passed would be to wait for a GPU.
            steps = int(average.n_averaged)
            torch._foreach_lerp_(averages, values, 1 - min(decay, (1 + steps) / (10 + steps)))
        else:
            # Counts of batches: torch's own averages these, too, each in three operations.
            torch._foreach_copy_(averages, values)

    average.multi_avg_fn = blend
    return average


def freeze_stages(model: LabelNet, count: int, image_size: int) -> list[nn.Module]:
    """Freeze whatever the backbone's first `count` stages depend on; return the modules that must stay in evaluation mode.

    The graph of a forward pass tells which weights these are, for every architecture.

    Raises:
        ValueError: if the backbone has fewer stages.
    """
    if not count:
        return []
    stages = _look_at_nothing(model, image_size).features
    if count >= len(stages):
        raise ValueError(f"freeze_stages must be at most {len(stages) - 1}, the number of the backbone's stages; got {count}.")
    early = _find_origins(stages[count - 1], list(model.parameters()))
    for parameter in early:
        parameter.requires_grad_(False)
    # With all that is inside them: what drops paths at random has no weights of its own.
    owned = [(module, list(module.parameters())) for module in model.modules()]
    return [module for module, weights in owned if weights and early.issuperset(weights)]


def freeze_unused(model: LabelNet, image_size: int) -> None:
    """Freeze the weights that no logit depends on: several processes wait for the gradients of all that are not frozen.

    Some of timm's backbones keep a part of their own classifier, as ConvNeXt its last norm and MobileNetV3 its last convolution.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in set(trained) - _find_origins(_look_at_nothing(model, image_size).logits, trained):
        parameter.requires_grad_(False)


def _look_at_nothing(model: LabelNet, image_size: int) -> Outputs:
    """What a network makes of a black picture; it is left in evaluation mode."""
    return model.eval()(torch.zeros(1, 3, image_size, image_size, device=next(model.parameters()).device))


def _find_origins(output: Tensor, parameters: Sequence[nn.Parameter]) -> set[nn.Parameter]:
    """Those of the parameters that an output depends on."""
    gradients = torch.autograd.grad(output.sum(), parameters, allow_unused=True)
    return {parameter for parameter, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
