"""Where a network looks on a few pictures, after every epoch: so that one can watch it learn."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from l2d.cam import evidence_from_features
from l2d.checkpoint import ModelCard
from l2d.data.images import Index, open_image, to_input
from l2d.disk import replace_file
from l2d.model import LabelNet, evaluating

PICTURES = 4
LABELS_PER_PICTURE = 3
# Pictures that each probe is chosen from, those with most labels: a large data set has too many to compare all.
CANDIDATES = 200
# Longest side of the copies that the page shows, in pixels.
SIDE = 192
INDEX = "pictures.json"


def choose_probes(index: Index) -> list[int]:
    """Rows of a few pictures with several labels, as different from one another as they come."""
    order = sorted(range(len(index.paths)), key=lambda row: -min(float(index.targets[row].sum()), LABELS_PER_PICTURE))
    chosen: list[int] = []
    seen = torch.zeros(index.targets.shape[1])
    while order and len(chosen) < PICTURES:
        best = max(order[:CANDIDATES], key=lambda row: float((index.targets[row] * (seen == 0)).sum()))
        order.remove(best)
        chosen.append(best)
        seen += index.targets[best]
    return chosen


def save_pictures(folder: Path, index: Index, rows: Sequence[int]) -> None:
    """Keep small copies of the probes without metadata, and which labels are mapped on each."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for number, row in enumerate(rows):
        image = open_image(index.paths[row])
        image.thumbnail((SIDE, SIDE))
        image.save(folder / f"{number}.jpg", quality=85)
        labels = [index.labels[column] for column in _choose_columns(index, row)]
        pictures.append({"file": f"{number}.jpg", "width": image.width, "height": image.height, "labels": labels})
    _write(folder / INDEX, {"pictures": pictures})


def _choose_columns(index: Index, row: int) -> list[int]:
    """Columns of the labels that a probe shows, at most a few."""
    columns: list[int] = index.targets[row].nonzero().flatten().tolist()
    return columns[:LABELS_PER_PICTURE]


def save_maps(folder: Path, name: str, model: LabelNet, card: ModelCard, index: Index, rows: Sequence[int]) -> None:
    """Map a network's evidence on every probe, and keep it as `name`.json; leaves the mode of every module as it was."""
    with evaluating(model):
        _write(folder / f"{name}.json", {"pictures": [_map_picture(model, card, index, row) for row in rows]})


def _map_picture(model: LabelNet, card: ModelCard, index: Index, row: int) -> list[dict[str, Any]]:
    columns = _choose_columns(index, row)
    device = next(model.parameters()).device
    with torch.no_grad():
        pixels = to_input(open_image(index.paths[row], card.image_size), card.image_size, card.mean, card.std).to(device)
        maps, logits = evidence_from_features(model.head, model.features(pixels), columns)
    scores = logits.float().sigmoid().cpu().tolist()
    return [
        {"label": index.labels[column], "score": round(score, 4), "rows": [[float(f"{value:.4g}") for value in line] for line in rows]}
        for column, rows, score in zip(columns, maps.float().cpu().tolist(), scores, strict=True)
    ]


def _write(path: Path, content: dict[str, Any]) -> None:
    replace_file(path, lambda part: part.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8"))
