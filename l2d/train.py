"""Training, with or without a teacher."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2d import processes
from l2d.checkpoint import ModelCard, Network, name_origin
from l2d.data.augmentation import augment
from l2d.data.images import Index, Pictures, normalise
from l2d.device import choose_memory_format, keep_freed_memory, supports_bfloat16
from l2d.distill import Distiller, choose_weights
from l2d.evaluate import check_labels, evaluate
from l2d.graphs import record
from l2d.meter import LossMeter
from l2d.model import LabelNet
from l2d.optimizer import create_average, create_optimizer, freeze_stages, freeze_unused
from l2d.outputs import Outputs
from l2d.recipe import Recipe, count_held_out, count_trained
from l2d.state import load_state, save_state

# Losses are read back from the device this often: for progress, and to stop early when one is no longer a number.
REPORT_EVERY = 10
# Every run's seed stands for so many: one for each epoch, and the last for the losses' own weights.
SEEDS_PER_RUN = 100_003


class StepReport(NamedTuple):
    """Where a run is, several times per epoch."""

    epoch: int
    step: int
    steps: int
    losses: dict[str, float]


class EpochReport(NamedTuple):
    """What one epoch did.

    Attributes:
        epoch: 1 for the first.
        losses: mean of every weighted loss over the epoch's steps, by name.
        scores: `evaluate`'s report on the pictures held out, or None.
        model: the network as it would be saved now (the averaged one, if the recipe averages).
        seconds, total_seconds: time that this epoch took, and all so far, earlier parts of a resumed run included.
        images_per_second: training alone, without the evaluation.
    """

    epoch: int
    losses: dict[str, float]
    scores: dict[str, Any] | None
    model: LabelNet
    seconds: float
    total_seconds: float
    images_per_second: float

    def __repr__(self) -> str:
        """Short, as a notebook shows it."""
        told = [f"{name} {value:.4g}" for name, value in self.losses.items()]
        if self.scores is not None and self.scores["mAP"] is not None:
            told.append(f"held-out mAP {self.scores['mAP']:.2f}")
        return f"<EpochReport {self.epoch}: {', '.join(told)}, {self.seconds:.1f} s>"


StepCallback = Callable[[StepReport], None]


def fit(
    student: Network,
    index: Index,
    recipe: Recipe,
    *,
    teacher: Network | None = None,
    device: torch.device | str = "cpu",
    state: Path | str | None = None,
    on_step: StepCallback | None = None,
) -> Iterator[EpochReport]:
    """Train a student, in place, epoch by epoch; the caller may stop after any of them.

    Within `l2d.processes.joined`, every process trains on its share of each batch, writes nothing but for the main one, and gives the
    same reports.

    An epoch visits the pictures in random order, in full batches only: a last uneven batch would weigh its pictures more, and one of
    a single picture has no variance to normalise by. Its pictures are left out, others in every epoch.

    On the CPU the result is the same bit for bit for the same seed and number of threads, in a process that draws nothing else meanwhile:
    torch's global generator, which all threads share, is seeded anew for every epoch. With `state`, everything that the next
    epoch depends on is written there after each one, and a run that finds the file goes on from it as if it had never stopped. It
    gives the last finished epoch's report once more, since the caller may have died before it could keep what the report holds.

    Raises:
        ValueError: before anything is trained, if the labels of data set, student and teacher differ, there are too few pictures, the
            file of the state is damaged or belongs to another run, student and teacher are one network, gradients are switched off, or
            a loss is no scalar or has no gradient.
        l2d.meter.DivergenceError: naming the epoch and the losses that became NaN or infinite first.
    """
    _check_learning(student, teacher)
    for network in (student, teacher):
        if network is not None:
            check_labels(network.card, index)
    state = None if state is None else Path(state)
    keep_freed_memory()
    run = _Run(student, index, recipe, teacher, torch.device(device))
    if state is not None and state.exists():
        last = run.load(state)
        processes.wait()
        yield last
    while run.epoch < recipe.epochs:
        report = run.train_epoch(on_step)
        if state is not None and processes.is_main():
            run.save(state, report)
        yield report


class _Run:
    """The moving parts of one call of `fit`."""

    def __init__(self, student: Network, index: Index, recipe: Recipe, teacher: Network | None, device: torch.device):
        self.recipe, self.device, self.card = recipe, device, student.card
        # Also for a method that ignores its teacher: students that are compared with each other see the same pixels.
        self._split(index, max(recipe.train_size, recipe.teacher_size) if teacher is not None else recipe.train_size)
        weights = choose_weights(recipe.method, recipe.weights)
        self.teacher = teacher if weights else None
        self._place(student.model, weights)
        self.frozen = freeze_stages(self.student, recipe.freeze_stages, recipe.train_size)
        self.optimizer, self.scheduler = create_optimizer(nn.ModuleList([self.student, self.distiller]), recipe, self.steps)
        self.average = create_average(self.student, recipe.averaging)
        if processes.count() > 1:
            freeze_unused(self.student, recipe.train_size)
        self.epoch, self.seconds = 0, 0.0
        self._set_training_mode()
        self.objective = processes.parallelise(_Objective(self._record(self.student, recipe.train_size, self.format), self.distiller))
        if self.teacher is not None:
            self.recorded_teacher = self._record(self.teacher.model, recipe.teacher_size, torch.channels_last)

    def _split(self, index: Index, size: int) -> None:
        """Pictures to train on, in batches, and pictures held out."""
        self.training, self.held_out = split_index(index, self.recipe.holdout, self.recipe.share)
        count = len(self.training.paths)
        if count < 2:
            raise ValueError(f"Training needs at least two pictures besides those held out; the data set leaves {count}.")
        if not ((self.training.targets >= 0) & (self.training.targets <= 1)).all():
            raise ValueError("Targets must lie between 0 and 1, an absent label being 0; some do not. Decide on unknown labels first.")
        if not self.training.targets.any():
            raise ValueError(f"None of the {count} pictures to train on shows a label; look at the data set with l2d data check.")
        self.pictures = Pictures(self.training.paths, size, pinned=self.device.type == "cuda")
        self.batch_size = processes.choose_batch_size(self.recipe.batch_size, count)
        self.share = processes.share(self.batch_size)
        self.steps = count // self.batch_size

    def _place(self, student: LabelNet, weights: Mapping[str, float]) -> None:
        """Networks and losses on the device, in the layout that it likes best."""
        self.format = choose_memory_format(student, self.device)
        self.student = student.to(self.device).to(memory_format=self.format).requires_grad_(True)
        # Losses with weights of their own draw them here, whatever was drawn before.
        torch.manual_seed(self._seed(SEEDS_PER_RUN - 1))
        self.distiller = Distiller(weights, self.student, self.teacher.model if self.teacher is not None else None)
        self.distiller.to(self.device).to(memory_format=self.format)
        if self.teacher is not None:
            self.teacher.model.to(self.device).to(memory_format=torch.channels_last).eval().requires_grad_(False)

    def _record(self, model: LabelNet, size: int, memory_format: torch.memory_format) -> nn.Module:
        images = torch.zeros(self.share.stop - self.share.start, 3, size, size, device=self.device)
        return record(model, images.contiguous(memory_format=memory_format))

    def train_epoch(self, on_step: StepCallback | None) -> EpochReport:
        """One pass over the pictures, then the scores on those held out."""
        start = time.monotonic()
        means = self._visit_pictures(on_step)
        trained = time.monotonic() - start
        self.epoch += 1
        processes.share_buffers(self.student, self.result)
        scores = evaluate(self.result, self.card, self.held_out) if self.held_out is not None else None
        seconds = time.monotonic() - start
        self.seconds += seconds
        return EpochReport(self.epoch, means, scores, self.result, seconds, self.seconds, self.steps * self.batch_size / trained)

    def _visit_pictures(self, on_step: StepCallback | None) -> dict[str, float]:
        """Train on every batch once; returns the mean of every loss."""
        # Every epoch draws from its own seeds, so a resumed run needs no state of any random generator.
        torch.manual_seed(self._seed(self.epoch) + processes.rank())
        generator = torch.Generator().manual_seed(self._seed(self.epoch))
        self._set_training_mode()
        shuffled = torch.randperm(len(self.training.paths), generator=generator)[: self.steps * self.batch_size]
        order = shuffled.view(self.steps, -1)[:, self.share].tolist()
        meter = LossMeter(self.epoch + 1)
        means: dict[str, float] = {}
        for step, (rows, batch) in enumerate(zip(order, self.pictures.batches(order), strict=True), 1):
            meter.add(self._train_step(batch, self.training.targets[rows], generator))
            if step % REPORT_EVERY == 0 or step == self.steps:
                means = meter.read()
                if on_step is not None:
                    on_step(StepReport(self.epoch + 1, step, self.steps, means))
        return means

    def _seed(self, number: int) -> int:
        return self.recipe.seed * SEEDS_PER_RUN + number

    @property
    def result(self) -> LabelNet:
        """The network as it would be saved now."""
        return cast(LabelNet, self.average.module) if self.average is not None else self.student

    def _train_step(self, batch: Tensor, targets: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        recipe = self.recipe
        strength = {"min_area": recipe.min_area, "colour": recipe.colour, "cutout": recipe.cutout}
        view = augment(batch.to(self.device, non_blocking=True), generator, recipe.augmentation, **strength)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=supports_bfloat16(self.device)):
            taught = self._teach(view)
            images = prepare(view, recipe.train_size, self.card).contiguous(memory_format=self.format)
            parts: dict[str, Tensor] = self.objective(images, taught, targets)
        _check_gradients(parts)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()
        self.optimizer.step()
        self.scheduler.step()
        if self.average is not None:
            self.average.update_parameters(self.student)
        return parts

    def _teach(self, view: Tensor) -> Outputs | None:
        if self.teacher is None:
            return None
        with torch.no_grad():
            view = prepare(view, self.recipe.teacher_size, self.teacher.card)
            return self.distiller.keep(self.recorded_teacher(view.contiguous(memory_format=torch.channels_last)))

    def _set_training_mode(self) -> None:
        self.student.train()
        self.distiller.train()
        for module in self.frozen:
            module.eval()

    def save(self, path: Path, report: EpochReport) -> None:
        """Write everything that the next epoch depends on, and the last one's report."""
        told = {name: value for name, value in report._asdict().items() if name != "model"}
        save_state(path, self._parts(), self.recipe, self.identity, epoch=self.epoch, seconds=self.seconds, report=told)

    def load(self, path: Path) -> EpochReport:
        """Take up the state of a run; returns its last report."""
        told = load_state(path, self._parts(), self.recipe, self.identity)
        self.epoch, self.seconds = told["epoch"], told["seconds"]
        return EpochReport(**told["report"], model=self.result)

    @property
    def identity(self) -> dict[str, Any]:
        """What else than the recipe tells one run from another."""
        return {
            "backbone": self.card.backbone,
            "image size": self.card.image_size,
            "output stride": self.card.output_stride,
            "size of the head": [self.card.width, self.card.feedforward],
            "scaling of pixels": [*self.card.mean, *self.card.std],
            "origin of its initial weights": name_origin(self.card.lineage),
            "list of labels": list(self.card.labels),
            "teacher": self.teacher.card.sha256 if self.teacher is not None else None,
            "set of pictures": self.training.checksum,
        }

    def _parts(self) -> dict[str, Any]:
        parts = {"student": self.student, "distiller": self.distiller, "optimizer": self.optimizer, "scheduler": self.scheduler}
        return parts | ({"average": self.average} if self.average is not None else {})


def _check_learning(student: Network, teacher: Network | None) -> None:
    if not torch.is_grad_enabled():
        raise ValueError("Gradients are switched off here, by torch.no_grad or its like, so that nothing could learn; train outside of it.")
    if teacher is not None and teacher.model is student.model:
        raise ValueError("Student and teacher are the same network, which cannot both learn and stay as it is; copy.deepcopy makes two.")


def _check_gradients(parts: Mapping[str, Tensor]) -> None:
    """Refuse a loss that trains nothing: the student would go by the name of a method that it did not learn by."""
    idle = [name for name, part in parts.items() if not part.requires_grad]
    if idle:
        raise ValueError(
            f"The {idle[0]} loss has no gradient, so nothing would learn by it: freeze fewer stages, or leave it out. One of your own may "
            "not detach what it takes of the student."
        )


class _Objective(nn.Module):
    """From pictures to losses: student and distiller as the one module that several processes train together."""

    def __init__(self, student: nn.Module, distiller: Distiller):
        super().__init__()
        self.student, self.distiller = student, distiller

    def forward(self, images: Tensor, taught: Outputs | None, targets: Tensor) -> dict[str, Tensor]:
        return self.distiller(self.student(images), taught, targets)


def split_index(index: Index, holdout: float, share: float = 1.0) -> tuple[Index, Index | None]:
    """Set a share of the pictures aside, and take a share of the others to train on: the same ones for every seed and method."""
    order = torch.randperm(len(index.paths), generator=torch.Generator().manual_seed(0)).tolist()
    held_out = count_held_out(len(order), holdout)
    end = held_out + count_trained(len(order), holdout, share)
    return index.select(sorted(order[held_out:end])), index.select(sorted(order[:held_out])) if held_out else None


def prepare(view: Tensor, size: int, card: ModelCard) -> Tensor:
    """A view (N, 3, S, S) in [0, 1] as a network's input of `size` pixels a side."""
    if view.shape[-1] != size:
        view = F.interpolate(view, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return normalise(view, card.mean, card.std)
