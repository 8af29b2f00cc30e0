"""What a job's training leaves on the disk, whatever that allows and whenever it is ended; trainings as real processes are in jobs/."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from app.orders import Order
from app.places import Places
from app.records import JobFolder
from app.training import Task, link_checkpoint, run_job
from l2d.checkpoint import ModelCard, load_checkpoint, save_checkpoint
from l2d.model import create_model


def save(folder: Path, title: str) -> None:
    """A checkpoint that fits the data set of `write_table`."""
    model = create_model("test_resnet", 2, image_size=32, width=16, feedforward=16)
    card = ModelCard("student", title, "student", "vanilla", "test_resnet", ("dark", "light"), 32, width=16, feedforward=16)
    save_checkpoint(folder, model, card)


def read_title(folder: Path) -> str:
    return load_checkpoint(folder)[1].title


def test_a_second_name_stays_what_it_is_when_the_first_one_is_replaced(tmp_path: Path):
    source, best = tmp_path / "student", tmp_path / "best-student"
    save(source, "first")
    link_checkpoint(source, best)
    assert (source / "model.safetensors").samefile(best / "model.safetensors")
    save(source, "second")
    assert read_title(best) == "first"
    link_checkpoint(source, best)
    assert read_title(best) == "second"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best-student", "student"]


def test_a_training_that_is_ended_while_the_old_best_is_removed_has_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source, best = tmp_path / "student", tmp_path / "best-student"
    save(source, "first")
    link_checkpoint(source, best)
    save(source, "second")

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", end)
        with pytest.raises(KeyboardInterrupt):
            link_checkpoint(source, best)
    JobFolder(tmp_path).sweep()
    assert read_title(best) == "second"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best-student", "student"]


def test_where_there_are_no_hard_links_checkpoints_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "link", refuse)
    source, best = tmp_path / "student", tmp_path / "best-student"
    save(source, "first")
    link_checkpoint(source, best)
    save(source, "second")
    assert read_title(best) == "first"


def test_stopped_without_a_best_student_it_keeps_the_last_one(tmp_path: Path, write_table: Callable[..., None]):
    places = Places(tmp_path / "state", tmp_path / "data", tmp_path / "checkpoints")
    write_table(places.data / "mine")
    folder = JobFolder(places.jobs / "1f")
    save(folder.path / "student", "last")
    order = Order.model_construct(data="mine", student="test_resnet", method="vanilla", image_size=32, title="Mine")
    assert run_job(folder, places, Task("1f", 1, order.model_dump(), "cpu", stop=True)) == 0
    assert read_title(folder.ready / "mine-test_resnet-vanilla-1f") == "Mine"
