"""How a training's end is told."""

import pytest

from app.endings import describe_end
from app.jobs import Progress
from app.processes import Exit
from app.records import Summary


@pytest.mark.parametrize(
    ("score", "stopped", "reason"),
    [
        (
            40.0,
            False,
            "Trained to the end; the student of the last epoch is kept. The best epoch was 3 (mAP 40.0 on the pictures held out).",
        ),
        (40.0, True, "Stopped as asked; the student of epoch 3 is kept (mAP 40.0 on the pictures held out)."),
        (None, False, "Trained to the end; the student of the last epoch is kept."),
        (None, True, "Stopped as asked; the student of epoch 3 is kept, its last finished one."),
    ],
)
def test_only_where_pictures_are_held_out_an_epoch_is_the_best(score: float | None, stopped: bool, reason: str):
    summary = Summary(attempt=1)
    summary.progress = Progress(best_score=score, best_epoch=3)
    assert describe_end(Exit(0), summary, stopped) == ("succeeded", reason)


@pytest.mark.parametrize(("code", "name"), [(-15, "SIGTERM"), (-40, "signal 40")])
def test_a_signal_is_told_also_if_it_has_no_name(code: int, name: str):
    state, reason = describe_end(Exit(code), Summary(attempt=1), stopped=False)
    assert state == "failed"
    assert reason.startswith(f"The training process was ended by {name} in epoch 0.")


OUT_OF_MEMORY = " The system does so when memory runs out: order a smaller batch_size or image_size."


@pytest.mark.parametrize(
    ("ended", "state", "reason"),
    [
        (Exit(-9), "failed", f"The training process was ended by SIGKILL in epoch 0.{OUT_OF_MEMORY} Resume goes on from there."),
        (Exit(-15), "failed", "The training process was ended by SIGTERM in epoch 0. Resume goes on from there."),
        (Exit(1), "failed", "The training process ended with code 1; its log says more."),
        (Exit(1, "So the cluster."), "failed", "The training process ended with code 1; its log says more. So the cluster."),
        (Exit(None, "The cluster lost it."), "interrupted", "The cluster lost it. Resume goes on after the last finished epoch."),
    ],
)
def test_an_end_before_its_time_is_told_with_what_to_do(ended: Exit, state: str, reason: str):
    assert describe_end(ended, Summary(attempt=1), stopped=False) == (state, reason)


def test_what_the_training_said_itself_goes_before_how_its_process_ended():
    summary = Summary(attempt=1)
    summary.failure = "The disk is full."
    assert describe_end(Exit(1, "So the cluster."), summary, stopped=False) == ("failed", "The disk is full.")
