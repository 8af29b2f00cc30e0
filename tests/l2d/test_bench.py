"""The benchmarks of training measure what they say."""

import io
import json
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from l2d import bench, processes, terminal
from l2d.bench import Clock, Step, bench_training
from l2d.bench_losses import draw_targets
from l2d.cli import app
from l2d.data import read_index
from l2d.data.images import Pictures
from l2d.environment import describe_program
from l2d.memory import AllocationCounter, compare_memory

CPU = torch.device("cpu")


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
    sizes = {"image_size": 32, "batch_size": 4, "rounds": 2, "device": CPU}
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
    # Slower than a step of a busy machine.
    monkeypatch.setattr(Pictures, "_decode", lambda pictures, row: (time.sleep(0.5), decode(pictures, row))[1])
    monkeypatch.setattr(processes, "count_processors", lambda: 2)
    # What the other tests look at; it takes longer than all the rest.
    monkeypatch.setattr(bench, "compare_memory", lambda *_: {})
    report = bench_training(drawn, teacher="test_resnet", student="test_efficientnet", image_size=32, batch_size=4, rounds=2, device=CPU)
    assert report["milliseconds"]["wait"] < 100
    assert report["images_per_second"]["data"] < 8
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
    setting = json.loads(result.stdout)["setting"]
    assert setting["images"] == 8
    assert setting.items() >= describe_program(torch.device("cpu")).items()
    unknown = CliRunner().invoke(app, ["bench", "speed"])
    assert unknown.exit_code == 1
    assert "Unknown benchmark 'speed'; the known ones are loss, train, explain and serve." in " ".join(unknown.output.split())
