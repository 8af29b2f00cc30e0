"""The paper's tables and figure: what is planned."""

import dataclasses
from pathlib import Path

import pytest
import timm

from l2d.comparison import collect_table
from l2d.distill import METHODS
from l2d.model import BACKBONES
from l2d.published import TABLES, choose_rows, name_pair, read_recipes, read_rows
from l2d.report import table_as_markdown
from l2d.reproduce import plan_figure1, plan_rows, plan_students, plan_teacher
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
    settings = make_settings(epochs=epochs)
    training = plan_teacher("resnet18", settings)
    assert (training.epochs, training.plan.recipe.epochs) == (stop, epochs or 80)
    report = collect_table("table3", read_rows("table3")[:1], settings, make_index())
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


def test_figure1_holds_its_pictures_out_from_the_teacher_too():
    teacher, student = plan_figure1(make_settings(data="coco:ROOT"))
    assert (teacher.plan.backbone, student.backbone, student.teacher) == ("resnet101.tv_in1k", "resnet34.tv_in1k", teacher.plan.out)
    assert teacher.plan.recipe.holdout == student.recipe.holdout == 0.1
    assert len(plan_sweep(student, read_recipes()["figure1"]["factors"])) == 3 * 5 - 2
