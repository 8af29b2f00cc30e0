"""Trainings that belong together: what is missing is run, what was interrupted is resumed, what is finished is read."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from l2d import processes
from l2d.checkpoint import CARD, ModelCard, Network, merge_scores, name_origin, read_card, read_sizes, write_card
from l2d.data.images import Index
from l2d.distill import METHODS
from l2d.evaluate import check_labels, evaluate
from l2d.progress import Progress
from l2d.recipe import count_trained
from l2d.runs import (
    STATE,
    Plan,
    check_network,
    check_start,
    choose_device,
    choose_scaling,
    create_network,
    describe_lineage,
    execute,
    load_network,
)
from l2d.train import EpochReport, StepCallback, fit

FINISHED, INTERRUPTED, MISSING = "finished", "interrupted", "missing"
# Pictures per step and process that times a network on a CPU, where a step of the recipe's size may take a minute.
TIMED_PICTURES = 8


@dataclasses.dataclass(frozen=True)
class Training:
    """One training of a series.

    Attributes:
        stop: epochs after which it ends, though its schedule would go on; None trains to the schedule's end.
    """

    plan: Plan
    stop: int | None = None

    @property
    def epochs(self) -> int:
        """Epochs that it really runs."""
        return self.stop or self.plan.recipe.epochs

    @property
    def state(self) -> str:
        """finished, interrupted or missing: what its folder holds."""
        if (self.plan.out / STATE).exists():
            return INTERRUPTED
        return FINISHED if (self.plan.out / CARD).exists() else MISSING

    @property
    def teacher(self) -> Path | None:
        """The teacher's folder, if the method looks at it."""
        return self.plan.teacher if METHODS[self.plan.recipe.method] else None


def run_training(training: Training, *, device: str = "auto", on_step: StepCallback | None = None) -> Iterator[EpochReport]:
    """Train to the end, from wherever it was left. Several processes train together, and find it finished when they go on."""
    reports = execute(training.plan, device=device, resume=True, on_step=on_step)
    for report in reports:
        yield report
        if report.epoch >= training.epochs:
            break
    if processes.is_main():
        (training.plan.out / STATE).unlink(missing_ok=True)
    processes.wait()


def check_trainings(trainings: Sequence[Training], index: Index) -> None:
    """Refuse a folder that was trained in another way than this series plans, and a plan, network or teacher that does not fit.

    What the last training would be refused for after hours of others is told before the first.

    Args:
        index: the training pictures of all of them.

    Raises:
        ValueError: naming the folder, or the teacher, and what differs.
    """
    for training in trainings:
        if training.teacher is not None and (training.teacher / CARD).exists():
            check_labels(read_card(training.teacher), index)
        if (training.plan.out / CARD).exists() and (changed := _compare(training, read_card(training.plan.out), index)):
            raise ValueError(
                f"{training.plan.out} was trained otherwise than asked for now ({', '.join(changed)}): choose another --out, or remove the "
                "folder to train it anew."
            )
    missing = [training for training in trainings if training.state != FINISHED]
    for training in missing:
        check_start(training.plan)
    for plan in {_name_network(training.plan): training.plan for training in missing}.values():
        check_network(plan, index.labels)


def _name_network(plan: Plan) -> tuple[object, ...]:
    """What tells one network to be built from another."""
    return plan.backbone, plan.init, plan.pretrained, plan.recipe.train_size, *read_sizes(plan).values()


def _compare(training: Training, card: ModelCard, index: Index) -> list[str]:
    changed = find_changes(training, card) + ["labels"] * (card.labels != index.labels)
    if card.data.get("images") != len(index.paths):
        changed.append("number of pictures")
    # Cards that were written before it was kept do not tell.
    elif card.data.get("checksum", index.checksum) != index.checksum:
        changed.append("set of pictures or labels")
    return changed


def find_changes(training: Training, card: ModelCard) -> list[str]:
    """What of a trained network is not as this training plans it, in words; pictures and labels aside."""
    plan = training.plan
    planned = {"backbone": plan.backbone} | read_sizes(plan)
    changed = plan.recipe.find_changes(card.recipe) + [name for name, value in planned.items() if getattr(card, name) != value]
    if (card.mean, card.std) != choose_scaling(plan):
        changed.append("scaling of pixels")
    if (plan.init is None or plan.init.exists()) and name_origin(card.lineage) != name_origin(describe_lineage(plan)):
        changed.append("origin of its initial weights")
    if training.teacher is not None and (training.teacher / CARD).exists():
        taught_by = (card.teacher or {}).get("sha256")
        changed += ["teacher"] if taught_by != read_card(training.teacher).sha256 else []
    return changed


def score_training(training: Training, index: Index, *, device: str = "auto", progress: Progress | None = None) -> dict[str, Any]:
    """The scores of a finished training on test pictures, measured once and kept in its card until it is asked for those on others.

    Several processes must all ask: each looks at a part of the pictures.
    """
    card = read_card(training.plan.out)
    if card.scores.get("checksum") != index.checksum:
        model, card = load_network(training.plan.out, choose_device(device))
        scores = evaluate(model, card, index, progress=progress) | {"checksum": index.checksum}
        # Anew: other commands may have written scores of their own meanwhile.
        card = read_card(training.plan.out)
        card = dataclasses.replace(card, scores=merge_scores(card.scores, scores))
        if processes.is_main():
            write_card(training.plan.out, card)
    return card.scores


def count_pictures(cards: Sequence[ModelCard], *, held_out: bool = False) -> dict[str, int]:
    """How many pictures networks were trained on and scored on, where that is known and the same of all of them.

    Args:
        held_out: the scores are those on pictures held out, not those on test pictures.

    Returns:
        `trained` and `scored`, or what is known of them.
    """
    return find_common([_count_pictures(card, card.scores.get("held_out", {}) if held_out else card.scores) for card in cards])


def _count_pictures(card: ModelCard, scores: Mapping[str, Any]) -> dict[str, int]:
    counts = {"scored": scores["images"]} if "images" in scores else {}
    if "images" in card.data:
        counts["trained"] = count_trained(card.data["images"], card.recipe.get("holdout", 0.0), card.recipe.get("share", 1.0))
    return counts


def find_common(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The numbers of which all have the same."""
    return {name: number for name, number in counts[0].items() if all(other.get(name) == number for other in counts)} if counts else {}


def describe_pictures(counts: Mapping[str, int]) -> str:
    """A sentence on students of whom `count_pictures` found this; empty where nothing is known."""
    first, *second = [f"{verb} on {counts[verb]:,}" for verb in ("trained", "scored") if verb in counts] or [""]
    return f"Students {', '.join([f'{first} pictures', *second])}." if first else ""


def describe_seeds(runs: Sequence[int]) -> str:
    """A sentence on what the scores of methods are that were trained so often each."""
    fewest, most = (min(runs), max(runs)) if runs else (0, 0)
    if most <= 1:
        return "One training a method."
    count = f"{most} trainings" if fewest == most else f"{fewest} to {most} trainings"
    return f"Mean of {count} a method that differ in their seed alone, with their standard deviation (of the sample, n - 1)."


def describe_sweep(holdout: float, seed: int, pictures: Mapping[str, int]) -> str:
    """Sentences on what the scores of a sweep are; `pictures` is as `count_pictures` gives it."""
    scores = f"Scores on {holdout:.0%} of the training pictures, held out; the test pictures took no part."
    return f"{scores} One training a point, of seed {seed}. {describe_pictures(pictures)}".strip()


class Estimate:
    """Time that trainings take, from a short timed step of every pair of networks.

    Networks are built with random weights and trained for two steps by the very code that will train them; the second is timed. On a
    CPU with few pictures a step, so it is a rough number, and it leaves the scoring out.
    """

    def __init__(self, index: Index, device: str = "auto"):
        self.index, self.device = index, choose_device(device)
        self.speeds: dict[tuple[str, str | None, int], float] = {}

    def seconds(self, training: Training, teacher: Plan | None) -> float:
        """Time of all its epochs; `teacher` is what `find_teacher` gives. All methods with a teacher are taken to be as fast as l2d."""
        key = (training.plan.backbone, teacher.backbone if teacher is not None else None, training.plan.image_size)
        if key not in self.speeds:
            self.speeds[key] = self._measure(training.plan, teacher)
        recipe = training.plan.recipe
        return training.epochs * count_trained(len(self.index.paths), recipe.holdout, recipe.share) / self.speeds[key]

    def _measure(self, plan: Plan, teacher: Plan | None) -> float:
        """Pictures per second."""
        taught = self._build(teacher, None) if teacher is not None else None
        method = "l2d" if taught is not None else "vanilla"
        count = processes.choose_batch_size(plan.recipe.batch_size, len(self.index.paths))
        count = min(count, TIMED_PICTURES * processes.count()) if self.device.type == "cpu" else count
        # Two epochs of one step each, on the same pictures: the first one warms up and decodes.
        recipe = dataclasses.replace(plan.recipe, method=method, weights={}, epochs=2, batch_size=count, holdout=0.0, share=1.0)
        reports = fit(self._build(plan, taught), self.index.select(range(count)), recipe, teacher=taught, device=self.device)
        return list(reports)[-1].images_per_second

    def _build(self, plan: Plan, teacher: Network | None) -> Network:
        return create_network(dataclasses.replace(plan, pretrained=False, init=None), self.index, teacher)


def find_teacher(training: Training, trainings: Sequence[Training]) -> Plan | None:
    """The plan of the network that a training learns from: one of these trainings, or a checkpoint made before them."""
    if training.teacher is None:
        return None
    planned = [other.plan for other in trainings if other.plan.out == training.teacher]
    if planned:
        return planned[0]
    card = read_card(training.teacher)
    return Plan(card.backbone, training.plan.data, training.teacher, training.plan.recipe, **read_sizes(card))
