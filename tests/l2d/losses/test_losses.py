"""What holds for every loss by name: its scale, its minimum, and finite numbers wherever a batch can take it."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from l2d.losses import LOSSES, Loss, bce
from l2d.outputs import Outputs

MakeOutputs = Callable[..., Outputs]

# The published code's formulas (criterion/ of the authors' repository), run in float64 on the batch of conftest.py.
# mse: the definition, as none is published. bce: torch's binary cross-entropy of the probabilities, summed.
GOLDEN = {
    "bce": 26.48206409521414,
    "mld": 7.066259715630231,
    "cd": 0.01492766690461472,
    "id": 0.007131932328431326,
    "ps": 7.761523473140684,
    "mse": 0.4763391478353437,
    "rkd": 0.6530602946782953,
    "pkt": 0.03151924992008222,
}
# Losses that own weights have no fixed value.
FUNCTIONS = sorted(name for name, loss in LOSSES.items() if not isinstance(loss, type))
# The part of the outputs that each loss reads; ReviewKD reads them all but has weights of its own, so no fixed value.
READS = {"mld": "logits", "ps": "logits", "mse": "logits", "cd": "embeddings", "id": "embeddings"}


def build(name: str, student: Outputs, teacher: Outputs) -> Loss:
    """The named loss, ready to be called."""
    torch.manual_seed(0)
    loss = (LOSSES | {"bce": bce})[name]
    if isinstance(loss, type):
        return loss([one.shape[1] for one in student.features], [one.shape[1] for one in teacher.features])
    return loss


def convert(outputs: Outputs, dtype: torch.dtype) -> Outputs:
    return Outputs(tuple(one.to(dtype) for one in outputs.features), outputs.embeddings.to(dtype), outputs.logits.to(dtype))


def leaves(outputs: Outputs) -> tuple[Tensor, ...]:
    return (*outputs.features, outputs.embeddings, outputs.logits)


def gradients(outputs: Outputs) -> list[Tensor]:
    return [leaf.grad for leaf in leaves(outputs) if leaf.grad is not None]


def check_finite(name: str, student: Outputs, teacher: Outputs, targets: Tensor) -> float:
    """Value of the loss, after checking that it and every gradient are numbers and that the teacher gets none."""
    loss = build(name, student, teacher)(student, teacher, targets)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    loss.backward()
    assert loss.isfinite()
    assert gradients(student)
    assert all(gradient.isfinite().all() for gradient in gradients(student))
    assert not gradients(teacher)
    return float(loss.detach())


def test_every_loss_without_weights_has_a_golden_value():
    assert set(GOLDEN) == {*FUNCTIONS, "bce"}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_value(name: str, student: Outputs, teacher: Outputs, targets: Tensor):
    assert check_finite(name, student, teacher, targets) == pytest.approx(GOLDEN[name], rel=2e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_student_like_its_teacher_loses_nothing(name: str, student: Outputs, targets: Tensor):
    twin = Outputs(*student)
    assert LOSSES[name](student, twin, targets).abs() <= 1e-7
    LOSSES[name](student, twin, targets).backward()
    assert all(gradient.abs().max() < 1e-6 for gradient in gradients(student))


@pytest.mark.parametrize("start", [10.0, 11.0, 12.0, 13.0])
@pytest.mark.parametrize("name", LOSSES)
def test_other_students_lose_something(name: str, start: float, student: Outputs, outputs: MakeOutputs, targets: Tensor):
    assert check_finite(name, student, outputs(start), targets) > 0


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("name", LOSSES)
def test_all_labels_absent_or_present(name: str, value: float, student: Outputs, teacher: Outputs, targets: Tensor):
    loss = check_finite(name, student, teacher, torch.full_like(targets, value))
    # Partial softmax compares a positive with negatives: without either there is nothing to compare.
    if name == "ps" or (name in ("cd", "id") and value == 0):
        assert loss == 0


@pytest.mark.parametrize("name", LOSSES)
def test_one_label(name: str, outputs: MakeOutputs):
    check_finite(name, outputs(0.0, labels=1), outputs(10.0, labels=1), torch.tensor([[1.0], [0], [1], [1]]))


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_of_one_image(name: str, outputs: MakeOutputs, targets: Tensor):
    loss = check_finite(name, outputs(0.0, images=1), outputs(10.0, images=1), targets[:1])
    assert (loss == 0) == (name in ("cd", "rkd", "pkt"))


@pytest.mark.parametrize("name", ["cd", "id"])
def test_without_any_pair_the_loss_is_zero_with_a_gradient(name: str, student: Outputs, teacher: Outputs):
    assert check_finite(name, student, teacher, torch.eye(4, 5)) == 0
    assert student.embeddings.grad is not None
    assert not student.embeddings.grad.any()


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", ["bce", *LOSSES])
def test_logits_of_sixty(name: str, sign: float, student: Outputs, teacher: Outputs, targets: Tensor):
    extreme = [part._replace(logits=(60 * part.logits.detach().sign()).requires_grad_()) for part in (student, teacher)]
    extreme[0] = extreme[0]._replace(logits=(sign * extreme[0].logits.detach()).requires_grad_())
    check_finite(name, *extreme, targets)


@pytest.mark.parametrize("name", ["mld", "ps"])
def test_a_confident_mistake_costs_its_logit(name: str):
    # The published code is infinite here: its probabilities are rounded to 1 before the logarithm.
    part = Outputs((torch.zeros(1, 1, 1, 1),), torch.zeros(1, 2, 1), torch.tensor([[-60.0, 60.0]]))
    teacher = part._replace(logits=torch.tensor([[60.0, -60.0]]))
    assert LOSSES[name](part, teacher, torch.tensor([[1.0, 0]])) == pytest.approx(120.0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_collapsed_student_has_a_finite_gradient(name: str, student: Outputs, teacher: Outputs, targets: Tensor):
    """Equal features, embeddings and logits everywhere: every distance is 0 and no direction is defined."""
    flat = Outputs(
        tuple(torch.zeros_like(one).requires_grad_() for one in student.features),
        torch.ones_like(student.embeddings).requires_grad_(),
        torch.zeros_like(student.logits).requires_grad_(),
    )
    assert check_finite(name, flat, teacher, targets) > 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_losses_are_float32_under_autocast(name: str, student: Outputs, teacher: Outputs, targets: Tensor):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LOSSES[name](student, teacher, targets)
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(GOLDEN[name], rel=2e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", GOLDEN)
def test_half_precision_outputs_are_computed_in_single(name: str, dtype: torch.dtype, student: Outputs, teacher: Outputs, targets: Tensor):
    halves = [convert(part, dtype) for part in (student, teacher)]
    loss = build(name, *halves)(*halves, targets)
    assert loss.dtype == torch.float32
    assert loss == build(name, *halves)(*(convert(half, torch.float32) for half in halves), targets)


@pytest.mark.parametrize("name", LOSSES)
def test_networks_of_other_widths(name: str, student: Outputs, outputs: MakeOutputs, targets: Tensor):
    check_finite(name, student, outputs(10.0, channels=(4, 9), width=12), targets)


@pytest.mark.parametrize(("name", "part"), READS.items())
def test_a_loss_reads_only_its_part(name: str, part: str, student: Outputs, teacher: Outputs, targets: Tensor):
    LOSSES[name](student, teacher, targets).backward()
    assert [leaf is getattr(student, part) for leaf in leaves(student) if leaf.grad is not None] == [True]


@pytest.mark.parametrize("name", ["bce", *LOSSES])
def test_arrays_and_an_empty_batch_are_refused(name: str, student: Outputs, teacher: Outputs, targets: Tensor):
    loss = build(name, student, teacher)
    arrays = Outputs(tuple(one.detach().numpy() for one in student.features), *(one.detach().numpy() for one in student[1:]))
    with pytest.raises(ValueError, match="Expected tensors of torch's; got ndarray"):
        loss(arrays, teacher, targets)
    none = Outputs(tuple(one[:0] for one in student.features), student.embeddings[:0], student.logits[:0])
    with pytest.raises(ValueError, match="at least one picture and label; got an empty one"):
        loss(none, none, targets[:0])


@pytest.mark.parametrize("name", ["cd", "id", "ps"])
def test_targets_that_would_be_misread_are_refused(name: str, student: Outputs, teacher: Outputs, outputs: MakeOutputs, targets: Tensor):
    loss: Loss = LOSSES[name]
    for wrong in (2 * targets - 1, 0.9 * targets + 0.05, targets * math.nan):
        with pytest.raises(ValueError, match="Targets must be 0 or 1 in a loss that compares positive labels"):
            loss(student, teacher, wrong)
    for wrong in (targets.T, targets[:, :3], targets[:3], targets[0]):
        with pytest.raises(ValueError, match="Targets, student and teacher must be of the same pictures and labels"):
            loss(student, teacher, wrong)
    with pytest.raises(ValueError, match=r"they are of \(4, 5\), \(4, 5\) and \(4, 6\)\."):
        loss(student, outputs(10.0, labels=6), targets)
    assert loss(student, teacher, targets.bool()) == loss(student, teacher, targets)
