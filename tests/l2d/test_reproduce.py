"""The paper's tables and figure: what is planned, and what is collected of it."""

import dataclasses
from pathlib import Path

import pytest
import timm

from l2d.checkpoint import CheckpointError, ModelCard, read_card, write_card
from l2d.distill import METHODS
from l2d.model import BACKBONES
from l2d.published import TABLES, choose_rows, name_pair, read_recipes, read_rows
from l2d.report import table_as_markdown
from l2d.reproduce import collect_row, collect_table, describe_deviations, plan_figure1, plan_rows, plan_students, plan_teacher, read_scores
from l2d.series import Training
from l2d.sweep import plan_sweep
from tests.l2d.conftest import finish, make_index, make_settings

PUBLISHED = {"epochs": 80, "batch_size": 64, "lr": 1e-4, "weight_decay": 1e-4, "warmup": 0.2, "train_size": 224}
PUBLISHED |= {"augmentation": "randaugment", "cutout": 0.5}


@pytest.mark.parametrize("table", TABLES)
def test_every_row_is_planned_as_published(table: str):
    for row in read_rows(table):
        assert set(name_pair(row)) <= set(BACKBONES)
        assert set(row.scores) == {"teacher", *read_recipes()["methods"]}
        settings = make_settings(data=f"{read_recipes()['data'][row.data]}:ROOT", methods=("l2d",))
        student = plan_students(row, settings)["l2d", 0].plan
        recipe = student.recipe.as_dict()
        assert {name: recipe[name] for name in PUBLISHED} == PUBLISHED
        assert recipe["weights"] == METHODS["l2d"]
        assert (student.image_size, student.width, student.feedforward, student.pretrained) == (224, 768, 2048, True)
        assert student.unit_pixels


def test_initial_weights_are_those_of_the_published_code_unless_they_are_given(tmp_path: Path):
    (row,) = choose_rows(read_rows("table3"), ["3"])
    teachers = [plan_teacher(name_pair(row)[0], make_settings(data="voc:ROOT", **changes)).plan for changes in ({}, {"init": tmp_path})]
    assert [plan.backbone for plan in teachers] == ["wide_resnet101_2.tv_in1k", "wide_resnet101_2"]
    assert (teachers[0].out.name, teachers[1].init) == ("teacher-wide_resnet101_2", tmp_path / "wide_resnet101_2.safetensors")
    for backbone, tag in read_recipes()["pretrained"].items():
        assert f"{backbone}.{tag}" in timm.list_pretrained(f"{backbone}.*")


def test_unknown_tables_rows_methods_and_seeds_are_refused():
    with pytest.raises(ValueError, match=r"Unknown table 'table5'; the known ones are table1, .*table4"):
        read_rows("table5")
    with pytest.raises(ValueError, match=r"No row '7' in the table; it has 1 \(resnet50:repvgg_a0\), 2 \(swin_tiny.*:resnet18\)"):
        choose_rows(read_rows("table4"), ["7"])
    with pytest.raises(ValueError, match=r"Unknown method 'kd'; the known ones are vanilla, "):
        make_settings(methods=("kd",))
    with pytest.raises(ValueError, match=r"Unknown recipe 'long'; the known ones are paper, supplement, short, shipped"):
        make_settings(recipe="long")
    with pytest.raises(ValueError, match=r"none twice; got 1, 1"):
        make_settings(seeds=(1, 1))
    with pytest.raises(ValueError, match=r"The student has no name"):
        make_settings(student="")


def test_what_rows_share_is_trained_once_and_teachers_first():
    settings = make_settings(methods=tuple(read_recipes()["methods"]))
    trainings = plan_rows(read_rows("table4"), settings)
    outs = [training.plan.out for training in trainings]
    assert len(set(outs)) == len(outs) == 2 + 3 + 4 * 7  # teachers, vanilla students, seven methods for each pair
    taught = [training for training in trainings if training.plan.teacher is not None]
    assert all(outs.index(training.plan.teacher) < outs.index(training.plan.out) for training in taught)


@pytest.mark.parametrize(("epochs", "stop"), [(None, 30), (8, 3), (1, 1)])
def test_the_teacher_stops_at_the_same_share_of_its_schedule(epochs: int | None, stop: int):
    training = plan_teacher("resnet18", make_settings(epochs=epochs))
    assert (training.epochs, training.plan.recipe.epochs) == (stop, epochs or 80)
    report = collect_table("table3", read_rows("table3")[:1], make_settings(epochs=epochs), make_index())
    assert f"\n\nEpochs: teacher {stop}, students {epochs or 80}.\n\n" in table_as_markdown(report)


def test_calls_of_other_seeds_share_a_teacher(tmp_path: Path):
    plans = [plan_teacher("resnet18", make_settings(tmp_path, seeds=seeds)) for seeds in ((0, 1, 2), (1,), (2,))]
    assert (plans[0].plan.recipe.seed, plans[1:]) == (0, plans[:1] * 2)
    # Of an earlier version, whose teacher had the first seed of the students.
    finish(Training(dataclasses.replace(plans[0].plan, recipe=dataclasses.replace(plans[0].plan.recipe, seed=7))), 80.0)
    assert plan_teacher("resnet18", make_settings(tmp_path, seeds=(2,))).plan.recipe.seed == 7


def test_where_networks_start_from():
    assert plan_teacher("resnet18", make_settings(data="voc:ROOT")).plan.pretrained
    assert not plan_teacher("resnet18", make_settings(data="shapes")).plan.pretrained
    from_files = plan_teacher("resnet18", make_settings(data="voc:ROOT", init=Path("weights"))).plan
    assert (from_files.init, from_files.pretrained) == (Path("weights/resnet18.safetensors"), False)


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


def test_the_notes_of_figure1_tell_no_weights_that_it_does_not_use():
    settings = make_settings(recipe="short")
    assert any(note.startswith("Loss weights") for note in describe_deviations("VOC 2007", settings, make_index()))
    instead = describe_deviations("VOC 2007", settings, make_index(), weights=False)
    assert not any(note.startswith("Loss weights") for note in instead)
    assert "The curves are around the published weights, not those of the recipe short." in instead
    assert not any("curves" in note for note in describe_deviations("VOC 2007", make_settings(), make_index(), weights=False))


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


def test_scores_that_are_not_defined_are_not_compared(tmp_path: Path):
    undefined = {"mAP": None, "oracle_k": {"OF1": 0.0, "CF1": None}}
    write_card(tmp_path, ModelCard("a", "A", "student", "vanilla", "test_resnet", ("x",), 32, width=16, feedforward=16, scores=undefined))
    assert read_scores(tmp_path) == {}


def test_figure1_holds_its_pictures_out_from_the_teacher_too():
    teacher, student = plan_figure1(make_settings(data="coco:ROOT"))
    assert (teacher.plan.backbone, student.backbone, student.teacher) == ("resnet101.tv_in1k", "resnet34.tv_in1k", teacher.plan.out)
    assert teacher.plan.recipe.holdout == student.recipe.holdout == 0.1
    assert len(plan_sweep(student, read_recipes()["figure1"]["factors"])) == 3 * 5 - 2
