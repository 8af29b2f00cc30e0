"""Two processes on one batch are one process on all of it: losses, gradients, views, scores, and a run that is taken up again.

A series of trainings is run by both together, too.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from l2d import comparison, processes, published, reproduce
from l2d.checkpoint import CARD, WEIGHTS, read_card, save_checkpoint
from l2d.cli import app
from l2d.data.images import Index
from l2d.data.shapes import LABELS
from l2d.distill import METHODS, Distiller
from l2d.epochs import EPOCHS
from l2d.evaluate import predict
from l2d.model import LabelNet
from l2d.terminal import joined
from l2d.train import fit
from tests.l2d.conftest import make_network, make_recipe, make_recipes, train_out

ROOT = Path(__file__).parents[2]
IMAGES, SIDE = 64, 32
# An uneven number: one process looks at a picture more than the other.
SCORED = 23


def compute_methods() -> dict[str, tuple[float, list[Tensor]]]:
    """Loss and gradients of every method on one drawn batch, of which each process takes its share; nothing random, norms frozen."""
    torch.manual_seed(0)
    images = torch.rand(IMAGES, 3, SIDE, SIDE)
    targets = (torch.rand(IMAGES, 3) < 0.4).float()
    own = processes.share(IMAGES)
    student, teacher = make_network(1).model, make_network(2, backbone="test_efficientnet", width=24).model
    for network in (student, teacher):
        # Frozen norms that fit the pictures: else all embeddings are nearly the same, and their distances rounding errors.
        for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.momentum = 1.0
        with torch.no_grad():
            network(images)
        network.eval()
    results = {}
    for method, weights in METHODS.items():
        torch.manual_seed(3)
        module = nn.ModuleDict({"student": student, "distiller": Distiller(weights, student, teacher).eval()})
        results[method] = compute_method(module, teacher, images[own], targets[own])
    return results


def compute_unlabelled(targets: Tensor) -> dict[str, float]:
    """What L2D minimises on a batch without any label, and each part of it."""
    torch.manual_seed(0)
    student, teacher = make_network(1).model.eval(), make_network(2).model.eval()
    distiller = Distiller(METHODS["l2d"], student, teacher).eval()
    images = torch.rand(len(targets), 3, SIDE, SIDE)
    loss, _ = compute_method(nn.ModuleDict({"student": student, "distiller": distiller}), teacher, images, targets)
    parts = distiller(student(images), teacher(images), targets)
    return {"sum": loss} | {name: float(part.detach()) for name, part in parts.items()}


def compute_method(module: nn.ModuleDict, teacher: LabelNet, images: Tensor, targets: Tensor) -> tuple[float, list[Tensor]]:
    module.zero_grad(set_to_none=True)
    with torch.no_grad():
        taught = teacher(images)
    step = processes.parallelise(_Step(module))
    loss = step(images, taught, targets)
    loss.backward()
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return float(processes.average(loss.detach().clone())), [gradient.clone() for gradient in gradients]


class _Step(nn.Module):
    def __init__(self, module: nn.ModuleDict):
        super().__init__()
        self.module = module

    def forward(self, images: Tensor, taught: Any, targets: Tensor) -> Tensor:
        parts = self.module["distiller"](self.module["student"](images), taught, targets)
        return torch.stack(list(parts.values())).sum()


def watch_training(index: Index, folder: Path) -> list[Tensor]:
    """What the student is given in a short training."""
    seen: list[Tensor] = []
    student = make_network()
    student.model.register_forward_pre_hook(lambda model, given: seen.append(given[0].detach().clone()) if model.training else None)
    recipe = make_recipe(method="l2d", holdout=0.2, averaging=0.5)
    (*_, report) = fit(student, index, recipe, teacher=make_network(7), state=folder / "whole.pt")
    torch.save((report.model.state_dict(), report.losses, report.scores), folder / f"whole{processes.rank()}")
    return seen


def train_in_two_parts(index: Index, folder: Path) -> dict[str, Tensor]:
    recipe = make_recipe(method="l2d", holdout=0.2, averaging=0.5)
    part = fit(make_network(), index, recipe, teacher=make_network(7), state=folder / "parts.pt")
    next(part)
    processes.wait()
    del part
    (*_, report) = fit(make_network(seed=5), index, recipe, teacher=make_network(7), state=folder / "parts.pt")
    return report.model.state_dict()


def work(index: Index, folder: Path) -> None:
    """What each of the two processes does."""
    with processes.joined():
        model, card = make_network(4)
        results: dict[str, Any] = {"methods": compute_methods()}
        results["unlabelled"] = compute_unlabelled(torch.zeros(IMAGES // 2, 3))
        results["scores"] = predict(model, card, index.select(range(SCORED)), batch_size=5)
        results["few"] = predict(model, card, index.select([0]))
        results["views"] = watch_training(index, folder)
        results["resumed"] = train_in_two_parts(index, folder)
        # Its last norm stands before a classifier of its own, which is not there: no gradient comes to it.
        results["unused"] = train_out(index, make_recipe(), make_network(backbone="test_convnext"))[-1].losses
        with pytest.raises(ValueError, match="2 processes share every batch evenly; a batch_size of 9 of 24 pictures"):
            processes.choose_batch_size(9, 24)
        torch.save(results, folder / f"results{processes.rank()}")
        lose_one(folder)


def lose_one(folder: Path) -> None:
    """The second process goes down; the first one writes down what it makes of the error, and says it as its commands do."""
    if processes.rank() == 1:
        os._exit(0)
    with pytest.raises(ConnectionError, match="Another process is gone") as told, joined():
        processes.average(torch.ones(3))
    torch.save([processes.means_loss(error) for error in (told.value.__cause__, RuntimeError("The loss became nan."))], folder / "lost")


def command(folder: Path, *words: str) -> None:
    """A command that trains tiny networks on drawn pictures."""
    os.chdir(folder)
    recipes = make_recipes()
    published.read_recipes = reproduce.read_recipes = comparison.read_recipes = lambda: recipes
    app([*words, "--data", "shapes:24", "--device", "cpu"])


def find_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.fixture(scope="module")
def two(bands: Index, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of two real processes, and what each of them found."""
    folder = tmp_path_factory.mktemp("two")
    torch.save(tuple(bands), folder / "index")
    run_two("work", folder)
    return folder, [torch.load(folder / f"results{rank}") for rank in range(2)]


def run_two(*words: str | Path, code: int = 0) -> str:
    """Run this file in two processes that find each other and end with this code; what they said, on one line."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": find_port(), "WORLD_SIZE": "2", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    line, streams = [sys.executable, __file__, *map(str, words)], {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    both = subprocess.run(line, env=os.environ | place, timeout=200, text=True, **streams)
    assert both.returncode == code, both.stdout
    return " ".join(both.stdout.split())


def start(words: list[str]) -> None:
    if words[0] == "command":
        command(Path(words[1]), *words[2:])
    else:
        place = Path(words[1])
        work(Index(*torch.load(place / "index", weights_only=False)), place)


def end_alike(run: Callable[[], None]) -> int:
    """Let a copy of this process run the same, as the second of two; the code with which both end.

    What they import is imported once: that takes longer than what they do.
    """
    copy = os.fork()
    os.environ |= dict.fromkeys(("RANK", "LOCAL_RANK"), "0" if copy else "1")
    code = 0
    try:
        run()
    except SystemExit as end:
        code = int(end.code or 0)
    if copy:
        other = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
        assert other == code, f"The first ended with {code}, the second with {other}."
    return code


@pytest.fixture(scope="module")
def alone() -> dict[str, tuple[float, list[Tensor]]]:
    return compute_methods()


@pytest.mark.parametrize(("launched", "expected"), [(None, 5), ("2", 2), ("8", 1)])
def test_processes_of_one_machine_share_the_processors_that_they_may_use(
    monkeypatch: pytest.MonkeyPatch, launched: str | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if launched is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", launched)
    assert processes.count_processors() == expected


@pytest.mark.parametrize("method", METHODS)
def test_half_the_batch_each_gives_loss_and_gradients_of_the_whole(
    two: tuple[Path, list[dict[str, Any]]], alone: dict[str, tuple[float, list[Tensor]]], method: str
) -> None:
    loss, gradients = alone[method]
    for one in two[1]:
        shared, of_shares = one["methods"][method]
        assert shared == pytest.approx(loss, rel=1e-5)
        size = max(float(gradient.abs().max()) for gradient in gradients)
        for mine, whole in zip(of_shares, gradients, strict=True):
            torch.testing.assert_close(mine, whole, rtol=1e-5, atol=1e-5 * size)


def test_a_batch_without_any_label_is_no_error(two: tuple[Path, list[dict[str, Any]]]) -> None:
    for one in two[1]:
        parts = one["unlabelled"]
        assert (parts["cd"], parts["id"]) == (0, 0)
        assert parts["sum"] == pytest.approx(parts["bce"] + parts["mld"])


def test_scores_are_exact_and_known_to_both_though_the_pictures_are_uneven(two: tuple[Path, list[dict[str, Any]]], bands: Index) -> None:
    model, card = make_network(4)
    for name, rows in {"scores": range(SCORED), "few": range(1)}.items():
        alone = predict(model, card, bands.select(rows))
        for one in two[1]:
            torch.testing.assert_close(one[name], alone, rtol=1e-5, atol=1e-6)


def test_each_sees_its_share_of_the_views_that_one_process_would(
    two: tuple[Path, list[dict[str, Any]]], bands: Index, tmp_path: Path
) -> None:
    alone = watch_training(bands, tmp_path)
    shared = [torch.cat(halves) for halves in zip(*(one["views"] for one in two[1]), strict=True)]
    assert len(alone) == len(shared) == 4
    assert all(torch.equal(whole, both) for whole, both in zip(alone, shared, strict=True))


def test_both_end_with_the_same_network_and_reports_and_a_resumed_run_with_the_same_bits(two: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, found = two
    weights, losses, scores = torch.load(folder / "whole0", weights_only=False)
    others, other_losses, other_scores = torch.load(folder / "whole1", weights_only=False)
    assert (losses, scores) == (other_losses, other_scores)
    assert scores["images"] == 5
    for other in (others, *(one["resumed"] for one in found)):
        assert all(torch.equal(tensor, other[name]) for name, tensor in weights.items())


def test_weights_that_nothing_depends_on_are_not_waited_for(two: tuple[Path, list[dict[str, Any]]]) -> None:
    first, second = (one["unused"] for one in two[1])
    assert first == second


def test_an_error_by_the_loss_of_a_process_is_told_from_others(two: tuple[Path, list[dict[str, Any]]]) -> None:
    assert torch.load(two[0] / "lost") == [True, False]


TABLE = ("reproduce", "table4", "--rows", "3", "--methods", "vanilla,l2d", "--out", "out", "--epochs")


@pytest.mark.slow
def test_a_table_is_trained_and_scored_by_both_and_told_and_written_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("L2D_CACHE", str(tmp_path / "cache"))
    said = run_two("command", tmp_path, *TABLE, "1")
    assert said.count("epoch 1/1") == said.count("test mAP") == 3
    assert said.count("Wrote") == 1
    (row,) = json.loads((tmp_path / "out/table4.json").read_text())["rows"]
    pictures = {method: entry["pictures"] for method, entry in row["methods"].items()}
    assert pictures == {method: {"trained": 24, "scored": 6} for method in ("teacher", "vanilla", "l2d")}
    assert {path.name for path in (tmp_path / "out").glob("*/*")} == {CARD, WEIGHTS, EPOCHS}
    # Planned otherwise: both end.
    assert "was trained otherwise than asked for now (epochs)" in run_two("command", tmp_path, *TABLE, "2", code=1)


@pytest.mark.slow
def test_what_both_would_train_is_told_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("L2D_CACHE", str(tmp_path / "cache"))
    assert run_two("command", tmp_path, *TABLE, "1", "--dry-run").count("teacher-test_resnet missing 1") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_curves_are_trained_by_both_and_told_and_written_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("L2D_CACHE", str(tmp_path / "cache"))
    save_checkpoint(tmp_path / "teacher", *make_network(labels=LABELS))
    words = ["sweep", "--teacher", "teacher", "--student", "test_resnet", "--method", "mld", "--factors", "0.5", "--out", "curves"]
    said = run_two("command", tmp_path, *words, "--holdout", "0.25", "--epochs", "1", "--image-size", "32")
    assert said.count("epoch 1/1") == 2
    assert said.count("Wrote") == 1
    assert all(point["mAP"] is not None for point in json.loads((tmp_path / "curves/sweep.json").read_text())["curves"]["mld"]["points"])


def test_alone_nothing_is_shared() -> None:
    assert not processes.means_loss(RuntimeError("/gloo/"))
    tensor = torch.rand(3, 2)
    assert (processes.count(), processes.rank(), processes.is_main()) == (1, 0, True)
    assert processes.gather(tensor) is tensor
    assert processes.gather_rows(tensor, torch.tensor([3])) is tensor
    assert processes.parallelise(module := nn.Linear(2, 2)) is module
    assert processes.share(7) == slice(0, 7)


LAUNCHERS = {
    "torch.distributed.run": ["--nproc-per-node", "2", "--master-port"],
    "accelerate.commands.launch": ["--multi_gpu", "--num_processes", "2", "--main_process_port"],
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_launchers_leave_one_checkpoint_and_one_voice(tmp_path: Path, launcher: str) -> None:
    common = ["--data", "shapes:24", "--epochs", "2", "--batch-size", "8", "--image-size", "32", "--width", "16", "--feedforward", "24"]
    common += ["--device", "cpu", "--holdout", "0.2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "L2D_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def run(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", *words], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stderr

    run("l2d", "train", "--backbone", "test_resnet", "--out", "teacher", *common)
    words = ["l2d", "distill", "--teacher", "teacher", "--student", "test_resnet", "--method", "l2d", "--out", "student", *common]
    said = run(launcher, *LAUNCHERS[launcher], find_port(), "-m", *words)
    assert said.count("epoch 2/2") == said.count("Wrote student") == 1
    assert {path.name for path in (tmp_path / "student").iterdir()} == {CARD, WEIGHTS, EPOCHS}
    assert read_card(tmp_path / "student").scores["held_out"]["images"] == 5


if __name__ == "__main__":
    import timm  # noqa: F401  # networks import it when they are built

    sys.exit(end_alike(lambda: start(sys.argv[1:])))
