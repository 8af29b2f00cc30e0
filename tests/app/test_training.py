"""What a job's training leaves on the disk, whatever that allows and whenever it is ended; trainings as real processes are in jobs/."""

import errno
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from app.orders import Order
from app.places import Places
from app.records import TEMPORARY, JobFolder, Task
from app.training import link_checkpoint, run_job
from l2d.checkpoint import ModelCard, load_checkpoint, save_checkpoint
from l2d.model import create_model
from l2d.recipe import Recipe
from l2d.runs import STATE
from l2d.state import save_state
from l2d.train import EpochReport


def save(folder: Path, title: str) -> None:
    """A checkpoint that fits the data set of `write_table`."""
    model = create_model("test_resnet", 2, image_size=32, width=16, feedforward=16)
    card = ModelCard("student", title, "student", "vanilla", "test_resnet", ("dark", "light"), 32, width=16, feedforward=16)
    save_checkpoint(folder, model, card)


def read_title(folder: Path) -> str:
    return load_checkpoint(folder)[1].title


def test_a_second_name_stays_what_it_is_when_the_first_one_is_replaced(tmp_path: Path):
    source, best = tmp_path / "student", tmp_path / "best-student-0001"
    save(source, "first")
    link_checkpoint(source, best)
    assert (source / "model.safetensors").samefile(best / "model.safetensors")
    save(source, "second")
    assert read_title(best) == "first"
    link_checkpoint(source, best)
    assert read_title(best) == "second"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best-student-0001", "student"]


def test_where_there_are_no_hard_links_checkpoints_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "link", refuse)
    source, best = tmp_path / "student", tmp_path / "best-student-0001"
    save(source, "first")
    link_checkpoint(source, best)
    save(source, "second")
    assert read_title(best) == "first"


@pytest.fixture
def training(tmp_path: Path, write_table: Callable[..., None]) -> Callable[..., JobFolder]:
    """Trains, or with `stop` keeps the best student so far, and ends with this code."""
    places = Places(tmp_path / "state", tmp_path / "data", tmp_path / "checkpoints")
    write_table(places.data / "mine")
    folder = JobFolder(places.jobs / "1f")
    folder.prepare()

    def train(stop: bool = False, code: int = 0, **changes: object) -> JobFolder:
        values = {"data": "mine", "student": "test_resnet", "method": "vanilla", "image_size": 32, "width": 16, "feedforward": 16}
        order = Order.model_construct(**values | changes)
        assert run_job(folder, places, Task("1f", 1, order.model_dump(), "cpu", stop=stop)) == code
        return folder

    return train


def test_a_student_that_cannot_be_built_is_told_before_its_teacher_is_trained(training: Callable[..., JobFolder]):
    events = list(training(code=1, student="test_vit", teacher_backbone="test_resnet", method="mld").read_all())
    assert [line["event"] for line in events] == ["attempt", "failed"]
    assert "test_vit gives no spatial feature maps" in events[-1]["reason"]


def test_a_loss_that_is_no_number_names_itself_and_its_epoch(training: Callable[..., JobFolder]):
    teacher = {"teacher_backbone": "test_resnet", "teacher_epochs": 1}
    folder = training(code=1, method="mld", **teacher, epochs=2, batch_size=2, holdout=0, weights={"mld": 1e39})
    *_, failed = folder.read_all()
    # After one step that was infinite all are no numbers, but the first to be none is to blame.
    assert re.match(r"The mld loss became (nan|inf) in epoch 1", failed["reason"]), failed
    assert [path for path in folder.path.rglob(".*") if TEMPORARY.fullmatch(path.name)] == []


def test_a_job_whose_start_changed_meanwhile_is_to_be_ordered_anew(training: Callable[..., JobFolder], tmp_path: Path):
    out = tmp_path / "state" / "jobs" / "1f" / "student"
    save_state(out / STATE, {}, Recipe(), {}, epoch=1, seconds=0.0, report={})
    *_, failed = training(code=1, epochs=2, holdout=0, batch_size=2).read_all()
    assert re.fullmatch(r"The training cannot be gone on with: it .*\. Order the job anew to start over\.", failed["reason"])


def list_best(folder: JobFolder) -> list[str]:
    return sorted(path.name for path in folder.path.glob("best-*"))


def test_the_best_student_alone_is_kept_beside_the_last(training: Callable[..., JobFolder], caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    folder = training(epochs=3, holdout=0, batch_size=2)
    assert re.search(r"Student epoch 3/3: bce \d+\.\d{3}$", caplog.text, re.MULTILINE)
    # Nothing is held out here, so that every epoch counts as the best one.
    assert list_best(folder) == ["best-student-0003"]
    folder.forget_training()
    assert list_best(folder) == []


def test_a_best_epoch_that_comes_again_after_a_resume_is_told_as_such(
    training: Callable[..., JobFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "state" / "jobs" / "1f" / "student"
    save(out, "first")
    (out / STATE).touch()
    report = EpochReport(1, {"bce": 1.0}, {"mAP": 200 / 3 - 1e-4}, load_checkpoint(out).model, 1.0, 1.0, 1.0)
    monkeypatch.setattr("app.training.execute", lambda *_, **__: iter([report]))
    events = [line for _ in range(2) for line in training(holdout=0.5).read_all()]
    assert {line["best"] for line in events if line["event"] == "epoch"} == {True}


@pytest.mark.parametrize("told", [False, True], ids=["before it told of it", "before it removed the one before"])
def test_a_training_that_is_ended_at_a_new_best_student_keeps_the_one_that_it_told_of(training: Callable[..., JobFolder], told: bool):
    folder = training(epochs=1, holdout=0, batch_size=2)
    save(folder.best(1), "first")
    save(folder.best(2), "second")
    if told:
        folder.append({"event": "epoch", "stage": "student", "epoch": 2, "best": True, "mAP": None})
    folder = training(stop=True)
    (model,) = folder.ready.iterdir()
    assert model.joinpath("model.safetensors").samefile(folder.best(2 if told else 1) / "model.safetensors")
