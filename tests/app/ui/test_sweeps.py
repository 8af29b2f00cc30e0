import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.ui.sweeps import HEIGHT, LEFT, WIDTH, render_sweeps
from l2d.reproduce import plan_figure1
from l2d.sweep import collect_sweep, plan_sweep
from tests.l2d.conftest import finish, make_settings

SWEEP = {
    "teacher": "a-<teacher>",
    "student": "mobilenetv2_100",
    "method": "l2d",
    "recipe": "short",
    "holdout": 0.1,
    "seed": 3,
    "data": "coco:ROOT",
    "pictures": {"trained": 2700, "scored": 1200},
    "curves": {
        "mld": {"usual": 64, "points": [{"weight": 6.4, "mAP": 30.0}, {"weight": 64, "mAP": 31.0}, {"weight": 640, "mAP": 32.0}]},
        "cd": {"usual": 3, "points": [{"weight": 0.3, "mAP": None}, {"weight": 3, "mAP": 31.0}]},
        "id": {"usual": 100, "points": [{"weight": 100, "mAP": None}]},
    },
}


def render(folder: Path, sweep: dict[str, Any]) -> str:
    (folder / "sweep-coco.json").write_text(json.dumps(sweep))
    return "".join(render_sweeps(folder))


def find_dots(page: str) -> list[list[tuple[float, float]]]:
    """Places of the points, a list per curve."""
    found = [re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', figure) for figure in page.split("<figure>")[1:]]
    return [[(float(x), float(y)) for x, y in dots] for dots in found]


def test_every_loss_has_a_curve_on_one_scale_of_scores(tmp_path: Path) -> None:
    page = render(tmp_path, SWEEP)
    assert "The weight of each loss of L2D: a-&lt;teacher&gt; to mobilenetv2_100, short recipe" in page
    assert "Scores on 10% of the training pictures, held out; the test pictures took no part. One training a point, of seed 3." in page
    assert "Students trained on 2,700 pictures, scored on 1,200." in page
    mld, cd, unmeasured = find_dots(page)
    # Equal factors are equally far.
    assert mld[1][0] - mld[0][0] > 0
    assert mld[1][0] - mld[0][0] == pytest.approx(mld[2][0] - mld[1][0], abs=0.2)
    assert mld[0][1] > mld[1][1] > mld[2][1]
    # Only what was measured, and the same score at the same height.
    assert [y for _, y in cd] == [mld[1][1]]
    assert unmeasured == []
    assert "<b>id</b> not measured yet" in page
    assert 'aria-label="mAP over the weight of mld: 30.0 at 6.4, 31.0 at 64, 32.0 at 640"' in page
    assert "<b>mld</b>, best of these 32.0 at 640" in page
    assert "ROOT" not in page
    (tmp_path / "sweep-more.json").write_text(json.dumps(SWEEP))
    assert re.findall(r"short recipe(.*?)</h2>", render(tmp_path, SWEEP)) == [" (sweep-coco.json)", " (sweep-more.json)"]


def test_weights_that_are_close_are_not_written_over_each_other(tmp_path: Path) -> None:
    points = [{"weight": 10 + number, "mAP": 30.0} for number in range(30)]
    page = render(tmp_path, SWEEP | {"curves": {"mld": {"usual": 10, "points": points}}})
    places = [float(x) for x in re.findall(r'<text x="([\d.]+)" y="\d+" text-anchor="middle"', page)]
    assert len(find_dots(page)[0]) == 30
    assert min(b - a for a, b in itertools.pairwise(places)) >= 40


def test_one_point_and_equal_scores_can_be_drawn(tmp_path: Path) -> None:
    one = {"usual": 10, "points": [{"weight": 10, "mAP": 31.0}]}
    assert len(find_dots(render(tmp_path, SWEEP | {"curves": {"mld": one}}))[0]) == 1
    # As sums in another order are; and of the best ones the usual weight is named, as by the command.
    equal = {"usual": 10, "points": [{"weight": 1, "mAP": 34.1}, {"weight": 10, "mAP": 34.1}, {"weight": 100, "mAP": 34.1 - 1e-14}]}
    page = render(tmp_path, SWEEP | {"curves": {"mld": equal}})
    assert len({y for _, y in find_dots(page)[0]}) == 1
    # One training a point: a tenth of one may be chance, and looks flat.
    equal["points"][2]["mAP"] = 34.0
    (_, first), _, (_, last) = find_dots(render(tmp_path, SWEEP | {"curves": {"mld": equal}}))[0]
    assert 0 < last - first < HEIGHT / 8
    assert "best of these 34.1 at 10<" in page


def test_points_in_any_order_and_a_usual_weight_beside_them_stay_within_the_panel(tmp_path: Path) -> None:
    points = [{"weight": 1000, "mAP": 31.0}, {"weight": 10, "mAP": 30.0}, {"weight": 100, "mAP": 32.0}]
    page = render(tmp_path, SWEEP | {"curves": {"mld": {"usual": 1, "points": points}}})
    places = [x for x, _ in find_dots(page)[0]]
    line = float(re.findall(r'<path d="M([\d.]+)[^>]*stroke-dasharray', page)[0])
    assert LEFT < line < places[0] < places[1] < places[2] < WIDTH


@pytest.mark.parametrize("changes", [{"curves": 1}, {"holdout": 10.0}, {"curves": {"mld": {"usual": 0, "points": []}}}, {"recipe": None}])
def test_a_file_of_another_kind_is_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    page = render(tmp_path, SWEEP | changes)
    assert page.startswith("<h2>sweep-coco.json</h2><p>This file cannot be shown: ")


def test_what_the_command_writes_can_be_shown(tmp_path: Path) -> None:
    _, student = plan_figure1(make_settings(tmp_path))
    for training in plan_sweep(student, (0.1,)):
        finish(training, 50.0)
    page = render(tmp_path, collect_sweep(student, (0.1,)) | {"recipe": "paper", "notes": []})
    assert [len(dots) for dots in find_dots(page)] == [2, 2, 2]
