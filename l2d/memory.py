"""Memory that a training step takes at its peak."""

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from l2d.device import choose_memory_format, supports_bfloat16
from l2d.distill import METHODS, Distiller
from l2d.model import LabelNet, create_model
from l2d.optimizer import create_optimizer
from l2d.outputs import Outputs
from l2d.recipe import Recipe


def compare_memory(teacher: str, student: str, targets: Tensor, method: str, image_size: int, device: torch.device) -> dict[str, Any]:
    """Peak memory of a step of a method, against a vanilla step after the teacher's forward pass, whose outputs are let go.

    Weights, gradients and the optimiser's state are part of both. On a GPU the allocator's own count, of networks that are not recorded:
    it would miss what lies in a CUDA graph. Elsewhere the tensors of the same step, added up on torch's meta device, where nothing is
    computed (in single precision, without the kernels' inner buffers).

    Args:
        teacher, student: timm names.
        targets: (N, C), on the host; their positive pairs are part of the step.

    Returns:
        `bytes` of both, their `ratio`, and `how` it was found: measured or counted.
    """
    measured = device.type == "cuda"
    place = device if measured else torch.device("meta")
    peaks = {name: _find_peak(teacher, student, targets, name, image_size, place) for name in (method, "vanilla")}
    return {"bytes": peaks, "ratio": peaks[method] / peaks["vanilla"], "how": "measured" if measured else "counted"}


def _find_peak(teacher: str, student: str, targets: Tensor, method: str, image_size: int, device: torch.device) -> int:
    step = _Step(teacher, student, targets, method, image_size, device)
    step.take()  # makes the optimiser's state
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step.take()
        return torch.cuda.max_memory_allocated(device)
    with AllocationCounter() as counter:
        for tensor in step.lasting():
            counter.add(tensor)
        step.take()
    return counter.peak


class Untrained:
    """Teacher and student with random weights, by timm name, the losses between them, and what optimises the student."""

    def __init__(self, teacher: str, student: str, labels: int, method: str, image_size: int, device: torch.device):
        self.teacher = _build(teacher, labels, image_size, device).eval().requires_grad_(False)
        self.student = _build(student, labels, image_size, device).train()
        self.distiller = Distiller(METHODS[method], self.student, self.teacher).to(device)
        self.optimizer, _ = create_optimizer(nn.ModuleList([self.student, self.distiller]), Recipe(), 1)


def _build(backbone: str, labels: int, image_size: int, device: torch.device) -> LabelNet:
    with device:
        model = create_model(backbone, labels, image_size=image_size)
    return model.to(memory_format=choose_memory_format(model, device))


class _Step(Untrained):
    """A step that can be repeated, as training takes it."""

    def __init__(self, teacher: str, student: str, targets: Tensor, method: str, image_size: int, device: torch.device):
        super().__init__(teacher, student, targets.shape[1], method, image_size, device)
        self.images, self.targets = torch.zeros(len(targets), 3, image_size, image_size, device=device), targets

    def take(self) -> None:
        device = self.images.device
        # On the meta device there is no mixed precision.
        with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda" and supports_bfloat16(device)):
            with torch.no_grad():
                taught: Outputs | None = self.distiller.keep(self.teacher(self.images))
            if not self.distiller.weights:
                taught = None
            parts = self.distiller(self.student(self.images), taught, self.targets)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()
        self.optimizer.step()

    def lasting(self) -> list[Any]:
        """What lives from step to step."""
        networks = (self.teacher, self.student, self.distiller)
        gradients = [parameter.grad for network in networks for parameter in network.parameters()]
        return tree_leaves([[network.state_dict() for network in networks], gradients, dict(self.optimizer.state), self.images])


class AllocationCounter(TorchDispatchMode):
    """Adds up the memory of the tensors that operations make, for as long as each lives.

    Attributes:
        current, peak: bytes now, and the most there were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.current = self.peak = 0
        self.living: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Run an operation and count what it returns."""
        result = func(*args, **kwargs or {})
        for value in tree_leaves(result):
            self.add(value)
        return result

    def add(self, value: Any) -> None:
        """Count a tensor's memory once, however many views of it there are; anything else takes none."""
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        if storage._cdata in self.living:
            return
        self.living.add(storage._cdata)
        self.current += storage.nbytes()
        self.peak = max(self.peak, self.current)
        weakref.finalize(storage, self._release, storage._cdata, storage.nbytes())

    def _release(self, key: int, size: int) -> None:
        self.living.discard(key)
        self.current -= size
