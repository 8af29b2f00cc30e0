"""Training: what decides the result, and what must not. How it goes on after a stop is tested with its state."""

import copy
import dataclasses
import math
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from l2d import train
from l2d.checkpoint import Network
from l2d.data.images import Index
from l2d.device import choose_memory_format
from l2d.distill import METHODS
from l2d.losses import LOSSES
from l2d.meter import DivergenceError
from l2d.model import LabelNet
from l2d.optimizer import create_optimizer
from l2d.train import StepReport, fit, prepare, split_index
from tests.l2d.conftest import make_network, make_recipe, same, train_out, weights


@pytest.fixture
def inputs(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Everything that networks are given while they train."""
    seen: list[Tensor] = []
    forward = LabelNet.forward

    def watch(model: LabelNet, images: Tensor) -> Any:
        seen.append(images.detach().clone())
        return forward(model, images)

    monkeypatch.setattr(LabelNet, "forward", watch)
    return seen


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(bands: Index) -> None:
    results = [weights(train_out(bands, make_recipe(seed=seed), make_network(seed))[-1].model) for seed in (1, 1, 2)]
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_it_learns(bands: Index) -> None:
    recipe = make_recipe(epochs=12, lr=3e-3, cutout=0.0, min_area=0.8, averaging=0.5)
    reports = train_out(bands, recipe)
    assert reports[-1].losses["bce"] < 0.5 * reports[0].losses["bce"]


def test_every_step_is_one_of_adam_on_that_batchs_loss_alone(bands: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop that anybody would write, given the batches that were drawn."""
    batches, visit = [], train._Objective.forward
    monkeypatch.setattr(train, "supports_bfloat16", lambda device: False)
    monkeypatch.setattr(train._Objective, "forward", lambda part, *given: (batches.append(given), visit(part, *given))[1])
    network, recipe = make_network(), make_recipe()
    for module in network.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    reference = copy.deepcopy(network.model).train()
    reference.to(memory_format=choose_memory_format(reference, torch.device("cpu")))
    train_out(bands, recipe, network)
    optimizer, scheduler = create_optimizer(reference, recipe, 3)
    for images, _, targets in batches:
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(reference(images).logits, targets, reduction="sum").backward()
        optimizer.step()
        scheduler.step()
    assert len(batches) == 6
    assert same(weights(reference), weights(network.model))


def test_a_student_learns_from_its_teacher_alone_what_no_label_says(bands: Index) -> None:
    """The divergence from the teacher falls, so its gradient reaches the student."""
    recipe = make_recipe(method="mld", weights={"mld": 1000.0}, epochs=8, lr=3e-3, cutout=0.0, min_area=0.9, colour=0.0)
    reports = train_out(bands, recipe, teacher=make_network(7, width=24))
    assert reports[-1].losses["mld"] < 0.5 * reports[0].losses["mld"]


def test_a_teacher_is_left_as_it_was_however_it_came(bands: Index) -> None:
    """Not even its batch statistics follow the pictures, though somebody left it ready to be trained."""
    results = []
    for ready in (True, False):
        teacher = make_network(7)
        teacher.model.train(ready).requires_grad_(ready)
        before = weights(teacher.model)
        results.append(weights(train_out(bands, make_recipe(method="l2d", epochs=1), teacher=teacher)[-1].model))
        assert same(before, weights(teacher.model))
        assert all(parameter.grad is None for parameter in teacher.model.parameters())
    assert same(*results)


def test_what_a_caller_does_with_the_network_between_epochs_stops_no_part_of_it_from_learning(bands: Index) -> None:
    """As one who predicts with it does."""
    results = []
    for look in (True, False):
        for report in fit(make_network(), bands, make_recipe(freeze_stages=1)):
            report.model.train(not look)
        results.append(weights(report.model))
    assert same(*results)


def test_a_student_that_came_frozen_is_trained(bands: Index) -> None:
    """As a loaded checkpoint does."""
    network = make_network()
    network.model.eval().requires_grad_(False)
    before = weights(network.model)
    after = weights(train_out(bands, make_recipe(epochs=1), network)[-1].model)
    assert not any(torch.equal(before[name], after[name]) for name in ("backbone.bn1.weight", "backbone.bn1.running_mean", "head.bias"))


def test_the_weights_that_a_loss_owns_are_trained_too(bands: Index, tmp_path: Path) -> None:
    state, seen = tmp_path / "state.pt", []
    for _ in fit(make_network(), bands, make_recipe(method="reviewkd"), teacher=make_network(7), state=state):
        seen.append(torch.load(state, weights_only=True)["distiller"])
    names = [name for name in seen[0] if name.endswith("weight")]
    assert names
    assert [name for name in names if torch.equal(seen[0][name], seen[1][name])] == []


@pytest.mark.parametrize("method", ["l2d", "reviewkd", "rkd", "pkt", "mse", "ps"])
def test_methods_start_alike_and_see_the_same(bands: Index, inputs: list[Tensor], method: str) -> None:
    """With all weights at 0 a method gives the vanilla student, bit for bit, though ReviewKD draws weights of its own."""
    results, seen = [], []
    teacher = make_network(7, backbone="test_efficientnet")
    for name in ("vanilla", method):
        inputs.clear()
        zeros = dict.fromkeys(METHODS[name], 0.0)
        recipe = make_recipe(method=name, weights=zeros, epochs=2, teacher_size=48)
        results.append(weights(train_out(bands, recipe, teacher=teacher)[-1].model))
        seen.append([images for images in inputs if images.shape[-1] == 32])
    assert all(torch.equal(mine, other) for mine, other in zip(*seen, strict=True))
    assert same(*results)


def test_teacher_and_student_see_the_same_view_each_at_its_own_size_and_scaling(bands: Index, inputs: list[Tensor]) -> None:
    teacher = make_network(7)
    teacher = Network(teacher.model, dataclasses.replace(teacher.card, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    train_out(bands, make_recipe(method="mld", epochs=1, teacher_size=64), teacher=teacher)
    assert [images.shape[-1] for images in inputs] == [64, 32] * 3
    for view, own in zip(inputs[::2], inputs[1::2], strict=True):
        assert view.min() >= 0
        assert view.max() <= 1
        torch.testing.assert_close(prepare(view, 32, make_network().card), own)


def test_a_view_is_shrunk_from_all_of_its_pixels() -> None:
    """Stripes finer than the pixels that are left become grey."""
    stripes = torch.tensor([0.0, 1, 1, 0]).repeat(16).expand(1, 3, 64, 64)
    assert prepare(stripes, 16, make_network().card)[..., 1:-1].abs().max() < 0.1


def test_every_epoch_sees_other_views(bands: Index, inputs: list[Tensor]) -> None:
    train_out(bands, make_recipe(epochs=2))
    assert not any(torch.equal(first, second) for first, second in zip(inputs[:3], inputs[3:], strict=True))


@pytest.mark.parametrize(
    ("pictures", "batch_size", "batches"),
    [(24, 8, [8, 8, 8]), (23, 8, [8, 8]), (5, 8, [5]), (9, 8, [8]), (2, 8, [2]), (7, 2, [2, 2, 2])],
)
def test_batches_are_full_and_never_a_single_picture(
    bands: Index, inputs: list[Tensor], pictures: int, batch_size: int, batches: list[int]
) -> None:
    reports = train_out(bands.select(range(pictures)), make_recipe(epochs=1, batch_size=batch_size))
    assert [len(images) for images in inputs] == batches
    assert math.isfinite(reports[0].losses["bce"])


@pytest.mark.parametrize("pictures", [0, 1])
def test_too_few_pictures_are_refused(bands: Index, pictures: int) -> None:
    with pytest.raises(ValueError, match=f"at least two pictures besides those held out; the data set leaves {pictures}"):
        train_out(bands.select(range(pictures)), make_recipe())


@pytest.mark.parametrize(("epochs", "warmup"), [(5, 0.2), (1, 0.0), (1, 0.5), (2, 0), (2, 0.5), (10, 0.1), (3, 0.99)])
def test_short_schedules(bands: Index, epochs: int, warmup: float) -> None:
    reports = train_out(bands.select(range(4)), make_recipe(epochs=epochs, warmup=warmup, batch_size=4))
    assert [report.epoch for report in reports] == list(range(1, epochs + 1))


def test_the_schedule_ends_with_the_training(bands: Index, tmp_path: Path) -> None:
    """One step of it for each of the 2 x 3 batches."""
    train_out(bands, make_recipe(), state=str(tmp_path / "state.pt"))
    schedule = torch.load(tmp_path / "state.pt", weights_only=True)["scheduler"]
    assert (schedule["last_epoch"], schedule["total_steps"]) == (6, 6)


def test_reports(bands: Index) -> None:
    steps: list[StepReport] = []
    reports = train_out(bands, make_recipe(batch_size=2, holdout=0.25, method="l2d"), teacher=make_network(7), on_step=steps.append)
    assert [(step.epoch, step.step, step.steps) for step in steps] == [(1, 9, 9), (2, 9, 9)]
    assert [report.losses for report in reports] == [step.losses for step in steps]
    assert list(reports[0].losses) == ["bce", "mld", "cd", "id"]
    assert [report.scores["images"] for report in reports if report.scores] == [6, 6]
    assert reports[1].total_seconds == pytest.approx(reports[0].seconds + reports[1].seconds)
    assert re.fullmatch(r"<EpochReport 2: bce \S+, mld \S+, cd \S+, id \S+, held-out mAP \d+\.\d\d, \d+\.\d s>", repr(reports[1]))


@pytest.mark.parametrize("holdout", [0.0, 0.25])
def test_the_loss_that_is_told_is_the_mean_of_the_steps_so_far(bands: Index, monkeypatch: pytest.MonkeyPatch, holdout: float) -> None:
    monkeypatch.setattr(train, "REPORT_EVERY", 2)
    losses, visit = [], train._Objective.forward

    def watch(objective: Any, *given: Any) -> dict[str, Tensor]:
        parts: dict[str, Tensor] = visit(objective, *given)
        losses.append({name: part.item() for name, part in parts.items()})
        return parts

    monkeypatch.setattr(train._Objective, "forward", watch)
    steps: list[StepReport] = []
    recipe = make_recipe(method="mld", batch_size=4, epochs=1, holdout=holdout)
    (report,) = train_out(bands, recipe, teacher=make_network(7), on_step=steps.append)
    assert [step.step for step in steps] == ([2, 4, 6] if not holdout else [2, 4])
    for step in steps:
        for name, value in step.losses.items():
            assert value == pytest.approx(sum(parts[name] for parts in losses[: step.step]) / step.step, rel=1e-5)
    assert report.losses == steps[-1].losses
    assert report.images_per_second * report.seconds >= len(losses) * 4


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_other_labels_than_the_data_sets_are_refused(bands: Index, who: str) -> None:
    networks = {"student": make_network(), "teacher": make_network(7)} | {who: make_network(labels=("red", "blue", "green"))}
    with pytest.raises(ValueError, match="the same labels in another order"):
        train_out(bands, make_recipe(method="mld"), networks["student"], teacher=networks["teacher"])


def test_a_method_that_compares_needs_a_teacher(bands: Index) -> None:
    with pytest.raises(ValueError, match="The losses mld, cd, id need a teacher"):
        train_out(bands, make_recipe(method="l2d"))


def test_divergence_names_epoch_and_loss(bands: Index) -> None:
    network = make_network()
    reports = fit(network, bands, make_recipe(epochs=3))
    next(reports)
    with torch.no_grad():
        network.model.head.bias[0] = math.nan
    with pytest.raises(DivergenceError, match="The bce loss became nan in epoch 2; lower the learning rate or its weight"):
        next(reports)


@pytest.mark.parametrize(
    ("factor", "sentence"),
    [(math.nan, "The mld loss became nan in epoch 1; .* or its weight"), (1e38, "The bce and mld losses became nan in epoch 1; .* their")],
)
def test_a_loss_that_spoils_the_weights_is_named_not_those_that_they_spoil(
    bands: Index, monkeypatch: pytest.MonkeyPatch, factor: float, sentence: str
) -> None:
    # The gradient of the second is infinite, while the loss itself is 0 in the first step.
    monkeypatch.setitem(LOSSES, "mld", lambda student, teacher, targets: (student.logits - student.logits.detach()).sum() * factor * factor)
    with pytest.raises(DivergenceError, match=sentence):
        train_out(bands, make_recipe(method="mld"), teacher=make_network(7))


def test_a_loss_that_nothing_learns_by_is_refused(bands: Index) -> None:
    # All stages of this network are frozen, and its last map is the last of them.
    with pytest.raises(ValueError, match="The rkd loss has no gradient, so nothing would learn by it: freeze fewer stages"):
        train_out(bands, make_recipe(method="rkd", freeze_stages=5), teacher=make_network(7))


def test_where_nothing_could_learn_that_is_said(bands: Index) -> None:
    network = make_network()
    with pytest.raises(ValueError, match="Student and teacher are the same network"):
        train_out(bands, make_recipe(method="mld"), network, teacher=network)
    for guard in (torch.no_grad, torch.inference_mode):
        with guard(), pytest.raises(ValueError, match="Gradients are switched off here"):
            train_out(bands, make_recipe(), network)


@pytest.mark.parametrize("absent", [-1.0, math.nan, 2.0])
def test_targets_that_are_no_shares_are_refused(bands: Index, absent: float) -> None:
    with pytest.raises(ValueError, match="Targets must lie between 0 and 1, an absent label being 0; some do not"):
        train_out(bands._replace(targets=torch.where(bands.targets == 0, absent, 1.0)), make_recipe())


def test_pictures_that_show_no_label_are_refused(bands: Index) -> None:
    with pytest.raises(ValueError, match="None of the 24 pictures to train on shows a label; look at the data set with l2d data check"):
        train_out(bands._replace(targets=torch.zeros_like(bands.targets)), make_recipe())


def test_scores_are_of_the_average_that_would_be_saved(bands: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[LabelNet] = []
    monkeypatch.setattr("l2d.train.evaluate", lambda model, card, index: scored.append(model))
    network = make_network()
    reports = train_out(bands, make_recipe(averaging=0.9, holdout=0.25), network)
    assert [report.model is model for report, model in zip(reports, scored, strict=True)] == [True, True]
    assert network.model not in scored


def test_pictures_held_out_are_the_same_for_every_seed_and_not_trained_on(bands: Index) -> None:
    training, held_out = split_index(bands, 0.25)
    assert held_out is not None
    assert (len(training.paths), len(held_out.paths)) == (18, 6)
    assert {*training.paths, *held_out.paths} == set(bands.paths)
    assert not {*training.paths} & {*held_out.paths}
    row = bands.paths.index(held_out.paths[0])
    assert torch.equal(held_out.targets[0], bands.targets[row])
    torch.manual_seed(99)
    again = split_index(bands, 0.25)[1]
    assert again is not None
    assert again.paths == held_out.paths
    assert split_index(bands, 0.0)[1] is None
    # Whoever asks for a score gets one, however few the pictures.
    fewest = split_index(bands.select(range(3)), 0.1)
    assert [len(part.paths) for part in fewest if part] == [2, 1]
    half, same_held_out = split_index(bands, 0.25, 0.5)
    assert same_held_out is not None
    assert (len(half.paths), same_held_out.paths) == (9, held_out.paths)
    assert set(half.paths) <= set(training.paths)


def test_no_thread_outlives_a_run(bands: Index) -> None:
    before = set(threading.enumerate())
    reports = fit(make_network(), bands, make_recipe())
    next(reports)
    del reports
    deadline = time.monotonic() + 5
    while (alive := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive


@pytest.mark.slow
def test_repvgg_trains(bands: Index) -> None:
    """At 128 pixels torch 2.14 kills the process in channels_last."""
    recipe = make_recipe(epochs=1, batch_size=16, train_size=128)
    assert math.isfinite(train_out(bands, recipe, make_network(backbone="repvgg_a0"))[0].losses["bce"])
