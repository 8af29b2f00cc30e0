"""A trained network on disk: a folder with card.json and model.safetensors, from which it can be rebuilt and fed."""

import contextlib
import copy
import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from l2d.disk import replace_file, sweep_partial
from l2d.head import LabelHead
from l2d.model import LabelNet, create_model, describe_misfit, load_weights

CARD = "card.json"
WEIGHTS = "model.safetensors"
# What a card, like a plan, says of a network's sizes.
SIZES = ("image_size", "output_stride", "width", "feedforward")
# Scores that are taken on pictures of their own: held out from training, and with boxes.
OWN_PICTURES = ("held_out", "localization")


class CheckpointError(ValueError):
    """A checkpoint folder that cannot be used, and why."""


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """Everything that rebuilds a network, feeds it, and says where it comes from.

    Attributes:
        role: "teacher" or "student".
        method: how it was trained, a name in `l2d.distill.METHODS`.
        labels: in the order of the network's outputs.
        image_size: side of the square input in pixels.
        resize: how a picture gets there: "squash", to a square without cropping, is the only way so far.
        width, feedforward: sizes of the head.
        mean, std: pixel scaling, for pixels in [0, 1].
        recipe, data, lineage: how, on what, and from which initial weights it was trained; `lineage` also tells `environments`, what it was
            trained with (`l2d.environment.describe_environment`), unless an older revision did.
        teacher: name and hash of the teacher, for a distilled student.
        scores: measured, in percent, by protocol; with `thresholds` where they were tuned, by label.
        seconds: training time.
        parameters: number of trained and frozen weights.
        sha256: hash of the weights file.
        created: ISO date.

    Raises:
        ValueError: for labels, sizes or scalings that no network can have.
    """

    name: str
    title: str
    role: str
    method: str
    backbone: str
    labels: tuple[str, ...]
    image_size: int
    output_stride: int = 32
    width: int = 768
    feedforward: int = 2048
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    resize: str = "squash"
    recipe: dict[str, Any] = dataclasses.field(default_factory=dict)
    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    teacher: dict[str, str] | None = None
    lineage: dict[str, Any] = dataclasses.field(default_factory=dict)
    scores: dict[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    parameters: int = 0
    sha256: str = ""
    created: str = ""

    def __post_init__(self) -> None:
        named = all(isinstance(label, str) and label for label in self.labels)
        if not self.labels or not named or len(set(self.labels)) < len(self.labels):
            raise ValueError("labels must be names, at least one and none twice")
        for field in SIZES:
            if type(getattr(self, field)) is not int or getattr(self, field) < 1:
                raise ValueError(f"{field} must be a positive whole number; it is {getattr(self, field)!r}")
        for scaling in (self.mean, self.std):
            if len(scaling) != 3 or not all(isinstance(number, int | float) and math.isfinite(number) for number in scaling):
                raise ValueError(f"mean and std must be three numbers each; one is {scaling!r}")
        if 0 in self.std:
            raise ValueError("std must not hold a zero")
        if self.resize != "squash":
            raise ValueError(f"resize must be 'squash', the only way that is known here; it is {self.resize!r}")


class Network(NamedTuple):
    """A network with its card."""

    model: LabelNet
    card: ModelCard

    def __repr__(self) -> str:
        """Short, as a notebook shows it: the model alone fills pages."""
        return f"<Network {self.card.name}: {self.card.backbone} with {len(self.card.labels)} labels at {self.card.image_size} pixels>"


class Head(NamedTuple):
    """A network's head with the network's card."""

    head: LabelHead
    card: ModelCard


def save_checkpoint(folder: Path | str, model: LabelNet, card: ModelCard) -> ModelCard:
    """Write a network in half precision with its card; return the card with hash and number of parameters filled in.

    A number beyond half precision's range keeps its tensor in single precision. Each file is written beside its place and then
    renamed: a full disk or a power cut leaves what was there before. What earlier writers left when they were killed is swept.

    Raises:
        ValueError: before anything is written, for what could not be loaded again: what wraps a network, one that was pruned or changed
            otherwise, or a card of another one, or with values that JSON has no words for.
        OSError: if the folder cannot be written.
    """
    _check_described(model, card)
    _as_json(card)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sweep_partial(folder)
    # Through bytes: safetensors' own writer makes files that only their owner can read.
    weights = save({name: _to_half(tensor) for name, tensor in model.state_dict().items()})
    replace_file(folder / WEIGHTS, lambda path: path.write_bytes(weights))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    card = dataclasses.replace(card, sha256=hashlib.sha256(weights).hexdigest(), parameters=parameters)
    write_card(folder, card)
    return card


def _check_described(model: LabelNet, card: ModelCard) -> None:
    if not isinstance(model, LabelNet):
        raise ValueError(f"Expected the network itself, a LabelNet; got {type(model).__name__}, which may wrap one.")
    sizes = {"labels": model.head.bias.shape[0], "width": model.head.embed.out_features, "feedforward": model.head.expand.out_features}
    told = {"labels": len(card.labels), "width": card.width, "feedforward": card.feedforward}
    if other := [f"{name} {told[name]}, not {size}" for name, size in sizes.items() if told[name] != size]:
        raise ValueError(f"The card describes another network: it says {', '.join(other)}.")
    if differences := describe_misfit(_rebuild(card.backbone, len(card.labels), **read_sizes(card)), model.state_dict()):
        raise ValueError(f"The network is not the {card.backbone} that its card describes, or was changed since: {differences}.")


@functools.lru_cache(maxsize=8)
def _rebuild(backbone: str, labels: int, **sizes: Any) -> LabelNet:
    """What a card describes, without any numbers: a training saves after every epoch."""
    with torch.device("meta"):
        return create_model(backbone, labels, **sizes)


def write_card(folder: Path | str, card: ModelCard) -> None:
    """Write the card alone, for example with new scores; errors as of `save_checkpoint`."""
    text = _as_json(card)
    replace_file(Path(folder) / CARD, lambda path: path.write_text(text, encoding="utf-8"))


def _as_json(card: ModelCard) -> str:
    try:
        return json.dumps(dataclasses.asdict(card), indent=1, ensure_ascii=False) + "\n"
    except TypeError as error:
        advice = "give plain numbers, texts, lists and dicts, as .item() and .tolist() make them"
        raise ValueError(f"The card cannot be written ({error}): {advice}.") from error


def add_scores(folder: Path | str, scores: dict[str, Any]) -> None:
    """Write scores into a folder's card, as `merge_scores` does."""
    card = read_card(folder)
    write_card(folder, dataclasses.replace(card, scores=merge_scores(card.scores, scores)))


def merge_scores(earlier: dict[str, Any], scores: dict[str, Any]) -> dict[str, Any]:
    """Scores in place of earlier ones of the same names, and of all that were taken on other test pictures, as their `checksum` tells."""
    if "checksum" in scores and scores["checksum"] != earlier.get("checksum"):
        earlier = {name: earlier[name] for name in OWN_PICTURES if name in earlier}
    return earlier | scores


def read_card(folder: Path | str) -> ModelCard:
    """Read a folder's card.

    Raises:
        CheckpointError: if it is missing, not JSON, or not a card.
    """
    folder = Path(folder)
    try:
        fields = json.loads((folder / CARD).read_text(encoding="utf-8"))
        for name in ("labels", "mean", "std"):
            if not isinstance(fields[name], list):
                raise TypeError(f"{name} must be a list")
            fields[name] = tuple(fields[name])
        _check_fields(fields)
        return ModelCard(**fields)
    except FileNotFoundError:
        raise CheckpointError(f"{folder} holds no {CARD}: not a checkpoint folder.") from None
    except KeyError as error:
        raise CheckpointError(f"{folder / CARD} is not a model card: it lacks {error}.") from error
    except (OSError, ValueError, TypeError, RecursionError) as error:  # ValueError: of UTF-8, of JSON, or of the card's own checks
        raise CheckpointError(f"{folder / CARD} is not a model card: {error}.") from error


def _check_fields(fields: dict[str, Any]) -> None:
    known = dataclasses.fields(ModelCard)
    if unknown := fields.keys() - {field.name for field in known}:
        # It may say how pictures are to be fed, as `resize` does.
        raise ValueError(f"nothing is known here of its {', '.join(sorted(unknown))}; if a newer revision wrote it, use that one")
    needed = [field.name for field in known if field.default is field.default_factory is dataclasses.MISSING]
    if missing := [name for name in needed if name not in fields]:
        raise ValueError(f"it lacks {', '.join(map(repr, missing))}")


# What is made in inference mode could neither be trained nor looked into by maps later on.
@torch.inference_mode(False)
def load_checkpoint(folder: Path | str) -> Network:
    """Rebuild a network in single precision, in evaluation mode and without gradients.

    Raises:
        CheckpointError: if card or weights are missing, damaged, or do not fit each other.
    """
    folder = Path(folder)
    card = read_card(folder)
    with _telling_failures(folder):
        check_hash(folder, card)
        state = load_file(folder / WEIGHTS)
        model = create_model(card.backbone, len(card.labels), **read_sizes(card))
        load_weights(model, state, folder / WEIGHTS)
    return Network(model.eval().requires_grad_(False), card)


@torch.inference_mode(False)
def select_labels(network: Network, labels: Sequence[str]) -> Network:
    """The same network for some of its labels, in this order: a label's probability does not depend on the others.

    For a data set with fewer labels than the network, or with another order of them. The card has no scores: they were of all labels.

    Raises:
        ValueError: naming labels that the network does not know.
    """
    model, card = copy.deepcopy(network.model), network.card
    if unknown := [label for label in labels if label not in card.labels]:
        raise ValueError(f"{card.name} does not know the labels {', '.join(unknown)}.")
    rows = [card.labels.index(label) for label in labels]
    for tensor in (model.head.queries, model.head.classifier, model.head.bias):
        tensor.data = tensor.data[rows]
    return Network(model, dataclasses.replace(card, labels=tuple(labels), scores={}))


def load_head(folder: Path) -> Head:
    """Rebuild a network's head alone, for whoever gets the last map without the backbone, which takes far longer to build.

    Raises: as `load_checkpoint`; but of the backbone's weights nothing is checked except that they are those of the card.
    """
    card = read_card(folder)
    with _telling_failures(folder):
        check_hash(folder, card)
        with safe_open(folder / WEIGHTS, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys() if name.startswith("head.")}  # noqa: SIM118
        # The card does not tell how many channels the last map has.
        channels = state["head.embed.weight"].shape[-1] if "head.embed.weight" in state else 1
        head = LabelHead(channels, len(card.labels), card.width, card.feedforward)
        load_weights(nn.ModuleDict({"head": head}), state, folder / WEIGHTS)
    return Head(head.eval().requires_grad_(False), card)


@contextlib.contextmanager
def _telling_failures(folder: Path) -> Iterator[None]:
    """Tell in a sentence why a checkpoint's weights cannot be loaded."""
    path = folder / WEIGHTS
    try:
        yield
    except FileNotFoundError:
        raise CheckpointError(f"{folder} holds no {WEIGHTS}.") from None
    except CheckpointError:
        raise
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}.") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{folder} cannot be loaded: {error}") from error


def check_hash(folder: Path, card: ModelCard) -> None:
    """Compare a folder's weights with its card, without building the network.

    Raises:
        CheckpointError: if they are other ones.
        OSError: if they cannot be read.
    """
    path = folder / WEIGHTS
    if hash_file(path) != card.sha256:
        raise CheckpointError(f"{path} is not the file that its card describes: the SHA-256 differs.")


def read_sizes(described: Any) -> dict[str, Any]:
    """A network's `SIZES`, by name, from its card or its plan."""
    return {name: getattr(described, name) for name in SIZES}


def name_origin(lineage: dict[str, Any]) -> list[Any]:
    """What initial weights are told apart by: not by scores of their network, which may have been taken since."""
    return [lineage.get(name) for name in ("init", "sha256")]


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_half(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.cpu().contiguous()
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    return half if torch.equal(half.isfinite(), tensor.isfinite()) else tensor
