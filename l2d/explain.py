"""The paper's figure for one picture: what several networks predict, and where they look for it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from l2d.cam import evidence_from_features
from l2d.checkpoint import Network
from l2d.data.images import read_image, to_input
from l2d.disk import check_writable, replace_file
from l2d.figure import FORMATS, Column, draw_figure, save_figure
from l2d.labels import check_known, choose_labels, split_labels
from l2d.metrics import THRESHOLD
from l2d.runs import choose_device, load_network


class Answer(NamedTuple):
    """What one network says about a picture.

    Attributes:
        network: the network itself.
        last_map: of the picture, (1, D, h, w).
        probabilities: label -> probability.
    """

    network: Network
    last_map: Tensor
    probabilities: dict[str, float]


def explain_image(
    image: Path | str, folders: Sequence[Path | str], out: Path | str, labels: Sequence[str] | None = None, device: str = "auto"
) -> None:
    """Draw where several networks look in a picture: rows = labels, columns = the picture, then the networks.

    Args:
        image: a picture file.
        folders: the networks' checkpoint folders, from left to right.
        out: the figure to write; its suffix, .png or .pdf, says how.
        labels: the rows, as `l2d.labels.split_labels` reads them; by default what any of them predicts, most probable first, at most 8.
        device: as `l2d.runs.choose_device` takes it.

    Raises:
        ValueError: for another suffix, no network, a label that none of them knows, or a picture or checkpoint that cannot be read.
        OSError: if the figure's folder cannot be written.
    """
    out = Path(out)
    kind = out.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise ValueError(f"A figure is written as {' or '.join(f'.{name}' for name in FORMATS)}; got {out}.")
    if not folders:
        raise ValueError("A figure needs at least one network: give the folders of their checkpoints.")
    check_writable(out.parent)
    networks = [load_network(folder, choose_device(device)) for folder in folders]
    known = list(dict.fromkeys(label for network in networks for label in network.card.labels))
    if labels is not None:
        labels = split_labels(labels, known)
        check_known(labels, known)
    picture = read_image(image)
    answers = [read_picture(network, read_image(image, network.card.image_size)) for network in networks]
    rows = labels if labels is not None else choose_labels([answer.probabilities for answer in answers], THRESHOLD)
    out.parent.mkdir(parents=True, exist_ok=True)
    titles = name_columns(folders, [network.card.title for network in networks])
    columns = [_fill_column(title, answer, rows) for title, answer in zip(titles, answers, strict=True)]
    figure = draw_figure(picture, columns, rows, threshold=THRESHOLD)
    replace_file(out, lambda path: save_figure(figure, path, kind), durable=False)


def read_picture(network: Network, picture: Image.Image) -> Answer:
    """Run a network on a picture."""
    model, card = network
    with torch.inference_mode():
        pixels = to_input(picture, card.image_size, card.mean, card.std).to(next(model.parameters()).device)
        last_map = model.features(pixels)
        _, logits = model.head(last_map)
    return Answer(network, last_map, dict(zip(card.labels, logits[0].sigmoid().tolist(), strict=True)))


def name_columns(folders: Sequence[Path | str], titles: Sequence[str]) -> list[str]:
    """The networks' titles; of those that share one, as runs of several seeds may, their folders."""
    return [title if titles.count(title) == 1 else str(folder) for folder, title in zip(folders, titles, strict=True)]


def _fill_column(title: str, answer: Answer, rows: Sequence[str]) -> Column:
    (model, card), own = answer.network, [label for label in rows if label in answer.probabilities]
    maps = evidence_from_features(model.head, answer.last_map, [card.labels.index(label) for label in own]).maps
    return Column(title, dict(zip(own, maps.cpu().numpy(), strict=True)), answer.probabilities)
