"""Workers as real processes: what they leave behind when a job ends, is cancelled, stopped, or killed."""

import json
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from l2d.checkpoint import load_checkpoint
from l2d.epochs import read_epochs

if TYPE_CHECKING:
    from conftest import Lab

LABELS = ("dark", "light", "red")


def test_a_job_ends_as_a_model_with_its_teacher(lab: "Lab"):
    job = lab.submit(method="l2d", teacher_backbone="test_resnet", teacher_epochs=1, title="My student")
    with lab.working():
        ended = lab.wait_for(job, "succeeded", "failed")
    assert (ended.state, ended.progress, ended.attempts, ended.epoch) == ("succeeded", 1.0, 1, 2), ended.reason
    assert ended.reason.startswith("Trained to the end")
    assert ended.versions.keys() == {"python", "torch", "timm", "l2d"}
    assert ended.best_score is not None
    assert sorted(ended.models) == [f"tiny-test_resnet-l2d-{job}", f"tiny-test_resnet-teacher-{job}"]
    _, card = load_checkpoint(lab.places.models / f"tiny-test_resnet-l2d-{job}")
    assert (card.title, card.labels, card.lineage["job"], card.role) == ("My student", LABELS, job, "student")
    assert card.teacher is not None
    assert card.teacher["name"] == f"tiny-test_resnet-teacher-{job}"
    assert card.scores["images"] == 8
    assert [row["epoch"] for row in read_epochs(lab.places.models / f"tiny-test_resnet-l2d-{job}")] == ["1", "2"]
    folder = lab.places.jobs / job
    assert sorted(path.name for path in folder.iterdir()) == ["log.txt", "metrics.jsonl", "order.json", "probes"]
    assert sorted(path.name for path in (folder / "probes").glob("*.json")) == ["0001.json", "0002.json", "pictures.json", "teacher.json"]
    maps = json.loads((folder / "probes/0002.json").read_text())["pictures"]
    assert np.shape(maps[0][0]["rows"]) == (1, 1)
    # No picture shows three labels.
    doubts = [line.partition(" WARNING ")[2] for line in (folder / "log.txt").read_text().splitlines() if "hardly count" in line]
    assert len(doubts) == 1
    assert doubts[0].startswith("The loss id compares labels that a picture shows at once")
    assert [(line["stage"], line["epoch"]) for line in lab.events(job, "epoch")] == [
        ("teacher", 1),
        ("student", 1),
        ("student", 2),
    ]
    assert lab.temporary() == []


def test_cancel_is_obeyed_within_five_seconds(lab: "Lab"):
    job = lab.submit(epochs=1000)
    with lab.working():
        lab.wait_for_epoch(job)
        start = time.monotonic()
        lab.queue.cancel(job)
        ended = lab.wait_for(job, "cancelled")
        assert time.monotonic() - start < 5
        assert lab.find_processes("job") == []
    assert "resume" in ended.reason
    assert lab.temporary() == []
    assert not lab.places.models.exists()


def test_stop_keeps_the_best_student(lab: "Lab"):
    job = lab.submit(epochs=1000)
    with lab.working():
        lab.wait_for_epoch(job, 2)
        lab.queue.stop(job)
        ended = lab.wait_for(job, "succeeded", "failed")
    assert ended.reason.startswith(f"Stopped as asked; the student of epoch {ended.best_epoch} is kept")
    scores = {line["epoch"]: line["mAP"] for line in lab.events(job, "epoch")}
    assert scores[ended.best_epoch] == max(scores.values()) == ended.best_score
    _, card = load_checkpoint(lab.places.models / ended.models[0])
    assert card.scores["held_out"]["mAP"] == pytest.approx(ended.best_score, abs=1e-3)


# Its twin, of a training without a job around it, is always run: tests/l2d/test_state.py.
@pytest.mark.slow
def test_killed_in_the_middle_of_an_epoch_it_resumes_to_the_same_bits(lab: "Lab"):
    job = lab.submit(epochs=6)
    with lab.working() as worker:
        lab.wait_for_epoch(job, 2)
        worker.kill()
    with lab.working():
        interrupted = lab.wait_for(job, "interrupted")
        assert "resume" in interrupted.reason
        assert lab.temporary() == []
        lab.queue.resume(job)
        ended = lab.wait_for(job, "succeeded", "failed")
        assert (ended.state, ended.attempts) == ("succeeded", 2), ended.reason
        undisturbed = lab.wait_for(lab.submit(epochs=6), "succeeded", "failed")
    assert lab.hash_student(ended) == lab.hash_student(undisturbed)
    epochs = [line["epoch"] for line in lab.events(job, "epoch")]
    assert sorted(set(epochs)) == [1, 2, 3, 4, 5, 6]
    assert len(epochs) <= 7, "at most the last finished epoch is told twice"
