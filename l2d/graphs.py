"""CUDA graphs: passes of a network that are recorded once and replayed.

A network for small pictures is hundreds of operations that a GPU finishes sooner than Python can order them one by one.
"""

import gc
import logging
import threading
from collections.abc import Callable

import torch
from torch import Tensor, nn

from l2d import processes
from l2d.device import supports_bfloat16
from l2d.outputs import Outputs

logger = logging.getLogger(__name__)


class _Pass(nn.Module):
    """A network whose own `forward` stays what it is, also in copies that are made of it."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        # For this module alone: some inside may be frozen.
        self.training = model.training

    def forward(self, images: Tensor) -> Outputs:
        return self.model(images)


def record(model: nn.Module, images: Tensor) -> nn.Module:
    """A module that replays the model's forward pass, and its backward pass where it has one, in the mode that its modules are in now.

    It takes images of this shape, layout and device only, and gives the same tensors every time, with new numbers in them: they must
    be used up before the next call. Weights and statistics are the model's own. In mixed precision, as training uses it.

    The model itself is returned where it cannot be recorded, which the log tells, on the CPU, and in one of several processes, which
    share gradients while a backward pass goes on.
    """
    if not images.is_cuda or processes.count() > 1:
        return model
    # Recorded modules refer to themselves: without this, those of trainings before would still hold their memory on the GPU.
    gc.collect()
    before = [buffer.clone() for buffer in model.buffers()]
    # Gradients are summed up on the stream that recorded them, which torch takes for an oversight.
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    recorded: nn.Module = _Pass(model)
    try:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=supports_bfloat16(images.device), cache_enabled=False):
            torch.cuda.make_graphed_callables(recorded, (images,), allow_unused_input=True)
    except RuntimeError as error:
        logger.warning("A network runs without CUDA graphs, more slowly: it cannot be recorded (%s).", error)
        recorded = model
    # The passes made on the way counted as training.
    for buffer, value in zip(model.buffers(), before, strict=True):
        buffer.copy_(value)
    return recorded


class Replay:
    """A pass without gradients that a GPU replays; threads take turns.

    Args:
        run: from images to tensors; it is recorded in the precision that it chooses.
        images: of the shape, layout and device of those to come.

    Raises:
        RuntimeError: if it cannot be recorded, as on the CPU.
    """

    def __init__(self, run: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor):
        self._images, self._turn = images, threading.Lock()
        self._graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(images.device)
        with torch.cuda.stream(stream):
            # The first passes choose algorithms and make workspaces, which cannot be recorded.
            for _ in range(2):
                run(images)
        stream.synchronize()
        # Other threads may go on with networks of their own meanwhile.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._outputs = run(images)

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """What `run` gives, in single precision."""
        with self._turn, torch.no_grad():
            self._images.copy_(images)
            self._graph.replay()
            # Copies: the next call writes into the same memory.
            return tuple(part.to(torch.float32, copy=True) for part in self._outputs)
