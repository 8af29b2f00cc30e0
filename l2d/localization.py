"""Whether maps lie on the objects: the pointing game, and the share of the evidence inside the boxes.

Both judge pairs of a picture and a label that is present in it, predicted or not, by the raw map resized bilinearly to the picture.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from l2d.bootstrap import Intervals, find_intervals
from l2d.cam import label_maps, maps_from_features
from l2d.checkpoint import ModelCard
from l2d.data.images import Box, Index, read_image, to_input, upright_size
from l2d.evaluate import check_labels
from l2d.metrics import THRESHOLD
from l2d.model import LabelNet
from l2d.progress import Progress

# The numbers are MS-COCO's, what they bound is not: there the area of the object's mask in COCO's own pixels, here that of a box in
# those of the picture at hand, since not every data set has masks. So the bins are not COCO's, even less on pictures of another size.
SMALL, LARGE = 32**2, 96**2
SIZES = ("small", "medium", "large")


class Pair(NamedTuple):
    """One label of one picture, judged.

    Attributes:
        hit: the pointing game's answer.
        energy: share of the evidence inside the boxes, in percent.
        size: "small", "medium" or "large": width x height of the label's largest box, in pixels of the picture, with lines at 32 x 32
            and 96 x 96; COCO's bins of these names go by the area of masks. Not the sum or union: twenty small persons are no large
            object, and either measure can be won on the largest one.
        probability: that the network gives the label.
    """

    hit: bool
    energy: float
    size: str
    probability: float


def localize(
    model: LabelNet,
    card: ModelCard,
    index: Index,
    *,
    kind: str = "layercam",
    threshold: float = THRESHOLD,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """How well the maps of every pair of a picture and a label present in it lie on the objects: the report on `judge_pictures`."""
    return report_pairs(judge_pictures(model, card, index, kind=kind, progress=progress), threshold)


def judge_pictures(
    model: LabelNet, card: ModelCard, index: Index, *, kind: str = "layercam", progress: Progress | None = None
) -> list[list[Pair]]:
    """The pairs of every picture, judged.

    Args:
        model: in evaluation mode.
        card: says how a picture becomes the network's input, and what its labels are called.
        index: pictures with boxes; picture and boxes in the same pixels.
        kind: one of `l2d.cam.MAP_KINDS`.
        progress: called with the pictures done and the number of pictures.

    Raises:
        ValueError: if the data set has no boxes, boxes of labels that it does not have, or other labels than the network; naming a
            picture that cannot be decoded.
    """
    if index.boxes is None:
        raise ValueError("Localization needs boxes, and this data set has none; use one with boxes, such as MS-COCO's own annotations.")
    check_labels(card, index)
    if unknown := {label for boxes in index.boxes for label in boxes} - set(range(len(index.labels))):
        raise ValueError(f"Boxes go by the column of their label, from 0 to {len(index.labels) - 1}; got one of {min(unknown)}.")
    pictures = []
    for done, pairs in enumerate(_judge_pictures(model, card, index, kind), 1):
        pictures.append(pairs)
        if progress is not None:
            progress(done, len(index.paths))
    return pictures


def report_pairs(pictures: Sequence[Sequence[Pair]], threshold: float = THRESHOLD) -> dict[str, Any]:
    """The judged pairs of all pictures in numbers.

    Args:
        threshold: a label is predicted from this probability on.

    Returns:
        pairs, pointing_game and energy_in_box (percent, or None without a pair); the same three under `by_size` for labels whose largest
        box is small, medium or large (`Pair.size`), and under `predicted` for the pairs whose label the network predicts, with the
        threshold.
    """
    pairs = list(chain.from_iterable(pictures))
    by_size = {size: summarize([pair for pair in pairs if pair.size == size]) for size in SIZES}
    predicted = summarize([pair for pair in pairs if pair.probability >= threshold])
    return {**summarize(pairs), "by_size": by_size, "predicted": {"threshold": threshold, **predicted}}


def compare(ours: Sequence[Sequence[Pair]], theirs: Sequence[Sequence[Pair]], *, progress: Progress | None = None) -> Intervals:
    """What one network's maps score more than another's on the same judged pictures, in both measures, in percent.

    Returns:
        As `l2d.bootstrap.find_intervals`; pictures are drawn, not pairs, since those of one picture are not independent.
    """
    sums = torch.stack([_sum_pairs(ours), _sum_pairs(theirs)])

    def differ(rows: Tensor) -> dict[str, float]:
        hits, energy, pairs = sums[:, rows].sum(1).unbind(1)
        first, second = torch.stack([100 * hits / pairs, energy / pairs], 1)
        return dict(zip(("pointing_game", "energy_in_box"), (first - second).tolist(), strict=True))

    return find_intervals(differ, len(ours), progress=progress)


def pointing_game(evidence: Tensor, inside: Tensor) -> bool:
    """Whether the maximum of a map (H, W), resized to the picture, lies in the boxes, (H, W) of True and False; no tolerance.

    Of several equal pixels the one nearest the picture's centre counts: a maximum at the border, where resizing has nothing to
    interpolate towards, then lies at the centre of its cell and not at whatever pixel comes first. Without positive evidence: False.

    Source: J. Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016.
    """
    peak = evidence.max()
    if not peak > 0:
        return False
    # Equal but for rounding in the interpolation.
    rows, columns = torch.nonzero(evidence >= peak * (1 - 1e-9), as_tuple=True)
    height, width = evidence.shape
    nearest = ((rows - (height - 1) / 2) ** 2 + (columns - (width - 1) / 2) ** 2).argmin()
    return bool(inside[rows[nearest], columns[nearest]])


def energy_in_box(evidence: Tensor, inside: Tensor) -> float:
    """Share of a map's sum (H, W) that lies inside the boxes, (H, W) of True and False, in percent; 0 without positive evidence.

    Source: H. Wang et al., "Score-CAM", CVPR Workshops 2020 (there for one box; here inside the union of the label's boxes).
    """
    total = evidence.sum()
    return float(100 * evidence[inside].sum() / total) if total > 0 else 0.0


def resize_map(evidence: Tensor, width: int, height: int) -> Tensor:
    """A raw map (h, w) as large as the picture, (height, width), bilinear and in double precision; both span the same field."""
    return F.interpolate(evidence[None, None].double(), size=(height, width), mode="bilinear", align_corners=False)[0, 0]


def mask_boxes(boxes: Sequence[Box], width: int, height: int) -> Tensor:
    """The union of boxes (x, y, width, height) as True and False, (height, width): a pixel belongs to a box that holds its centre.

    A box too narrow for any centre, or too low, has the column or row of its own centre, so that every box in the picture can be hit. One
    beside the picture has no pixel.
    """
    inside = torch.zeros((height, width), dtype=torch.bool)
    for x, y, w, h in boxes:
        inside[_cover(y, h, height), _cover(x, w, width)] = True
    return inside


def summarize(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The number of pairs and both measures over them, in percent; None without a pair."""
    count = len(pairs)
    if not count:
        return {"pairs": 0, "pointing_game": None, "energy_in_box": None}
    return {
        "pairs": count,
        "pointing_game": 100 * sum(pair.hit for pair in pairs) / count,
        "energy_in_box": sum(pair.energy for pair in pairs) / count,
    }


def _cover(start: float, length: float, side: int) -> slice:
    """The pixels of a side whose centres lie in start <= centre < start + length; without any, the one at the middle, or none beside it."""
    first, end = max(math.ceil(start - 0.5), 0), min(math.ceil(start + length - 0.5), side)
    if first < end:
        return slice(first, end)
    if start >= side or start < 0 >= start + length:
        return slice(0)
    middle = min(max(math.floor(start + length / 2), 0), side - 1)
    return slice(middle, middle + 1)


def _sum_pairs(pictures: Sequence[Sequence[Pair]]) -> Tensor:
    """Hits, energy and number of each picture's pairs, (N, 3)."""
    rows = [[sum(pair.hit for pair in pairs), sum(pair.energy for pair in pairs), len(pairs)] for pairs in pictures]
    return torch.tensor(rows, dtype=torch.float64)


def _judge_pictures(model: LabelNet, card: ModelCard, index: Index, kind: str) -> Iterator[list[Pair]]:
    device = next(model.parameters()).device
    for path, boxes in zip(index.paths, index.boxes or [], strict=True):
        labels = [label for label, found in boxes.items() if found]
        if not labels:
            yield []
            continue
        image = to_input(read_image(path, card.image_size), card.image_size, card.mean, card.std).to(device)
        with Image.open(path) as picture:
            size = upright_size(picture)
        maps, probabilities = _read(model, image, labels, kind)
        yield [_judge(maps[i], boxes[label], size, probabilities[i]) for i, label in enumerate(labels)]


def _read(model: LabelNet, image: Tensor, labels: list[int], kind: str) -> tuple[Tensor, list[float]]:
    with torch.no_grad():
        last_map = model.features(image)
        _, logits = model.head(last_map, torch.tensor(labels, device=image.device))
    # SmoothGradCAMpp alone needs the image itself.
    maps = label_maps(model, image, labels, kind) if kind == "SmoothGradCAMpp" else maps_from_features(model.head, last_map, labels, kind)
    return maps.cpu(), logits[0].sigmoid().tolist()


def _judge(evidence: Tensor, boxes: Sequence[Box], size: tuple[int, int], probability: float) -> Pair:
    resized, inside = resize_map(evidence, *size), mask_boxes(boxes, *size)
    largest = max(w * h for _, _, w, h in boxes)
    name = SIZES[(largest >= SMALL) + (largest >= LARGE)]
    return Pair(pointing_game(resized, inside), energy_in_box(resized, inside), name, probability)
