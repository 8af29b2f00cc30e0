"""Reports of series: every number in its cell of the text, and at its place in the plot."""

import dataclasses
import io
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from l2d.comparison import collect_table
from l2d.figure import save_figure
from l2d.published import Row, read_rows
from l2d.report import OURS, PAPER, plot_sweep, plot_table, sweep_as_markdown, table_as_markdown, write_sweep, write_table
from l2d.reproduce import plan_figure1, plan_rows
from l2d.sweep import collect_sweep, plan_sweep
from tests.l2d.conftest import finish, make_index, make_settings

NOTHING: dict[str, Any] = {"ours": {}, "spread": {}, "paper": {}, "difference": {}, "runs": [], "pictures": {}}
SEEN = {"trained": 1000, "scored": 20}
METHODS = {
    "teacher": NOTHING | {"ours": {"mAP": 90.0}, "paper": {"mAP": 88.0}, "runs": ["t"], "pictures": {"trained": 7, "scored": 7}},
    "vanilla": NOTHING | {"paper": {"mAP": 80.0}},
    "l2d": NOTHING
    | {
        "ours": {"mAP": 83.5, "OF1": 70.0, "CF1": 60.125},
        "spread": {"mAP": 1.5},
        "paper": {"mAP": 85.71, "OF1": 85.5},
        "difference": {"mAP": -2.21},
        "gain": 3.5,
        "paper_gain": 5.71,
        "runs": ["a", "b"],
        "pictures": SEEN,
    },
    "mld": NOTHING | {"ours": {"mAP": 82.0}, "runs": ["c"], "pictures": SEEN},
}
ROW = {"number": 1, "data": "VOC", "teacher": "ResNet-50", "student": "ResNet-18", "networks": ["big", "small"], "methods": METHODS}
TABLE = {"table": "table3", "data": "voc:ROOT", "source": "The paper", "notes": ["First.", "Second."], "rows": [ROW, ROW]}

SWEEP = {
    "data": "coco:ROOT",
    "teacher": "big",
    "student": "small",
    "method": "l2d",
    "recipe": "short",
    "holdout": 0.1,
    "seed": 3,
    "pictures": {},
    "curves": {
        "mld": {"usual": 10.0, "best": 1.0, "points": [{"weight": 1.0, "mAP": 61.5}, {"weight": 10.0, "mAP": 60.0}]},
        "id": {"usual": 1000.0, "best": None, "points": [{"weight": 500.0, "mAP": None}, {"weight": 1000.0, "mAP": None}]},
    },
}


def test_a_table_tells_what_is_measured_and_a_dash_for_the_rest() -> None:
    before, first, second = table_as_markdown(TABLE).split("\n\n## ")
    assert (
        before == "# Table 3 on voc:ROOT\n\nPercent on the test pictures; differences and gains are those of the numbers before rounding. "
        "Source of the paper's numbers: The paper.\n\n- First.\n- Second."
    )
    assert first == second.removesuffix("\n")
    title, students, table = first.split("\n\n")
    assert title == "big → small (paper: ResNet-50 → ResNet-18 on VOC)"
    assert students == (
        "Mean of 1 to 2 trainings a method that differ in their seed alone, with their standard deviation (of the sample, n - 1). "
        "Students trained on 1,000 pictures, scored on 20."
    )
    assert table.splitlines() == [
        "| Method | ours mAP | paper mAP | ours OF1 | paper OF1 | ours CF1 | paper CF1 | mAP: ours - paper | gain | paper's gain |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| Teacher | 90.00 | 88.00 | – | – | – | – | – | – | – |",
        "| Vanilla | – | 80.00 | – | – | – | – | – | – | – |",
        "| L2D | 83.50 ± 1.50 | 85.71 | 70.00 | 85.50 | 60.12 | – | -2.21 | +3.50 | +5.71 |",
        "| MLD | 82.00 | – | – | – | – | – | – | – | – |",
    ]


def test_a_sweep_tells_every_point_and_marks_the_best_and_the_usual_one() -> None:
    head, about, mld, other = sweep_as_markdown(SWEEP).split("\n\n", 3)
    assert head == "# Sensitivity to the loss weights, on coco:ROOT"
    assert about.startswith("big → small, method l2d, recipe short: each weight varied")
    assert about.endswith("on 10% of the training pictures, held out; the test pictures took no part. One training a point, of seed 3.")
    assert (mld, other.splitlines()[0]) == ("## mld", "| weight | mAP, held out |  |")
    lines = [line for line in other.splitlines() if line.startswith("| 1") or line.startswith("| 5")]
    assert lines == ["| 1 | 61.50 | best |", "| 10 | 60.00 | usual |", "| 500 | – |  |", "| 1000 | – | usual |"]
    told = sweep_as_markdown(SWEEP | {"notes": ["First."], "pictures": SEEN})
    assert "took no part. One training a point, of seed 3. Students trained on 1,000 pictures, scored on 20.\n\n- First.\n\n## mld" in told


def find_bars(axes: Axes) -> list[tuple[float, float, float]]:
    """Place, middle and half the length of every error bar."""
    segments = [bar for _, _, (bars,) in axes.containers for bar in bars.get_segments()]
    return [(bar[0, 0], bar[:, 1].mean(), np.ptp(bar[:, 1]) / 2) for bar in segments]


def find_points(axes: Axes) -> dict[str, list[list[float]]]:
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines if line.get_linestyle() == "None"}


def test_without_a_vanilla_student_a_table_is_plotted_where_its_numbers_are() -> None:
    figure = plot_table(TABLE)
    assert len(figure.axes) == 2
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Vanilla", "L2D", "MLD"]
    points = find_points(axes)
    assert (points["paper"], points["ours"]) == ([[0, 80.0], [1, 85.71]], [[1, 83.5], [2, 82.0]])
    assert find_bars(axes) == [(1, 83.5, 1.5)]
    teachers = {line.get_color(): line.get_ydata()[0] for line in axes.lines if line.get_label().startswith("teacher")}
    assert teachers == {PAPER: 88.0, OURS: 90.0}
    # Of two panels of the same networks, which of the paper's they stand beside.
    assert (axes.get_title(), axes.get_ylabel()) == ("big → small (paper: ResNet-50 →\nResNet-18)", "mAP (%)")


def test_with_one_its_gains_are_plotted_ours_and_the_papers_from_their_own() -> None:
    vanilla = METHODS["vanilla"] | {"ours": {"mAP": 81.0}, "spread": {"mAP": 0.5}}
    axes = plot_table(TABLE | {"rows": [ROW | {"methods": METHODS | {"vanilla": vanilla}}]}).axes[0]
    points = find_points(axes)
    assert points["paper"] == [[0, 0.0], [1, pytest.approx(5.71)]]
    assert points["ours"] == [[0, 0.0], [1, 2.5], [2, 1.0]]
    assert find_bars(axes) == [(0, 0.0, 0.5), (1, 2.5, 1.5)]
    # A teacher's lead would leave no room for the differences.
    assert not any(line.get_label().startswith("teacher") for line in axes.lines)
    assert axes.get_ylabel() == "mAP above vanilla (points)"


def read_legend(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_marks_are_explained_once_and_a_teacher_that_was_not_scored_has_none() -> None:
    assert sorted(read_legend(plot_table(TABLE))) == ["ours", "paper", "teacher, ours", "teacher, paper", "± deviation over seeds"]
    without = ROW | {"methods": METHODS | {"teacher": NOTHING}}
    assert sorted(read_legend(plot_table(TABLE | {"rows": [without]}))) == ["ours", "paper", "± deviation over seeds"]
    assert read_legend(plot_sweep(SWEEP)) == ["usual weight"]


def test_panels_and_the_legend_cover_no_part_of_each_other() -> None:
    for rows in ([ROW], [ROW | {"networks": ["a-teacher-of-a-long-name-that-somebody-gave-it", "mobilenetv2_100"]}] * 3):
        figure = plot_table(TABLE | {"rows": rows})
        # A column, and the width of a text, in inches.
        assert figure.get_size_inches()[0] == (3.4 if len(rows) == 1 else 6.8)
        check_places(figure, len(rows))
    check_places(plot_sweep(SWEEP), 2)


def check_places(figure: Figure, panels: int) -> None:
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [legend.get_window_extent() for legend in figure.legends]
    assert len(boxes) == panels + 1
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(figure.bbox.contains(*corner) for box in boxes for corner in (box.min, box.max))
    # Inches.
    assert all(2.5 < axes.get_window_extent().width / figure.dpi < 3.4 for axes in figure.axes)


def test_names_of_networks_are_written_as_they_are() -> None:
    figure = plot_table(TABLE | {"rows": [ROW | {"networks": ["教师$x_{$", "small"]}]})
    # Letters that no font has would be a warning, here an error.
    figure.draw_without_rendering()
    assert figure.axes[0].get_title() == "教师$x_{$ → small"
    # In no other way all fonts can be embedded that have such letters.
    save_figure(figure, buffer := io.BytesIO(), "pdf")
    assert b"/Type3" in buffer.getvalue()


def test_a_sweep_is_plotted_over_weights_by_powers_of_ten() -> None:
    figure = plot_sweep(SWEEP)
    mld, other = figure.axes
    # What hardly matters looks flat.
    assert mld.get_ylim() == other.get_ylim()
    assert [axes.get_title() for axes in figure.axes] == ["weight of mld", "weight of id"]
    assert {axes.get_ylabel() for axes in figure.axes} == {"mAP, held out (%)"}
    for axes, points, published, weights in ((mld, [[1, 61.5], [10, 60]], 10, [1, 10]), (other, [], 1000, [500, 1000])):
        curve, line = axes.lines
        assert curve.get_xydata().tolist() == points
        assert line.get_xdata()[0] == published
        assert axes.get_xscale() == "log"
        assert axes.get_xlim() == pytest.approx((weights[0] / 1.5, weights[1] * 1.5))
        assert [label.get_text() for label in axes.get_xticklabels()] == [str(weight) for weight in weights]
        assert list(axes.xaxis.get_minorticklocs()) == []


def test_weights_close_to_each_other_stay_readable() -> None:
    for weights, angle in (([100, 300, 1000, 3000, 10000], 0), ([500, 900, 1000, 1100, 2000], 90)):
        points = [{"weight": weight, "mAP": 60.0} for weight in weights]
        figure = plot_sweep(SWEEP | {"curves": {"id": {"usual": 10.0, "best": 1000, "points": points}}})
        figure.draw_without_rendering()
        labels = figure.axes[0].get_xticklabels()
        assert {label.get_rotation() for label in labels} == {angle}
        assert not any(one.overlaps(other) for one, other in combinations([label.get_window_extent() for label in labels], 2))


def test_files_hold_the_report(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    killed = tmp_path / "new" / f".sweep.png.{'0' * 32}.partial"
    killed.touch()
    os.utime(killed, (0, 0))
    files = write_sweep(tmp_path / "new", SWEEP)
    assert sorted((tmp_path / "new").iterdir()) == sorted(files)
    assert [file.name for file in files] == ["sweep.json", "sweep.md", "sweep.png", "sweep.pdf"]
    assert json.loads(files[0].read_text()) == SWEEP
    assert files[1].read_text(encoding="utf-8") == sweep_as_markdown(SWEEP)
    assert files[2].read_bytes().startswith(b"\x89PNG")
    # Publishers refuse fonts of type 3.
    vector = files[3].read_bytes()
    assert vector.startswith(b"%PDF")
    assert b"/CIDFontType2" in vector
    assert b"/Type3" not in vector
    assert write_sweep(tmp_path / "new", SWEEP)[3].read_bytes() == vector


def test_nothing_measured_yet_is_a_table_too(tmp_path: Path):
    settings = make_settings(tmp_path / "none", data="coco:ROOT")
    files = write_table(tmp_path, collect_table("table2", read_rows("table2"), settings, make_index()))
    assert [file.name for file in files] == ["table2.json", "table2.md", "table2.png", "table2.pdf"]
    assert b"/Type3" not in files[3].read_bytes()


@pytest.mark.usefixtures("no_plots")
def test_a_table_keeps_the_rows_that_are_in_its_folder(tmp_path: Path):
    rows, settings = read_rows("table4"), make_settings(tmp_path, data="voc:ROOT")
    for number in (3, 1, 3):
        files = write_table(tmp_path, collect_table("table4", [rows[number - 1]], settings, make_index()))
        # The row that is asked for again is written anew.
        settings = dataclasses.replace(settings, methods=("vanilla", "mld"))
    whole = json.loads(files[0].read_text())["rows"]
    assert [(row["number"], list(row["methods"])[1:]) for row in whole] == [(1, ["vanilla", "mld"]), (3, ["vanilla", "mld"])]
    assert files[1].read_text(encoding="utf-8").count("\n## ") == 2
    # Another student of the same row is a row of its own.
    write_table(tmp_path, collect_table("table4", rows[:1], dataclasses.replace(settings, student="test_resnet"), make_index()))
    assert [row["number"] for row in json.loads(files[0].read_text())["rows"]] == [1, 1, 3]
    # One of an older version, which did not tell of pictures, stays too.
    for entry in (old := json.loads(files[0].read_text()))["rows"][0]["methods"].values():
        entry.pop("pictures")
        entry["runs"] = ["somewhere"]
    files[0].write_text(json.dumps(old))
    write_table(tmp_path, collect_table("table4", rows[2:3], settings, make_index()))
    assert [row["number"] for row in json.loads(files[0].read_text())["rows"]] == [1, 1, 3]
    for damaged in ("{", "[]", '{"rows": [{"number": 1}]}'):
        files[0].write_text(damaged)
        with pytest.raises(ValueError, match=r"table4\.json is not as it was written: remove this file"):
            write_table(tmp_path, collect_table("table4", rows[:1], settings, make_index()))


@pytest.mark.usefixtures("no_plots")
def test_two_that_write_rows_of_a_table_at_once_lose_none(tmp_path: Path):
    rows, settings, both = read_rows("table4"), make_settings(tmp_path, data="voc:ROOT"), threading.Barrier(2)

    def write(row: Row) -> None:
        report = collect_table("table4", [row], settings, make_index())
        both.wait(20)
        write_table(tmp_path, report)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, (rows[0], rows[2])))
    assert [row["number"] for row in json.loads((tmp_path / "table4.json").read_text())["rows"]] == [1, 3]


def test_the_legend_of_a_plot_explains_every_line_and_covers_no_score(tmp_path: Path):
    row = read_rows("table3")[1]
    settings = make_settings(tmp_path, data="voc:ROOT")
    for training in plan_rows([row], settings):
        finish(training, 70.0)
    figure = plot_table(collect_table("table3", [row], settings, make_index()))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["paper", "ours"]
    assert not any(axes.get_legend() or axes.get_window_extent().overlaps(legend.get_window_extent()) for axes in figure.axes)


def test_a_sweep_draws_all_its_curves_on_one_scale(tmp_path: Path):
    _, student = plan_figure1(make_settings(tmp_path))
    for number, training in enumerate(plan_sweep(student, (0.1,))):
        finish(training, 50.0 + 10.0**number)
    figure = plot_sweep(collect_sweep(student, (0.1,)))
    figure.draw_without_rendering()
    limits = {axes.get_ylim() for axes in figure.axes}
    assert len(limits) == 1 < len(figure.axes)
    assert all(low < score < high for low, high in limits for score in (51.0, 1050.0))
    # A tenth of a point, which may be chance, does not look like a peak.
    points = [{"weight": weight, "mAP": score} for weight, score in ((1, 50.0), (10, 50.1))]
    low, high = plot_sweep(SWEEP | {"curves": {"mld": {"usual": 1, "points": points}}}).axes[0].get_ylim()
    assert (low < 50.0, high > 50.1, high - low) == (True, True, pytest.approx(1.0))
