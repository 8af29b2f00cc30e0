"""The training runs that an order means, and the commands that would do the same by hand."""

import dataclasses
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from app.jobs import STUDENT, TEACHER
from app.orders import Order
from l2d.checkpoint import SIZES, WEIGHTS, read_card, read_sizes
from l2d.recipe import Recipe
from l2d.runs import Plan

# Of a recipe, by the names of its fields: what an order can set and commands take.
OPTIONS = ("epochs", "batch_size", "lr", "freeze_stages", "augmentation", "min_area", "colour", "cutout", "averaging", "holdout", "seed")


class Stage(NamedTuple):
    """One training run of a job."""

    name: str
    plan: Plan


def plan_stages(order: dict[str, Any], spec: str, find_model: Callable[[str], Path], folder: Path) -> list[Stage]:
    """The training runs of an order, in their order.

    Args:
        order: the values of an `Order`.
        spec: the data set as `l2d.data.read_index` takes it.
        find_model: gives the checkpoint folder of a model that the order names.
        folder: the stages' checkpoints are made in here.

    Raises:
        ValueError: for an order of a newer revision, or if a model or what it says is not there any more.
    """
    if unknown := [name for name in order if name not in Order.model_fields]:
        raise ValueError(f"It was ordered with {', '.join(unknown)}, which only a newer revision knows: resume it once that one runs.")
    chosen = Order.model_construct(**order).model_dump()
    stages = []
    teacher = find_model(chosen["teacher"]) if chosen["teacher"] else None
    inits = {name: find_model(chosen[name]) / WEIGHTS if chosen[name] else None for name in ("start_from", "teacher_start_from")}
    size = read_card(teacher).image_size if teacher is not None else chosen["image_size"]
    if chosen["teacher_backbone"]:
        teacher = folder / TEACHER
        # Random weights are nothing to keep.
        frozen = chosen["freeze_stages"] if chosen["teacher_start_from"] or chosen["pretrained"] else 0
        alone = {"method": "vanilla", "weights": {}, "epochs": chosen["teacher_epochs"], "freeze_stages": frozen}
        recipe = _make_recipe(chosen | alone, size)
        stages.append(Stage(TEACHER, _make_plan(chosen, chosen["teacher_backbone"], spec, teacher, recipe, inits["teacher_start_from"])))
    plan = _make_plan(chosen, chosen["student"], spec, folder / STUDENT, _make_recipe(chosen, size), inits["start_from"])
    return [*stages, Stage(STUDENT, dataclasses.replace(plan, teacher=teacher))]


def write_commands(stages: list[Stage], places: dict[str, Path], processes: int = 1) -> list[str]:
    """The command lines that give the same checkpoints, one per stage.

    Args:
        places: what folders are called in the shell, as "$L2D_DATA", and the folders.
    """
    program = "l2d" if processes == 1 else f"torchrun --nproc-per-node {processes} -m l2d"
    return [_write_command(program, stage.plan, {f"{place}/": f"{name}/" for name, place in places.items()}) for stage in stages]


def _write_command(program: str, plan: Plan, shorter: dict[str, str]) -> str:
    recipe = plan.recipe
    options: dict[str, Any] = {"data": plan.data, "out": plan.out}
    if plan.teacher is not None:
        taught = {"student": plan.backbone, "method": recipe.method, "teacher_size": recipe.teacher_size}
        options = {"teacher": plan.teacher} | taught | options
    else:
        options = {"backbone": plan.backbone} | options
    if plan.init is not None:
        options["init"] = plan.init
    options |= read_sizes(plan) | {name: getattr(recipe, name) for name in OPTIONS}
    words = [f"--{name.replace('_', '-')} {_quote(str(value), shorter)}" for name, value in options.items()]
    words += [f"--weight {name}={weight!r}" for name, weight in recipe.weights.items()]
    switches = [f"--{name.replace('_', '-')}" for name in ("pretrained", "unit_pixels") if getattr(plan, name)]
    return " ".join([f"{program} {'distill' if plan.teacher else 'train'}", *words, *switches])


def _quote(value: str, shorter: dict[str, str]) -> str:
    for place, short in shorter.items():
        # At the beginning, or after the word before a data set's folder.
        kind, found, rest = value.partition(place)
        if found and (not kind or kind.endswith(":")):
            text = f"{kind}{short}{rest}"
            return f'"{text}"' if "$" in text else shlex.quote(text)
    return shlex.quote(value)


def _make_recipe(chosen: dict[str, Any], teacher_size: int) -> Recipe:
    names = {field.name for field in dataclasses.fields(Recipe)}
    given = {name: value for name, value in chosen.items() if name in names}
    return Recipe(**given, train_size=chosen["image_size"], teacher_size=teacher_size)


def _make_plan(chosen: dict[str, Any], backbone: str, spec: str, out: Path, recipe: Recipe, init: Path | None) -> Plan:
    sizes = {name: chosen[name] for name in (*SIZES, "unit_pixels")}
    pretrained = chosen["pretrained"] and init is None
    return Plan(backbone=backbone, data=spec, out=out, recipe=recipe, init=init, pretrained=pretrained, **sizes)
