"""What a step of distillation costs, part by part; and how costs that are compared are timed, in turns on the same machine."""

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from l2d.data import read_index
from l2d.data.augmentation import augment
from l2d.data.images import Index, Pictures
from l2d.device import choose_memory_format, keep_freed_memory, supports_bfloat16
from l2d.environment import describe_program
from l2d.graphs import record
from l2d.memory import Untrained, compare_memory
from l2d.outputs import Outputs
from l2d.progress import Progress

# How long the loader is watched, and batches that it is asked for: many, as in training, which is then decoded by the same means.
LOADER_SECONDS = 5.0
LOADER_BATCHES = 1000


def bench_training(
    data: str,
    *,
    teacher: str,
    student: str,
    method: str = "l2d",
    image_size: int,
    batch_size: int,
    rounds: int,
    device: torch.device,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Take a step of distillation apart, with random weights.

    The step finds its pictures in memory, as training does after its first epoch. A data set too large for that is decoded in every
    epoch: how fast that goes is measured alone, lest it slow down parts of the step that have nothing to do with it.

    Returns:
        `setting`, `milliseconds` (median of every part of a step: `wait` for pictures, `augment`, `teacher` forward, `student_forward`,
        `losses` forward and backward, `student_backward`, `optimizer`), `shares` (the same as shares of the step), `images_per_second`
        (of the step, and of the `data` path alone: decoding with nothing kept), `waiting` (the share of its time that training with
        nothing kept waits for pictures, as follows from these two; more where both need the same processors), and `memory`, see
        `compare_memory`.
    """
    keep_freed_memory()
    index = read_index(data, "train")
    step = Step(index, teacher, student, method, image_size, batch_size, device)
    # The first step also makes what the others find.
    medians = {name: statistics.median(seconds[1:]) for name, seconds in step.run(rounds + 1, progress).items()}
    whole = sum(medians.values())
    speeds = {"step": step.batch_size / whole, "data": measure_data_path(index, image_size, step.batch_size, device)}
    return {
        "setting": describe_program(device)
        | {"data": data, "teacher": teacher, "student": student, "method": method, "image_size": image_size, "batch_size": step.batch_size},
        "milliseconds": {name: 1000 * seconds for name, seconds in medians.items()},
        "shares": {name: seconds / whole for name, seconds in medians.items()},
        "images_per_second": speeds,
        "waiting": max(0.0, 1 - speeds["data"] / speeds["step"]),
        "memory": compare_memory(teacher, student, index.targets[: step.batch_size], method, image_size, device),
        "rounds": rounds,
    }


class Step(Untrained):
    """A step of distillation whose parts can be timed one by one: the same operations in the same order as in training.

    The losses are differentiated as far as the student's outputs, and the student from there on.
    """

    def __init__(self, index: Index, teacher: str, student: str, method: str, image_size: int, batch_size: int, device: torch.device):
        super().__init__(teacher, student, len(index.labels), method, image_size, device)
        self.index, self.image_size, self.device = index, image_size, device
        self.batch_size = min(batch_size, len(index.paths))
        images = torch.zeros(self.batch_size, 3, image_size, image_size, device=device)
        self.format = choose_memory_format(self.student, device)
        self.learn = record(self.student, images.contiguous(memory_format=self.format))
        self.teach = record(self.teacher, images.contiguous(memory_format=torch.channels_last))

    def run(self, steps: int, progress: Progress | None = None) -> dict[str, list[float]]:
        """Seconds of every part in each of so many steps, with the pictures in memory."""
        generator = torch.Generator().manual_seed(0)
        rows = choose_rows(self.index, self.batch_size, steps)
        pictures = Pictures(self.index.paths[: self.batch_size * steps], self.image_size, pinned=self.device.type == "cuda")
        pictures.read(range(len(pictures.paths)))
        clock = Clock(self.device)
        for done, (chosen, batch) in enumerate(zip(rows, pictures.batches(rows), strict=True), 1):
            clock.lap("wait")
            self.take(augment(batch.to(self.device, non_blocking=True), generator), self.index.targets[chosen], clock)
            if progress is not None:
                progress(done, steps)
                clock.lap("")
        return clock.read()

    def take(self, images: Tensor, targets: Tensor, clock: "Clock") -> None:
        """One step on pictures (N, 3, S, S) in [0, 1]."""
        clock.lap("augment")
        with torch.autocast(self.device.type, torch.bfloat16, enabled=supports_bfloat16(self.device)):
            with torch.no_grad():
                taught = self.distiller.keep(self.teach(images.contiguous(memory_format=torch.channels_last)))
            clock.lap("teacher")
            outputs = self.learn(images.contiguous(memory_format=self.format))
            clock.lap("student_forward")
            leaves = Outputs(tuple(_cut(one) for one in outputs.features), _cut(outputs.embeddings), _cut(outputs.logits))
            parts = self.distiller(leaves, taught, targets)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()
        clock.lap("losses")
        ends = [(end, leaf.grad) for end, leaf in zip(tree_leaves(outputs), tree_leaves(leaves), strict=True) if leaf.grad is not None]
        torch.autograd.backward([end for end, _ in ends], [gradient for _, gradient in ends])
        clock.lap("student_backward")
        self.optimizer.step()
        clock.lap("optimizer")


class Clock:
    """Times parts that follow each other, over and over, on the device that does the work.

    Nothing waits for a GPU, to which Python orders work ahead: a part lasts as long as the GPU is busy with it or idle before it, as in
    training.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.marks = [("", self._mark())]

    def lap(self, name: str) -> None:
        """What came after the last lap was this part, or none if it has no name."""
        self.marks.append((name, self._mark()))

    def read(self) -> dict[str, list[float]]:
        """Seconds of every part, each time that it came; waits for the device."""
        _synchronise(self.device)
        seconds: dict[str, list[float]] = {}
        for (_, before), (name, after) in itertools.pairwise(self.marks):
            if name:
                seconds.setdefault(name, []).append(after - before if isinstance(after, float) else before.elapsed_time(after) / 1000)
        return seconds

    def _mark(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def choose_rows(index: Index, batch_size: int, batches: int) -> list[list[int]]:
    """Pictures of so many batches, in their order; after the last one comes the first again."""
    return [[(batch * batch_size + place) % len(index.paths) for place in range(batch_size)] for batch in range(batches)]


def measure_data_path(index: Index, image_size: int, batch_size: int, device: torch.device) -> float:
    """Pictures per second that the loader delivers alone, decoding each, once it is at work."""
    pictures = Pictures(index.paths, image_size, keep=False, pinned=device.type == "cuda")
    count, seconds = 0, 0.0
    with contextlib.closing(pictures.batches(choose_rows(index, batch_size, LOADER_BATCHES))) as batches:
        next(batches)
        start = time.perf_counter()
        while seconds < LOADER_SECONDS and (batch := next(batches, None)) is not None:
            count, seconds = count + len(batch), time.perf_counter() - start
    return count / seconds


def measure_in_turns(
    candidates: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, progress: Progress | None = None
) -> dict[str, list[float]]:
    """Seconds of each candidate in every round; a machine that gets slower does so for all of them.

    In its turn each runs twice, and the second run counts: the first one finds caches and memory as another candidate left them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds):
        if progress is not None:
            progress(number, rounds)
        for name, run in candidates.items():
            run()
            _synchronise(device)
            start = time.perf_counter()
            run()
            _synchronise(device)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def _cut(output: Tensor) -> Tensor:
    return output.detach().requires_grad_()


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
