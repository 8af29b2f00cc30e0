"""The check before an order: what the preview refuses, and what that costs."""

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app import datasets
from app.catalog import Catalog
from app.errors import ParameterError
from app.jobs import UnknownJobError
from app.orders import Order
from app.places import Places
from app.processes import LocalMachine
from app.seats import hold_seat
from app.worker import Worker
from app.workshop import Workshop

ALONE = Order(data="mine", student="resnet18", method="vanilla", epochs=3)


@pytest.fixture
def workshop(made_checkpoints: Path, tmp_path: Path, write_table: Callable[..., None]) -> Workshop:
    places = Places(tmp_path / "state", tmp_path / "data", made_checkpoints)
    write_table(places.data / "mine")
    return Workshop(places, Catalog(places.checkpoints))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"teacher": "nobody", "method": "l2d"}, "Unknown teacher 'nobody'"),
        ({"start_from": "alien"}, "start_from: 'alien' is no model with the backbone resnet18"),
        ({"data": "nothing"}, "Unknown data set 'nothing'"),
    ],
)
def test_the_preview_refuses_what_cannot_be_ordered(workshop: Workshop, changes: dict[str, str], reason: str):
    order = ALONE.model_copy(update=changes)
    for ask in (workshop.preview, workshop.submit):
        with pytest.raises(ParameterError, match=reason):
            ask(order)


def test_what_a_look_through_the_data_set_found_is_known_to_the_preview(workshop: Workshop):
    taught = ALONE.model_copy(update={"teacher": "the-teacher", "method": "l2d"})
    many = ALONE.model_copy(update={"processes": 64, "batch_size": 64})
    assert workshop.preview(taught), "nobody has looked yet"
    with pytest.raises(ParameterError, match="the data set 'shapes' has"):
        workshop.preview(taught.model_copy(update={"data": "shapes"}))
    assert workshop.preview(many)[0].startswith("torchrun --nproc-per-node 64 ")
    workshop.submit(ALONE)
    with pytest.raises(ParameterError, match="knows 5 labels"):
        workshop.preview(taught)
    with pytest.raises(ParameterError, match="64 processes need 64"):
        workshop.preview(many)
    assert workshop.preview(ALONE)


def test_a_broken_data_set_is_told_as_it_was_seen_last(workshop: Workshop):
    picture = workshop.places.data / "mine" / "4.png"
    picture.write_bytes(b"not a picture")
    with pytest.raises(ParameterError, match=r"4\.png"):
        workshop.submit(ALONE)
    with pytest.raises(ParameterError, match=r"When 'mine' was last looked through: .*4\.png"):
        workshop.preview(ALONE)
    Image.new("RGB", (40, 40)).save(picture)
    workshop.submit(ALONE)
    assert workshop.preview(ALONE)


def test_test_pictures_of_other_labels_are_named(workshop: Workshop):
    root = workshop.places.data / "apart"
    for folder, label in (("train2014", "cat"), ("val2014", "dog")):
        content = {"images": [{"id": 1, "file_name": "1.png"}], "annotations": [], "categories": [{"id": 1, "name": label}]}
        (root / folder).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(root / folder / "1.png")
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{folder}.json").write_text(json.dumps(content))
    with pytest.raises(ParameterError, match=r"labels of its training pictures: 1 unknown \(dog\), 1 missing \(cat\)\."):
        workshop.submit(ALONE.model_copy(update={"data": "apart"}))


def test_a_job_whose_files_cannot_all_be_removed_is_gone_and_the_next_worker_removes_the_rest(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    job = workshop.submit(ALONE)
    workshop.queue.cancel(job.id)
    model = workshop.places.models / f"mine-{job.id}"
    for folder in (workshop.places.jobs / job.id, model):
        folder.mkdir(parents=True)
        for name in ("held", "free"):
            (folder / name).touch()
    unlink = os.unlink

    def fail_for_one(path: str, **options: Any) -> None:
        if path == "held":
            raise PermissionError(path)
        unlink(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fail_for_one)
        workshop.delete(job.id)
    with pytest.raises(UnknownJobError):
        workshop.queue.find(job.id)
    left = [path for folder in (workshop.places.jobs, workshop.places.models) for path in folder.iterdir()]
    assert [path.name[:6] for path in left] == [f".{job.id[:5]}", ".mine-"]
    assert [file.name for path in left for file in path.iterdir()] == ["held", "held"]
    worker = Worker(workshop.places, "cpu", LocalMachine(workshop.places, "cpu"))
    worker.leave_after.set()
    worker.run()
    assert not any(path.exists() for path in left)


def test_a_model_that_two_delete_at_once_is_not_taken_for_a_shipped_one(
    workshop: Workshop, made_checkpoints: Path, monkeypatch: pytest.MonkeyPatch
):
    model = Path(shutil.copytree(made_checkpoints / "alien", workshop.places.models / "made"))
    card = json.loads((model / "card.json").read_text())
    (model / "card.json").write_text(json.dumps(card | {"lineage": {"job": "0123456789ab"}}))
    workshop.catalog = Catalog(workshop.places.checkpoints, made=workshop.places.models)
    entry = workshop.catalog.find("made")
    monkeypatch.setattr(workshop.catalog, "find", lambda name: entry)
    workshop.delete_model("made")
    workshop.delete_model("made")
    assert list(workshop.places.models.iterdir()) == []


def test_the_preview_looks_at_no_picture(workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    workshop.submit(ALONE)
    for name in ("check_data", "_take_stamp"):
        monkeypatch.setattr(datasets, name, lambda *_: pytest.fail("a look at every file for every letter that is typed"))
    assert workshop.preview(ALONE)


def test_the_commands_of_two_orders_write_to_two_folders_that_the_repository_ignores(workshop: Workshop):
    def find_out(order: Order) -> str:
        (command,) = workshop.preview(order)
        return shlex.split(command)[shlex.split(command).index("--out") + 1]

    out = find_out(ALONE)
    assert re.fullmatch(r"\$\{L2D_STATE:-runs\}/by-hand/\w+/student", out)
    assert find_out(ALONE.model_copy(update={"epochs": 4})) != out
    job = workshop.submit(ALONE)
    assert out in workshop.describe_command(job.spec)[0], "what was seen before it was ordered"


def test_a_job_whose_data_or_teacher_is_gone_or_damaged_has_no_commands_and_spoils_no_list(workshop: Workshop):
    teacher = workshop.places.models / "mine"
    shutil.copytree(workshop.places.checkpoints / "the-teacher", teacher)
    alone, taught = ALONE.model_dump(), ALONE.model_copy(update={"teacher": "mine", "method": "l2d"}).model_dump()
    assert [len(workshop.describe_command(order)) for order in (alone, taught)] == [1, 1]
    (teacher / "card.json").write_text("{}")
    assert [len(workshop.describe_command(order)) for order in (alone, taught)] == [1, 0]
    shutil.rmtree(teacher)
    assert workshop.describe_command(taught) == []
    shutil.rmtree(workshop.places.data / "mine")
    assert workshop.describe_command(alone) == []


def test_that_no_worker_is_seen_is_told_of_a_waiting_job_alone(workshop: Workshop):
    waiting = workshop.submit(ALONE)
    assert "start one with python -m app worker" in workshop.explain_wait(waiting)
    with hold_seat(workshop.places.state, "cpu", lambda: True):
        assert workshop.explain_wait(waiting) == ""
    assert workshop.explain_wait(workshop.queue.cancel(waiting.id)) == ""
