"""One job's training, in a process of its own: `python -m app job ID`. It writes files; its worker keeps the books."""

import dataclasses
import errno
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.datasets import Datasets
from app.jobs import STUDENT, TEACHER
from app.lifelines import die_with_claim, die_with_parent
from app.logs import choose_lines
from app.orders import Order
from app.places import Places
from app.probes import choose_probes, save_maps, save_pictures
from app.processes import yield_memory
from app.queue import Queue
from app.records import JobFolder, Task, remove_folder
from app.stages import Stage, plan_stages
from l2d import processes
from l2d.checkpoint import CARD, WEIGHTS, ModelCard, read_card, write_card
from l2d.data import read_index
from l2d.device import lacks_memory
from l2d.disk import replace_file
from l2d.environment import list_versions
from l2d.epochs import EPOCHS
from l2d.evaluate import evaluate
from l2d.runs import STATE, check_network, choose_device, execute, load_network
from l2d.state import StateError
from l2d.train import EpochReport, StepReport

logger = logging.getLogger(__name__)

# Steps are written down at most this often.
STEP_SECONDS = 1.0
# Training gives way to the page.
NICENESS = 10


class _Clock:
    """Turns steps into a share of the whole job, and into the time left at the speed of this attempt."""

    def __init__(self, stages: list[Stage]):
        self.epochs = {stage.name: stage.plan.recipe.epochs for stage in stages}
        self.start: tuple[float, float] | None = None

    def measure(self, stage: str, epochs: float) -> dict[str, float | None]:
        """`epochs` of a stage are done."""
        names = list(self.epochs)
        before = sum(self.epochs[name] for name in names[: names.index(stage)])
        progress = (before + epochs) / sum(self.epochs.values())
        now = time.monotonic()
        if self.start is None:
            self.start = (now, progress)
        since, first = self.start
        left = (1 - progress) * (now - since) / (progress - first) if progress > first else None
        return {"progress": round(progress, 4), "seconds_left": None if left is None else round(left, 1)}


def run_job(folder: JobFolder, places: Places, task: Task) -> int:
    """Do what is asked; returns the exit code, and leaves the reason of a failure in the metrics.

    Of several processes only the main one writes; the others train with it, and tell of nothing but their own failures.
    """
    tell = folder.append if processes.is_main() else lambda record: None
    tell({"event": "attempt", "attempt": task.attempt, "at": time.time(), "device": task.device, "versions": list_versions()})
    try:
        _Work(folder, places, task, tell).do()
    except Exception as error:
        logger.exception("The job failed")
        # Whoever went missing tells why, if it can; if it cannot, a machine was lost, and the job is not to blame.
        if not processes.means_loss(error):
            folder.append({"event": "failed", "attempt": task.attempt, "at": time.time(), "reason": describe_failure(error)})
        return 1
    return 0


class _Work:
    def __init__(self, folder: JobFolder, places: Places, task: Task, tell: Callable[[dict[str, Any]], None]):
        self.folder, self.places, self.task, self.tell = folder, places, task, tell
        self.dataset = Datasets(places.data, places.findings).find(task.spec["data"])
        self.stages = plan_stages(task.spec, self.dataset.spec, places.find_model, folder.path)
        self.clock = _Clock(self.stages)
        self.test = read_index(self.dataset.spec, "test")
        self.probes = choose_probes(self.test)

    def do(self) -> None:
        missing = [stage for stage in self.stages if not self.task.stop and not is_trained(stage.plan.out)]
        for stage in missing[1:]:
            # Its turn comes after hours.
            check_network(stage.plan, self.test.labels)
        for stage in missing:
            self._train(stage)
        self._finish()

    def _train(self, stage: Stage) -> None:
        epochs = stage.plan.recipe.epochs
        logger.info("Stage %s: %s on %s, %d epoch%s", stage.name, stage.plan.backbone, self.dataset.name, epochs, "s" * (epochs > 1))
        self.tell({"event": "stage", "stage": stage.name, "epochs": epochs, "at": time.time()})
        main = processes.is_main()
        if stage.name == STUDENT and main:
            self._show_probes(stage)
        _, best = self._find_best(stage.name)
        for report in execute(stage.plan, device=self.task.device, resume=True, on_step=self._write_steps(stage)):
            score = read_score(report)
            better = best is None or score is None or score >= best
            best = score if better else best
            if main:
                self._report(stage, report, better)
        # The next stage reads what the main process wrote.
        processes.wait()

    def _report(self, stage: Stage, report: EpochReport, better: bool) -> None:
        """Leave an epoch's maps, its student if it is the best, and its numbers; the numbers last, so that who sees them finds the rest."""
        if stage.name == STUDENT:
            card = read_card(stage.plan.out)
            save_maps(self.folder.probes, f"{report.epoch:04}", report.model, card, self.test, self.probes)
        score = read_score(report)
        numbers = {
            "losses": {name: round(value, 5) for name, value in report.losses.items()},
            "mAP": score,
            "best": better,
            "seconds": round(report.seconds, 2),
            "images_per_second": round(report.images_per_second, 2),
        }
        place = {"stage": stage.name, "epoch": report.epoch, "epochs": stage.plan.recipe.epochs}
        # Whenever a training is ended, the student that it told of as the best one is there.
        keep = better and stage.name == STUDENT
        if keep:
            link_checkpoint(stage.plan.out, self.folder.best(report.epoch))
        self.tell({"event": "epoch", **place, **numbers, "at": time.time(), **self.clock.measure(stage.name, report.epoch)})
        if keep:
            self.folder.forget_best(but=report.epoch)
        told = [f"{name} {value:.3f}" for name, value in report.losses.items()]
        told += [] if score is None else [f"held-out mAP {score:.2f}"]
        logger.info("%s epoch %d/%d: %s", stage.name.capitalize(), report.epoch, place["epochs"], ", ".join(told))

    def _write_steps(self, stage: Stage) -> Callable[[StepReport], None]:
        last = 0.0

        def write(step: StepReport) -> None:
            nonlocal last
            measured = self.clock.measure(stage.name, step.epoch - 1 + step.step / step.steps)
            if time.monotonic() - last < STEP_SECONDS:
                return
            last = time.monotonic()
            losses = {name: round(value, 5) for name, value in step.losses.items()}
            place = {"stage": stage.name, "epoch": step.epoch, "step": step.step, "steps": step.steps}
            self.tell({"event": "step", **place, "losses": losses, "at": time.time(), **measured})

        return write

    def _show_probes(self, stage: Stage) -> None:
        save_pictures(self.folder.probes, self.test, self.probes)
        if stage.plan.teacher is not None:
            teacher, card = load_network(stage.plan.teacher, choose_device(self.task.device))
            save_maps(self.folder.probes, TEACHER, teacher, card, self.test, self.probes)

    def _find_best(self, stage: str) -> tuple[int | None, float | None]:
        """The best epoch of all attempts so far, and its score."""
        best = None, None
        for line in self.folder.read_all():
            if line["event"] == "epoch" and line["stage"] == stage and line["best"]:
                best = line["epoch"], line["mAP"]
        return best

    def _finish(self) -> None:
        """Score what was trained on the test pictures, and lay it out for the catalogue."""
        self.tell({"event": "stage", "stage": "scores", "at": time.time()})
        if processes.is_main():
            remove_folder(self.folder.ready)
        names: dict[str, str] = {}
        for stage in self.stages:
            # The teacher is the one that taught, which was at its end.
            epoch, _ = self._find_best(STUDENT) if self.task.stop and stage.name == STUDENT else (None, None)
            source = stage.plan.out if epoch is None else self.folder.best(epoch)
            names[stage.name] = name_model(self.task, stage)
            scores = self._score(source)
            if not processes.is_main():
                continue
            ready = self.folder.ready / names[stage.name]
            link_checkpoint(source, ready)
            if (curve := stage.plan.out / EPOCHS).exists():
                _link_file(curve, ready / EPOCHS)
            write_card(ready, self._complete(read_card(source), stage, scores, names))
            self.tell({"event": "scored", "stage": stage.name, "model": names[stage.name], "mAP": scores["mAP"], "at": time.time()})

    def _score(self, source: Path) -> dict[str, Any]:
        model, card = load_network(source, choose_device(self.task.device))
        report = evaluate(model, card, self.test)
        return card.scores | {name: value for name, value in report.items() if name != "per_label"}

    def _complete(self, card: ModelCard, stage: Stage, scores: dict[str, Any], names: dict[str, str]) -> ModelCard:
        order = Order.model_construct(**self.task.spec)
        teacher = card.teacher
        if teacher is not None and stage.plan.teacher is not None and stage.plan.teacher.parent == self.folder.path:
            teacher = teacher | {"name": names[TEACHER]}
        return dataclasses.replace(
            card,
            name=names[stage.name],
            title=order.name if stage.name == STUDENT else f"Teacher of {order.name}",
            scores=scores,
            teacher=teacher,
            data=card.data | {"name": self.dataset.name},
            lineage=card.lineage | {"job": self.task.job},
        )


def name_model(task: Task, stage: Stage) -> str:
    """What a job's network is called in the catalogue, whose names are words of URLs; ends with the job's id."""
    data = re.sub(r"[^A-Za-z0-9._-]+", "-", task.spec["data"]).strip("._-") or "data"
    kind = TEACHER if stage.name == TEACHER else stage.plan.recipe.method.replace("+", "-")
    return f"{data[:20]}-{stage.plan.backbone[:28]}-{kind}-{task.job}"


def read_score(report: EpochReport) -> float | None:
    """mAP on the pictures held out, as the metrics tell it; None if there are none, or none of them shows a label."""
    score: float | None = report.scores["mAP"] if report.scores else None
    # Also where scores are compared: after a resume the last epoch comes again, and the best score so far is that of the metrics.
    return None if score is None else round(score, 3)


def is_trained(out: Path) -> bool:
    """Whether a stage is over: its checkpoint is there, and nothing more to go on from."""
    return (out / CARD).exists() and (out / WEIGHTS).exists() and not (out / STATE).exists()


def link_checkpoint(source: Path, target: Path) -> None:
    """A second name for a checkpoint, which stays what it is when the first one is replaced; costs no space where there are hard links."""
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    fresh.mkdir(parents=True)
    for name in (WEIGHTS, CARD):
        _link_file(source / name, fresh / name)
    remove_folder(target)
    fresh.rename(target)


def _link_file(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        # Not every network file system knows hard links.
        replace_file(target, lambda part: shutil.copyfile(source, part))


def describe_failure(error: Exception) -> str:
    """Why a job failed, as a sentence for whoever ordered it."""
    text = str(error).strip()
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in text:
        return "The disk is full: make room and resume; everything up to the last finished epoch is kept."
    if lacks_memory(error):
        return "The memory did not suffice: order a smaller batch_size or image_size."
    if isinstance(error, StateError):
        # As when models that come with the app were trained anew since.
        return f"The training cannot be gone on with: {error.reason}. Order the job anew to start over."
    if isinstance(error, ValueError | OSError | ArithmeticError):
        return text or type(error).__name__
    return f"{type(error).__name__}: {(text.splitlines() or [''])[0]} The log tells the whole story."


def main(job: str, places: Places, attached: bool) -> int:
    """The entry of `python -m app job ID`.

    Args:
        attached: started by a worker on this machine, and ends with it.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    choose_lines()
    folder = JobFolder(places.jobs / job)
    task = folder.read_task()
    if attached:
        die_with_parent()
    else:
        die_with_claim(Queue(places.state), job, task.attempt)
    os.nice(NICENESS)
    yield_memory()
    with processes.joined():
        code, together = run_job(folder, places, task), processes.count() > 1
    # On a cluster Ray joined the processes, and goes on with them.
    if together and processes.count() == 1:
        # All is written. Threads of torch's outlive the group, and one that asks for Python's lock while Python ends aborts the process.
        logging.shutdown()
        os._exit(code)
    return code
