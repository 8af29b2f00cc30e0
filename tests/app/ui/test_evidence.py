import json
import re

import pytest
import torch

from app.ui.evidence import DATA_TITLES, render_evidence
from app.ui.tables import find_best
from l2d.comparison import collect_table
from l2d.data import READERS, Index
from l2d.published import choose_rows, describe_data, read_rows
from l2d.reproduce import Settings

SCORES = {"mAP": 44.25, "OF1": 57.7, "CF1": 41.0}


def make_report(**changes):
    """Three methods of one pair, in the shape that `l2d reproduce` writes."""
    vanilla = {"ours": SCORES | {"mAP": 42.9}, "spread": {"mAP": 0.31}, "paper": {"mAP": 86.12}, "runs": ["a", "b", "c"]}
    l2d = {"ours": SCORES, "spread": {"mAP": 0.24}, "paper": {"mAP": 87.32}, "gain": 1.35, "paper_gain": 1.2, "runs": ["d", "e", "f"]}
    methods = {"teacher": {"ours": {"mAP": 48.0}}, "vanilla": vanilla, "l2d": l2d, "mld": {"ours": {}, "paper": {"mAP": 86.38}}}
    row = {
        "data": "VOC 2007",
        "teacher": "ResNet-50",
        "student": "MobileNet v2",
        "networks": ["a-teacher", "mobilenetv2_100"],
        "methods": methods,
    }
    return {
        "table": "table4",
        "data": "coco:ROOT",
        "notes": ["8 epochs instead of 80."],
        "rows": [row],
        "source": "the supplement",
    } | changes


def render(folder, report):
    (folder / "evidence.json").write_text(json.dumps(report))
    return "".join(render_evidence(folder))


def test_every_method_stands_with_its_spread_beside_the_papers(tmp_path):
    page = render(tmp_path, make_report())
    # Anybody's pictures, or a part of the original's.
    assert "Methods on pictures in MS-COCO&#x27;s layout: a-teacher to mobilenetv2_100<" in page
    short = "Methods on pictures in MS-COCO&#x27;s layout: a-teacher to mobilenetv2_100, short recipe"
    assert all(
        part in render(tmp_path, make_report(recipe="short"))
        for part in (f"<h2>{short}</h2>", f'aria-label="{short}, beside ResNet-50 to MobileNet v2"')
    )
    assert "Mean of 0 to 3 trainings a method" in page
    assert '<td class="best">44.2 <small>± 0.2</small></td><td><small>+1.4</small></td>' in page
    assert "Paper: ResNet-50 to MobileNet v2, VOC 2007" in page
    assert "<small>+1.2</small>" in page
    assert "8 epochs instead of 80." in page
    # Never the path of the data on the machine that measured.
    assert "ROOT" not in page


def test_gains_are_drawn_on_one_axis_ours_above_the_papers(tmp_path):
    page = render(tmp_path, make_report())
    strip = page.partition(">L2D</th>")[2].partition("</tr>")[0]
    (paper, there), (ours, here) = re.findall(r'<i class="(\w+)" style="left:([\d.]+)%', strip)
    assert (paper, ours) == ("diamond", "dot")
    # 1.2 and 1.35, with a bar of 0.24 to either side, on an axis from -0.5 to 2.
    assert (float(there), float(here)) == (68.0, 74.0)
    assert '<b style="left:64.40%;width:19.20%;' in strip
    teacher, vanilla = page.partition(">Teacher</th>")[2].partition(">L2D</th>")[0].split(">Vanilla</th>")
    assert not re.search(r'<i class="\w+" style="left', teacher)
    # What gains are counted from is not certain either: 0 with a bar of 0.31.
    assert re.findall(r'<[ib] \S*? ?style="left:([\d.]+)%', vanilla) == ["7.60", "20.00"]


def test_bars_are_explained_where_there_are_any(tmp_path):
    report = make_report()
    assert "same column. Bars are the methods' own deviations, the vanilla student's around 0.</p>" in render(tmp_path, report)
    for method in report["rows"][0]["methods"].values():
        method["spread"] = {}
    page = render(tmp_path, report)
    assert "same column.</p>" in page
    assert not re.search(r'<i class="\w+" style="left', page.partition(">Vanilla</th>")[2].partition(">L2D</th>")[0])


def test_a_file_with_numbers_that_are_none_is_not_shown(tmp_path):
    report = make_report()
    method = report["rows"][0]["methods"]["l2d"]
    for changes in ({"gain": float("inf")}, {"gain": 1e308}, {"spread": {"mAP": -1.0}}, {"ours": {"mAP": 1e300}}):
        report["rows"][0]["methods"]["l2d"] = method | changes
        page = render(tmp_path, report)
        assert f"evidence.json</h2><p>This file cannot be shown: rows.0.methods.l2d.{next(iter(changes))}" in page
        assert page.endswith("Have it written anew, or take it out of the folder of checkpoints.</p>")


def test_a_file_that_cannot_be_read_does_not_tell_where_it_lies(tmp_path):
    (tmp_path / "evidence.json").mkdir()
    page = "".join(render_evidence(tmp_path))
    assert "This file cannot be shown: Is a directory. Have it" in page
    assert str(tmp_path) not in page


def test_the_number_of_pictures_is_told_where_the_file_tells_it(tmp_path):
    report = make_report()
    assert "pictures, scored on" not in render(tmp_path, report)
    for name, method in report["rows"][0]["methods"].items():
        method["pictures"] = {"trained": 9000 if name == "teacher" else 11520, "scored": 2500} if "runs" in method else {}
    assert "<p>Mean of 0 to 3 trainings a method" in (page := render(tmp_path, report))
    assert "Students trained on 11,520 pictures, scored on 2,500. Gain: " in page


@pytest.mark.parametrize(
    ("spreads", "best"),
    [(({"mAP": 0.2}, {"mAP": 0.1}), {"mAP": 44.0}), (({"mAP": 0.2}, {"mAP": 1.1}), {}), (({}, {}), {}), (({"mAP": 0.2}, {}), {})],
)
def test_the_best_leads_by_more_than_its_seeds_differ(spreads, best):
    assert find_best([{"mAP": 44.0}, {"mAP": 43.0}], spreads) == best


def test_what_the_command_writes_can_be_shown(tmp_path):
    settings = Settings("shapes", tmp_path, ("vanilla", "l2d"))
    index = Index([tmp_path], torch.zeros(1, 1), ("cat",))
    report = collect_table("table4", choose_rows(read_rows("table4"), []), settings, index)
    page = render(tmp_path, report)
    assert page.count("<h2>") == len(report["rows"])
    assert "cannot be shown" not in page


def test_what_all_series_share_is_told_once(tmp_path):
    (tmp_path / "evidence-a.json").write_text(json.dumps(make_report(notes=["8 epochs instead of 80.", "Small pictures."])))
    page = render(tmp_path, make_report(notes=["One seed.", "8 epochs instead of 80."]))
    assert page.index("Small pictures.") < page.index("One seed.") < page.index("in all of these") < page.index("8 epochs instead of 80.")
    assert page.count("8 epochs instead of 80.") == page.count("The paper: the supplement.") == 1


def test_that_the_pictures_are_not_the_papers_is_told_above_the_numbers_of_each_series(tmp_path):
    notes = ["8 epochs instead of 80.", *describe_data("VOC 2007", "csv", Index([tmp_path], torch.zeros(1, 1), ("cat",)))]
    (tmp_path / "evidence-a.json").write_text(json.dumps(make_report(notes=notes)))
    page = render(tmp_path, make_report(notes=notes))
    told = "the vanilla student's around 0. The data set is csv, the paper's is VOC 2007: "
    assert page.replace("&#x27;", "'").count(told) == page.count("The data set is csv") == 2


def test_equal_headings_are_told_apart_by_file_and_by_the_papers_networks(tmp_path):
    (row,) = make_report()["rows"]
    rows, networks = [row, row | {"teacher": "Swin-T"}], "layout: a-teacher to mobilenetv2_100"
    first, second = (f"{networks}, beside {teacher} to MobileNet v2" for teacher in ("ResNet-50", "Swin-T"))
    read = re.compile(r"(?:<h2>|aria-label=\")Methods on .*?(layout: .*?)[<\"]").findall
    assert read(render(tmp_path, make_report(rows=rows))) == [first, first, second, second]
    (tmp_path / "evidence-part.json").write_text(json.dumps(make_report(rows=rows[1:], data="voc:ROOT")))
    assert read(render(tmp_path, make_report())) == [networks, second, networks, first], "on other pictures"
    (tmp_path / "evidence-part.json").write_text(json.dumps(make_report()))
    part, whole = " (evidence-part.json)", " (evidence.json)"
    assert read(render(tmp_path, make_report())) == [f"{networks}{part}", f"{first}{part}", f"{networks}{whole}", f"{first}{whole}"]


def test_every_kind_of_data_has_a_title():
    assert set(DATA_TITLES) == {*READERS, "shapes"}


@pytest.mark.parametrize("content", ["", "{}", '{"data": 1, "rows": "<b>"}'])
def test_a_broken_file_is_told_and_the_others_are_shown(tmp_path, content):
    (tmp_path / "evidence-a.json").write_text(content)
    page = render(tmp_path, make_report())
    assert "evidence-a.json" in page
    assert "This file cannot be shown" in page
    assert "a-teacher" in page


def test_a_file_cannot_write_html(tmp_path):
    assert "<script" not in render(tmp_path, make_report(notes=["<script>"], source="<script>", data="<script>:x"))


def test_without_files_there_is_no_section(tmp_path):
    assert "".join(render_evidence(tmp_path / "nowhere")) == ""
