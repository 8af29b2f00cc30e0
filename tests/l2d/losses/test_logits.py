"""Losses on logits against the definitions, spelt out in Python floats (double precision), one image and label at a time."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from l2d.losses.logits import bce, mld, mse, ps
from l2d.outputs import Outputs

MakeOutputs = Callable[..., Outputs]
Rows = list[list[float]]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(one - max(logits)) for one in logits]
    return [power / sum(powers) for power in powers]


def loop_bce(student: Rows, teacher: Rows, targets: Rows) -> float:
    total = 0.0
    for logits, wanted in zip(student, targets, strict=True):
        for logit, target in zip(logits, wanted, strict=True):
            total -= target * math.log(sigmoid(logit)) + (1 - target) * math.log(1 - sigmoid(logit))
    return total


def loop_mld(student: Rows, teacher: Rows, targets: Rows) -> float:
    total = 0.0
    for mine, theirs in zip(student, teacher, strict=True):
        for s, t in zip(mine, theirs, strict=True):
            total += divergence([sigmoid(t), 1 - sigmoid(t)], [sigmoid(s), 1 - sigmoid(s)])
    return total / len(student)


def loop_mse(student: Rows, teacher: Rows, targets: Rows) -> float:
    errors = [(sigmoid(s) - sigmoid(t)) ** 2 for a, b in zip(student, teacher, strict=True) for s, t in zip(a, b, strict=True)]
    return sum(errors) / len(errors)


def loop_ps(student: Rows, teacher: Rows, targets: Rows) -> float:
    total = 0.0
    for mine, theirs, wanted in zip(student, teacher, targets, strict=True):
        rest = [label for label, target in enumerate(wanted) if target == 0]
        for label in range(len(wanted)):
            if wanted[label] == 1:
                total += divergence(*(softmax([logits[one] for one in [label, *rest]]) for logits in (theirs, mine)))
    return total / len(student)


LOOPS = {bce: loop_bce, mld: loop_mld, mse: loop_mse, ps: loop_ps}


def random_batch(seed: int, images: int = 6, labels: int = 7, scale: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (scale * torch.randn(images, labels, generator=generator) for _ in range(2))
    return student, teacher, (torch.rand(images, labels, generator=generator) < 0.4).float()


def only_logits(logits: Tensor) -> Outputs:
    return Outputs((), torch.empty(len(logits), 0, 0), logits)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("loss", LOOPS)
def test_equal_to_a_loop(loss: Callable[..., Tensor], seed: int):
    student, teacher, targets = random_batch(seed)
    expected = LOOPS[loss](student.double().tolist(), teacher.double().tolist(), targets.tolist())
    assert float(loss(only_logits(student), only_logits(teacher), targets)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [mld, mse, ps])
def test_gradient_is_that_of_the_definition(loss: Callable[..., Tensor]):
    """Against a step of the loop in every direction."""
    student, teacher, targets = random_batch(9, images=3, labels=4)
    student.requires_grad_()
    loss(only_logits(student), only_logits(teacher), targets).backward()
    step, rows = 1e-5, student.detach().double()
    for place in torch.cartesian_prod(torch.arange(3), torch.arange(4)).tolist():
        ends = []
        for sign in (1, -1):
            moved = rows.clone()
            moved[tuple(place)] += sign * step
            ends.append(LOOPS[loss](moved.tolist(), teacher.double().tolist(), targets.tolist()))
        assert float(student.grad[tuple(place)]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4, abs=1e-6)


def test_mld_ignores_the_targets():
    student, teacher, targets = (only_logits(part) for part in random_batch(1))
    assert mld(student, teacher, targets.logits) == mld(student, teacher, 1 - targets.logits)


def test_ps_leaves_images_with_only_positives_or_none_alone():
    student, teacher, targets = random_batch(2)
    targets[0], targets[1] = 1.0, 0.0
    student.requires_grad_()
    ps(only_logits(student), only_logits(teacher), targets).backward()
    assert not student.grad[:2].any()
    assert student.grad[2:].any()


def test_ps_does_not_let_positives_compete():
    # Another positive's logit may be anything: the first positive's share among the negatives stays.
    student, teacher = torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([[0.3, 2.0, -1.0]])
    targets = torch.tensor([[1.0, 1.0, 0.0]])
    alone = ps(only_logits(student[:, [0, 2]]), only_logits(teacher[:, [0, 2]]), targets[:, [0, 2]])
    other = ps(only_logits(student[:, [1, 2]]), only_logits(teacher[:, [1, 2]]), targets[:, [1, 2]])
    assert float(ps(only_logits(student), only_logits(teacher), targets)) == pytest.approx(float(alone + other), rel=1e-6)


def test_targets_may_be_whole_numbers():
    student, teacher, targets = random_batch(3)
    for loss in LOOPS:
        whole = loss(only_logits(student), only_logits(teacher), targets.long())
        assert whole == loss(only_logits(student), only_logits(teacher), targets)
