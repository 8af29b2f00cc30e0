"""The paper's augmentation: Cutout, then two operations of RandAugment for every picture, on whole batches."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Random numbers per picture: centre and colour of the hole; then twice whether, what, how much, in which direction, and a centre.
DRAWS = 5 + 2 * 6
# The chance of each of the two operations, and how strong it may be: 1 to this.
CHANCE = 0.5
LEVELS = 9
# What is uncovered at the edges, and what the small hole is filled with.
GREY = 128.0
HOLE = (125.0, 122.0, 113.0)
# Red, green and blue in a pixel's brightness (ITU-R 601-2), in 65,536ths, as Pillow adds them.
LUMA = (19595.0, 38470.0, 7471.0)


class Draw(NamedTuple):
    """How an operation is done to n pictures.

    Attributes:
        level: 1 to `LEVELS`, (n,).
        sign: -1 or 1, (n,).
        centre: y and x in [0, 1), (2, n).
    """

    level: Tensor
    sign: Tensor
    centre: Tensor

    @property
    def strength(self) -> Tensor:
        """The level as a share of the highest."""
        return self.level / LEVELS


def randaugment(pictures: Tensor, draws: Tensor, cutout: float = 0.5) -> Tensor:
    """Cut a hole of a random colour into every picture, then do up to two of `OPERATIONS` to it, each of any level.

    Each of the two is done with a chance of a half. They are those of the package randaugment 1.0.2, which the published code calls
    (after UDA's, whose levels are random, unlike those of Cubuk et al., "RandAugment", 2020), as Pillow does them, rounding included:
    to all pictures at once whose turn an operation is. Where a rotation reads between two pixels, it may take the other one.

    Args:
        pictures: bytes (N, 3, S, S), on any device.
        draws: numbers in [0, 1) on the host, (DRAWS, N), so that no device is asked what was drawn.
        cutout: side of the hole, as a share of S.

    Returns:
        Pixels in [0, 1], float (N, 3, S, S).
    """
    hole, *turns = draws.split([5, 6, 6])
    pixels = _cut_out(pictures.float(), hole.to(pictures.device, non_blocking=True), cutout)
    for turn in turns:
        _operate(pixels, turn)
    return pixels / 255


def _cut_out(pixels: Tensor, draws: Tensor, share: float) -> Tensor:
    size = pixels.shape[-1]
    reach = int(share * size + 0.5) // 2
    if not reach:
        return pixels
    centre = (draws[:2] * size).floor()
    # Both of its edges belong to the hole.
    return _fill(pixels, centre - reach, centre + reach, (draws[2:].T * 256).floor()[:, :, None, None])


def _fill(pixels: Tensor, first: Tensor, last: Tensor, colour: Tensor) -> Tensor:
    """Fill rectangles between rows and columns, each (2, n), with colours that can be laid over (n, 3, S, S)."""
    place = torch.arange(pixels.shape[-1], device=pixels.device)
    rows, columns = ((place >= low[:, None]) & (place <= high[:, None]) for low, high in zip(first, last, strict=True))
    return torch.where(rows[:, None, :, None] & columns[:, None, None, :], colour, pixels)


def _operate(pixels: Tensor, draws: Tensor) -> None:
    """One operation for about every second picture, in place."""
    chosen = (draws[1] * len(OPERATIONS)).long().masked_fill(draws[0] >= CHANCE, -1)
    level, sign = (draws[2] * LEVELS).floor() + 1, torch.where(draws[3] < 0.5, -1.0, 1.0)
    numbers = torch.stack([level, sign, *draws[4:]])
    for number, operation in enumerate(OPERATIONS.values()):
        rows = (chosen == number).nonzero().flatten()
        if len(rows):
            level, sign, *centre = numbers[:, rows].to(pixels.device, non_blocking=True)
            rows = rows.to(pixels.device, non_blocking=True)
            pixels[rows] = operation(pixels[rows], Draw(level, sign, torch.stack(centre)))


# Operations. Each takes pixels that are whole numbers from 0 to 255, float (n, 3, S, S), and gives such pixels.


def _shear_rows(pixels: Tensor, draw: Draw) -> Tensor:
    place = torch.arange(pixels.shape[-1], device=pixels.device)
    amount = (0.3 * draw.level.double() / LEVELS * draw.sign).view(-1, 1, 1)
    return _read_rows(pixels, place + amount * (place[:, None] + 0.5))


def _read_rows(pixels: Tensor, x: Tensor) -> Tensor:
    """Every row (n, 3, S, S) at places x (n, S, S) between its pixels, by Pillow's cubic curve, which is not torch's, and as precisely."""
    first, last = x.floor(), pixels.shape[-1] - 1
    near = [pixels.gather(3, (first + step).clamp(0, last).long()[:, None].expand(pixels.shape)) for step in (-1, 0, 1, 2)]
    before, left, right, after = near
    along = (x - first)[:, None]
    cubic = -before + left - right + after
    square = 2 * (before - left) + right - after
    value = (left + along * (right - before + along * (square + along * cubic))).floor().clamp_(0, 255)
    return torch.where(((x >= -0.5) & (x < last + 0.5))[:, None], value, GREY).float()


def _translate(axis: int, pixels: Tensor, draw: Draw) -> Tensor:
    theta = torch.eye(2, 3, device=pixels.device).repeat(len(pixels), 1, 1)
    theta[:, axis, 2] = 2 * 150 / 331 * draw.strength * draw.sign
    return _warp(pixels, theta)


def _rotate(pixels: Tensor, draw: Draw) -> Tensor:
    """Up to 30 degrees, always counter-clockwise."""
    angle = math.pi / 6 * draw.strength
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _warp(pixels, torch.stack([torch.stack([cos, -sin, zero], -1), torch.stack([sin, cos, zero], -1)], 1))


def _warp(pixels: Tensor, theta: Tensor) -> Tensor:
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    warped = F.grid_sample(pixels, grid, mode="nearest", padding_mode="border", align_corners=False)
    return torch.where((grid.abs() < 1).all(-1)[:, None], warped, GREY)


def _contrast(pixels: Tensor, draw: Draw) -> Tensor:
    return _enhance(pixels, (_grey(pixels).mean((1, 2, 3), keepdim=True) + 0.5).floor(), draw)


def _sharpness(pixels: Tensor, draw: Draw) -> Tensor:
    smooth = pixels.clone()
    inside = pixels[..., 1:-1, 1:-1]
    smooth[..., 1:-1, 1:-1] = ((9 * F.avg_pool2d(pixels, 3, stride=1) + 4 * inside) / 13 + 0.5).floor()
    return _enhance(pixels, smooth, draw)


def _enhance(pixels: Tensor, plain: Tensor, draw: Draw) -> Tensor:
    """Away from the plain picture, or towards it."""
    # In double precision first: a product that should be whole would else be the number below.
    factor = (1 + 0.9 * (draw.level.double() / LEVELS) * draw.sign).float().view(-1, 1, 1, 1)
    return (plain + factor * (pixels - plain)).clamp_(0, 255).floor_()


def _grey(pixels: Tensor) -> Tensor:
    weights = torch.tensor(LUMA).view(1, 3, 1, 1).to(pixels.device, non_blocking=True)
    return (((pixels * weights).sum(1, keepdim=True) + 0x8000) / 0x10000).floor()


def _solarize(pixels: Tensor, draw: Draw) -> Tensor:
    return torch.where(pixels < (256 * (1 - draw.strength)).view(-1, 1, 1, 1), pixels, 255 - pixels)


def _posterize(pixels: Tensor, draw: Draw) -> Tensor:
    step = 2 ** (4 * draw.strength).round().view(-1, 1, 1, 1)
    return (pixels / step).floor() * step


def _autocontrast(pixels: Tensor, draw: Draw) -> Tensor:
    """Every channel is stretched over all values."""
    low, high = (edge(pixels.flatten(2), -1)[..., None, None] for edge in (torch.amin, torch.amax))
    # Not a number over a tensor, which torch takes as a reciprocal times that number, and so rounds twice.
    scale = torch.full_like(low, 255, dtype=torch.double) / (high - low)
    return torch.where(high > low, (pixels * scale - low * scale).clamp(0, 255).floor(), pixels).float()


def _equalize(pixels: Tensor, draw: Draw) -> Tensor:
    """Every channel's values become about equally frequent."""
    values = pixels.flatten(2).long()
    counts = torch.zeros(*values.shape[:2], 256, dtype=torch.long, device=pixels.device).scatter_add_(2, values, torch.ones_like(values))
    most = counts.gather(2, values.amax(2, keepdim=True))
    step = (counts.sum(2, keepdim=True) - most) // 255
    table = (counts.cumsum(2) - counts + step // 2) // step.clamp(min=1)
    return torch.where(step[..., None] > 0, table.clamp_(max=255).gather(2, values).view_as(pixels).float(), pixels)


def _small_cutout(pixels: Tensor, draw: Draw) -> Tensor:
    """Of up to 20 pixels a side, whatever the size of the picture."""
    centre, reach = (draw.centre * pixels.shape[-1]).floor(), (20 * draw.strength).round().div(2).floor()
    colour = torch.tensor(HOLE).view(1, 3, 1, 1).to(pixels.device, non_blocking=True)
    return _fill(pixels, centre - reach, centre + reach - 1, colour)


OPERATIONS: dict[str, Callable[[Tensor, Draw], Tensor]] = {
    "invert": lambda pixels, draw: 255 - pixels,
    "cutout": _small_cutout,
    "sharpness": _sharpness,
    "autocontrast": _autocontrast,
    "posterize": _posterize,
    "shear x": _shear_rows,
    "translate x": partial(_translate, 0),
    "translate y": partial(_translate, 1),
    # Columns are sheared as the rows of the picture mirrored at its diagonal.
    "shear y": lambda pixels, draw: _shear_rows(pixels.mT, draw).mT,
    "rotate": _rotate,
    "equalize": _equalize,
    "contrast": _contrast,
    "colour": lambda pixels, draw: _enhance(pixels, _grey(pixels), draw),
    "solarize": _solarize,
    "brightness": lambda pixels, draw: _enhance(pixels, torch.zeros_like(pixels), draw),
}
