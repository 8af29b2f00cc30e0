"""A trained network on disk: a folder with card.json and model.safetensors, from which it can be rebuilt and fed."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from l2d.model import LabelNet, create_model

CARD = "card.json"
WEIGHTS = "model.safetensors"


class CheckpointError(ValueError):
    """A checkpoint folder that cannot be used, and why."""


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """Everything that rebuilds a network, feeds it, and says where it comes from.

    Attributes:
        role: "teacher" or "student".
        method: how it was trained, a name in `l2d.distill.METHODS`.
        image_size: side of the square input in pixels; `resize` says how a picture gets there.
        width, feedforward: sizes of the head.
        mean, std: pixel scaling, for pixels in [0, 1].
        recipe, data, lineage: how, on what, and from which initial weights it was trained.
        teacher: name and hash of the teacher, for a distilled student.
        scores: measured, in percent, by protocol.
        seconds: training time.
        sha256: hash of the weights file.
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


def save_checkpoint(folder: Path, model: LabelNet, card: ModelCard) -> ModelCard:
    """Write a network in half precision with its card; return the card with hash and number of parameters filled in.

    Each file is written beside its place and then renamed: a full disk or a power cut leaves what was there before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: _to_half(tensor) for name, tensor in model.state_dict().items()}
    _replace(folder / WEIGHTS, lambda path: save_file(state, path))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    card = dataclasses.replace(card, sha256=hash_file(folder / WEIGHTS), parameters=parameters)
    write_card(folder, card)
    return card


def write_card(folder: Path, card: ModelCard) -> None:
    """Write the card alone, for example with new scores."""
    text = json.dumps(dataclasses.asdict(card), indent=1, ensure_ascii=False) + "\n"
    _replace(folder / CARD, lambda path: path.write_text(text, encoding="utf-8"))


def read_card(folder: Path) -> ModelCard:
    """Read a folder's card.

    Raises:
        CheckpointError: if it is missing, not JSON, or not a card.
    """
    try:
        fields = json.loads((folder / CARD).read_text(encoding="utf-8"))
        for name in ("labels", "mean", "std"):
            fields[name] = tuple(fields[name])
        return ModelCard(**fields)
    except FileNotFoundError:
        raise CheckpointError(f"{folder} holds no {CARD}: not a checkpoint folder.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder / CARD} is not a model card: {error}.") from error


def load_checkpoint(folder: Path) -> tuple[LabelNet, ModelCard]:
    """Rebuild a network in single precision, in evaluation mode and without gradients.

    Raises:
        CheckpointError: if card or weights are missing, damaged, or do not fit each other.
    """
    card = read_card(folder)
    path = folder / WEIGHTS
    try:
        if hash_file(path) != card.sha256:
            raise CheckpointError(f"{path} is not the file that its card describes: the SHA-256 differs.")
        model = build_model(card)
        state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in load_file(path).items()}
        model.load_state_dict(state, strict=True)
    except FileNotFoundError:
        raise CheckpointError(f"{folder} holds no {WEIGHTS}.") from None
    except CheckpointError:
        raise
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error
    return model.eval().requires_grad_(False), card


def build_model(card: ModelCard) -> LabelNet:
    """The network that a card describes, with fresh weights."""
    return create_model(
        card.backbone,
        len(card.labels),
        image_size=card.image_size,
        output_stride=card.output_stride,
        width=card.width,
        feedforward=card.feedforward,
    )


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_half(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()


def _replace(path: Path, write) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
