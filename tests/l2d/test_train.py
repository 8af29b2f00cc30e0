"""Training: what decides the result, what must not, and what happens when it is interrupted."""

import copy
import dataclasses
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from torch import Tensor, nn

from l2d import graphs, train
from l2d.checkpoint import ModelCard, Network
from l2d.data.images import Index
from l2d.device import choose_memory_format
from l2d.distill import METHODS
from l2d.model import LabelNet, create_model
from l2d.optimizer import create_optimizer, freeze_stages
from l2d.recipe import Recipe
from l2d.train import DivergenceError, EpochReport, StepReport, fit, prepare, split_index

COLOURS = ("red", "green", "blue")


def make_network(seed: int = 0, *, backbone: str = "test_resnet", labels: tuple[str, ...] = COLOURS, width: int = 16) -> Network:
    torch.manual_seed(seed)
    model = create_model(backbone, len(labels), image_size=32, width=width, feedforward=24)
    card = ModelCard(
        name="tiny", title="Tiny", role="student", method="vanilla", backbone=backbone, labels=labels, image_size=32, width=width,
        feedforward=24, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
    )  # fmt: skip
    return Network(model, card)


def make_recipe(**changes: Any) -> Recipe:
    return Recipe(**{"epochs": 2, "batch_size": 8, "lr": 1e-3, "train_size": 32, "teacher_size": 32, **changes})


def train_out(index: Index, recipe: Recipe, network: Network | None = None, **options: Any) -> list[EpochReport]:
    return list(fit(network or make_network(), index, recipe, **options))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


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
    train_out(bands, make_recipe(), state=tmp_path / "state.pt")
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
@pytest.mark.parametrize(
    ("labels", "sentence"),
    [(("red", "blue", "green"), "the same labels in another order"), (("red", "green"), "trained for 2 labels; the data set has 3")],
)
def test_other_labels_than_the_data_sets_are_refused(bands: Index, who: str, labels: tuple[str, ...], sentence: str) -> None:
    networks = {"student": make_network(), "teacher": make_network(7)} | {who: make_network(labels=labels)}
    with pytest.raises(ValueError, match=sentence):
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
    with pytest.raises(DivergenceError, match="The bce loss became nan in epoch 2"):
        next(reports)


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


def test_pictures_that_show_no_label_are_refused(bands: Index) -> None:
    with pytest.raises(ValueError, match="None of the 24 pictures to train on shows a label; look at the data set with l2d data check"):
        train_out(bands._replace(targets=torch.zeros_like(bands.targets)), make_recipe())


def test_too_many_frozen_stages_are_refused(bands: Index) -> None:
    with pytest.raises(ValueError, match="freeze_stages must be at most 5, the number of the backbone's stages; got 6"):
        train_out(bands, make_recipe(freeze_stages=6))


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


def test_the_caller_may_stop_and_go_on(bands: Index, tmp_path: Path) -> None:
    recipe = make_recipe(epochs=3, averaging=0.9, method="reviewkd", freeze_stages=1)
    whole = train_out(bands, recipe, teacher=make_network(7))
    state = tmp_path / "deep" / "state.pt"
    next(fit(make_network(), bands, recipe, teacher=make_network(7), state=state))
    rest = train_out(bands, recipe, make_network(seed=55), teacher=make_network(7), state=state)
    assert [report.epoch for report in rest] == [1, 2, 3]
    assert [report.losses for report in rest] == [report.losses for report in whole]
    assert [report.total_seconds for report in rest[1:]] == list(accumulate(report.seconds for report in rest))[1:]
    assert same(weights(rest[-1].model), weights(whole[-1].model))
    # The last report again, for a caller that died before it could use it.
    assert [report.losses for report in train_out(bands, recipe, teacher=make_network(7), state=state)] == [whole[-1].losses]


INTERRUPTED = {"epochs": 3, "batch_size": 2, "method": "l2d", "averaging": 0.9}
RUN = """
import sys, torch
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_train import make_network, make_recipe
from l2d.data.images import Index
from l2d.train import fit
torch.set_num_threads({threads})
index = Index(*torch.load({index!r}, weights_only=False))
recipe = make_recipe(**{recipe!r})
def announce(step):
    print(step.epoch, step.step, flush=True)
for report in fit(make_network(), index, recipe, teacher=make_network(7), state=Path({state!r}), on_step=announce):
    pass
"""


def start_run(tmp_path: Path) -> subprocess.Popen[str]:
    places = {name: str(tmp_path / name) for name in ("index", "state")}
    script = RUN.format(tests=str(Path(__file__).parent), threads=torch.get_num_threads(), recipe=INTERRUPTED, **places)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def test_a_run_killed_within_an_epoch_ends_with_the_same_bits(bands: Index, tmp_path: Path) -> None:
    whole = train_out(bands, make_recipe(**INTERRUPTED), teacher=make_network(7))
    torch.save(tuple(bands), tmp_path / "index")
    killed = start_run(tmp_path)
    for line in killed.stdout or ():
        if line == "2 10\n":
            killed.send_signal(signal.SIGKILL)
            break
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    steps: list[StepReport] = []
    options = {"teacher": make_network(7), "state": tmp_path / "state", "on_step": steps.append}
    resumed = train_out(bands, make_recipe(**INTERRUPTED), make_network(seed=55), **options)
    assert (steps[0].epoch, steps[0].step) == (2, 10)
    assert same(weights(resumed[-1].model), weights(whole[-1].model))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda content: content[:1000], "Cannot resume from .*state.pt: .*Remove its folder to start over"),
        (lambda content: b"", "Cannot resume from .*state.pt"),
        (lambda content: b"text", "Cannot resume from .*state.pt"),
    ],
)
def test_a_damaged_state_is_refused_in_a_sentence(bands: Index, tmp_path: Path, damage: Callable[[bytes], bytes], sentence: str) -> None:
    state = tmp_path / "state.pt"
    next(fit(make_network(), bands, make_recipe(), state=state))
    state.write_bytes(damage(state.read_bytes()))
    with pytest.raises(ValueError, match=sentence):
        train_out(bands, make_recipe(), state=state)


def test_the_state_of_another_run_is_refused(bands: Index, tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    next(fit(make_network(), bands, make_recipe(), state=state))
    with pytest.raises(ValueError, match=r"a run with other settings \(lr, seed\)"):
        train_out(bands, make_recipe(lr=2e-3, seed=4), state=state)
    with pytest.raises(ValueError, match="a run with another set of pictures"):
        train_out(bands.select(range(16)), make_recipe(), state=state)
    with pytest.raises(ValueError, match="a run with another set of pictures"):
        train_out(bands._replace(targets=bands.targets.flip(0)), make_recipe(), state=state)
    torch.save({"epoch": 1}, state)
    with pytest.raises(ValueError, match="it does not hold the state of such a run"):
        train_out(bands, make_recipe(), state=state)


def test_a_state_from_before_something_told_runs_apart_is_gone_on_from(bands: Index, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    next(fit(make_network(), bands, make_recipe(), state=path))
    state = torch.load(path, weights_only=True)
    del state["identity"]["scaling of pixels"], state["recipe"]["augmentation"]
    torch.save(state, path)
    assert next(fit(make_network(), bands, make_recipe(), state=path)).epoch == 1


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"backbone": "test_efficientnet"}, "backbone"),
        ({"image_size": 64}, "image size"),
        ({"output_stride": 16}, "output stride"),
        ({"width": 24}, "size of the head"),
        ({"feedforward": 8}, "size of the head"),
        ({"mean": (0.4, 0.4, 0.4)}, "scaling of pixels"),
        ({"lineage": {"init": "other.safetensors", "sha256": "0"}}, "origin of its initial weights"),
    ],
)
def test_the_state_of_another_network_is_refused(bands: Index, tmp_path: Path, changes: dict[str, Any], name: str) -> None:
    """What the card would tell of the network that comes out."""
    state, student = tmp_path / "state.pt", make_network()
    next(fit(make_network(), bands, make_recipe(), state=state))
    with pytest.raises(ValueError, match=f"a run with another {name}"):
        train_out(bands, make_recipe(), student._replace(card=dataclasses.replace(student.card, **changes)), state=state)


def test_the_state_of_a_run_under_another_teacher_is_refused(bands: Index, tmp_path: Path) -> None:
    state, recipe, teacher = tmp_path / "state.pt", make_recipe(method="mld"), make_network(7)
    next(fit(make_network(), bands, recipe, teacher=teacher, state=state))
    other = teacher._replace(card=dataclasses.replace(teacher.card, sha256="f" * 64))
    with pytest.raises(ValueError, match="a run with another teacher"):
        list(fit(make_network(), bands, recipe, teacher=other, state=state))


def test_a_full_disk_keeps_the_last_good_state(bands: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "state.pt"
    reports = fit(make_network(), bands, make_recipe(), state=state)
    next(reports)
    before = state.read_bytes()

    def fill_disk(content: Any, file: IO[bytes]) -> None:
        file.write(b"half a fi")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fill_disk)
    with pytest.raises(OSError, match="No space left"):
        next(reports)
    assert state.read_bytes() == before
    assert list(tmp_path.iterdir()) == [state]


def test_a_picture_that_cannot_be_read_is_named(bands: Index, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    index = bands._replace(paths=[*bands.paths[:-1], broken])
    with pytest.raises(ValueError, match=r"broken\.jpg cannot be read as a picture"):
        train_out(index, make_recipe())


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


@pytest.fixture(scope="module")
def trained(bands: Index) -> tuple[Network, Network]:
    """A student and a teacher that tell labels apart. What untrained ones say of them is so little that rounding changes much of it."""
    networks = make_network(), make_network(7)
    for network in networks:
        train_out(bands, make_recipe(epochs=8, lr=3e-3), network)
    return networks


@pytest.fixture
def measure(bands: Index, trained: tuple[Network, Network], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, float]]:
    """The losses of an epoch more, on this device and in mixed precision or not."""

    def measure(method: str, device: str, mixed: bool) -> dict[str, float]:
        for module in (train, graphs):
            monkeypatch.setattr(module, "supports_bfloat16", lambda _: mixed)
        student, teacher = copy.deepcopy(trained)
        for module in student.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # each device draws its own
        recipe = make_recipe(method=method, epochs=1, averaging=0.9, freeze_stages=1)
        return train_out(bands, recipe, student, teacher=teacher, device=device)[0].losses

    return measure


@pytest.mark.parametrize("method", ["l2d", "ps", "mse", "rkd", "pkt", "reviewkd"])
def test_mixed_precision_loses_what_single_precision_does(measure: Callable[..., dict[str, float]], method: str) -> None:
    assert measure(method, "cpu", True) == pytest.approx(measure(method, "cpu", False), rel=0.02)


@pytest.mark.gpu
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_gpu_trains_as_the_cpu_does(measure: Callable[..., dict[str, float]], method: str, mixed: bool) -> None:
    assert measure(method, "cuda", mixed) == pytest.approx(measure(method, "cpu", mixed), rel=0.03 if mixed else 0.02)


@pytest.mark.gpu
def test_it_learns_on_a_gpu_and_goes_on_after_a_stop(bands: Index, tmp_path: Path) -> None:
    recipe = make_recipe(method="mld", epochs=12, lr=3e-3, cutout=0.0, min_area=0.8, averaging=0.5)
    state = tmp_path / "state.pt"
    first = next(fit(make_network(), bands, recipe, teacher=make_network(7), device="cuda", state=state))
    rest = train_out(bands, recipe, teacher=make_network(7), device="cuda", state=state)
    assert rest[0].losses == first.losses
    assert rest[-1].losses["bce"] < 0.5 * first.losses["bce"]
