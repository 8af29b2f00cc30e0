"""How sensitive a student is to the weight of each loss: one varied, the others at the recipe's, as in the paper's Figure 1.

Settings are chosen by pictures that are set aside from the training pictures, never by test pictures.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from l2d.checkpoint import read_card
from l2d.distill import METHODS, choose_weights
from l2d.runs import Plan
from l2d.series import FINISHED, Training, count_pictures


def plan_sweep(template: Plan, factors: Sequence[float]) -> list[Training]:
    """One training per point of the curves; the usual weights, where the curves meet, are trained once.

    Args:
        template: how each student is trained; `out` is the folder of all of them, and the recipe holds pictures out to score by. Its
            weights are the usual ones.
        factors: multiples of the usual weight, above 0; the usual weight itself is always among the points.

    Raises:
        ValueError: for a method without losses, factors that are not positive or there twice, or a recipe that holds nothing out.
    """
    usual = _find_usual(template)
    if not usual:
        known = ", ".join(name for name, weights in METHODS.items() if weights)
        raise ValueError(f"Method {template.recipe.method} has no weights to vary; choose one of {known}.")
    if not factors or min(factors) <= 0 or len(set(factors)) < len(factors):
        raise ValueError(f"Expected factors above 0, none twice; got {', '.join(f'{factor:g}' for factor in factors) or 'none'}.")
    if not template.recipe.holdout:
        raise ValueError("A sweep chooses by pictures that are held out; give a holdout above 0, for example 0.1.")
    points = [usual | {loss: weight} for loss in usual for weight in _vary(usual[loss], factors)]
    trainings = [_plan_point(template, weights) for weights in points]
    return list({training.plan.out: training for training in trainings}.values())


def collect_sweep(template: Plan, factors: Sequence[float]) -> dict[str, Any]:
    """What is measured so far, ready for JSON.

    Returns:
        `data`, `teacher`, `student`, `method`, `holdout` (share of the training pictures), `seed`, and `curves`: for every loss
        `usual` and `best` (weights; None before anything is measured) and `points`: `weight`, `mAP` (percent on the pictures held
        out, None while not measured), `run` (the folder); and `pictures`, as `l2d.series.count_pictures` of all points so far.
    """
    curves = {loss: _collect_curve(template, loss, factors) for loss in _find_usual(template)}
    recipe = template.recipe
    cards = [read_card(training.plan.out) for training in plan_sweep(template, factors) if training.state == FINISHED]
    return {
        "data": template.data,
        "teacher": template.teacher.resolve().name if template.teacher is not None else None,
        "student": template.backbone,
        "method": recipe.method,
        "holdout": recipe.holdout,
        "seed": recipe.seed,
        "curves": curves,
        "pictures": count_pictures(cards, held_out=True),
    }


def _collect_curve(template: Plan, loss: str, factors: Sequence[float]) -> dict[str, Any]:
    usual = _find_usual(template)
    points: list[dict[str, Any]] = []
    for weight in _vary(usual[loss], factors):
        training = _plan_point(template, usual | {loss: weight})
        points.append({"weight": weight, "mAP": read_held_out(training), "run": str(training.plan.out)})
    measured = [point for point in points if point["mAP"] is not None]
    # Of equally good ones the usual, for which something else speaks, too.
    best = max(measured, key=lambda point: (point["mAP"], point["weight"] == usual[loss]))["weight"] if measured else None
    return {"usual": usual[loss], "best": best, "points": points}


def read_held_out(training: Training) -> float | None:
    """mAP in percent on the pictures held out, at the end of a finished training."""
    if training.state != FINISHED:
        return None
    score: float | None = read_card(training.plan.out).scores.get("held_out", {}).get("mAP")
    return score


def _plan_point(template: Plan, weights: dict[str, float]) -> Training:
    name = "-".join(f"{loss}={weight:g}" for loss, weight in weights.items())
    recipe = dataclasses.replace(template.recipe, weights=weights)
    return Training(dataclasses.replace(template, out=template.out / name, recipe=recipe))


def _find_usual(template: Plan) -> dict[str, float]:
    return choose_weights(template.recipe.method, template.recipe.weights)


def _vary(usual: float, factors: Sequence[float]) -> list[float]:
    # Without the last binary digits of a product, which would give one weight two names.
    return sorted({float(f"{usual * factor:.6g}") for factor in (*factors, 1.0)})
