"""Training, with or without a teacher."""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from l2d.checkpoint import ModelCard
from l2d.data.augmentation import augment
from l2d.data.images import Index, Pictures, normalise
from l2d.distill import Distiller, choose_weights
from l2d.evaluate import check_labels, evaluate
from l2d.model import LabelNet
from l2d.outputs import Outputs
from l2d.recipe import Recipe

# Losses are read back from the device this often: for progress, and to stop early when one is no longer a number.
REPORT_EVERY = 10


class Network(NamedTuple):
    """A network with its card, as `load_checkpoint` returns them."""

    model: LabelNet
    card: ModelCard


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
    scores: dict | None
    model: LabelNet
    seconds: float
    total_seconds: float
    images_per_second: float


StepCallback = Callable[[StepReport], None]


class DivergenceError(ArithmeticError):
    """A loss is no longer a number."""


def fit(
    student: Network,
    index: Index,
    recipe: Recipe,
    *,
    teacher: Network | None = None,
    device: torch.device | str = "cpu",
    state: Path | None = None,
    on_step: StepCallback | None = None,
) -> Iterator[EpochReport]:
    """Train a student epoch by epoch; the caller may stop after any of them.

    On the CPU the result is the same bit for bit for the same seed and number of threads. With `state`, everything that the next
    epoch depends on is written there after each one, and a run that finds the file goes on from it as if it had never stopped. It
    gives the last finished epoch's report once more, since the caller may have died before it could keep what the report holds.

    Raises:
        ValueError: if the labels of data set, student and teacher differ.
        DivergenceError: naming the epoch and the loss that became NaN or infinite.
    """
    for network in (student, teacher):
        if network is not None:
            check_labels(network.card, index)
    run = _Run(student, index, recipe, teacher, torch.device(device))
    if state is not None and state.exists() and (last := run.load(state)) is not None:
        yield last
    while run.epoch < recipe.epochs:
        report = run.train_epoch(on_step)
        if state is not None:
            run.save(state, report)
        yield report


class _Run:
    """The moving parts of one call of `fit`."""

    def __init__(self, student: Network, index: Index, recipe: Recipe, teacher: Network | None, device: torch.device):
        self.recipe, self.device, self.card = recipe, device, student.card
        self.training, self.held_out = split_index(index, recipe.holdout)
        weights = choose_weights(recipe.method, recipe.weights)
        self.teacher = teacher if weights else None
        self.student = student.model.to(device, memory_format=torch.channels_last).requires_grad_(True)
        self.distiller = Distiller(weights, self.student, self.teacher and self.teacher.model)
        self.distiller.to(device, memory_format=torch.channels_last)
        if self.teacher:
            self.teacher.model.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
        self.frozen = freeze_stages(self.student, recipe.freeze_stages, recipe.train_size)
        # Also for a method that ignores its teacher: students that are compared with each other see the same pixels.
        self.size = max(recipe.train_size, recipe.teacher_size) if teacher else recipe.train_size
        self.pictures = Pictures(self.training.paths, self.size)
        self.batch_size = min(recipe.batch_size, len(self.training.paths))
        self.steps = len(self.training.paths) // self.batch_size
        self.optimizer, self.scheduler = create_optimizer(nn.ModuleList([self.student, self.distiller]), recipe, self.steps)
        self.average = _create_average(self.student, recipe.averaging)
        self.epoch, self.seconds = 0, 0.0

    def train_epoch(self, on_step: StepCallback | None) -> EpochReport:
        start = time.monotonic()
        # Every epoch draws from its own seeds, so a resumed run needs no state of any random generator.
        torch.manual_seed(self.recipe.seed * 100_003 + self.epoch)
        generator = torch.Generator().manual_seed(self.recipe.seed * 100_003 + self.epoch)
        self._set_training_mode()
        order = torch.randperm(len(self.training.paths), generator=generator)[: self.steps * self.batch_size].view(self.steps, -1).tolist()
        totals: dict[str, Tensor] = {}
        for step, (rows, batch) in enumerate(zip(order, self.pictures.batches(order), strict=True), 1):
            parts = self._train_step(batch, self.training.targets[rows], generator)
            for name, part in parts.items():
                totals[name] = totals.get(name, 0) + part.detach()
            if step % REPORT_EVERY == 0 or step == self.steps:
                means = {name: float(total) / step for name, total in totals.items()}
                self._check(means)
                if on_step is not None:
                    on_step(StepReport(self.epoch + 1, step, self.steps, means))
        trained = time.monotonic() - start
        self.epoch += 1
        scores = evaluate(self.result, self.card, self.held_out) if self.held_out is not None else None
        seconds = time.monotonic() - start
        self.seconds += seconds
        return EpochReport(self.epoch, means, scores, self.result, seconds, self.seconds, self.steps * self.batch_size / trained)

    @property
    def result(self) -> LabelNet:
        """The network as it would be saved now."""
        return self.average.module if self.average is not None else self.student

    def _train_step(self, batch: Tensor, targets: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        recipe = self.recipe
        view = augment(
            batch.to(self.device, non_blocking=True), generator, min_area=recipe.min_area, colour=recipe.colour, cutout=recipe.cutout
        )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=supports_bfloat16(self.device)):
            taught = self._teach(view)
            outputs: Outputs = self.student(prepare(view, recipe.train_size, self.card))
            parts = self.distiller(outputs, taught, targets)
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
            return self.teacher.model(prepare(view, self.recipe.teacher_size, self.teacher.card))

    def _set_training_mode(self) -> None:
        self.student.train()
        self.distiller.train()
        for module in self.frozen:
            module.eval()

    def _check(self, means: dict[str, float]) -> None:
        for name, value in means.items():
            if not torch.isfinite(torch.tensor(value)):
                raise DivergenceError(f"The {name} loss became {value} in epoch {self.epoch + 1}; lower the learning rate or its weight.")

    def save(self, path: Path, report: EpochReport) -> None:
        """Write everything that the next epoch depends on, and the last one's report, beside its place and then renamed."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        state |= {"epoch": self.epoch, "seconds": self.seconds, "recipe": dataclasses.asdict(self.recipe)}
        state["report"] = {name: value for name, value in report._asdict().items() if name != "model"}
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save(state, file)
                # Otherwise a power cut may keep the new name and lose the content.
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def load(self, path: Path) -> EpochReport | None:
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            if state["recipe"] != dataclasses.asdict(self.recipe):
                changed = [name for name, value in dataclasses.asdict(self.recipe).items() if state["recipe"].get(name) != value]
                raise ValueError(f"it belongs to a run with other settings ({', '.join(changed)})")
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            self.epoch, self.seconds = state["epoch"], state["seconds"]
            # Runs that began before reports were kept go on without.
            return EpochReport(**state["report"] | {"model": self.result}) if "report" in state else None
        except Exception as error:  # torch.load fails in many ways on a damaged file
            raise ValueError(f"Cannot resume from {path}: {error}. Remove the file to start over.") from error

    def _parts(self) -> dict:
        parts = {"student": self.student, "distiller": self.distiller, "optimizer": self.optimizer, "scheduler": self.scheduler}
        return parts | ({"average": self.average} if self.average is not None else {})


def split_index(index: Index, holdout: float) -> tuple[Index, Index | None]:
    """Set a share of the pictures aside, the same ones for every seed and method."""
    order = torch.randperm(len(index.paths), generator=torch.Generator().manual_seed(0)).tolist()
    count = round(holdout * len(order))
    return index.select(sorted(order[count:])), index.select(sorted(order[:count])) if count else None


def prepare(view: Tensor, size: int, card: ModelCard) -> Tensor:
    """A view in [0, 1] as a network's input of `size` pixels a side."""
    if view.shape[-1] != size:
        view = F.interpolate(view, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return normalise(view, card.mean, card.std).contiguous(memory_format=torch.channels_last)


def create_optimizer(model: nn.Module, recipe: Recipe, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Adam under a one-cycle schedule; weight decay on matrices and kernels only."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.Adam(groups, lr=recipe.lr)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, recipe.epochs * steps, pct_start=recipe.warmup)
    return optimizer, scheduler


def freeze_stages(model: LabelNet, count: int, image_size: int) -> list[nn.Module]:
    """Freeze whatever the backbone's first `count` stages depend on; return the modules that must stay in evaluation mode.

    The graph of a forward pass tells which weights these are, for every architecture.
    """
    if not count:
        return []
    device = next(model.parameters()).device
    model.eval()
    stages = model(torch.zeros(1, 3, image_size, image_size, device=device)).features
    if count >= len(stages):
        raise ValueError(f"freeze_stages must be below {len(stages)}, the number of stages; got {count}.")
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(stages[count - 1].sum(), parameters, allow_unused=True)
    early = {parameter for parameter, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
    for parameter in early:
        parameter.requires_grad_(False)
    return [module for module in model.modules() if any(p in early for p in module.parameters(recurse=False))]


def supports_bfloat16(device: torch.device) -> bool:
    """Whether mixed precision pays: on any recent GPU, and on CPUs with bfloat16 arithmetic."""
    return device.type == "cuda" or (device.type == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16")))


def _create_average(model: LabelNet, decay: float) -> AveragedModel | None:
    if not decay:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
