"""The losses compute what the loops do, and no more work than their pairs need."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from l2d import bench_losses as module
from l2d.bench import measure_in_turns
from l2d.bench_losses import bench_losses, draw_targets, loop_over_losses, sum_losses
from l2d.losses import cd, id
from l2d.outputs import Outputs


def draw_outputs(images: int, labels: int, seed: int, width: int = 8) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    embeddings, logits = torch.randn(images, labels, width, generator=generator), torch.randn(images, labels, generator=generator)
    return Outputs((), embeddings.requires_grad_(), logits.requires_grad_())


class WorkCounter(TorchDispatchMode):
    """Counts the numbers that operations return."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs or {})
        # What shares its memory with an input was not computed.
        inputs = {value.untyped_storage()._cdata for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        made = [value for value in tree_leaves(result) if isinstance(value, Tensor) and value.untyped_storage()._cdata not in inputs]
        self.numbers += sum(value.numel() for value in made)
        return result


def count_work(targets: Tensor) -> int:
    student, teacher = (draw_outputs(*targets.shape, seed) for seed in (0, 1))
    with WorkCounter() as counter:
        (cd(student, teacher, targets) + id(student, teacher, targets)).detach()
    return counter.numbers


def test_labels_that_nobody_has_cost_almost_nothing():
    """As many pairs among 40 times as many labels: far from 40 times the work."""
    few = draw_targets(24, 20)
    many = torch.zeros(24, 800)
    many[:, :20] = few
    # What grows is a few numbers per label; the pairs have as many as an embedding is wide, at the least.
    assert count_work(many) - count_work(few) < 40 * 780


def test_work_grows_with_the_pairs():
    targets = {members: torch.zeros(64, 6) for members in (0, 20, 40)}
    for members, some in targets.items():
        some[:members, 0] = 1
    nothing, fewer, more = (count_work(some) for some in targets.values())
    assert (more - nothing) / (fewer - nothing) == pytest.approx((40 * 39) / (20 * 19), rel=0.2)


def test_the_gradient_is_that_of_the_loop_in_double_precision():
    targets = draw_targets(16, 12)
    student, teacher = (draw_outputs(16, 12, seed, width=32) for seed in (0, 1))
    double = [Outputs((), *(part.detach().double().requires_grad_() for part in one[1:])) for one in (student, teacher)]
    # One shared direction: distances far smaller than the embeddings are long.
    with torch.no_grad():
        for one in (student, double[0]):
            one.embeddings.add_(10)
    sum_losses(student, teacher, targets).backward()
    loop_over_losses(*double, targets.double()).backward()
    torch.testing.assert_close(student.embeddings.grad.double(), double[0].embeddings.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(student.logits.grad.double(), double[0].logits.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", [cd, id])
def test_no_value_is_fetched_from_the_device(loss: Any):
    """Meta tensors have no values: whatever asked for one would fail, forward or backward."""
    student, teacher = (
        Outputs((), torch.empty(6, 9, 8, device="meta", requires_grad=True), torch.empty(6, 9, device="meta")) for _ in range(2)
    )
    loss(student, teacher, draw_targets(6, 9)).backward()
    assert student.embeddings.grad.device.type == "meta"


def test_drawn_labels_are_as_many_and_as_uneven_as_those_of_photographs():
    targets = draw_targets(4000, 80)
    assert float(targets.sum(1).mean()) == pytest.approx(2.9, abs=0.1)
    assert targets.mean(0).max() > 0.5 > 0.02 > targets.mean(0).min()


@pytest.mark.parametrize("targets", [draw_targets(12, 10), torch.zeros(3, 4), torch.ones(4, 3)])
def test_the_loop_computes_the_same_losses_and_gradients(targets: Tensor):
    gradients = []
    for compute in (sum_losses, loop_over_losses):
        student, teacher = draw_outputs(*targets.shape, 0), draw_outputs(*targets.shape, 1)
        value = compute(student, Outputs((), teacher.embeddings.detach(), teacher.logits.detach()), targets)
        value.backward()
        zeros = torch.zeros_like(student.embeddings)
        gradients.append((value.detach(), student.embeddings.grad if student.embeddings.grad is not None else zeros, student.logits.grad))
    for ours, loop in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, loop, rtol=1e-4, atol=1e-6)


def test_loss_benchmark_reports_both_sides_of_its_ratio(monkeypatch: pytest.MonkeyPatch):
    def measure(*args: Any) -> dict[str, list[float]]:
        assert {name: len(times) for name, times in measure_in_turns(*args).items()} == {"ours": 3, "loop": 3}
        return {"ours": [0.001, 0.002, 0.004], "loop": [0.008, 0.020, 0.020]}

    monkeypatch.setattr(module, "measure_in_turns", measure)
    told: list[tuple[int, int]] = []
    report = bench_losses(
        images=16, labels=12, width=16, rounds=3, device=torch.device("cpu"), progress=lambda done, total: told.append((done, total))
    )
    assert told == [(0, 3), (1, 3), (2, 3)]
    assert report["disagreement"] < 1e-5
    assert report["pairs"]["id"] == sum(n * (n - 1) // 2 for n in draw_targets(16, 12).sum(1).long().tolist())
    assert report["milliseconds"] == pytest.approx({"ours": 2, "loop": 20})
    assert report["ratio"] == pytest.approx(8)
