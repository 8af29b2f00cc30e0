import dataclasses
import re
from pathlib import Path

import pytest

from app.ui.results import NEAREST_TABLE, find_nearest, read_scores, render_results
from l2d.published import read_recipes, read_reference

NOWHERE = Path("nowhere")


@pytest.fixture
def entry(engine):
    return {entry.name: entry for entry in engine.catalog.entries()}


def with_card(entry, **changes):
    card = dataclasses.replace(entry.card, **changes)
    return entry._replace(card=card, detail=entry.detail.model_copy(update={"title": card.title}))


def test_the_paper_is_best_with_its_own_method_among_students():
    for row in read_reference()["rows"]:
        students = {method: scores["mAP"] for method, scores in row["scores"].items() if method != "teacher"}
        assert max(students, key=students.__getitem__) == "l2d"


def test_nearest_rows_have_the_same_student():
    assert [(row["teacher"], row["student"]) for row in find_nearest(["mobilenetv2_100"])] == [
        ("ResNet-50", "MobileNet v2"),
        ("Swin-T", "MobileNet v2"),
    ]
    assert [row["student"] for row in find_nearest(["resnet18", "a_network_of_mine"])] == ["ResNet-18"]
    # A network of other tables of the paper is as strange to this one as any other.
    for strange in ("a_network_of_mine", "resnet101"):
        assert [row["student"] for row in find_nearest([strange])] == ["MobileNet v2", "MobileNet v2"]


def test_every_student_of_that_table_finds_its_rows():
    students = {row["student"] for row in read_reference()["rows"] if row["table"] == NEAREST_TABLE}
    for student in students:
        backbone = read_recipes()["backbones"][student]
        for name in (backbone, f"{backbone}.tv_in1k"):
            assert {row["student"] for row in find_nearest([name])} == {student}


def test_scores_that_are_absent_or_broken_are_left_out():
    scores = {"mAP": 50, "oracle_k": {"OF1": 60.5}, "localization": None, "CF1": "high"}
    assert read_scores(scores) == {"mAP": 50.0, "OF1": 60.5}
    assert read_scores({"oracle_k": [1, 2]}) == {}


def test_gain_is_that_over_the_vanilla_student_beside_the_papers(entry):
    vanilla = with_card(entry["student-vanilla"], scores={"mAP": 50.0, "images": 2500})
    l2d = with_card(entry["student-l2d"], scores={"mAP": 48.75})
    page = render_results([vanilla, l2d], {}, NOWHERE)
    assert "scored on 2,500 test photographs" in page
    assert "<small>−1.2</small>" in page
    assert "<small>+1.2</small>" in page  # the paper's L2D on MobileNet v2, with either teacher
    # One training each: nobody knows whether the lead is chance.
    assert "<td>50.0</td>" in page
    assert 'class="best"' not in page
    assert "trained once, so a difference of a point may be chance" in page
    # Above another network, whichever stands first, it would be no gain of the method.
    other = with_card(entry["student-vanilla"], scores={"mAP": 40.0}, backbone="test_resnet")
    again = with_card(entry["student-vanilla"], scores={"mAP": 40.0})
    assert "<small>−1.2</small>" in render_results([other, vanilla, again, l2d], {}, NOWHERE)
    assert "<td><small></small></td>" in render_results([other, l2d], {}, NOWHERE).partition("Student-L2D")[2].partition("</tr>")[0]


@pytest.mark.parametrize(
    ("name", "init", "same"),
    [
        ("mobilenetv2_100.ra_in1k", "timm, pretrained mobilenetv2_100.ra_in1k", True),
        ("mobilenetv2_100.other", "timm, pretrained mobilenetv2_100.other", False),
        ("mobilenetv2_100.other", "random", True),
    ],
)
def test_a_network_is_the_same_by_its_full_name_unless_that_tells_of_other_weights_at_its_start(entry, name, init, same):
    lineage = {"init": "timm, pretrained mobilenetv2_100", "source": "timm/mobilenetv2_100.ra_in1k"}
    scores = {"mAP": 48.0, "per_label": {"red": 60.0}}
    l2d = with_card(entry["student-l2d"], backbone="mobilenetv2_100", labels=("red",), scores=scores, lineage=lineage)
    base = {"mAP": 50.0, "per_label": {"red": 55.0}}
    vanilla = with_card(entry["student-vanilla"], backbone=name, labels=("red",), scores=base, lineage={"init": init})
    page = render_results([vanilla, l2d], {}, NOWHERE)
    assert ("<small>−2.0</small>" in page, "(+5.0)" in page) == (same, same)


def read_rows(page: str, title: str) -> dict[str, list[str]]:
    """What stands in a table's cells, by the heads of its rows, which all have as many columns."""
    table = page.partition(f'aria-label="{title}"')[2].partition("</table>")[0]
    columns = [
        sum(int((re.findall(r'colspan="(.*?)"', cell) or [1])[0]) for cell in re.findall("<t[dh].*?>", row))
        for row in table.split("<tr")[1:]
    ]
    assert len(set(columns)) == 1, columns
    rows = [re.findall(r'<(?:td|th scope="(?:row|col)")(?: class="best")?>(.*?)</', row) for row in table.split("<tr")[1:]]
    return {re.sub("<.*?>", "", name): [re.sub("<.*?>", "", cell) for cell in cells] for name, *cells in filter(None, rows) if name}


def test_a_row_holds_what_was_measured_here_then_what_each_pair_of_the_paper_reports(entry):
    scores = {"mAP": 48.75, "oracle_k": {"OF1": 60.5, "CF1": 55.25}}
    measured = {"the-teacher": {"mAP": 70.0}, "student-vanilla": {"mAP": 50.0}, "student-l2d": scores}
    models = [with_card(entry[name], data={"name": "mine"}, scores=found) for name, found in measured.items()]
    rows = read_rows(render_results(models, {}, NOWHERE), "Scores on mine")
    papers = [row["scores"] for row in find_nearest(["mobilenetv2_100"])]

    def report(method: str) -> list[str]:
        """As the paper does, with either teacher."""
        told = []
        for paper in papers:
            found, gain = paper[method], round(paper[method]["mAP"] - paper["vanilla"]["mAP"], 1)
            told += [f"{found['mAP']:.1f}", "" if method == "teacher" else f"{gain:+}".replace("-", "−") if gain else "0.0"]
            told += [f"{found['OF1']:.1f}", f"{found['CF1']:.1f}"]
        return told

    assert rows["The-Teacher"] == ["70.0", "", "–", "–", *report("teacher")]
    assert rows["Student-L2D"] == ["48.8", "−1.2", "60.5", "55.2", *report("l2d")]
    assert rows["MLD"] == ["–", "", "–", "–", *report("mld")], "the paper's alone"
    assert list(rows) == ["Model or method", "The-Teacher", "Student-Vanilla", "Student-L2D", "RKD", "PKT", "ReviewKD", "MSE", "PS", "MLD"]


def test_on_how_many_photographs_they_were_scored_is_told_where_it_is_known(entry):
    models = [with_card(entry["student-l2d"], scores={"images": images}) for images in (2500, 40, 2500)]
    assert "scored on 40 and 2,500 test photographs." in render_results(models, {}, NOWHERE)
    unscored = render_results([with_card(entry["student-l2d"], title="<new>", scores={})], {}, NOWHERE)
    assert "This model, 5 labels, not scored yet: &lt;new&gt;.</p>" in unscored
    assert "<table>" not in unscored, "the paper's numbers alone"


def test_what_cannot_be_used_is_listed_by_name_with_its_reason(entry):
    page = render_results([entry["student-l2d"]], {"b": "It is damaged.", "a": "It is gone."}, NOWHERE)
    assert "<ul><li><b>a</b>: It is gone.</li><li><b>b</b>: It is damaged.</li></ul>" in page
    assert "cannot be used" not in render_results([entry["student-l2d"]], {}, NOWHERE)


def test_a_training_too_many_can_be_seen(entry):
    def show(data, score=60.0, **before):
        lineage = {"before": {"data": data} | before}
        return render_results(
            [with_card(entry["student-vanilla"], data={"title": "mine"}, scores={"mAP": score}, lineage=lineage)], {}, NOWHERE
        )

    mine, said, title = {"title": "mine"}, "mAP after each training", entry["student-vanilla"].card.title
    assert f"{said} of a network that went on from an earlier one: {title} 61.5, 60.0." in show(mine, mAP=61.5)
    first = {"before": {"data": mine, "mAP": 58.25, "lineage": {"before": {"recipe": {}}}}}
    assert f"{title} 58.2, 61.5, 60.0." in show(mine, mAP=61.5, lineage=first)
    assert f"{title} 58.2, 60.0." in show(mine, lineage=first)
    assert said not in show({"title": "another"}, mAP=61.5)
    assert said not in show(mine, mAP=None)
    assert said not in show(None)
    assert said not in show(mine, oracle_k={"OF1": 50})
    assert said not in show(mine, score=None, mAP=61.5)
    assert said not in render_results([with_card(entry["student-vanilla"], lineage={"before": "a file"})], {}, NOWHERE)


def test_localization_is_shown_where_it_was_measured(entry):
    small = {"pointing_game": 33.3, "energy_in_box": None}
    large = {"pointing_game": 90.0, "energy_in_box": 80.0}
    reports = [
        {"pairs": 1234, "pointing_game": 71.25, "energy_in_box": 40.0, "by_size": {"small": small}},
        {"pairs": 12, "pointing_game": 50.0, "energy_in_box": 60.0, "by_size": {"large": large}},
    ]
    told = [{"title": f"No. {number}", "scores": {"localization": report}} for number, report in enumerate(reports)]
    models = [with_card(entry["student-l2d"], data={"name": "mine"}, **changes) for changes in [*told, {}]]
    page = render_results(models, {}, NOWHERE)
    assert "12 or 1,234 pairs for every model." in page
    assert read_rows(page, "Localization on mine") == {
        "Model": ["all", "small", "large"] * 2,
        "No. 0": ["71.2", "33.3", "–", "40.0", "–", "–"],
        "No. 1": ["50.0", "–", "90.0", "60.0", "–", "80.0"],
    }
    assert "Do the maps lie on the objects?" not in render_results([entry["student-vanilla"]], {}, NOWHERE)


def test_models_of_different_data_are_not_mixed(entry):
    measured = {"mAP": 50.0, "localization": {"pairs": 7}}
    models = [with_card(entry["student-l2d"], data={"name": name}, scores=measured) for name in ("one", "two")]
    page = render_results(models, {}, NOWHERE)
    assert page.count("<h2>Measured on ") == page.count("<p>7 pairs for every model.</p>") == 2
    general = ("<b>mAP</b> is the mean", "<p>Gain: ", "was trained once", "<p>Over all pairs")
    assert [page.count(words) for words in general] == [1] * len(general)
    regions = re.findall(r'aria-label="([^"]*)"', page)
    assert len(set(regions)) == len(regions) == 4


def test_data_of_one_name_and_other_labels_are_told_apart(entry):
    models = [with_card(entry["student-l2d"], labels=("ant", "bee")), with_card(entry["student-vanilla"], labels=("oak", "fir", "yew"))]
    page = render_results(models, {}, NOWHERE)
    assert re.findall(r"This model, (\d) labels", page) == ["2", "3"]


def test_one_of_anything_is_counted_as_one(entry):
    model = with_card(entry["student-l2d"], labels=("ant",), scores={"images": 1, "localization": {"pairs": 1}})
    page = render_results([model], {}, NOWHERE)
    assert "This model, 1 label, scored on 1 test photograph.</p>" in page
    assert "<p>1 pair for every model.</p>" in page


def test_cards_cannot_write_html(entry):
    evil = with_card(entry["student-l2d"], title="<img src=x onerror=alert(1)>", data={"name": "<b>data</b>"})
    page = render_results([evil], {"<i>folder</i>": "<script>"}, NOWHERE)
    assert [tag for tag in ("<img", "<b>data", "<i>", "<script") if tag in page] == []
    assert "&lt;img src=x" in page


def test_without_models_it_says_so():
    assert "No model yet" in render_results([], {}, NOWHERE)
