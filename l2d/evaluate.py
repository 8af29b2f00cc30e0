"""Scores of a network on labelled pictures."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from l2d.checkpoint import ModelCard
from l2d.data.images import Index, Pictures, normalise
from l2d.metrics import score_report
from l2d.model import LabelNet

Progress = Callable[[int, int], None]


def evaluate(model: LabelNet, card: ModelCard, index: Index, *, progress: Progress | None = None, batch_size: int = 64) -> dict[str, Any]:
    """Every score of `l2d.metrics.score_report` on the pictures of an index.

    Raises:
        ValueError: if the data set's labels are not the network's, in the same order.
    """
    check_labels(card, index)
    scores = predict(model, card, index, progress=progress, batch_size=batch_size)
    return score_report(scores, index.targets, index.labels)


def predict(model: LabelNet, card: ModelCard, index: Index, *, progress: Progress | None = None, batch_size: int = 64) -> Tensor:
    """Probabilities of every label for every picture, (N, C), on the host; leaves the mode of every module as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            return torch.cat(list(_predict_batches(model, card, index, progress, batch_size)))
    finally:
        for module, training in modes:
            module.training = training


def check_labels(card: ModelCard, index: Index) -> None:
    """Refuse a data set whose labels are not the network's: scores by position would be meaningless."""
    if card.labels != index.labels:
        unknown = [label for label in index.labels if label not in card.labels]
        missing = [label for label in card.labels if label not in index.labels]
        reason = f"{len(unknown)} unknown to it ({', '.join(unknown[:3])}), {len(missing)} missing ({', '.join(missing[:3])})"
        order = "the same labels in another order" if not unknown and not missing else reason
        raise ValueError(f"{card.name} was trained for {len(card.labels)} labels; the data set has {len(index.labels)}: {order}.")


def _predict_batches(model: LabelNet, card: ModelCard, index: Index, progress: Progress | None, batch_size: int) -> Iterator[Tensor]:
    device = next(model.parameters()).device
    pictures = Pictures(index.paths, card.image_size, keep=False)
    rows = torch.arange(len(index.paths)).split(batch_size)
    for step, batch in enumerate(pictures.batches([row.tolist() for row in rows]), 1):
        images = normalise(batch.to(device).float() / 255, card.mean, card.std)
        yield model(images.contiguous(memory_format=torch.channels_last)).logits.float().sigmoid().cpu()
        if progress is not None:
            progress(step, len(rows))
