"""Scores of a network on labelled pictures."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from l2d import processes
from l2d.bootstrap import Intervals, find_intervals
from l2d.checkpoint import ModelCard
from l2d.data.files import describe_differences
from l2d.data.images import Index, Pictures, check_index, normalise
from l2d.device import keep_freed_memory
from l2d.metrics import f1_scores, predict_oracle_k, score_report, weighted_precisions
from l2d.model import LabelNet, evaluating
from l2d.progress import Progress


def evaluate(model: LabelNet, card: ModelCard, index: Index, *, progress: Progress | None = None, batch_size: int = 64) -> dict[str, Any]:
    """Every score of `l2d.metrics.score_report` on the pictures of an index; errors as of `predict`."""
    scores = predict(model, card, index, progress=progress, batch_size=batch_size)
    return score_report(scores, index.targets, index.labels)


def predict(model: LabelNet, card: ModelCard, index: Index, *, progress: Progress | None = None, batch_size: int = 64) -> Tensor:
    """Probabilities of every label for every picture, (N, C), on the host; leaves the mode of every module as it was.

    Several processes look at a part of the pictures each, and all of them know the whole at the end.

    Raises:
        ValueError: if the data set's labels are not the network's, in the same order.
    """
    check_labels(card, index)
    keep_freed_memory()
    own = index.select(range(processes.rank(), len(index.paths), processes.count()))
    with evaluating(model), torch.inference_mode():
        # A process may be left without a picture.
        scores = torch.cat([torch.empty(0, len(index.labels)), *_predict_batches(model, card, own, progress, batch_size)])
    parts = processes.gather_objects(scores)
    return torch.stack([parts[row % len(parts)][row // len(parts)] for row in range(len(index.paths))]) if len(parts) > 1 else scores


def compare(ours: Tensor, theirs: Tensor, targets: Tensor, *, progress: Progress | None = None) -> Intervals:
    """What one network's probabilities (N, C) score more than another's of the same pictures, in percent: mAP, OF1 and CF1 (`oracle_k`).

    Returns:
        As `l2d.bootstrap.find_intervals`.
    """
    first, second = _score_draws(ours, targets), _score_draws(theirs, targets)

    def differ(rows: Tensor) -> dict[str, float]:
        less = second(rows)
        return {name: value - less[name] for name, value in first(rows).items()}

    return find_intervals(differ, len(targets), progress=progress)


def check_labels(card: ModelCard, index: Index) -> None:
    """Refuse a data set whose labels are not the network's: scores by position would be meaningless.

    Raises:
        ValueError: naming the labels that differ, or as `l2d.data.images.check_index`.
    """
    check_index(index)
    if differences := describe_differences(card.labels, index.labels):
        labels = f"{len(card.labels)} label{'s' * (len(card.labels) > 1)}"
        known = set(index.labels) <= set(card.labels)
        advice = " l2d.checkpoint.select_labels makes a network of just the data set's labels (docs/training.md)." if known else ""
        raise ValueError(f"{card.name} was trained for {labels}; the data set has {len(index.labels)}: {differences}.{advice}")


def _score_draws(scores: Tensor, targets: Tensor) -> Callable[[Tensor], dict[str, float]]:
    """The scores to compare as a function of the pictures drawn; what does not depend on the draw is done once."""
    precisions, predicted = weighted_precisions(scores, targets), predict_oracle_k(scores, targets)

    def score(rows: Tensor) -> dict[str, float]:
        f1 = f1_scores(predicted[rows], targets[rows])
        mean = precisions(torch.bincount(rows, minlength=len(targets))).nanmean()
        return {"mAP": float(mean)} | {name: math.nan if (value := f1[name]) is None else value for name in ("OF1", "CF1")}

    return score


def _predict_batches(model: LabelNet, card: ModelCard, index: Index, progress: Progress | None, batch_size: int) -> Iterator[Tensor]:
    device = next(model.parameters()).device
    pictures = Pictures(index.paths, card.image_size, keep=False, pinned=device.type == "cuda")
    rows = [range(start, min(start + batch_size, len(index.paths))) for start in range(0, len(index.paths), batch_size)]
    for step, batch in enumerate(pictures.batches(rows), 1):
        images = normalise(batch.to(device).float() / 255, card.mean, card.std)
        yield model(images.contiguous(memory_format=torch.channels_last)).logits.float().sigmoid().cpu()
        if progress is not None:
            progress(step, len(rows))
