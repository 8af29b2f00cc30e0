"""Random views of a batch of pictures, in a few tensor operations on whichever device trains."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def augment(pictures: Tensor, generator: torch.Generator, *, min_area: float = 0.4, colour: float = 0.3, cutout: float = 0.5) -> Tensor:
    """One random view of every picture: crop, flip, colour, cutout.

    Random numbers are drawn on the host, so every device sees the same views for a seed.

    Args:
        pictures: bytes (N, 3, S, S).
        min_area: smallest share of the area that a crop keeps; the crop is stretched back to S x S.
        colour: strength of brightness, contrast and saturation, as a factor in 1 +- colour.
        cutout: side of the square that is greyed out, as a share of S; 0.5 in the paper's recipe, here placed at random with its
            centre inside the picture and for every second picture.

    Returns:
        Pixels in [0, 1], float (N, 3, S, S).
    """
    pixels = pictures.float() / 255
    pixels = F.grid_sample(pixels, _crop_grid(pixels, generator, min_area), mode="bilinear", padding_mode="reflection", align_corners=False)
    pixels = _jitter(pixels, generator, colour)
    return _cut(pixels, generator, cutout)


def _uniform(generator: torch.Generator, count: int, low: float, high: float, device: torch.device) -> Tensor:
    return (torch.rand(count, generator=generator) * (high - low) + low).to(device)


def _crop_grid(pixels: Tensor, generator: torch.Generator, min_area: float) -> Tensor:
    count, device = len(pixels), pixels.device
    side = _uniform(generator, count, min_area, 1.0, device).sqrt()
    aspect = _uniform(generator, count, -math.log(4 / 3) / 2, math.log(4 / 3) / 2, device).exp()
    width, height = (side * aspect).clamp(max=1.0), (side / aspect).clamp(max=1.0)
    x = (1 - width) * _uniform(generator, count, -1.0, 1.0, device)
    y = (1 - height) * _uniform(generator, count, -1.0, 1.0, device)
    flip = _uniform(generator, count, -1.0, 1.0, device).sign()
    zero = torch.zeros_like(x)
    theta = torch.stack([torch.stack([width * flip, zero, x], -1), torch.stack([zero, height, y], -1)], 1)
    return F.affine_grid(theta, list(pixels.shape), align_corners=False)


def _jitter(pixels: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    brightness, contrast, saturation = (
        _uniform(generator, len(pixels), 1 - strength, 1 + strength, pixels.device).view(-1, 1, 1, 1) for _ in range(3)
    )
    # All three are affine in a pixel, its grey and the picture's mean grey: one pass, in place, since memory traffic is what costs here.
    grey = pixels.mean(1, keepdim=True)
    offset = grey * (brightness * contrast * (1 - saturation)) + grey.mean((2, 3), keepdim=True) * (brightness * (1 - contrast))
    return pixels.mul_(brightness * contrast * saturation).add_(offset).clamp_(0, 1)


def _cut(pixels: Tensor, generator: torch.Generator, share: float) -> Tensor:
    if not share:
        return pixels
    count, device, side = len(pixels), pixels.device, pixels.shape[-1]
    position = torch.linspace(0, 1, side, device=device)
    inside = []
    for _ in range(2):
        centre = _uniform(generator, count, 0.0, 1.0, device)
        inside.append((position - centre[:, None]).abs() < share / 2)
    chosen = _uniform(generator, count, -1.0, 1.0, device) > 0
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :] & chosen.view(-1, 1, 1, 1)
    return pixels.masked_fill_(hole, 0.5)
