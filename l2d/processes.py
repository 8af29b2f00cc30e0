"""Several processes that train one network, each on its share of every batch; in a single process everything here does nothing.

torchrun, `accelerate launch` and Ray Train start them alike: a process finds its number and its peers in environment variables, and torch
does the rest. What is said of a process below holds on several hosts as well.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Join the processes that a launcher started, if one did; leave them at the end. Ray Train has joined them already.

    Raises:
        ConnectionError: if they do not find each other.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or distributed.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        # From here on "cuda" is this process's own GPU.
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    # On machines with GPUs torch takes NCCL for what lies on them and Gloo for what lies on the host.
    try:
        distributed.init_process_group()
    except RuntimeError as error:
        # Below the first line torch tells where in its own code it was.
        reason = str(error).partition("\n")[0]
        raise ConnectionError(
            f"The processes do not find each other ({reason}). Hosts whose own name stands for 127.0.0.1 or 127.0.1.1 are found by none: "
            "name the network that joins them on each, such as GLOO_SOCKET_IFNAME=eth0 (and NCCL_SOCKET_IFNAME=eth0 for their GPUs)."
        ) from error
    try:
        yield
    finally:
        distributed.destroy_process_group()


def count() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def count_processors() -> int:
    """Processors of this machine that this process may use, shared with those that a launcher started beside it."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // count_here())


def count_here() -> int:
    """How many of the processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that writes and prints."""
    return rank() == 0


def choose_batch_size(wanted: int, pictures: int) -> int:
    """The batch that all processes share: no more than there are pictures, and as many for each.

    Raises:
        ValueError: for a batch that the processes cannot share evenly, or fewer pictures than processes.
    """
    size = min(wanted, pictures) // count() * count()
    if wanted % count() or not size:
        there = f"{pictures} picture{'s' * (pictures != 1)}"
        raise ValueError(f"{count()} processes share every batch evenly; a batch_size of {wanted} of {there} cannot be shared.")
    return size


def share(size: int) -> slice:
    """This process's part of a batch of `size` pictures, which the number of processes divides."""
    part = size // count()
    return slice(rank() * part, (rank() + 1) * part)


def wait() -> None:
    """Until all processes are here."""
    if count() > 1:
        distributed.barrier()


def means_loss(error: Exception) -> bool:
    """Whether an error says that another process is gone: torch has types for most of these, Gloo names its own source files."""
    return count() > 1 and (isinstance(error, distributed.DistError) or "/gloo/" in str(error))


def parallelise(module: nn.Module) -> nn.Module:
    """The module, in whose backward pass every gradient becomes the mean over the processes; they all start with the main one's weights."""
    return DistributedDataParallel(module) if count() > 1 else module


def share_buffers(*modules: nn.Module) -> None:
    """Give all processes the main one's running statistics."""
    for buffer in [buffer for module in modules for buffer in module.buffers()] if count() > 1 else []:
        distributed.broadcast(buffer, 0)


def average(values: Tensor) -> Tensor:
    """The mean over the processes."""
    if count() > 1:
        distributed.all_reduce(values)
    return values / count()


def gather(own: Tensor) -> Tensor:
    """Every process's tensor (n, ...), one after the other, (count * n, ...), with a gradient.

    The gradient of a tensor is the sum of what all processes make of it: with a loss of the whole batch in each of them, the mean of
    their gradients, which is what DistributedDataParallel takes, is the gradient of that loss.
    """
    return _Gather.apply(own) if count() > 1 else own


def gather_rows(own: Tensor, lengths: Tensor) -> Tensor:
    """`gather` for matrices of different lengths, of which every process knows all, on the host."""
    if count() == 1:
        return own
    longest = int(lengths.max())
    if not longest:
        return own
    parts = gather(F.pad(own, (0, 0, 0, longest - len(own)))).split(longest)
    return torch.cat([part[:length] for part, length in zip(parts, lengths.tolist(), strict=True)])


def gather_objects(own: Any) -> list[Any]:
    """Every process's object, in order, in each of them."""
    if count() == 1:
        return [own]
    gathered: list[Any] = [None] * count()
    distributed.all_gather_object(gathered, own)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(count())]
        distributed.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total.chunk(count())[rank()]
