"""The losses of an epoch: kept on the device, read back now and then, and refused as soon as one is no number."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from l2d import processes


class DivergenceError(ArithmeticError):
    """A loss is no longer a number."""


class LossMeter:
    """The mean of every loss over the steps of an epoch, in all processes.

    Args:
        epoch: its number, from 1.
    """

    def __init__(self, epoch: int):
        self._epoch, self._steps = epoch, 0
        self._unread: list[Tensor] = []
        self._totals: dict[str, float] = {}

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """One step's losses by name, scalars each; nobody waits for the device."""
        self._totals = self._totals or dict.fromkeys(losses, 0.0)
        self._unread.append(torch.stack([loss.detach() for loss in losses.values()]))

    def read(self) -> dict[str, float]:
        """The means of all steps so far.

        Raises:
            DivergenceError: naming the losses that became NaN or infinite first.
        """
        # One transfer for all of them: each waits for the device.
        steps = processes.average(torch.stack(self._unread)).tolist()
        for values in steps:
            self._check_finite(values)
        self._unread.clear()
        self._steps += len(steps)
        columns = zip(self._totals, zip(*steps, strict=True), strict=True)
        self._totals = {name: self._totals[name] + sum(column) for name, column in columns}
        return {name: total / self._steps for name, total in self._totals.items()}

    def _check_finite(self, values: list[float]) -> None:
        """Tell of the first step that lost a loss: the weights that it left make all losses NaN in the next."""
        lost = {name: str(value) for name, value in zip(self._totals, values, strict=True) if not math.isfinite(value)}
        if lost:
            losses, weights = ("loss", "its weight") if len(lost) == 1 else ("losses", "their weights")
            became = f"{' and '.join(lost)} {losses} became {' and '.join(dict.fromkeys(lost.values()))}"
            raise DivergenceError(f"The {became} in epoch {self._epoch}; lower the learning rate or {weights}.")
