"""The paper's augmentation, beside Pillow, with which the published code makes it."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from l2d.data.augmentation import augment
from l2d.data.randaugment import CHANCE, DRAWS, LEVELS, OPERATIONS, Draw, randaugment

SIDE = 48
GREY = (128, 128, 128)

# Operation -> what the package randaugment 1.0.2 asks of Pillow, with the level as a share of 1 and the sign.
PILLOW: dict[str, Callable[[Image.Image, float, int], Image.Image]] = {
    "invert": lambda picture, strength, sign: ImageOps.invert(picture),
    "sharpness": lambda picture, strength, sign: ImageEnhance.Sharpness(picture).enhance(1 + 0.9 * strength * sign),
    "autocontrast": lambda picture, strength, sign: ImageOps.autocontrast(picture),
    "posterize": lambda picture, strength, sign: ImageOps.posterize(picture, round(8 - 4 * strength)),
    "shear x": lambda picture, strength, sign: warp(picture, (1, 0.3 * strength * sign, 0, 0, 1, 0), Image.Resampling.BICUBIC),
    "shear y": lambda picture, strength, sign: warp(picture, (1, 0, 0, 0.3 * strength * sign, 1, 0), Image.Resampling.BICUBIC),
    "translate x": lambda picture, strength, sign: warp(picture, (1, 0, 150 / 331 * strength * picture.width * sign, 0, 1, 0)),
    "translate y": lambda picture, strength, sign: warp(picture, (1, 0, 0, 0, 1, 150 / 331 * strength * picture.height * sign)),
    "rotate": lambda picture, strength, sign: picture.rotate(30 * strength, fillcolor=GREY),
    "equalize": lambda picture, strength, sign: ImageOps.equalize(picture),
    "contrast": lambda picture, strength, sign: ImageEnhance.Contrast(picture).enhance(1 + 0.9 * strength * sign),
    "colour": lambda picture, strength, sign: ImageEnhance.Color(picture).enhance(1 + 0.9 * strength * sign),
    "solarize": lambda picture, strength, sign: ImageOps.solarize(picture, 256 * (1 - strength)),  # type: ignore[arg-type]
    "brightness": lambda picture, strength, sign: ImageEnhance.Brightness(picture).enhance(1 + 0.9 * strength * sign),
}


def warp(picture: Image.Image, data: tuple[float, ...], resample: Image.Resampling = Image.Resampling.NEAREST) -> Image.Image:
    return picture.transform(picture.size, Image.Transform.AFFINE, data, resample, fillcolor=GREY)


def draw_picture(seed: int = 0, side: int = SIDE) -> Tensor:
    """A smooth picture with an edge and something black, whose channels do not use every value, as bytes (3, side, side)."""
    y, x = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    waves = torch.stack([torch.sin(6 * x + seed) + y, torch.cos(4 * y) * x, x * y]) + (x + y > 1.1)
    return (70 * (waves - waves.amin())).clamp(0, 240).byte()


def to_pillow(picture: Tensor) -> Image.Image:
    return Image.fromarray(picture.permute(1, 2, 0).numpy())


def from_pillow(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()


def make_draws(count: int, seed: int = 0) -> Tensor:
    return torch.rand(DRAWS, count, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", PILLOW)
def test_an_operation_is_pillows_at_every_level_and_in_both_directions(name: str) -> None:
    cases = [(level, sign) for level in range(1, LEVELS + 1) for sign in (-1, 1)]
    pictures = torch.stack([draw_picture(number) for number in range(len(cases))])
    level, sign = torch.tensor(cases, dtype=torch.float32).T
    found = OPERATIONS[name](pictures.float(), Draw(level, sign, torch.zeros(2, len(cases))))
    for picture, ours, (strength, direction) in zip(pictures, found, cases, strict=True):
        theirs = from_pillow(PILLOW[name](to_pillow(picture), strength / LEVELS, direction))
        difference = (ours - theirs).abs()
        if name == "rotate":
            # Of a place between two pixels either may be taken.
            assert (difference > 0).float().mean() < 0.01
        else:
            assert difference.max() <= 1
            assert (difference > 0).float().mean() < 0.002


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_changes_the_picture_and_keeps_bytes(name: str) -> None:
    pictures = torch.stack([draw_picture(), draw_picture(1)]).float()
    before = pictures.clone()
    found = OPERATIONS[name](pictures, Draw(torch.tensor([9.0, 5.0]), torch.tensor([1.0, -1.0]), torch.full((2, 2), 0.4)))
    assert torch.equal(pictures, before)
    assert torch.equal(found, found.round().clamp(0, 255))
    assert ((found - pictures).abs().amax((1, 2, 3)) > 0).all()


def test_a_flat_picture_stays_flat_under_operations_that_stretch_values() -> None:
    flat = torch.full((1, 3, 8, 8), 77.0)
    draw = Draw(torch.ones(1), torch.ones(1), torch.zeros(2, 1))
    for name in ("autocontrast", "equalize"):
        assert torch.equal(OPERATIONS[name](flat, draw), flat)


def test_the_small_hole_is_as_large_as_its_level_says_and_cut_at_the_edge() -> None:
    level, centre = torch.tensor([9.0, 4.0, 9.0]), torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.999]])
    found = OPERATIONS["cutout"](torch.zeros(3, 3, SIDE, SIDE), Draw(level, torch.ones(3), centre))
    assert (found[:, 0] == 125).sum((1, 2)).tolist() == [20 * 20, 8 * 8, 10 * 11]
    assert found[0, :, 24, 24].tolist() == [125, 122, 113]


def test_a_hole_of_half_the_side_and_any_colour_is_in_every_picture() -> None:
    draws = make_draws(200)
    # Neither of the two operations.
    draws[[5, 11]] = 0.99
    views = randaugment(torch.zeros(200, 3, SIDE, SIDE, dtype=torch.uint8), draws)
    filled = (views > 0).any(1)
    assert (filled.flatten(1).sum(1) > (SIDE // 4) ** 2).all()
    rows, columns = filled.any(2).sum(1), filled.any(1).sum(1)
    assert rows.max() == columns.max() == SIDE // 2 + 1
    assert torch.equal(filled.sum((1, 2)), rows * columns)
    colours = views.amax((2, 3))
    assert colours.std(0).min() > 0.2
    assert randaugment(torch.zeros(4, 3, SIDE, SIDE, dtype=torch.uint8), draws[:, :4], cutout=0.0).max() == 0


@pytest.mark.parametrize(("cutout", "reach"), [(0.5, 12), (0.25, 6), (0.15, 3), (0.1, 2), (0.02, 0)])
def test_the_hole_lies_where_it_was_drawn_in_the_colour_that_was_drawn(cutout: float, reach: int) -> None:
    draws = torch.full((DRAWS, 1), 0.99)
    draws[:5, 0] = torch.tensor([0.5, 0.26, 0.0, 0.5, 0.999])
    expected = torch.full((3, SIDE, SIDE), 77.0)
    if reach:
        expected[:, 24 - reach : 25 + reach, 12 - reach : 13 + reach] = torch.tensor([0.0, 128, 255])[:, None, None]
    view = randaugment(torch.full((1, 3, SIDE, SIDE), 77, dtype=torch.uint8), draws, cutout)[0]
    assert torch.equal((view * 255).round(), expected)


def test_each_operation_has_its_turn_and_most_pictures_have_some() -> None:
    count = 3000
    draws = make_draws(count)
    pictures = draw_picture(side=16).expand(count, -1, -1, -1)
    views = randaugment(pictures, draws, cutout=0.0)
    changed = ((views - pictures.float() / 255).abs().amax((1, 2, 3)) > 1e-6).float().mean()
    # Each operation is done with a chance of a half; the weakest levels of some change nothing.
    assert 1 - (1 - CHANCE) ** 2 - 0.12 < changed < 1 - (1 - CHANCE) ** 2 + 0.03
    pictures = pictures[:300]
    for number, operation in enumerate(OPERATIONS.values()):
        alone = draws[:, :300].clone()
        alone[[5, 11]] = torch.tensor([[0.0], [0.99]])
        alone[6] = (number + 0.5) / len(OPERATIONS)
        level, sign = (alone[7] * LEVELS).floor() + 1, torch.where(alone[8] < 0.5, -1.0, 1.0)
        expected = operation(pictures.float(), Draw(level, sign, alone[9:11])) / 255
        assert torch.equal(randaugment(pictures, alone, cutout=0.0), expected)


def test_no_picture_shows_in_the_view_of_another_and_a_seed_decides_all() -> None:
    pictures = torch.stack([draw_picture(seed) for seed in range(24)])
    others = torch.cat([pictures[:1], pictures[1:] // 3])
    views = [augment(batch, torch.Generator().manual_seed(2), "randaugment") for batch in (pictures, pictures, others)]
    assert torch.equal(views[0], views[1])
    assert torch.equal(views[0][0], views[2][0])
    assert views[0].shape == pictures.shape
    assert views[0].min() >= 0
    assert views[0].max() <= 1


def test_an_angle_turns_counter_clockwise() -> None:
    picture = torch.zeros(1, 3, 41, 41)
    picture[..., 20, 38] = 255
    found = OPERATIONS["rotate"](picture, Draw(torch.tensor([9.0]), torch.ones(1), torch.zeros(2, 1)))[0, 0]
    row, column = divmod(int(found.where(found != 128, 0).argmax()), 41)
    assert row == pytest.approx(20 - 18 * math.sin(math.pi / 6), abs=1)
    assert column == pytest.approx(20 + 18 * math.cos(math.pi / 6), abs=1)
