"""What came of a table's trainings: the scores that stand in it, and what is said of them."""

import dataclasses
from pathlib import Path

import pytest

from l2d import comparison
from l2d.checkpoint import CheckpointError, ModelCard, read_card, write_card
from l2d.comparison import collect_row, collect_table, describe_deviations, read_scores
from l2d.published import read_rows
from l2d.report import table_as_markdown
from l2d.reproduce import plan_students
from tests.l2d.conftest import finish, make_index, make_settings


def test_seeds_give_mean_and_spread(tmp_path: Path):
    row = read_rows("table3")[1]
    settings = make_settings(tmp_path, data="voc:ROOT", seeds=(0, 1, 2), methods=("vanilla", "l2d", "led"))
    students = plan_students(row, settings)
    for seed, score in enumerate((80.0, 82.0, 87.0)):
        finish(students["vanilla", seed], 70.0)
        finish(students["l2d", seed], score)
    entries = collect_row(row, settings)
    assert entries["l2d"]["ours"] == {"mAP": 83.0, "OF1": 84.0, "CF1": 85.0}
    assert entries["l2d"]["spread"]["mAP"] == pytest.approx(13**0.5)
    assert entries["l2d"]["scores"]["mAP"] == [80.0, 82.0, 87.0]
    assert entries["l2d"]["gain"] == 13.0
    assert entries["l2d"]["difference"]["mAP"] == pytest.approx(83.0 - 85.71)
    # Neither measured nor in the paper.
    assert entries["led"] == {"ours": {}, "spread": {}, "paper": {}, "difference": {}, "runs": [], "scores": {}, "pictures": {}}
    text = table_as_markdown(collect_table("table3", [row], settings, make_index()))
    assert "| L2D | 83.00 ± 3.61 | 85.71 | 84.00 ± 3.61 | 85.70 | 85.00 ± 3.61 | 82.11 | -2.71 | +13.00 | +1.70 |" in text
    assert "| LED (CD + ID) | – | – |" in text


def test_a_given_teachers_scores_on_other_pictures_are_not_laid_beside_its_students(tmp_path: Path):
    row, teacher = read_rows("table3")[1], tmp_path / "teacher"
    settings = make_settings(tmp_path, data="voc:ROOT", teacher=teacher, methods=("vanilla",))
    scores = {"mAP": 90.0, "oracle_k": {"OF1": 91.0, "CF1": 92.0}, "images": 50}
    card = ModelCard("a", "A", "teacher", "vanilla", "test_resnet", ("x",), 32, scores=scores)
    teacher.mkdir()
    write_card(teacher, card)
    student = plan_students(row, settings)["vanilla", 0]
    finish(student, 70.0)
    own = read_card(student.plan.out)
    for images, checksum, shown in ((50, 1, True), (40, 1, False), (50, 2, False)):
        write_card(student.plan.out, dataclasses.replace(own, scores=own.scores | {"images": images, "checksum": checksum}))
        assert bool(collect_row(row, settings)["teacher"]["ours"]) == shown
        # Cards that were written before it was kept tell no checksum.
        write_card(teacher, dataclasses.replace(card, scores=scores | {"checksum": 1}))


def test_notes_tell_the_size_that_is_really_trained_at():
    usual, smaller = (
        describe_deviations("VOC 2007", make_settings(data="voc:ROOT", recipe="shipped", image_size=size), make_index())
        for size in (None, 96)
    )
    assert any("192 pixels" in note for note in usual)
    assert not any("192" in note for note in smaller if "mld" not in note)


def test_notes_tell_which_weights_networks_really_start_from(tmp_path: Path):
    told = {
        name: describe_deviations("VOC 2007", make_settings(data="voc:ROOT", **changes), make_index())
        for name, changes in {"timm's": {}, "files": {"init": tmp_path}, "random": {"pretrained": False}}.items()
    }
    for name, notes in told.items():
        (note,) = [note for note in notes if "weights" in note and "start" in note]
        assert name in note


@pytest.mark.parametrize(
    ("data", "labels", "told"),
    [("coco:ROOT", 80, True), ("coco2017:ROOT", 80, True), ("coco:ROOT", 3, False), ("voc:ROOT", 20, False), ("csv:FILE", 80, False)],
)
def test_notes_tell_of_the_pictures_of_coco_where_there_are_any(data: str, labels: int, told: bool):
    notes = describe_deviations("VOC 2007", make_settings(data=data, student="test_resnet"), make_index(labels))
    assert any("MS-COCO" in note for note in notes) is told


def test_a_damaged_card_of_a_method_that_is_not_asked_for_is_told_and_left_out(tmp_path: Path):
    row = read_rows("table3")[1]
    settings = make_settings(tmp_path, data="voc:ROOT", methods=("vanilla", "l2d", "mld"))
    students = plan_students(row, settings)
    for student in students.values():
        finish(student, 70.0)
    card = students["l2d", 0].plan.out / "card.json"
    card.write_text("{")
    asked = dataclasses.replace(settings, methods=("vanilla",))
    with pytest.warns(UserWarning, match=f"without l2d, which was trained before: {card} is not a model card"):
        assert "l2d" not in collect_row(row, asked)
    with pytest.raises(CheckpointError, match="is not a model card"):
        collect_row(row, settings)


def test_a_method_that_is_not_asked_for_stays_whatever_its_pictures_were_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(comparison, "find_changes", lambda *_: [])
    row, settings = read_rows("table3")[1], make_settings(tmp_path, data="csv:FILE")
    asked, students = dataclasses.replace(settings, methods=("vanilla",)), plan_students(row, settings)
    for (method, _), student in students.items():
        finish(student, 70.0)
        data = {"source": "csv", "images": 4} | ({"name": "beach"} if method == "l2d" else {})
        write_card(student.plan.out, dataclasses.replace(read_card(student.plan.out), data=data))
    assert "l2d" in collect_row(row, asked)
    write_card(student.plan.out, dataclasses.replace(read_card(student.plan.out), data=data | {"images": 5}))
    assert "l2d" not in collect_row(row, asked)


def test_scores_that_are_not_defined_are_not_compared(tmp_path: Path):
    undefined = {"mAP": None, "oracle_k": {"OF1": 0.0, "CF1": None}}
    write_card(tmp_path, ModelCard("a", "A", "student", "vanilla", "test_resnet", ("x",), 32, width=16, feedforward=16, scores=undefined))
    assert read_scores(tmp_path) == {}
