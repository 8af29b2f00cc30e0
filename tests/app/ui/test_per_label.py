import dataclasses
import re
from typing import Any

import pytest

from app.entries import Entry
from app.ui import per_label
from app.ui.per_label import read_labels, render_labels
from app.ui.strips import COLOURS
from tests.app.ui.test_results import with_card

TEACHER = {"cat": 80.0, "dog": 70.0, "<b>": 60.0}
VANILLA = {"cat": 50.0, "dog": 40.0, "<b>": 30.0}
TAUGHT = {"cat": 45.0, "dog": 50.5, "<b>": 32.0}


@pytest.fixture
def entry(engine: Any) -> dict[str, Entry]:
    return {entry.name: entry for entry in engine.catalog.entries()}


def score(entry: Entry, scores: dict[str, Any], **changes: Any) -> Entry:
    labels = ("dog", "<b>", "cat")
    return with_card(entry, labels=labels, data={"name": "mine"}, scores={"mAP": 50.0, "per_label": scores}, **changes)


@pytest.fixture
def trio(entry: dict[str, Entry]) -> list[Entry]:
    scores = {"the-teacher": TEACHER, "student-vanilla": VANILLA, "student-l2d": TAUGHT}
    return [score(entry[name], found, title=name.title()) for name, found in scores.items()]


def render(entries: list[Entry]) -> str:
    """Without the marks around names, which keep scripts apart."""
    return re.sub("</?bdi>", "", "".join(render_labels(entries)))


def list_rows(page: str) -> list[tuple[str, list[str]]]:
    rows = re.findall(r'<tr class="paper"><th scope="row">(.*?)</th>(.*?)</tr>', page)
    return [(label, re.findall(r"<td>(?:<small>)?([^<]*)", cells)) for label, cells in rows]


def test_labels_stand_in_the_order_of_what_the_taught_student_gains(trio: list[Entry]) -> None:
    page = render(trio)
    assert list_rows(page) == [
        ("dog", ["70.0", "40.0", "50.5", "+10.5"]),
        ("&lt;b&gt;", ["60.0", "30.0", "32.0", "+2.0"]),
        ("cat", ["80.0", "50.0", "45.0", "−5.0"]),
    ]
    assert "Student-L2D is above Student-Vanilla in 2 of 3 labels (gain), most in dog (+10.5), &lt;b&gt; (+2.0);" in page
    assert "it is most below in cat (−5.0). The fewer photographs" in page
    # A teacher's mark is hollow.
    first_row = page.partition("dog</th>")[2].partition("</tr>")[0]
    assert re.findall(r'<i class="(\w+)" style="left:([\d.]+)%', first_row) == [("ring", "70.00"), ("dot", "40.00"), ("dot", "50.50")]


def test_the_best_of_several_taught_students_is_compared(trio: list[Entry]) -> None:
    teacher, vanilla, taught = trio
    better = score(taught, {label: value + 1 for label, value in TAUGHT.items()}, title="Better", name="better")._replace(name="better")
    assert "Better is above Student-Vanilla in 2 of 3" in render([teacher, vanilla, taught, better])


def test_students_of_other_networks_are_not_compared(trio: list[Entry]) -> None:
    teacher, vanilla, taught = trio
    other = score(vanilla, TEACHER, title="Other", backbone="test_resnet")._replace(name="other")
    assert "Student-L2D is above Student-Vanilla" in render([other, vanilla, taught])
    assert " above " not in render([teacher, other, taught])
    # Of several of the same network the first one.
    again = score(vanilla, TEACHER, title="Again")._replace(name="again")
    assert "Student-L2D is above Student-Vanilla" in render([vanilla, again, taught])


def test_without_two_such_students_labels_stand_in_the_order_of_the_first_model(trio: list[Entry]) -> None:
    page = "".join(render_labels(trio[:1]))
    assert [label for label, _ in list_rows(page)] == ["cat", "dog", "&lt;b&gt;"]
    assert (" above " in page, "gain" in page) == (False, False)


def test_models_without_such_scores_have_no_column_and_labels_without_a_score_a_dash(trio: list[Entry]) -> None:
    teacher, vanilla, taught = trio
    partly = score(taught, {"dog": 41.0, "cat": None})
    nothing = with_card(teacher, scores={})
    rows = dict(list_rows("".join(render_labels([nothing, vanilla, partly]))))
    assert rows == {"dog": ["40.0", "41.0", "+1.0"], "cat": ["50.0", "–", ""], "&lt;b&gt;": ["30.0", "–", ""]}
    assert not list(render_labels([nothing]))


def test_labels_that_a_card_does_not_have_are_no_part_of_any_count(trio: list[Entry]) -> None:
    teacher, vanilla, taught = trio
    strange = {"zebra": 90.0, "yak": 80.0}
    page = render([score(vanilla, VANILLA | {"zebra": 0.0}), score(taught, {"cat": 51.0} | strange)])
    assert "is above Student-Vanilla in 1 of 1 label (gain), most in cat (+1.0)." in page
    assert not list(render_labels([score(teacher, strange)]))


@pytest.mark.parametrize(
    "broken", [None, [1], "high", {"cat": "high", "dog": None, "<b>": float("nan")}, {"cat": True, "dog": 1e300, "<b>": -1}]
)
def test_broken_scores_are_left_out(entry: dict[str, Entry], broken: Any) -> None:
    assert read_labels(with_card(entry["the-teacher"], labels=("cat", "dog", "<b>"), scores={"per_label": broken})) == {}


def test_of_very_many_labels_those_in_the_middle_are_left_out(trio: list[Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(per_label, "MOST_LABELS", 2)
    page = render(trio)
    assert [label for label, _ in list_rows(page)] == ["dog", "cat"]
    assert "The first and the last 1 of 3 labels in the order of gain." in page
    assert "in the order of the scores of The-Teacher." in render(trio[:1])
    # Where they are missing, in a row as wide as the others.
    assert re.findall(r'(\w+)</th>|colspan="(\d)">(1 label left out here)', page.partition("<tbody>")[2]) == [
        ("dog", "", ""),
        ("", "7", "1 label left out here"),
        ("cat", "", ""),
    ]
    assert len(re.findall("<t[dh]", page.partition("dog</th>")[2].partition("</tr>")[0])) == 7 - 1


def test_more_models_than_colours_are_not_told_apart(trio: list[Entry]) -> None:
    many = [dataclasses.replace(trio[0].card, title=f"T{number}") for number in range(len(COLOURS) + 2)]
    entries = [with_card(trio[0]._replace(name=card.title), title=card.title) for card in many]
    page = render(entries)
    assert ("T5<" in page, "T6<" in page) == (True, False)
    assert f"The first {len(COLOURS)} of {len(entries)} models" in page
    assert "The first" not in render(entries[: len(COLOURS)])


def test_a_legend_tells_marks_where_the_heads_are_out_of_sight(trio: list[Entry]) -> None:
    legend = "".join(render_labels(trio)).partition('<p class="legend" aria-hidden="true">')[2].partition("</p>")[0]
    named = re.findall(r'swatch (\w+)" style="color:(#\w+)".*?<bdi>(.*?)</bdi>', legend)
    assert named == list(zip(("ring", "dot", "dot"), COLOURS, [entry.card.title for entry in trio], strict=False))
