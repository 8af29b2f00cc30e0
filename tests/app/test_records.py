"""What the lines in a job's folder come to."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.jobs import Progress
from app.records import JobFolder, Summary, Task, remove_folder, sweep_removed


def write(folder: JobFolder, *lines: dict[str, Any]) -> None:
    with folder.metrics.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def epoch(stage: str, number: int, score: float, best: bool) -> dict[str, Any]:
    return {"event": "epoch", "stage": stage, "epoch": number, "mAP": score, "best": best, "progress": 0.5, "seconds_left": 3.0}


def test_the_best_score_is_the_students(tmp_path: Path):
    folder, summary = JobFolder(tmp_path), Summary(attempt=1)
    write(folder, epoch("teacher", 1, 90.0, best=True))
    progress = summary.update(folder)
    assert (progress.stage, progress.epoch, progress.best_score) == ("teacher", 1, None)
    write(folder, epoch("student", 1, 40.0, best=True), epoch("student", 2, 39.0, best=False))
    progress = summary.update(folder)
    assert (progress.stage, progress.epoch, progress.best_score, progress.best_epoch) == ("student", 2, 40.0, 1)


def test_a_line_tells_of_the_progress_what_it_knows(tmp_path: Path):
    folder, summary = JobFolder(tmp_path), Summary(attempt=1)
    write(folder, epoch("teacher", 3, 90.0, best=True), {"event": "stage", "stage": "scores"}, {"event": "scored", "stage": "teacher"})
    assert summary.update(folder) == Progress(0.5, 3.0, "scores", 3)


def test_why_an_earlier_attempt_failed_is_not_why_this_one_did(tmp_path: Path):
    folder, first, second = JobFolder(tmp_path), Summary(attempt=1), Summary(attempt=2)
    write(folder, {"event": "failed", "attempt": 1, "reason": "The disk is full."})
    first.update(folder)
    second.update(folder)
    assert (first.failure, second.failure) == ("The disk is full.", "")
    write(folder, {"event": "failed", "reason": "Told by an earlier release."}, {"event": "failed", "attempt": 2, "reason": "Other."})
    second.update(folder)
    assert second.failure == "Other."


def test_a_new_attempt_goes_on_from_there_and_has_yet_to_see_how_long_it_takes(tmp_path: Path):
    folder = JobFolder(tmp_path)
    write(folder, epoch("student", 1, 40.0, best=True), {"event": "attempt", "attempt": 2, "versions": {"torch": "2"}})
    assert Summary(attempt=2).update(folder) == Progress(0.5, None, "student", 1, 40.0, 1, {"torch": "2"})


def test_from_a_place_where_no_line_starts_all_are_read(tmp_path: Path):
    folder = JobFolder(tmp_path)
    first, second = {"event": "first"}, {"event": "second"}
    write(folder, first, second)
    lines = folder.read()
    assert [line.record for line in lines] == [first, second]
    assert [line.record for line in folder.read(lines[0].after)] == [second]
    assert folder.read(lines[1].after) == []
    for place in (3, lines[0].after + 1, 10**6, 2**62):
        assert folder.read(place) == lines


def test_a_task_is_read_as_it_was_written_last_and_a_damaged_one_is_told(tmp_path: Path):
    folder = JobFolder(tmp_path)
    for task in (Task("1f", 1, {"data": "Vögel"}, "cpu"), Task("1f", 2, {}, "cuda:1", stop=True)):
        folder.write_task(task)
        assert folder.read_task() == task
    for damaged in ("", "{", "[1]", "7", '{"job": "1f"}'):
        folder.order.write_text(damaged)
        with pytest.raises(OSError, match=r"order\.json is damaged"):
            folder.read_task()


def test_of_the_students_that_were_the_best_once_that_of_one_epoch_stays_or_none(tmp_path: Path):
    folder = JobFolder(tmp_path)
    for epoch in (1, 2, 12):
        folder.best(epoch).mkdir()
    folder.forget_best(but=2)
    assert list(tmp_path.iterdir()) == [folder.best(2)]
    folder.forget_best()
    assert list(tmp_path.iterdir()) == []


def test_the_best_student_of_an_older_revision_is_named_by_its_epoch(tmp_path: Path):
    folder = JobFolder(tmp_path)
    write(folder, epoch("student", 1, 40.0, best=True), epoch("student", 2, 39.0, best=False))
    for name in ("best-teacher", "best-student"):
        (tmp_path / name).mkdir()
    for _ in range(2):
        folder.prepare()
        assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [folder.best(1).name]
        # As after a while under that older revision.
        (tmp_path / "best-student").mkdir()


def test_what_is_needed_to_resume_is_forgotten_and_what_was_told_stays(tmp_path: Path):
    folder = JobFolder(tmp_path)
    folder.append({"event": "first"})
    folder.log.touch()
    for path in (folder.probes, folder.ready, folder.best(1), tmp_path / "teacher", tmp_path / "student"):
        path.mkdir()
    folder.forget_training()
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl", "log.txt", "probes"}


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file of this process can become larger: as on a disk that is full, what still fits is written without an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_line_that_does_not_fit_is_an_error_and_leaves_nothing(tmp_path: Path):
    folder = JobFolder(tmp_path)
    folder.append({"event": "first"})
    with room_for(folder.metrics.stat().st_size + 8), pytest.raises(OSError, match="large"):
        folder.append({"event": "second"})
    folder.append({"event": "third"})
    assert [line.record for line in folder.read()] == [{"event": "first"}, {"event": "third"}]


def test_a_number_that_json_does_not_have_is_an_error_and_leaves_nothing(tmp_path: Path):
    folder = JobFolder(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        folder.append({"event": "step", "loss": float("nan")})
    assert folder.read() == []


def test_what_a_killed_attempt_left_half_done_is_cleared_before_the_next(tmp_path: Path):
    folder = JobFolder(tmp_path)
    folder.append({"event": "first"})
    with folder.metrics.open("ab") as file:
        file.write(b'{"event":"seco')
    for name in ("student/.model.safetensors.4711", ".probes.partial/.0001.json.4711", "student/.kept.4711x", "student/card.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    folder.prepare()
    folder.append({"event": "third"})
    assert [line.record for line in folder.read()] == [{"event": "first"}, {"event": "third"}]
    assert {path.name for path in tmp_path.rglob("*")} == {"metrics.jsonl", "student", ".kept.4711x", "card.json"}


def test_what_cannot_be_removed_is_out_of_sight_told_in_the_log_and_swept_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    folder = tmp_path / "model"
    folder.mkdir()
    with monkeypatch.context() as busy:
        busy.setattr("shutil.rmtree", lambda *_, **__: None)
        remove_folder(folder)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".model.gone.")
    assert [record.getMessage() for record in caplog.records] == [
        f"{left} cannot be removed to its end; the next worker that starts tries again."
    ]
    sweep_removed(tmp_path)
    remove_folder(folder)
    assert (list(tmp_path.iterdir()), len(caplog.records)) == ([], 1)


def test_a_log_may_hold_what_is_no_text(tmp_path: Path):
    folder = JobFolder(tmp_path)
    folder.log.write_bytes(b"caf\xe9\nend\n")
    assert folder.read_log(100) == "caf\ufffd\nend\n"


def test_the_end_of_a_log_begins_with_a_line(tmp_path: Path):
    folder = JobFolder(tmp_path)
    assert folder.read_log(100) == ""
    folder.log.write_text("first\nsecond\n")
    assert [folder.read_log(limit) for limit in (13, 12, 8)] == ["first\nsecond\n", "second\n", "second\n"]


def test_a_line_is_read_once_it_is_whole(tmp_path: Path):
    folder = JobFolder(tmp_path)
    assert folder.read() == []
    folder.metrics.write_text('{"event": "first"}\n{"event": "second"}')
    assert [line.record for line in folder.read()] == [{"event": "first"}]


@pytest.mark.parametrize(
    "damaged", [b'{"event":"ep{"event":"step"}', b"\0\0\0", b"\xff", b"", b"7", b'{"epoch":1}', pytest.param(bytes(2**20), id="long")]
)
def test_a_damaged_line_hides_no_other(tmp_path: Path, damaged: bytes):
    folder, summary = JobFolder(tmp_path), Summary(attempt=1)
    write(folder, epoch("student", 1, 40.0, best=True))
    with folder.metrics.open("ab") as file:
        file.write(damaged + b"\n")
    assert summary.update(folder).epoch == 1
    write(folder, epoch("student", 2, 41.0, best=True))
    assert summary.update(folder).epoch == 2
    first = folder.read()[0]
    assert first.record["epoch"] == 1
    assert [line.record["epoch"] for line in folder.read(first.after)] == [2]
    assert [record["epoch"] for record in folder.read_all()] == [1, 2]
