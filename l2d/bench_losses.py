"""What the losses between labels and pictures cost, beside their definitions as loops."""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from l2d.bench import measure_in_turns
from l2d.environment import describe_program
from l2d.losses.embeddings import cd, id, one_batch
from l2d.losses.logits import mld
from l2d.losses.relations import find_pairs
from l2d.outputs import Outputs
from l2d.progress import Progress

# Labels of a photograph of MS-COCO, on average.
POSITIVES = 2.9
# No label stands in more than this share of the pictures.
COMMONEST = 0.6


def bench_losses(
    *,
    images: int,
    labels: int,
    width: int,
    rounds: int,
    device: torch.device,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Time cd + id + mld, forward and backward, against a loop over labels and images that follows their definitions.

    Returns:
        `setting`, `pairs` (that the relation losses compare), `milliseconds` (the medians of ours and of the loop), `ratio` (the median
        of the rounds' ratios), and `disagreement` (of the two sums, relative: both compute the same).
    """
    targets = draw_targets(images, labels)
    generator = torch.Generator().manual_seed(1)
    student, teacher = (_draw_outputs(images, labels, width, generator, device) for _ in range(2))
    teacher = Outputs((), teacher.embeddings.detach(), teacher.logits.detach())
    sums = {"ours": partial(sum_losses, student, teacher, targets), "loop": partial(loop_over_losses, student, teacher, targets)}
    values = {name: float(compute().detach()) for name, compute in sums.items()}
    seconds = measure_in_turns(
        {name: partial(_differentiate, compute, student) for name, compute in sums.items()}, rounds, device, progress
    )
    return {
        "setting": describe_program(device)
        | {"images": images, "labels": labels, "width": width, "positives": float(targets.sum()) / images},
        "pairs": {"cd": len(find_pairs(targets.T).first), "id": len(find_pairs(targets).first)},
        "milliseconds": {name: 1000 * statistics.median(times) for name, times in seconds.items()},
        "ratio": statistics.median(loop / ours for ours, loop in zip(seconds["ours"], seconds["loop"], strict=True)),
        "disagreement": abs(values["ours"] - values["loop"]) / abs(values["loop"]),
        "rounds": rounds,
    }


def draw_targets(images: int, labels: int) -> Tensor:
    """Labels as unevenly frequent as those of photographs, 2.9 a picture where there are labels enough: (N, C).

    The k-th label is 1/k as frequent as the first (Zipf), as MS-COCO's nearly are.
    """
    frequencies = 1 / torch.arange(1, labels + 1)
    frequencies = (frequencies * POSITIVES / frequencies.sum()).clamp(max=COMMONEST)
    return (torch.rand(images, labels, generator=torch.Generator().manual_seed(0)) < frequencies).float()


def sum_losses(student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
    """The losses that l2d adds to the labels' own, unweighted, as a `Distiller` computes them."""
    with one_batch():
        return cd(student, teacher, targets) + id(student, teacher, targets) + mld(student, teacher, targets)


def loop_over_losses(student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
    """The same sum, label by label and image by image, as the definitions read."""
    images, labels = targets.shape
    total = student.logits.new_zeros(())
    for label in range(labels):
        s, t = student.logits[:, label], teacher.logits[:, label]
        present = t.sigmoid() * (F.logsigmoid(t) - F.logsigmoid(s))
        absent = (-t).sigmoid() * (F.logsigmoid(-t) - F.logsigmoid(-s))
        total = total + (present + absent).sum() / images
        total = total + _compare_group(student.embeddings[:, label], teacher.embeddings[:, label], targets[:, label])
    for image in range(images):
        total = total + _compare_group(student.embeddings[image], teacher.embeddings[image], targets[image])
    return total


def _compare_group(student: Tensor, teacher: Tensor, membership: Tensor) -> Tensor:
    """Huber losses of all ordered pairs of a group's members, over the number of members, from embeddings (M, E)."""
    members = membership.nonzero()[:, 0].to(student.device)
    if len(members) < 2:
        return student.new_zeros(())
    distances = [_relative_distances(one[members]) for one in (student, teacher)]
    return F.smooth_l1_loss(distances[0], distances[1], reduction="sum") / len(members)


def _relative_distances(embeddings: Tensor) -> Tensor:
    squared = (embeddings[:, None] - embeddings[None]).square().sum(-1)
    apart = ~torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    distances = torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)
    return distances / distances[apart].mean()


def _differentiate(compute: Callable[[], Tensor], student: Outputs) -> None:
    student.embeddings.grad = student.logits.grad = None
    compute().backward()


def _draw_outputs(images: int, labels: int, width: int, generator: torch.Generator, device: torch.device) -> Outputs:
    embeddings, logits = torch.randn(images, labels, width, generator=generator), torch.randn(images, labels, generator=generator)
    return Outputs((), *(one.to(device).requires_grad_() for one in (embeddings, logits)))
