"""What the page says of a job: its state, how far it is, and how long it still takes."""

import dataclasses

import pytest

from app.jobs import Job, State
from app.ui.progress import describe_seconds, describe_state, show_log, show_status

WAITING = Job(
    number=1,
    id="8523ad87b988",
    state="queued",
    spec={"student": "resnet18", "data": "shapes", "method": "l2d", "title": "mine"},
    created=0.0,
    started=None,
    finished=None,
    heartbeat=None,
    worker=None,
    attempts=0,
    request=None,
    reason="",
    progress=0.0,
    seconds_left=None,
    stage="",
    epoch=0,
    best_score=None,
    best_epoch=None,
    versions={},
    models=[],
)
RUNNING = dataclasses.replace(WAITING, state="running", attempts=1)


@pytest.mark.parametrize(
    ("job", "told"),
    [
        (WAITING, "Waiting for its turn."),
        (RUNNING, "Starting."),
        # The first step is told after some: until then no epoch has a number.
        (dataclasses.replace(RUNNING, stage="teacher"), "Training the teacher, epoch 1: 0%."),
        (
            dataclasses.replace(RUNNING, stage="student", epoch=3, progress=0.5, seconds_left=300.0),
            "Training the student, epoch 3: 50%, about 5 min left.",
        ),
        (dataclasses.replace(RUNNING, stage="student", epoch=3, request="cancel"), "Training the student, epoch 3: 0%. Cancelling."),
    ],
)
def test_what_a_job_does_is_told(job: Job, told: str):
    shown = show_status(job)
    assert f'mine <span class="l2d-state {job.state}">{job.state}</span>' in shown
    assert f"<p>{told}</p>" in shown
    assert "Compare marks it" not in shown
    assert (f'value="{job.progress:.4f}"' in shown) == (job.state == "running")


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "interrupted"])
def test_of_a_job_that_has_ended_the_reason_is_told(state: State):
    shown = show_status(dataclasses.replace(RUNNING, state=state, reason="It is over.", stage="student", progress=0.5))
    assert "<p>It is over.</p>" in shown
    assert "progress" not in shown


@pytest.mark.parametrize(
    ("job", "told"),
    [
        (WAITING, "queued"),
        (RUNNING, "running, 0%"),
        (dataclasses.replace(RUNNING, progress=0.256, seconds_left=300.0), "running, 26%, about 5 min left"),
        (dataclasses.replace(RUNNING, progress=1.0, seconds_left=0.0), "running, 100%"),
        (dataclasses.replace(RUNNING, state="cancelled", progress=0.5, seconds_left=300.0), "cancelled"),
    ],
)
def test_a_list_says_how_far_a_running_job_is(job: Job, told: str):
    assert describe_state(job) == told


def test_a_job_that_was_tried_again_says_so():
    assert "attempt" not in show_status(RUNNING)
    assert "Job 8523ad87b988, attempt 2<" in show_status(dataclasses.replace(RUNNING, attempts=2))


@pytest.mark.parametrize(("seconds", "told"), [(89.4, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (90_000, "25.0 h")])
def test_durations_are_told_as_people_say_them(seconds: float, told: str):
    assert describe_seconds(seconds) == told


def test_an_empty_log_says_so():
    assert ">Empty so far.<" in show_log("")
    assert ">first line<" in show_log("first line")


def test_models_of_a_job_are_told_by_what_marks_them_in_compare():
    job = dataclasses.replace(RUNNING, state="succeeded", models=["shapes-l2d-8523ad87b988"])
    assert "Compare marks it with (8523ad). As a teacher and in the API: <b>shapes-l2d-8523ad87b988</b>." in show_status(job)


def test_a_stop_waits_for_a_student_to_keep():
    job = dataclasses.replace(RUNNING, stage="student", request="stop")
    assert "Stopping after the student's first epoch." in show_status(job)
    assert "Stopping.</p>" in show_status(dataclasses.replace(job, best_epoch=1))


def test_time_left_is_told_while_it_is_known():
    job = dataclasses.replace(RUNNING, stage="student", epoch=3, progress=0.9, seconds_left=20.0)
    assert "epoch 3: 90%, about 20 s left." in show_status(job)
    over = dataclasses.replace(job, progress=1.0, seconds_left=0.0)
    assert "epoch 3: 100%.</p>" in show_status(over)
    assert "<p>Trained; scoring on the test pictures.</p>" in show_status(dataclasses.replace(over, stage="scores"))


def test_names_are_escaped():
    job = dataclasses.replace(WAITING, spec=WAITING.spec | {"title": "<img src=x>"})
    assert "<img" not in show_status(job)
    assert "<img" not in show_status(dataclasses.replace(job, state="failed", reason="There is no <img src=x>."))
    assert "<script" not in show_log("<script>alert(1)</script>")
