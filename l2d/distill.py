"""Distillation methods: which losses, with which weights."""

import math
from collections.abc import Mapping

from torch import Tensor, nn

from l2d.losses import LOSSES, Loss, bce
from l2d.losses.embeddings import one_batch
from l2d.outputs import Outputs, check_outputs

# Weights beside a summed binary cross-entropy of weight 1, as in the published code's configuration unless said otherwise.
METHODS: dict[str, dict[str, float]] = {
    "vanilla": {},
    "rkd": {"rkd": 1.0},  # the weights of its two terms are inside, as in the published code
    "pkt": {"pkt": 30000.0},  # no multi-label weight is published; RepDistiller's and mdistiller's, beside an averaged cross-entropy
    "reviewkd": {"reviewkd": 1.0},
    "mse": {"mse": 1000.0},  # none is published; ours: 10 x the sum over 80 to 100 labels, the scale of mld
    "ps": {"ps": 10.0},  # none is published; ours: mld's, as both are divergences averaged over images
    "mld": {"mld": 10.0},
    "led": {"cd": 100.0, "id": 1000.0},
    "mld+cd": {"mld": 10.0, "cd": 100.0},
    "mld+id": {"mld": 10.0, "id": 1000.0},
    "l2d": {"mld": 10.0, "cd": 100.0, "id": 1000.0},
}

# What a row of a table is about, as people write it.
TITLES = {
    "teacher": "Teacher",
    "vanilla": "Vanilla",
    "rkd": "RKD",
    "pkt": "PKT",
    "reviewkd": "ReviewKD",
    "mse": "MSE",
    "ps": "PS",
    "mld": "MLD",
    "led": "LED (CD + ID)",
    "mld+cd": "MLD + CD",
    "mld+id": "MLD + ID",
    "l2d": "L2D",
}


def choose_weights(method: str, weights: Mapping[str, float] | None = None) -> dict[str, float]:
    """The weights of a method, some of them replaced.

    Raises:
        ValueError: for an unknown method, a loss that the method does not have, or a weight that is negative or no number.
    """
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}; the known ones are {', '.join(METHODS)}.")
    chosen = dict(METHODS[method])
    for name, weight in (weights or {}).items():
        if name not in chosen:
            raise ValueError(f"Method {method} has no loss {name!r}; it has {', '.join(chosen) or 'none but the labels'}.")
        # Python's own numbers: a tensor, or NumPy's single precision, could not be written into the card after the first epoch.
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise ValueError(f"The weight of {name} must be a number from 0 on; got {weight!r}.")
        chosen[name] = weight
    return chosen


class Distiller(nn.Module):
    """The sum of the labels' binary cross-entropy and a method's weighted losses, part by part.

    Losses that own weights are submodules, so their weights join the optimiser with no special case.

    Args:
        weights: loss -> weight, as `choose_weights` gives them.
        student, teacher: the networks whose outputs will be compared; the teacher may be None where there is no loss to compare by. A
            loss that owns weights asks them for their `channels`, no other one asks anything: any module will do.

    Raises:
        ValueError: for a loss that is not in `l2d.losses.LOSSES`, losses without a teacher, or with networks that have no `channels` for
            one to be built from.
    """

    def __init__(self, weights: Mapping[str, float], student: nn.Module, teacher: nn.Module | None):
        super().__init__()
        if weights and teacher is None:
            raise ValueError(f"The losses {', '.join(weights)} need a teacher.")
        self.weights = dict(weights)
        self.losses = {name: _build(name, student, teacher) for name in weights} if teacher is not None else {}
        self.owned = nn.ModuleDict({name: loss for name, loss in self.losses.items() if isinstance(loss, nn.Module)})

    def keep(self, teacher: Outputs) -> Outputs:
        """What the losses look at of a teacher's outputs; its stages are large, and only losses with weights of their own compare them."""
        check_outputs(teacher)
        return teacher if self.owned else teacher._replace(features=teacher.features[-1:])

    def forward(self, student: Outputs, teacher: Outputs | None, targets: Tensor) -> dict[str, Tensor]:
        """Weighted losses by name; their sum is what is minimised. `targets` (N, C) should stay on the host, where pairs are found.

        Raises:
            ValueError: naming a loss that returns anything but a scalar tensor, or for networks that return no `Outputs`.
        """
        check_outputs(student)
        check_outputs(teacher)
        parts = {"bce": bce(student, teacher, targets)}
        if teacher is None:
            return parts
        with one_batch():
            found = {name: _require_scalar(name, loss(student, teacher, targets)) for name, loss in self.losses.items()}
        return parts | {name: self.weights[name] * loss for name, loss in found.items()}


def _require_scalar(name: str, found: object) -> Tensor:
    if isinstance(found, Tensor) and not found.ndim:
        return found
    shown = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
    raise ValueError(f"The {name} loss must return one number, as a tensor without dimensions; it returned {shown}.")


def _build(name: str, student: nn.Module, teacher: nn.Module) -> Loss:
    if name not in LOSSES:
        raise ValueError(f"Unknown loss {name!r}; those in l2d.losses.LOSSES are {', '.join(LOSSES)}.")
    loss = LOSSES[name]
    if not isinstance(loss, type):
        return loss
    if not all(hasattr(network, "channels") for network in (student, teacher)):
        raise ValueError(f"The loss {name} compares stages: student and teacher need `channels`, as of a LabelNet, and all their features.")
    return loss(student.channels, teacher.channels)
