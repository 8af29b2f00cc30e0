"""A job's charts, from what it tells."""

import re
from pathlib import Path

import pytest

from app.records import JobFolder
from app.ui.curves import BOTTOM, HEIGHT, LEFT, WIDTH, History, recall_history, show_curves

EPOCH = {"event": "epoch", "stage": "student", "epoch": 1, "losses": {"bce": 2.0, "mld": 0.5}, "mAP": 40.0, "best": True, "progress": 0.5}


def tell_step(step: int, stage: str = "student", value: float = 3.0) -> dict:
    return {"event": "step", "stage": stage, "epoch": 1, "step": step, "steps": 4, "losses": {"bce": value}}


def read_charts(history: History, mark: int | None = None) -> list[tuple[list[str], list[list[tuple[float, float]]]]]:
    """Of either chart what stands at its axes, and every line's points, as shares of its width and height."""
    charts = []
    for chart in show_curves(history, mark).split("<figure>")[1:]:
        lines = [[tuple(map(float, point.split(","))) for point in line.split()] for line in re.findall(r'points="(.*?)"', chart)]
        right, floor = WIDTH - 8, HEIGHT - BOTTOM
        shares = [[((x - LEFT) / (right - LEFT), (floor - y) / (floor - 10)) for x, y in line] for line in lines]
        charts.append((re.findall(r"<text[^>]*>(.*?)</text>", chart), shares))
    return charts


def tell_epoch(epoch: int, score: float | None, **losses: float) -> dict:
    return EPOCH | {"epoch": epoch, "mAP": score, "losses": losses}


@pytest.mark.parametrize(("scores", "end", "heights"), [((12.5, 50.0), "50", [0.25, 1.0]), ((40.0, 50.1), "100", [0.4, 0.501])])
def test_scores_go_up_from_zero_to_fifty_or_a_hundred(scores: tuple[float, float], end: str, heights: list[float]):
    _, (told, (line,)) = read_charts(History([tell_epoch(number, score, bce=1.0) for number, score in enumerate(scores, 1)]))
    assert told == [end, "0", "0", "epoch 2"]
    assert [x for x, _ in line] == pytest.approx([0.5, 1], abs=1e-3)
    assert [y for _, y in line] == pytest.approx(heights, abs=1e-3)


def test_losses_go_by_powers_of_ten_on_one_scale():
    told = [tell_epoch(1, None, bce=100.0, mld=10.0), tell_epoch(2, None, bce=10.0, mld=1.0, cd=0.0)]
    # Nothing that is zero has a place there: no line of cd.
    (ends, (bce, mld)), (none, _) = read_charts(History(told))
    assert (ends[:2], none) == (["100", "1.0"], []), "no score was measured"
    assert [y for _, y in bce] == pytest.approx([1, 0.5], abs=1e-3)
    assert [y for _, y in mld] == pytest.approx([0.5, 0], abs=1e-3)


def test_a_loss_that_does_not_change_lies_in_the_middle():
    (ends, (line,)), _ = read_charts(History([tell_epoch(1, None, bce=1.0), tell_epoch(2, None, bce=1.0)]))
    assert ends[:2] == ["3.2", "0.32"]
    assert [y for _, y in line] == pytest.approx([0.5, 0.5], abs=1e-3)


def test_the_last_values_are_marked_and_told_in_the_legend():
    shown = show_curves(History([tell_epoch(number, 10.0 * number, bce=2.0) for number in (1, 2)] + [tell_epoch(3, 40.25, bce=0.5)]))
    assert re.findall('<circle cx="(.*?)"', shown) == [f"{WIDTH - 8:.1f}"] * 2
    assert [name in shown for name in ("</i>bce 0.50<", "</i>student 40.2<", "</i>bce 2.0<")] == [True, True, False]


def test_the_mark_stands_at_its_epoch():
    history = History([tell_epoch(number, 40.0, bce=1.0) for number in (1, 2, 3, 4)])
    places = re.findall(r'class="mark" d="M(.*?) ', show_curves(history, 3))
    assert [(float(x) - LEFT) / (WIDTH - 8 - LEFT) for x in places] == pytest.approx([0.75, 0.75], abs=1e-3)


def test_of_a_long_run_some_points_are_kept_and_drawn_and_the_newest():
    steps = 1000
    history = History([tell_step(step, value=1.0 + step) | {"steps": steps} for step in range(1, steps + 1)])
    assert 200 <= len(history.list_losses()[0].points) <= 400
    (_, (line,)), _ = read_charts(history)
    assert line[-1] == pytest.approx((1, 1), abs=1e-3)
    assert line == sorted(line)


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
    assert "<figcaption>Losses, weighted: none so far</figcaption>" in told, "there may be no teacher"
    assert "<b>Losses of the teacher, weighted</b>" in show_curves(History([tell_step(1, "teacher")]))


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
