"""Random views of a batch of pictures, in a few tensor operations on whichever device trains."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from l2d import processes
from l2d.data import randaugment

# Ours, and the paper's.
AUGMENTATIONS = ("crops", "randaugment")
# Random numbers per picture: 5 for crop and flip, 3 for colour, 3 for cutout.
DRAWS = 11


def augment(
    pictures: Tensor,
    generator: torch.Generator,
    kind: str = "crops",
    *,
    min_area: float = 0.4,
    colour: float = 0.3,
    cutout: float = 0.5,
) -> Tensor:
    """One random view of every picture.

    Random numbers are drawn on the host, for the pictures of all processes: every device sees the same views for a seed, and every
    process those that a single one would see.

    Args:
        pictures: bytes (N, 3, S, S).
        kind: one of `AUGMENTATIONS`:
            crops: crop, flip, colours, and a grey hole in every second picture.
            randaugment: as published, without crops and flips, see `l2d.data.randaugment`; it takes `cutout` alone.
        min_area: smallest share of the area that a crop keeps; the crop, of a shape between 3:4 and 4:3, is stretched back to S x S.
        colour: strength of brightness, contrast and saturation, as a factor in 1 +- colour.
        cutout: side of the hole, as a share of S; its centre lies anywhere in the picture.

    Returns:
        Pixels in [0, 1], float (N, 3, S, S).
    """
    if kind == "randaugment":
        return randaugment.randaugment(pictures, _draw(randaugment.DRAWS, len(pictures), generator), cutout)
    # All numbers of a batch cross to the device at once: one by one, each would wait for what the device does at the moment.
    draws = _draw(DRAWS, len(pictures), generator).to(pictures.device, non_blocking=True)
    pixels = pictures.float() / 255
    pixels = F.grid_sample(pixels, _crop_grid(pixels, draws[:5], min_area), mode="bilinear", padding_mode="reflection", align_corners=False)
    pixels = _jitter(pixels, draws[5:8], colour)
    return _cut(pixels, draws[8:], cutout)


def _draw(numbers: int, pictures: int, generator: torch.Generator) -> Tensor:
    """This process' part of the random numbers for a batch of all processes, (numbers, pictures)."""
    total = pictures * processes.count()
    return torch.rand(numbers, total, generator=generator)[:, processes.share(total)]


def _crop_grid(pixels: Tensor, draws: Tensor, min_area: float) -> Tensor:
    # A side that would exceed the picture is cut, and the other one never gets so short that the area falls below its bound.
    side = _spread(draws[0], min_area, 1.0).sqrt()
    aspect = _spread(draws[1], -math.log(4 / 3) / 2, math.log(4 / 3) / 2).exp()
    width, height = (side * aspect).clamp(min_area, 1.0), (side / aspect).clamp(min_area, 1.0)
    x, y = (1 - width) * _spread(draws[2], -1.0, 1.0), (1 - height) * _spread(draws[3], -1.0, 1.0)
    flipped = torch.where(draws[4] < 0.5, -width, width)
    zero = torch.zeros_like(x)
    theta = torch.stack([torch.stack([flipped, zero, x], -1), torch.stack([zero, height, y], -1)], 1)
    return F.affine_grid(theta, list(pixels.shape), align_corners=False)


def _jitter(pixels: Tensor, draws: Tensor, strength: float) -> Tensor:
    brightness, contrast, saturation = _spread(draws, 1 - strength, 1 + strength).view(3, -1, 1, 1, 1)
    # All three are affine in a pixel, its grey and the picture's mean grey: one pass, in place, since memory traffic is what costs here.
    grey = pixels.mean(1, keepdim=True)
    offset = grey * (brightness * contrast * (1 - saturation)) + grey.mean((2, 3), keepdim=True) * (brightness * (1 - contrast))
    return pixels.mul_(brightness * contrast * saturation).add_(offset).clamp_(0, 1)


def _cut(pixels: Tensor, draws: Tensor, share: float) -> Tensor:
    if not share:
        return pixels
    position = torch.linspace(0, 1, pixels.shape[-1], device=pixels.device)
    rows, columns = ((position - centre[:, None]).abs() < share / 2 for centre in draws[:2])
    chosen = draws[2] > 0.5
    return pixels.masked_fill_(rows[:, None, :, None] & columns[:, None, None, :] & chosen.view(-1, 1, 1, 1), 0.5)


def _spread(draws: Tensor, low: float, high: float) -> Tensor:
    return draws * (high - low) + low
