"""A job's charts, from what it tells."""

from pathlib import Path

from app.records import JobFolder
from app.ui.curves import History, recall_history, show_curves

EPOCH = {"event": "epoch", "stage": "student", "epoch": 1, "losses": {"bce": 2.0, "mld": 0.5}, "mAP": 40.0, "best": True, "progress": 0.5}


def tell_step(step: int, stage: str = "student", value: float = 3.0) -> dict:
    return {"event": "step", "stage": stage, "epoch": 1, "step": step, "steps": 4, "losses": {"bce": value}}


def test_where_an_epoch_was_told_twice_the_last_word_counts():
    history = History([EPOCH | {"mAP": 10.0}, EPOCH | {"mAP": 40.0}])
    assert history.list_scores() == [("student", [(1.0, 40.0)])]
    assert "student 40" in show_curves(history)


def test_steps_lie_between_the_epochs_and_the_losses_are_of_the_stage_that_learns():
    told = [tell_step(1, "teacher", 9.0), tell_step(2), tell_step(1, value=5.0)]
    assert History(told[:1]).list_losses() == [("bce", [(0.25, 9.0)])]
    history = History([*told, EPOCH])
    assert dict(history.list_losses())["bce"] == [(0.25, 5.0), (0.5, 3.0), (1.0, 2.0)]


def test_before_the_first_epoch_there_are_words():
    told = show_curves(History())
    assert "after the first epoch" in told
    assert "teacher" not in told, "there may be none"


def test_names_are_escaped():
    assert "<img" not in show_curves(History([EPOCH | {"losses": {"<img>": 1.0}}]))


def test_only_a_student_s_epoch_is_marked():
    assert 'class="mark"' in show_curves(History([EPOCH]), 1)
    assert "mark" not in show_curves(History([EPOCH]))
    assert "mark" not in show_curves(History([EPOCH | {"stage": "teacher"}]), 1)


def test_a_job_is_followed_by_reading_only_what_is_new(tmp_path: Path, monkeypatch):
    folder = JobFolder(tmp_path)
    folder.append(tell_step(1))
    assert recall_history(tmp_path).follow(folder).list_losses() == [("bce", [(0.25, 3.0)])]
    folder.append(EPOCH)
    places, read = [], JobFolder.read
    monkeypatch.setattr(JobFolder, "read", lambda self, start=0: places.append(start) or read(self, start))
    assert recall_history(tmp_path).follow(folder).list_scores() == [("student", [(1.0, 40.0)])]
    assert min(places) > 0
