"""What predictions and maps cost, beside the libraries that are used for maps today: the same networks and numbers, taken in turns."""

import dataclasses
import importlib.util
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from l2d.bench import measure_in_turns
from l2d.bench_server import draw_photograph
from l2d.cam import evidence_from_features
from l2d.checkpoint import load_checkpoint
from l2d.data.images import squash, to_input
from l2d.disk import find_cache
from l2d.environment import describe_program
from l2d.model import LabelNet
from l2d.progress import Progress
from l2d.runtime import Reading, Runner, prepare

LABELS = (8, 80)
# pytorch-grad-cam runs the whole network once per label: a benchmark of 80 would take minutes and tell nothing more.
MOST_FOR_GRAD_CAM = 8

# Probabilities (C,) and raw maps (L, h, w).
Answer = tuple[Tensor, Tensor]


class Subject(NamedTuple):
    """A network with the picture that it is asked about."""

    network: LabelNet
    read: Runner
    pixels: Tensor
    image: Tensor


class Logits(nn.Module):
    """What map libraries expect: images (N, 3, S, S) to logits (N, C)."""

    def __init__(self, network: LabelNet):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """The network's logits alone."""
        return self.network(images).logits


def bench_explain(folders: Sequence[Path], *, rounds: int, device: torch.device, progress: Progress | None = None) -> dict[str, Any]:
    """Time predictions and LayerCAM maps of several networks on one picture: ours, torchcam's, and pytorch-grad-cam's.

    Ours as the server does it: on the CPU as many networks side by side as torch would use threads, each on one thread.
    torchcam as its documentation shows it: a network runs once, and the extractor is called for each label, keeping the graph.
    pytorch-grad-cam, where it is installed, at 8 labels only, and without comparing maps, since it scales and enlarges them.

    Returns:
        `setting`, and for 8 labels and all (at most 80): `milliseconds` (medians), `ratio` (median of the rounds' ratios to ours) and
        `disagreement`: largest difference from torchcam, of probabilities, and of maps relative to the label's maximum: once from what
        our engine makes of the picture, and once from torchcam's own last map. The first is larger where rounding in the backbone moves
        a position's embedding across the head's rectifier, at which gradients jump.
    """
    subjects = [load_subject(folder, device) for folder in folders]
    fewest = min(len(subject.network.head.queries) for subject in subjects)
    setting = {"engines": sorted({type(subject.read).__name__ for subject in subjects}), "models": [folder.name for folder in folders]}
    report: dict[str, Any] = {"setting": describe_program(device) | setting | {"rounds": rounds}}
    for labels in sorted({min(count, fewest) for count in LABELS}):
        report[f"{labels} label{'s' * (labels > 1)}"] = _compare(subjects, labels, rounds, device, progress)
    return report


def ask_ours(subjects: Sequence[Subject], labels: int, pool: Executor) -> list[Answer]:
    """As the server does: networks side by side, each once, and all labels' maps of one while others still run."""
    readings = [pool.submit(subject.read, subject.pixels) for subject in subjects]
    answers = [pool.submit(_map_ours, subject, reading.result(), labels) for subject, reading in zip(subjects, readings, strict=True)]
    return [answer.result() for answer in answers]


def _map_ours(subject: Subject, reading: Reading, labels: int) -> Answer:
    maps = evidence_from_features(subject.network.head, reading.last_map, range(labels), reading.memory).maps
    return reading.scores[0].cpu(), maps.cpu()


def ask_torchcam(subject: Subject, labels: int) -> Answer:
    """The network once with its graph, then a backward pass per label."""
    from torchcam.methods import LayerCAM

    model = Logits(subject.network)
    with LayerCAM(model, "network.last_map") as extractor:
        logits = model(subject.image.clone().requires_grad_())
        maps = [extractor(label, logits, normalized=False, retain_graph=True)[0] for label in range(labels)]
    return logits[0].detach().sigmoid().cpu(), torch.cat(maps).detach().cpu()


def ask_grad_cam(subject: Subject, labels: int) -> None:
    """The network forward and backward, once per label."""
    grad_cam: Any = importlib.import_module("pytorch_grad_cam")
    targets: Any = importlib.import_module("pytorch_grad_cam.utils.model_targets")
    model = Logits(subject.network)
    with grad_cam.LayerCAM(model=model, target_layers=[subject.network.last_map]) as cam:
        for label in range(labels):
            cam(input_tensor=subject.image.clone().requires_grad_(), targets=[targets.ClassifierOutputTarget(label)])


def _compare(subjects: Sequence[Subject], labels: int, rounds: int, device: torch.device, progress: Progress | None) -> dict[str, Any]:
    with ThreadPoolExecutor(count_streams(device), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        ways: dict[str, Callable[[], Any]] = {
            "ours": partial(ask_ours, subjects, labels, pool),
            "torchcam": lambda: [ask_torchcam(subject, labels) for subject in subjects],
        }
        if labels <= MOST_FOR_GRAD_CAM and importlib.util.find_spec("pytorch_grad_cam"):
            ways["grad-cam"] = lambda: list(map(partial(ask_grad_cam, labels=labels), subjects))
        seconds = measure_in_turns(ways, rounds, device, progress)
        disagreement = _disagree(subjects, ways["ours"](), ways["torchcam"]())
    return {
        "milliseconds": {name: 1000 * statistics.median(times) for name, times in seconds.items()},
        "ratio": {
            name: statistics.median(theirs / ours for theirs, ours in zip(times, seconds["ours"], strict=True))
            for name, times in seconds.items()
            if name != "ours"
        },
        "disagreement": disagreement,
    }


def _disagree(subjects: Sequence[Subject], ours: Sequence[Answer], theirs: Sequence[Answer]) -> dict[str, float]:
    worst = {"probabilities": 0.0, "maps": 0.0, "maps from one last map": 0.0}
    for subject, (scores, maps), (their_scores, their_maps) in zip(subjects, ours, theirs, strict=True):
        with torch.no_grad():
            same = evidence_from_features(subject.network.head, subject.network.features(subject.image), range(len(maps))).maps.cpu()
        found = ((scores - their_scores).abs(), _relate(maps, their_maps), _relate(same, their_maps))
        worst = {name: max(value, now.max().item()) for (name, value), now in zip(worst.items(), found, strict=True)}
    return worst


def _relate(maps: Tensor, expected: Tensor) -> Tensor:
    """Each label's largest difference as a share of its maximum."""
    return (maps - expected).abs().amax((1, 2)) / expected.amax((1, 2)).clamp(min=1e-12)


def load_subject(folder: Path, device: torch.device, image_size: int | None = None) -> Subject:
    """A trained network with a picture of its own size of input, or of another one."""
    network, card = load_checkpoint(folder)
    card = dataclasses.replace(card, image_size=image_size or card.image_size)
    network = network.to(device)
    photograph, read = draw_photograph(0), prepare(network, card, device, find_cache())
    image = to_input(photograph, card.image_size, card.mean, card.std).to(device)
    return Subject(network, read, squash(photograph, card.image_size)[None], image)


def count_streams(device: torch.device) -> int:
    """Networks that run side by side, as the server decides it."""
    return torch.get_num_threads() if device.type == "cpu" else 1
