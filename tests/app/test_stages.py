"""From an order to training runs, and to the commands that do the same by hand."""

import dataclasses
import itertools
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from app.orders import Order
from app.stages import plan_stages, write_commands
from l2d.cli import app as cli
from l2d.recipe import Recipe
from l2d.runs import Plan

PLACES = {"$L2D_DATA": Path("/the data"), "$L2D_CHECKPOINTS": Path("/shipped")}


def plan(made_checkpoints: Path, **values: object):
    order = Order.model_validate({"student": "resnet18", **values})
    return plan_stages(order.model_dump(), "coco:/the data/mini", lambda name: made_checkpoints / name, Path("job"))


def test_a_trained_teacher_is_a_stage_of_its_own(made_checkpoints: Path):
    teacher, student = plan(made_checkpoints, teacher_backbone="resnet34", teacher_epochs=3, epochs=5, method="l2d", image_size=64)
    assert (teacher.name, teacher.plan.recipe.method, teacher.plan.recipe.epochs, teacher.plan.teacher) == ("teacher", "vanilla", 3, None)
    assert (student.plan.recipe.method, student.plan.recipe.epochs, student.plan.teacher) == ("l2d", 5, teacher.plan.out)
    assert student.plan.recipe.train_size == student.plan.recipe.teacher_size == 64


def test_what_only_a_newer_revision_knows_is_not_trained_without(made_checkpoints: Path):
    order = Order(method="vanilla").model_dump() | {"mixup": 0.2}
    with pytest.raises(ValueError, match="ordered with mixup, which only a newer revision knows: resume it once that one runs"):
        plan_stages(order, "shapes", lambda name: made_checkpoints / name, Path("job"))


def test_a_known_teacher_sees_pictures_at_its_own_size(made_checkpoints: Path):
    (student,) = plan(made_checkpoints, teacher="the-teacher", method="l2d", image_size=64)
    assert (student.plan.recipe.train_size, student.plan.recipe.teacher_size) == (64, 96)


def test_the_commands_are_ones_that_the_command_line_takes(made_checkpoints: Path):
    stages = plan(
        made_checkpoints,
        teacher_backbone="resnet34",
        method="mld",
        weights={"mld": 3.5},
        start_from="alien",
        pretrained=True,
        unit_pixels=True,
    )
    commands = write_commands(stages, PLACES | {"$L2D_STATE": made_checkpoints})
    known = typer.main.get_command(cli).commands
    for stage, command in zip(stages, commands, strict=True):
        program, verb, *words = shlex.split(command)
        assert program == "l2d"
        assert {word for word in words if word.startswith("--")} <= {name for option in known[verb].params for name in option.opts}
        values = dict(itertools.pairwise(words))
        assert int(values["--epochs"]) == stage.plan.recipe.epochs
        assert values["--data"] == "coco:$L2D_DATA/mini"
        assert values["--out"] == f"job/{stage.name}"
    assert 'init "$L2D_STATE/alien/model.safetensors"' in commands[1]
    assert ["--pretrained" in command for command in commands] == [True, False]
    assert all("--unit-pixels" in command for command in commands)
    assert "--weight mld=3.5" in commands[1]


# Every choice is made otherwise than by default.
CHOICES = {
    "epochs": 5,
    "batch_size": 6,
    "lr": 3e-5,
    "image_size": 64,
    "output_stride": 16,
    "freeze_stages": 1,
    "width": 24,
    "feedforward": 40,
    "weights": {"mld": 3.5},
    "augmentation": "randaugment",
    "min_area": 0.7,
    "colour": 0.1,
    "cutout": 0.2,
    "unit_pixels": True,
    "averaging": 0.5,
    "holdout": 0.25,
    "seed": 7,
}


@pytest.mark.parametrize(
    "teacher", [{"teacher": "the-teacher"}, {"teacher_backbone": "resnet34", "teacher_epochs": 3, "teacher_start_from": "the-teacher"}]
)
def test_the_commands_train_what_the_job_trains(made_checkpoints: Path, monkeypatch: pytest.MonkeyPatch, teacher: dict[str, object]):
    stages = plan(made_checkpoints, method="mld", start_from="alien", **CHOICES, **teacher)
    planned: list[Plan] = []
    monkeypatch.setattr("l2d.runs.execute", lambda plan, **_: planned.append(plan) or [])
    for command in write_commands(stages, {}):
        result = CliRunner().invoke(cli, shlex.split(command)[1:])
        assert result.exit_code == 0, result.output
    assert planned == [leave_out_teacher_size(stage.plan) if stage.plan.teacher is None else stage.plan for stage in stages]


def leave_out_teacher_size(plan: Plan) -> Plan:
    """Nothing is shown to a teacher where there is none."""
    return dataclasses.replace(plan, recipe=dataclasses.replace(plan.recipe, teacher_size=Recipe().teacher_size))


def test_only_the_beginning_of_a_path_is_told_by_its_variable(made_checkpoints: Path):
    order = Order.model_validate({"student": "resnet18", "method": "vanilla"})
    for place in ("/srv/job/data", "/srv/myjob"):
        stages = plan_stages(order.model_dump(), f"coco:{place}/mine", lambda name: made_checkpoints / name, Path("job"))
        (command,) = write_commands(stages, {"$L2D_STATE": Path("job"), "$L2D_DATA": Path(place)})
        assert '--data "coco:$L2D_DATA/mine"' in command
        assert '--out "$L2D_STATE/student"' in command


def test_a_teacher_without_trained_weights_keeps_none_of_them(made_checkpoints: Path):
    wanted = {"method": "l2d", "teacher_backbone": "resnet34", "start_from": "alien", "freeze_stages": 2}
    for given, frozen in (({}, 0), ({"teacher_start_from": "alien"}, 2), ({"pretrained": True}, 2)):
        teacher, student = plan(made_checkpoints, **wanted | given)
        assert (teacher.plan.recipe.freeze_stages, student.plan.recipe.freeze_stages) == (frozen, 2)


def test_several_processes_are_started_by_torchrun(made_checkpoints: Path):
    commands = write_commands(plan(made_checkpoints, method="vanilla"), PLACES, 4)
    assert commands[0].startswith("torchrun --nproc-per-node 4 -m l2d train --backbone")
