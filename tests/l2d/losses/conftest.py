"""Batches that every test of the losses can reproduce without a random generator."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from l2d.outputs import Outputs


def make_wave(*shape: int, start: float = 0.0, scale: float = 2.0) -> Tensor:
    """Numbers between -scale and scale that look random and are the same on every machine."""
    places = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (scale * torch.sin(1.7 * places * (1 + places / 97) + start)).reshape(shape)


def make_outputs(start: float, images: int = 4, labels: int = 5, *, channels: tuple[int, int] = (3, 6), width: int = 8) -> Outputs:
    """What a network would return for a batch, ready to take gradients; another `start` gives another network."""
    features = (make_wave(images, channels[0], 5, 5, start=start), make_wave(images, channels[1], 2, 3, start=start + 1))
    embeddings, logits = make_wave(images, labels, width, start=start + 2), make_wave(images, labels, start=start + 3, scale=3.0)
    return Outputs(tuple(_leaf(one) for one in features), _leaf(embeddings), _leaf(logits))


def _leaf(part: Tensor) -> Tensor:
    return part.float().requires_grad_()


@pytest.fixture
def wave() -> Callable[..., Tensor]:
    return make_wave


@pytest.fixture
def outputs() -> Callable[..., Outputs]:
    return make_outputs


@pytest.fixture
def student() -> Outputs:
    return make_outputs(0.0)


@pytest.fixture
def teacher() -> Outputs:
    return make_outputs(10.0)


@pytest.fixture
def targets() -> Tensor:
    """Labels 0, 1 and 4 have pairs of images, 2 and 3 have none; the third image shows nothing."""
    return torch.tensor([[1.0, 1, 0, 0, 1], [1, 0, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0]])
