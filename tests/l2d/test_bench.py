"""The benchmarks measure what they say, and the relation losses do no more work than their pairs need."""

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typer.testing import CliRunner

from l2d import bench, processes, terminal
from l2d.bench import Clock, Step, bench_losses, bench_training, draw_targets, loop_over_losses, sum_losses
from l2d.cli import app
from l2d.data import read_index
from l2d.data.images import Pictures
from l2d.losses import cd, id
from l2d.memory import AllocationCounter, compare_memory
from l2d.outputs import Outputs

CPU = torch.device("cpu")


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


def test_loss_benchmark_reports_both_sides_of_its_ratio():
    told: list[tuple[int, int]] = []
    report = bench_losses(images=16, labels=12, width=16, rounds=3, progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 3), (1, 3), (2, 3)]
    assert report["disagreement"] < 1e-5
    assert report["pairs"]["id"] == sum(n * (n - 1) // 2 for n in draw_targets(16, 12).sum(1).long().tolist())
    assert report["ratio"] == pytest.approx(report["milliseconds"]["loop"] / report["milliseconds"]["ours"], rel=0.9)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setenv("L2D_CACHE", str(tmp_path))
    monkeypatch.setattr(bench, "LOADER_SECONDS", 0.2)
    return "shapes:10"


def test_a_step_in_parts_gives_the_gradients_of_a_step_in_one_piece(drawn: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("l2d.bench.supports_bfloat16", lambda device: False)
    step = Step(read_index(drawn, "train"), "test_resnet", "test_efficientnet", "l2d", 32, 4, CPU)
    images, targets = torch.rand(4, 3, 32, 32), step.index.targets[:4]
    step.optimizer.step = lambda: None  # the weights stay
    torch.manual_seed(0)
    step.take(images, targets, Clock(CPU))
    parts = {name: parameter.grad.clone() for name, parameter in step.student.named_parameters() if parameter.grad is not None}
    step.student.zero_grad()
    torch.manual_seed(0)
    taught = step.teacher(images)
    torch.stack(list(step.distiller(step.student(images), taught, targets).values())).sum().backward()
    whole = {name: parameter.grad for name, parameter in step.student.named_parameters() if parameter.grad is not None}
    assert parts.keys() == whole.keys()
    for name, gradient in parts.items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-4, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_training_benchmark_accounts_for_the_whole_step(drawn: str):
    sizes = {"image_size": 32, "batch_size": 4, "rounds": 2}
    told: list[tuple[int, int]] = []
    report = bench_training(
        drawn, teacher="test_resnet", student="test_efficientnet", progress=lambda done, total: told.append((done, total)), **sizes
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    parts = ["wait", "augment", "teacher", "student_forward", "losses", "student_backward", "optimizer"]
    assert list(report["milliseconds"]) == list(report["shares"]) == parts
    assert sum(report["shares"].values()) == pytest.approx(1)
    assert report["images_per_second"]["step"] == pytest.approx(4000 / sum(report["milliseconds"].values()))
    assert report["images_per_second"]["data"] > 0
    assert report["waiting"] == max(0, 1 - report["images_per_second"]["data"] / report["images_per_second"]["step"])


def test_slow_decoding_shows_as_waiting_and_in_no_part_of_the_step(drawn: str, monkeypatch: pytest.MonkeyPatch):
    decode = Pictures._decode
    monkeypatch.setattr(Pictures, "_decode", lambda pictures, row: (time.sleep(0.2), decode(pictures, row))[1])
    monkeypatch.setattr(processes, "count_processors", lambda: 2)
    report = bench_training(drawn, teacher="test_resnet", student="test_efficientnet", image_size=32, batch_size=4, rounds=2)
    assert report["milliseconds"]["wait"] < 100
    assert report["images_per_second"]["data"] < 20
    assert report["waiting"] > 0


def test_allocations_are_counted_for_as_long_as_they_live():
    with AllocationCounter() as counter:
        first = torch.zeros(1000)
        view = first.view(10, 100)[:5]
        assert counter.current == 4000
        second = view + 1
        assert counter.current == 6000
        del first
        assert counter.current == 6000  # the view still holds it
        del view
        assert counter.current == 2000
        second.mul_(2)
    assert (counter.current, counter.peak) == (2000, 6000)


def test_memory_of_a_method_that_keeps_more_is_larger():
    report = compare_memory("test_resnet", "test_efficientnet", draw_targets(8, 5), "reviewkd", 64, CPU)
    assert report["how"] == "counted"
    assert report["ratio"] == report["bytes"]["reviewkd"] / report["bytes"]["vanilla"]
    assert report["bytes"]["reviewkd"] > 1.1 * report["bytes"]["vanilla"]


def test_the_bar_is_drawn_by_its_calls_and_not_while_something_is_timed(monkeypatch: pytest.MonkeyPatch):
    drawn = io.StringIO()
    monkeypatch.setattr(terminal, "console", Console(file=drawn, force_terminal=True))
    with terminal.progress("bench", still=True) as advance:
        before = drawn.getvalue()
        time.sleep(0.3)
        assert drawn.getvalue() == before
        advance(1, 3)
        assert "1/3" in drawn.getvalue()


def test_benchmark_from_the_command_line():
    words = ["bench", "loss", "--batch-size", "8", "--labels", "6", "--width", "8", "--rounds", "1", "--device", "cpu", "--json"]
    result = CliRunner().invoke(app, words)
    assert json.loads(result.stdout)["setting"]["images"] == 8
    unknown = CliRunner().invoke(app, ["bench", "speed"])
    assert unknown.exit_code == 1
    assert "Unknown benchmark 'speed'; the known ones are loss, train, explain and serve." in " ".join(unknown.output.split())
