"""What every network of this project returns."""

from typing import NamedTuple

from torch import Tensor


class Outputs(NamedTuple):
    """One forward pass over a batch, for teacher and student alike.

    A NamedTuple, because DistributedDataParallel and torch's pytrees know how to walk it.

    Attributes:
        features: the backbone's stages, shallow to deep, each (N, D_i, H_i, W_i); the last one is the map that the head reads.
        embeddings: one embedding per label, (N, C, E).
        logits: before the sigmoid, (N, C).
    """

    features: tuple[Tensor, ...]
    embeddings: Tensor
    logits: Tensor
