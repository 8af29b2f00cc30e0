"""A training run from a data set's name to a checkpoint folder: what the command line and background jobs have in common."""

import contextlib
import dataclasses
import datetime
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from l2d import processes
from l2d.checkpoint import (
    CARD,
    WEIGHTS,
    CheckpointError,
    ModelCard,
    Network,
    hash_file,
    load_checkpoint,
    read_card,
    read_sizes,
    save_checkpoint,
)
from l2d.data import check_splits, read_index
from l2d.data.images import Index
from l2d.data.table import name_table
from l2d.disk import check_writable, hold_folder
from l2d.distill import METHODS
from l2d.environment import Environment, add_environment, describe_environment
from l2d.epochs import add_epoch
from l2d.hub import check_pretrained, find_config
from l2d.model import LabelNet, check_maps, create_model, load_weights, merge_branches
from l2d.recipe import Recipe
from l2d.train import EpochReport, StepCallback, fit

STATE = "state.pt"
Triple = tuple[float, float, float]
# Mean and deviation that leave pixels as they are.
UNIT_PIXELS = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to train, on what, into which folder. Paths may be given as text.

    Attributes:
        backbone: timm name.
        data: as `l2d.data.read_index` takes it.
        out: the checkpoint folder.
        teacher: checkpoint folder of the teacher; None trains without one.
        init: safetensors file with the backbone's initial weights, or a checkpoint folder to go on from, head included.
        pretrained: start from timm's ImageNet weights instead.
        image_size, output_stride, width, feedforward: of the network, see `ModelCard`.
        unit_pixels: the network is given pixels in [0, 1], as the paper's are, instead of scaled as its initial weights are used to.
    """

    backbone: str
    data: str
    out: Path
    recipe: Recipe
    teacher: Path | None = None
    init: Path | None = None
    pretrained: bool = False
    image_size: int = 224
    output_stride: int = 32
    width: int = 768
    feedforward: int = 2048
    unit_pixels: bool = False

    def __post_init__(self) -> None:
        # From a notebook paths come as text.
        for name in ("out", "teacher", "init"):
            if isinstance(path := getattr(self, name), str):
                object.__setattr__(self, name, Path(path))


def execute(plan: Plan, *, device: str = "auto", resume: bool = False, on_step: StepCallback | None = None) -> Iterator[EpochReport]:
    """Train as planned and leave a checkpoint in `plan.out`, new after every epoch, and `epochs.csv` (see `l2d.epochs.add_epoch`).

    The card's `lineage` tells under `environments` what the run was trained with, as `l2d.environment.add_environment`.

    The folder keeps the state of the run until it is finished, so that `resume` can go on from the last finished epoch.

    Warns of losses that would have hardly anything to compare.

    Raises:
        ValueError: if the folder holds a finished run, or an unfinished one and `resume` is not set, or another process trains there, as
            `check_start` and `check_splits`, or if anything else of the plan does not fit.
        OSError: if the folder cannot be written.
    """
    state = plan.out / STATE
    _check_folder(plan.out, resume)
    check_start(plan)
    check_writable(plan.out)
    index = read_index(plan.data, "train")
    check_splits(plan.data, index)
    for doubt in plan.recipe.find_doubts(index.targets) if processes.is_main() else []:
        warnings.warn(doubt, stacklevel=2)
    chosen = choose_device(device)
    teacher = load_network(plan.teacher, chosen) if plan.teacher is not None else None
    if teacher is not None and METHODS[plan.recipe.method] and plan.recipe.teacher_size != teacher.card.image_size:
        check_maps(teacher.model.backbone, teacher.card.backbone, plan.recipe.teacher_size)
    # Seeded before the head is made: the same seed gives every method the same initial weights.
    torch.manual_seed(plan.recipe.seed)
    student = create_network(plan, index, teacher)
    main = processes.is_main()
    with hold_folder(plan.out) if main else contextlib.nullcontext():
        # Somebody else may have trained here to the end since the first look.
        _check_folder(plan.out, resume)
        # A run that is gone on with tells of its last epoch once more.
        told, repeated, now = _read_environments(plan.out), state.exists(), describe_environment(chosen)
        for report in fit(student, index, plan.recipe, teacher=teacher, device=chosen, state=state, on_step=on_step):
            told, repeated = told if repeated else add_environment(told, now, report.epoch), False
            if main:
                save_checkpoint(plan.out, report.model, _describe_epoch(student.card, report, told))
                add_epoch(plan.out, report)
            yield report
        if main:
            state.unlink(missing_ok=True)


def _check_folder(out: Path, resume: bool) -> None:
    """Refuse a folder that holds a run which is not to be gone on with."""
    unfinished = (out / STATE).exists()
    if unfinished and not resume:
        advice = "add --resume (in Python: resume=True) to go on with it, or remove the folder to start over"
        raise ValueError(f"{out} holds an unfinished run: {advice}.")
    if (out / CARD).exists() and not unfinished:
        raise ValueError(f"{out} holds a finished checkpoint already: choose another folder, or remove this one to train it anew.")


def check_start(plan: Plan) -> None:
    """Refuse initial weights that make no sense.

    Raises:
        ValueError: if they are given twice, or if stages are to be frozen whose weights nobody trained.
    """
    if plan.init is not None and plan.pretrained:
        raise ValueError("The initial weights are given twice: leave out either --init or --pretrained.")
    if plan.recipe.freeze_stages and plan.init is None and not plan.pretrained:
        raise ValueError("freeze_stages keeps weights as they start, so it needs ones that were trained: give --init or --pretrained.")


def check_network(plan: Plan, labels: tuple[str, ...]) -> None:
    """Refuse a network that could not be trained as planned, by building it; nothing is fetched from the hub.

    For plans whose turn comes after hours.

    Raises:
        ValueError: as of `create_model`, or for initial weights that are not there, do not fit or cannot be had.
    """
    _build_model(dataclasses.replace(plan, pretrained=False), labels)
    if plan.pretrained:
        check_pretrained(plan.backbone)


def _build_model(plan: Plan, labels: tuple[str, ...]) -> LabelNet:
    earlier = plan.init if plan.init is not None and plan.init.is_dir() else None
    model = create_model(
        plan.backbone,
        len(labels),
        **read_sizes(plan),
        pretrained=plan.pretrained,
        init=plan.init if earlier is None else None,
    )
    if plan.recipe.train_size != plan.image_size:
        check_maps(model.backbone, plan.backbone, plan.recipe.train_size)
    if earlier is not None:
        load_network_weights(model, earlier, labels)
    return model


def create_network(plan: Plan, index: Index, teacher: Network | None) -> Network:
    """The untrained network of a plan, with the card that it will be saved with."""
    model = _build_model(plan, index.labels)
    name, (mean, std) = plan.out.resolve().name, choose_scaling(plan)
    card = ModelCard(
        name=name,
        title=name,
        role="student" if plan.teacher else "teacher",
        method=plan.recipe.method,
        backbone=plan.backbone,
        labels=index.labels,
        **read_sizes(plan),
        mean=mean,
        std=std,
        recipe=plan.recipe.as_dict(),
        data=_describe_data(plan, index),
        # A method without a loss that compares does not look at its teacher.
        teacher={"name": teacher.card.name, "sha256": teacher.card.sha256} if teacher and METHODS[plan.recipe.method] else None,
        lineage=describe_lineage(plan),
        created=datetime.date.today().isoformat(),
    )
    return Network(model, card)


def _describe_data(plan: Plan, index: Index) -> dict[str, Any]:
    kind, _, place = plan.data.partition(":")
    # Else all tables would be called the same.
    name = {"name": name_table(Path(place))} if kind == "csv" else {}
    return {"source": kind, **name, "images": len(index.paths), "labels": len(index.labels), "checksum": index.checksum}


def choose_scaling(plan: Plan) -> tuple[Triple, Triple]:
    """Mean and deviation that pixels are scaled by: as the initial weights know them, as far as somebody says so."""
    if plan.unit_pixels:
        return UNIT_PIXELS
    # A whole checkpoint, or the weights of one, whose backbone alone is taken.
    earlier = plan.init.parent if plan.init is not None and plan.init.name == WEIGHTS else plan.init
    if earlier is not None and (earlier / CARD).exists():
        card = read_card(earlier)
        return card.mean, card.std
    usual = find_config(plan.backbone)
    return tuple(usual.mean), tuple(usual.std)


def load_network_weights(model: LabelNet, folder: Path, labels: tuple[str, ...]) -> None:
    """Copy a whole checkpoint, head included, into a network for the same labels.

    Raises:
        ValueError: if the checkpoint cannot be read, has other labels or another order of them, or is of another network.
    """
    known, card = load_checkpoint(folder)
    if card.labels != labels:
        chosen = ", or what l2d.checkpoint.select_labels makes of it, head included" if set(labels) <= set(card.labels) else ""
        raise ValueError(
            f"{folder} knows other labels, or in another order, than the data set; give its {WEIGHTS} to take the backbone alone{chosen}."
        )
    load_weights(model, known.state_dict(), folder)


def load_network(folder: Path | str, device: torch.device | str) -> Network:
    """A checkpoint on a device, to predict or to teach."""
    model, card = load_checkpoint(folder)
    return Network(merge_branches(model).to(device).to(memory_format=torch.channels_last), card)


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` is the GPU where there is one.

    Raises:
        ValueError: for a name that torch does not know, or a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    unknown = f"Unknown device {name!r}; use auto, cpu, cuda or cuda:NUMBER."
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(unknown) from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(unknown)
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise ValueError(f"{name} was asked for, but torch sees {count or 'no'} CUDA device{'s' * (count > 1)} here; use auto or cpu.")
    return device


def describe_lineage(plan: Plan) -> dict[str, Any]:
    """Where a network's initial weights come from, as its card tells it."""
    if plan.init is not None and plan.init.is_dir():
        card = read_card(plan.init)
        before = {"recipe": card.recipe, "data": card.data, "mAP": card.scores.get("mAP"), "lineage": card.lineage}
        return {"init": f"all weights of {card.name}", "sha256": card.sha256, "before": before}
    if plan.init is not None:
        return {"init": plan.init.name, "sha256": hash_file(plan.init)}
    return {"init": f"timm, pretrained {plan.backbone}", **_describe_weights(plan.backbone)} if plan.pretrained else {"init": "random"}


def _describe_weights(backbone: str) -> dict[str, str]:
    """Which weights timm takes for a name, which its next version may decide otherwise, and their licence."""
    weights = find_config(backbone)
    told = {"source": weights.hf_hub_id or weights.url, "licence": weights.license} if weights is not None else {}
    return {name: text for name, text in told.items() if text}


def _read_environments(out: Path) -> list[Environment]:
    """Those of the epochs so far, as far as the card tells them: one of an older revision does not."""
    try:
        return read_card(out).lineage.get("environments", [])
    except CheckpointError:
        # None is there yet, or it was damaged: the run goes on from its state, and writes it anew.
        return []


def _describe_epoch(card: ModelCard, report: EpochReport, environments: list[Environment]) -> ModelCard:
    """The card of a run after an epoch."""
    lineage = card.lineage | ({"environments": environments} if environments else {})
    scores = {"held_out": {name: report.scores[name] for name in ("images", "mAP")}} if report.scores is not None else {}
    return dataclasses.replace(card, seconds=round(report.total_seconds, 1), scores=scores, lineage=lineage)
