"""The paper's tables as trainings: which networks, with which recipe, into which folders, and what came of them."""

import dataclasses
import statistics
import warnings
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from l2d.checkpoint import CARD, CheckpointError, ModelCard, read_card
from l2d.data import READERS, Index
from l2d.distill import METHODS
from l2d.published import MEASURES, Row, describe_data, name_pair, read_recipes
from l2d.recipe import Recipe
from l2d.runs import Plan
from l2d.series import FINISHED, Training, count_pictures, find_changes


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a table is reproduced; what is None is as in the paper's recipe.

    Attributes:
        data: as `l2d.data.read_index` takes it.
        out: folder of all trainings; those that tables share are trained once.
        methods: names in `l2d.distill.METHODS`.
        seeds: every student is trained once with each; the teacher with 0.
        epochs, image_size: instead of the recipe's.
        recipe: "paper", or another one of recipes.json.
        share: of the training pictures that are trained on.
        teacher: checkpoint folder that teaches instead of the row's teacher; it is not trained, and its scores are those in its card.
        student: timm name of the network that learns instead of the row's student.
        init: folder with initial weights, one safetensors file per backbone under its timm name, instead of timm's hub.
        pretrained: take ImageNet weights; None does so for photographs, not for drawn pictures.
    """

    data: str
    out: Path
    methods: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    epochs: int | None = None
    image_size: int | None = None
    recipe: str = "paper"
    share: float = 1.0
    teacher: Path | None = None
    student: str | None = None
    init: Path | None = None
    pretrained: bool | None = None

    def __post_init__(self) -> None:
        if unknown := [name for name in self.methods if name not in METHODS]:
            raise ValueError(f"Unknown method {unknown[0]!r}; the known ones are {', '.join(METHODS)}.")
        if self.recipe not in (known := read_recipes()["recipes"]):
            raise ValueError(f"Unknown recipe {self.recipe!r}; the known ones are {', '.join(known)}.")
        if self.student == "":
            raise ValueError("The student has no name; give one of timm's, or leave it out to take the rows' own.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"Expected seeds, at least one and none twice; got {', '.join(map(str, self.seeds)) or 'none'}.")

    @property
    def kind(self) -> str:
        """The kind of data set: coco, voc, ..., shapes."""
        return self.data.partition(":")[0]


def plan_rows(rows: Sequence[Row], settings: Settings) -> list[Training]:
    """Every training that the rows need, teachers before their students, each once."""
    trainings: dict[Path, Training] = {}
    for row in rows:
        teachers = [plan_teacher(name_pair(row)[0], settings)] if settings.teacher is None else []
        for training in (*teachers, *plan_students(row, settings).values()):
            trainings.setdefault(training.plan.out, training)
    return list(trainings.values())


def plan_teacher(backbone: str, settings: Settings, **changes: Any) -> Training:
    """The training of a teacher; as in the paper it stops before its schedule does. Its seed is none of the students': calls share it."""
    recipe, name = read_recipes()["recipes"][settings.recipe], f"teacher-{backbone}"
    # One that is there already may have another: it was once the first of the students'.
    seed = read_card(folder).recipe.get("seed", 0) if ((folder := settings.out / name) / CARD).exists() else 0
    plan = _plan(backbone, name, settings, seed=seed, **changes)
    # The same share of a shorter schedule.
    stop = recipe["teacher_stops_at"] * plan.recipe.epochs / recipe["recipe"]["epochs"]
    return Training(plan, max(1, round(stop)))


def plan_students(row: Row, settings: Settings) -> dict[tuple[str, int], Training]:
    """The trainings of a row's students by method and seed. The vanilla student is the same one under every teacher."""
    teacher, student = name_pair(row)
    backbone = settings.student or student
    folder = settings.teacher or settings.out / f"teacher-{teacher}"
    # A given teacher is shown views of the size that it learnt from.
    sizes = {"teacher_size": _find_size(read_card(folder))} if settings.teacher is not None else {}
    plans = {}
    for method in settings.methods:
        for seed in settings.seeds:
            taught = f"-by-{folder.resolve().name.removeprefix('teacher-')}" if METHODS[method] else ""
            plan = _plan(backbone, f"{backbone}-{method}{taught}-seed{seed}", settings, method=method, seed=seed, **sizes)
            plans[method, seed] = Training(dataclasses.replace(plan, teacher=folder))
    return plans


def _find_size(card: ModelCard) -> int:
    size: int = card.recipe.get("train_size", card.image_size)
    return size


def _plan(backbone: str, name: str, settings: Settings, method: str = "vanilla", **changes: Any) -> Plan:
    recipes = read_recipes()
    chosen = recipes["recipes"][settings.recipe]
    drawn = settings.kind not in READERS
    usual = (recipes["drawn"] if drawn else chosen["network"])["image_size"]
    size = settings.image_size if settings.image_size is not None else usual
    # A recipe's own size while training goes with its size of network.
    train_size = chosen["recipe"].get("train_size", size) if size == chosen["network"]["image_size"] else size
    given = {"share": settings.share, "train_size": train_size, "teacher_size": size}
    given |= {"epochs": settings.epochs} if settings.epochs is not None else {}
    weights = {loss: weight for loss, weight in chosen["weights"].items() if loss in METHODS[method]}
    recipe = Recipe(method, weights, **chosen["recipe"] | given | changes)
    pretrained = settings.init is None and (settings.pretrained if settings.pretrained is not None else not drawn)
    # timm's weights by default are of longer recipes, Swin-S' of more pictures than the paper's.
    tag = recipes["pretrained"].get(backbone) if pretrained else None
    return Plan(
        f"{backbone}.{tag}" if tag else backbone,
        settings.data,
        settings.out / name,
        recipe,
        init=settings.init / f"{backbone}.safetensors" if settings.init else None,
        pretrained=pretrained,
        **chosen["network"] | {"image_size": size},
    )


def plan_figure1(settings: Settings) -> tuple[Training, Plan]:
    """The teacher of Figure 1, and the student as `l2d.sweep.plan_sweep` varies it.

    The pictures that weights are chosen by are held out from the teacher's training, too.
    """
    recipes = read_recipes()
    figure = recipes["figure1"]
    inside = dataclasses.replace(settings, out=settings.out / "figure1")
    teacher = plan_teacher(recipes["backbones"][figure["teacher"]], inside, holdout=figure["holdout"])
    student = recipes["backbones"][figure["student"]]
    plan = _plan(student, "", inside, method="l2d", seed=settings.seeds[0], holdout=figure["holdout"])
    return teacher, dataclasses.replace(plan, teacher=teacher.plan.out)


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
    return teachers | {"students": _plan("any", "any", settings).recipe.epochs}


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
    students: dict[str, list[Path]] = {method: [] for method in settings.methods}
    for (method, _), training in plan_students(row, settings).items():
        students[method] += [training.plan.out] if training.state == FINISHED else []
    return students


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
    same = all(card.data == other.data and card.scores.get("checksum") == other.scores.get("checksum") for other in beside)
    return card.data.get("source") == kind and same and not find_changes(training, card)


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


def describe_deviations(data: str, settings: Settings, index: Index, weights: bool = True) -> list[str]:
    """In sentences, where these trainings on the pictures of `index` differ from the paper's on `data`; with or without losses' weights."""
    recipes = read_recipes()
    paper, plan = recipes["recipes"]["paper"], _plan("any", "any", settings)
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
    if not weights and recipes["recipes"][settings.recipe]["weights"]:
        notes.append(f"The curves are around the published weights, not those of the recipe {settings.recipe}.")
    if plan.pretrained:
        notes.append(recipes["initial_weights"])
    elif plan.init is None:
        notes.append("Networks start from random weights instead of ImageNet's.")
    else:
        notes.append("Networks start from weights that were given as files; the cards tell which (lineage).")
    notes += _describe_recipe(recipes, settings.recipe, weights) + recipes["deviations"]
    # Other pictures may be laid out like MS-COCO's.
    coco = settings.kind in recipes["unlabelled"]["data"] and len(index.labels) == recipes["sizes"]["MS-COCO"][0]
    return notes + [recipes["unlabelled"]["note"]] * coco


def _describe_recipe(recipes: dict[str, Any], name: str, weights: bool) -> list[str]:
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
    if weights and chosen["weights"]:
        listed = ", ".join(f"{loss} {weight:g}" for loss, weight in chosen["weights"].items())
        sentences.append(f"Loss weights {listed}: {chosen['weights_from']}")
    return sentences
