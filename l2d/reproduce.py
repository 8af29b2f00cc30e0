"""The paper's tables as trainings: which networks, with which recipe, into which folders."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from l2d.checkpoint import CARD, ModelCard, read_card
from l2d.data import READERS
from l2d.distill import METHODS
from l2d.published import Row, name_pair, read_recipes
from l2d.recipe import Recipe
from l2d.runs import Plan
from l2d.series import Training


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
    plan = plan_network(backbone, name, settings, seed=seed, **changes)
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
            plan = plan_network(backbone, f"{backbone}-{method}{taught}-seed{seed}", settings, method=method, seed=seed, **sizes)
            plans[method, seed] = Training(dataclasses.replace(plan, teacher=folder))
    return plans


def _find_size(card: ModelCard) -> int:
    size: int = card.recipe.get("train_size", card.image_size)
    return size


def plan_network(backbone: str, name: str, settings: Settings, method: str = "vanilla", **changes: Any) -> Plan:
    """The training of a network into the folder of that name, by the recipe that is chosen; `changes` are of its numbers."""
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
    plan = plan_network(student, "", inside, method="l2d", seed=settings.seeds[0], holdout=figure["holdout"])
    return teacher, dataclasses.replace(plan, teacher=teacher.plan.out)


def plan_sweep_student(backbone: str, teacher: Path, method: str, settings: Settings, **changes: Any) -> Plan:
    """The student of a given teacher as `l2d.sweep.plan_sweep` varies it, its head as wide as the teacher's."""
    card = read_card(teacher)
    plan = plan_network(backbone, "", settings, method=method, seed=settings.seeds[0], teacher_size=_find_size(card), **changes)
    return dataclasses.replace(plan, teacher=teacher, width=card.width, feedforward=card.feedforward)
