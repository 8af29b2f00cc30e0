"""The trainings of a paper's table beside its numbers: which belong there, what they scored, and where they differ from the paper's."""

import dataclasses
import statistics
import warnings
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from l2d.checkpoint import CheckpointError, ModelCard, read_card
from l2d.data import Index
from l2d.distill import METHODS
from l2d.published import MEASURES, Row, describe_data, name_pair, read_recipes
from l2d.recipe import Recipe
from l2d.reproduce import Settings, plan_network, plan_students, plan_teacher
from l2d.series import FINISHED, Training, count_pictures, find_changes


def collect_table(table: str, rows: Sequence[Row], settings: Settings, index: Index) -> dict[str, Any]:
    """What is measured so far, beside the paper's numbers; ready for JSON.

    Args:
        index: the training pictures.

    Returns:
        `table`, `data`, `recipe` (its name), `notes` (sentences on what differs from the paper), `source`, and `rows`: per row the
        paper's names, those of the `networks` (teacher and student) that were really used, the `epochs` that `teacher` (unless it was
        given) and `students` are trained for, and under `methods` (the teacher first) for each method `ours` and `paper` (measure ->
        percent), `spread` (the sample's standard deviation over the seeds, where there are several), `difference` (ours - paper), `gain`
        and `paper_gain` (mAP above the vanilla student), `runs` (the folders), `scores` (measure -> percent of every run, in their order),
        `pictures` (as `l2d.series.count_pictures`). What is not measured, or not published, is missing.
    """
    results = [
        {"number": row.number, "data": row.data, "teacher": row.teacher, "student": row.student}
        | {"networks": name_networks(row, settings), "epochs": _count_epochs(row, settings), "methods": collect_row(row, settings)}
        for row in rows
    ]
    notes = describe_deviations(rows[0].data, settings, index)
    settled = {"table": table, "data": settings.data, "recipe": settings.recipe, "notes": notes}
    return settled | {"rows": results, "source": read_recipes()["source"]}


def _count_epochs(row: Row, settings: Settings) -> dict[str, int]:
    """How long networks are really trained, which recipe and card of a teacher that stops early do not tell."""
    teachers = {"teacher": plan_teacher(name_pair(row)[0], settings).epochs} if settings.teacher is None else {}
    return teachers | {"students": plan_network("any", "any", settings).recipe.epochs}


def name_networks(row: Row, settings: Settings) -> tuple[str, str]:
    """Teacher and student that a row is reproduced with: timm names, or the checkpoint's where a teacher is given."""
    teacher, student = name_pair(row)
    return settings.teacher.resolve().name if settings.teacher is not None else teacher, settings.student or student


def collect_row(row: Row, settings: Settings) -> dict[str, dict[str, Any]]:
    """One row's entries of `collect_table`, by method: those asked for, and those that earlier calls trained in the same way."""
    students = _find_students(row, settings)
    students |= _find_others(row, settings, list(chain.from_iterable(students.values())))
    groups = {"teacher": _find_teacher(row, settings, list(chain.from_iterable(students.values()))), **students}
    entries = {method: _compare(folders, row.scores.get(method, {})) for method, folders in groups.items()}
    bases = {
        ("gain", "ours"): entries["vanilla"]["ours"] if "vanilla" in entries else {},
        ("paper_gain", "paper"): row.scores.get("vanilla", {}),
    }
    for method in [name for name in entries if name not in ("teacher", "vanilla")]:
        for (gain, scores), base in bases.items():
            if "mAP" in base and "mAP" in entries[method][scores]:
                entries[method][gain] = entries[method][scores]["mAP"] - base["mAP"]
    return entries


def _find_students(row: Row, settings: Settings) -> dict[str, list[Path]]:
    """Folders of the students that are trained, by method."""
    finished = [(method, training.plan.out) for (method, _), training in plan_students(row, settings).items() if training.state == FINISHED]
    return {method: [out for name, out in finished if name == method] for method in settings.methods}


def _find_others(row: Row, settings: Settings, students: Sequence[Path]) -> dict[str, list[Path]]:
    """The same of methods that are not asked for, where the student of every seed may stand beside those that are."""
    beside, found = [read_card(folder) for folder in students], {}
    for method in [name for name in METHODS if name not in settings.methods]:
        trainings = plan_students(row, dataclasses.replace(settings, methods=(method,))).values()
        try:
            fits = all(training.state == FINISHED and _may_stand_beside(training, settings.kind, beside) for training in trainings)
        except CheckpointError as error:
            # Nobody asked for it: that is no reason to refuse what was asked for.
            warnings.warn(f"The table is without {method}, which was trained before: {error}", stacklevel=2)
            continue
        if fits:
            found[method] = [training.plan.out for training in trainings]
            beside += map(read_card, found[method])
    return found


def _may_stand_beside(training: Training, kind: str, beside: Sequence[ModelCard]) -> bool:
    """Whether a student was trained as this call would train it, on the pictures of these others, and scored on theirs."""
    card = read_card(training.plan.out)
    # Whatever they are called: a table may have been moved, or trained on before cards named it.
    pictures = [(one.data | dict.fromkeys(("name", "title")), one.scores.get("checksum")) for one in (card, *beside)]
    return card.data.get("source") == kind and all(other == pictures[0] for other in pictures) and not find_changes(training, card)


def _find_teacher(row: Row, settings: Settings, students: Sequence[Path]) -> list[Path]:
    """The teacher's folder; none of a given one whose scores are known to be of other pictures than its students'."""
    if settings.teacher is not None:
        told = read_card(settings.teacher).scores
        beside = [read_card(student).scores for student in students]
        same = all(told.get(name, scores[name]) == scores[name] for scores in beside for name in ("images", "checksum") if name in scores)
        return [settings.teacher] if same else []
    training = plan_teacher(name_pair(row)[0], settings)
    return [training.plan.out] if training.state == FINISHED else []


def _compare(folders: Sequence[Path], paper: dict[str, float]) -> dict[str, Any]:
    done = {folder: scores for folder in folders if (scores := read_scores(folder))}
    values = {measure: [scores[measure] for scores in done.values()] for measure in MEASURES} if done else {}
    ours = {measure: statistics.fmean(numbers) for measure, numbers in values.items()}
    spread = {measure: statistics.stdev(numbers) for measure, numbers in values.items() if len(numbers) > 1}
    difference = {measure: ours[measure] - paper[measure] for measure in ours if measure in paper}
    pictures = count_pictures([read_card(folder) for folder in done])
    told = {"ours": ours, "spread": spread, "paper": paper, "difference": difference}
    return told | {"runs": list(map(str, done)), "scores": values, "pictures": pictures}


def read_scores(folder: Path) -> dict[str, float]:
    """A checkpoint's mAP, OF1 and CF1 on the test pictures in the paper's protocol; empty while they are not measured, or not defined."""
    scores = read_card(folder).scores
    return {"mAP": scores["mAP"], **{name: scores["oracle_k"][name] for name in ("OF1", "CF1")}} if scores.get("mAP") is not None else {}


def describe_deviations(data: str, settings: Settings, index: Index) -> list[str]:
    """In sentences, where these trainings on the pictures of `index` differ from the paper's on `data`."""
    recipes = read_recipes()
    paper, plan = recipes["recipes"]["paper"], plan_network("any", "any", settings)
    notes = describe_data(data, settings.kind, index)
    if settings.share < 1:
        notes.append(f"Trained on {settings.share:.0%} of the training pictures.")
    if settings.teacher is not None:
        scores = "its scores, at its own input size, are those in its card, if they are of the same pictures"
        notes.append(f"The teacher was trained before, in its own way; {scores}.")
    if plan.recipe.epochs != paper["recipe"]["epochs"]:
        notes.append(f"{plan.recipe.epochs} epoch{'s' * (plan.recipe.epochs > 1)} instead of {paper['recipe']['epochs']}.")
    if plan.image_size != paper["network"]["image_size"]:
        notes.append(f"Pictures of {plan.image_size} pixels a side instead of {paper['network']['image_size']}.")
    if plan.recipe.train_size != plan.image_size:
        notes.append(f"While training, pictures of {plan.recipe.train_size} pixels a side.")
    if plan.pretrained:
        notes.append(recipes["initial_weights"])
    elif plan.init is None:
        notes.append("Networks start from random weights instead of ImageNet's.")
    else:
        notes.append("Networks start from weights that were given as files; the cards tell which (lineage).")
    notes += _describe_recipe(recipes, settings.recipe) + recipes["deviations"]
    # Other pictures may be laid out like MS-COCO's.
    coco = settings.kind in recipes["unlabelled"]["data"] and len(index.labels) == recipes["sizes"]["MS-COCO"][0]
    return notes + [recipes["unlabelled"]["note"]] * coco


def _describe_recipe(recipes: dict[str, Any], name: str) -> list[str]:
    """How a recipe differs from the paper's, in sentences; the number of epochs and the pictures' sizes are told apart from it."""
    paper, chosen = recipes["recipes"]["paper"], recipes["recipes"][name]
    told = ("epochs", "image_size", "train_size")
    changes = {
        setting: value
        for part in ("recipe", "network")
        for setting, value in chosen[part].items()
        if setting not in told and value != paper[part].get(setting, getattr(Recipe, setting, None))
    }
    listed = ", ".join(f"no {setting}" if value is False else f"{setting} {value}" for setting, value in changes.items())
    sentences = [f"Recipe {name}: {listed}."] if changes else []
    if chosen["weights"]:
        listed = ", ".join(f"{loss} {weight:g}" for loss, weight in chosen["weights"].items())
        sentences.append(f"Loss weights {listed}: {chosen['weights_from']}")
    return sentences
