"""A frozen teacher, asked about one batch after the other as fast as the machine allows: by OpenVINO on the CPU, else by torch."""

import functools
import logging
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from l2d.model import LabelNet
from l2d.outputs import Outputs
from l2d.runtime import PRECISION, import_openvino

logger = logging.getLogger(__name__)

# Normalised images (N, 3, S, S) -> what the losses compare.
Teacher = Callable[[Tensor], Outputs]
# Which of a network's outputs the losses look at.
Keep = Callable[[Outputs], Outputs]

# Conversion takes as long as a few hundred pictures: a teacher that is asked about fewer than this stays in torch.
WORTH_CONVERTING = 1500
# A conversion whose embeddings are further from torch's, as a share of the largest, is not used.
TOLERANCE = 1e-3


def prepare_teacher(network: LabelNet, keep: Keep, device: torch.device, batch: int, size: int, pictures: float = math.inf) -> Teacher:
    """Freeze a network and make it ready to teach.

    Args:
        network: moves to the device, into evaluation mode, and loses its gradients.
        keep: which of its outputs are wanted; its stages are large.
        device: where the student is trained.
        batch, size: shape of every batch, (batch, 3, size, size).
        pictures: how many it will be asked about in all.
    """
    in_torch = keep_in_torch(network, keep, device)
    openvino = import_openvino() if device.type == "cpu" and pictures >= WORTH_CONVERTING else None
    if openvino is not None:
        try:
            return _convert_checked(openvino, network, keep, torch.Size((batch, 3, size, size)))
        except Exception as error:
            # Its converter meets unknown operations with almost any exception.
            logger.warning("The teacher runs in plain torch, several times slower: OpenVINO cannot run it (%s).", error)
    return in_torch


def keep_in_torch(network: LabelNet, keep: Keep, device: torch.device) -> Teacher:
    """The same without a conversion."""
    network.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    return functools.partial(_ask, network, keep)


def _ask(network: LabelNet, keep: Keep, images: Tensor) -> Outputs:
    with torch.no_grad():
        return keep(network(images.contiguous(memory_format=torch.channels_last)))


class _Converted:
    """A converted network for batches of one shape.

    The logits are made here: OpenVINO 2026.4 adds the labels' biases to the wrong places where there are more pictures than one (its
    issue 23616).
    """

    def __init__(self, openvino: Any, network: LabelNet, keep: Keep, shape: torch.Size):
        threads = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        self._head = network.head
        with warnings.catch_warnings(), torch.no_grad():
            # torch calls its tracer deprecated, and OpenVINO's converter still builds on it.
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(_Flat(network, keep), torch.zeros(shape), check_trace=False)
            model = openvino.convert_model(traced, example_input=torch.zeros(shape), input=list(shape))
        self._request = openvino.compile_model(model, "CPU", PRECISION | threads).create_infer_request()

    def __call__(self, images: Tensor) -> Outputs:
        self._request.infer([images.contiguous().numpy()], share_inputs=True)
        places = range(len(self._request.model_outputs))
        # Copies: the next call writes into the same memory.
        *features, embeddings = (torch.tensor(self._request.get_output_tensor(place).data) for place in places)
        return Outputs(tuple(features), embeddings, self._head.classify(embeddings))


class _Flat(nn.Module):
    """A network's outputs as a converter takes them, without the logits."""

    def __init__(self, network: LabelNet, keep: Keep):
        super().__init__()
        self.network, self.keep = network, keep

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = self.keep(self.network(images))
        return *outputs.features, outputs.embeddings


def _convert_checked(openvino: Any, network: LabelNet, keep: Keep, shape: torch.Size) -> Teacher:
    """Convert a network, and refuse (RuntimeError) a conversion whose embeddings are not torch's."""
    converted = _Converted(openvino, network, keep, shape)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    few = noise[:2]
    expected, got = _ask(network, keep, few).embeddings, converted(noise).embeddings[: len(few)]
    difference = ((expected - got).abs().max() / expected.abs().max()).item()
    if not difference <= TOLERANCE:
        raise RuntimeError(f"its embeddings differ by {difference:.2g}")
    return converted
