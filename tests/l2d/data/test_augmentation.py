"""Random views: what a seed decides, what the strengths bound, and what stays in place."""

import pytest
import torch
from torch import Tensor

from l2d.data.augmentation import AUGMENTATIONS, augment

NONE = {"min_area": 1.0, "colour": 0.0, "cutout": 0.0}


def make_pictures(count: int = 64, side: int = 24) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def make_generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_views_are_pixels() -> None:
    views = augment(make_pictures(), make_generator(), colour=1.0)
    assert views.shape == (64, 3, 24, 24)
    assert views.dtype == torch.float32
    assert views.min() >= 0
    assert views.max() <= 1


def test_a_seed_decides_everything_whatever_the_global_generator_does() -> None:
    pictures = make_pictures()
    torch.manual_seed(3)
    first = augment(pictures, make_generator())
    torch.manual_seed(4)
    assert torch.equal(augment(pictures, make_generator()), first)
    assert not torch.equal(augment(pictures, make_generator(2)), first)


def test_no_picture_shows_in_the_view_of_another() -> None:
    pictures = make_pictures()
    others = torch.cat([pictures[:1], pictures[1:] // 4])
    assert torch.equal(augment(others, make_generator())[0], augment(pictures, make_generator())[0])


def test_the_pictures_themselves_stay() -> None:
    pictures = make_pictures()
    before = pictures.clone()
    augment(pictures, make_generator())
    assert torch.equal(pictures, before)


def test_with_no_strength_only_flips_remain() -> None:
    pictures = make_pictures().float() / 255
    views = augment(make_pictures(), make_generator(), **NONE)
    plain = (views - pictures).abs().amax((1, 2, 3)) < 1e-4
    flipped = (views - pictures.flip(3)).abs().amax((1, 2, 3)) < 1e-4
    assert (plain ^ flipped).all()
    assert 20 < flipped.sum() < 44


@pytest.mark.parametrize("min_area", [0.2, 0.6, 0.9])
def test_crops_keep_their_share_of_the_picture_and_stay_inside(min_area: float) -> None:
    """Pictures whose pixels are their own positions tell which part a view shows."""
    side = 64
    ramp = torch.linspace(0, 255, side).round().to(torch.uint8)
    pictures = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side), torch.zeros(side, side, dtype=torch.uint8)])
    views = augment(pictures.expand(256, -1, -1, -1), make_generator(), min_area=min_area, colour=0.0, cutout=0.0)
    width = (views[:, 0, :, -1] - views[:, 0, :, 0]).abs().mean(1) * side / (side - 1)
    height = (views[:, 1, -1] - views[:, 1, 0]).mean(1) * side / (side - 1)
    area = width * height
    assert area.min() > min_area - 0.03
    assert area.min() < min_area + 0.1
    assert area.max() < 1.03
    assert (width / height).max() < 4 / 3 + 0.05
    assert (width / height).min() > 3 / 4 - 0.05
    longest = min(4 / 3, 1 / min_area)
    assert (width / height).max() > 0.95 * longest
    assert (height / width).max() > 0.95 * longest


def test_crops_at_the_edge_show_nothing_from_outside() -> None:
    white = torch.full((64, 3, 24, 24), 255, dtype=torch.uint8)
    views = augment(white, make_generator(), min_area=0.2, colour=0.0, cutout=0.0)
    torch.testing.assert_close(views, torch.ones_like(views))


def test_chance_decides_each_part_of_a_view_apart() -> None:
    """Place, area and direction of the crop, colours, and the hole: none tells of another. The same seed draws the same numbers."""
    count, side = 1000, 16
    ramp = torch.linspace(0, 255, side).round().to(torch.uint8).expand(side, side)
    places = torch.stack([ramp, ramp.T, ramp]).expand(count, -1, -1, -1)
    crops = augment(places, make_generator(), min_area=0.4, colour=0.0, cutout=0.0)
    width, height = crops[:, 0, 0, -1] - crops[:, 0, 0, 0], crops[:, 1, -1, 0] - crops[:, 1, 0, 0]
    pink = torch.tensor([200, 100, 100], dtype=torch.uint8).view(1, 3, 1, 1).expand(count, -1, side, side)
    colours = augment(pink, make_generator(), min_area=1.0, colour=0.2, cutout=0.0)[:, :, 0, 0]
    holes = augment(torch.zeros_like(pink), make_generator(), min_area=1.0, colour=0.0, cutout=0.5)[:, 0]
    parts = [crops[:, 0].mean((1, 2)), crops[:, 1].mean((1, 2)), width.abs() * height, width.sign()]
    parts += [colours.mean(1), colours[:, 0] / colours[:, 1], holes.amax((1, 2))]
    assert (torch.corrcoef(torch.stack(parts)) - torch.eye(len(parts))).abs().max() < 0.12
    cut = holes.amax((1, 2)) > 0
    middles = [holes[cut].amax(other) @ torch.arange(side).float() / holes[cut].amax(other).sum(1) for other in (1, 2)]
    parts = [part[cut] for part in parts[:6]] + middles
    assert (torch.corrcoef(torch.stack(parts)) - torch.eye(len(parts))).abs().max() < 0.15


def test_colours_change_within_their_strength() -> None:
    grey = torch.full((200, 3, 8, 8), 100, dtype=torch.uint8)
    views = augment(grey, make_generator(), min_area=1.0, colour=0.3, cutout=0.0) / (100 / 255)
    assert 0.7 <= views.min() < 0.75
    assert 1.25 < views.max() <= 1.3001
    # A grey picture stays grey: saturation and contrast have nothing to work on.
    assert views.flatten(1).std(1).max() < 1e-5


def test_saturation_moves_colours_apart_from_their_grey() -> None:
    red = torch.tensor([120, 60, 60], dtype=torch.uint8).view(1, 3, 1, 1).expand(100, 3, 8, 8)
    views = augment(red, make_generator(), min_area=1.0, colour=0.5, cutout=0.0)
    ratio = views[:, 0, 0, 0] / views[:, 1, 0, 0]
    assert ratio.min() < 1.6
    assert ratio.max() > 2.4


def test_cutout_greys_a_square_in_every_second_picture() -> None:
    views = augment(torch.zeros(400, 3, 40, 40, dtype=torch.uint8), make_generator(), min_area=1.0, colour=0.0, cutout=0.5)
    assert set(views.unique().tolist()) == {0.0, 0.5}
    holes = (views[:, 0] == 0.5).flatten(1).sum(1)
    assert 150 < (holes > 0).sum() < 250
    assert holes.max() <= 21 * 21
    # Its centre lies inside, so at least a quarter of it does.
    assert holes[holes > 0].min() >= 9 * 9


def test_a_batch_of_one() -> None:
    assert augment(make_pictures(1), make_generator()).shape == (1, 3, 24, 24)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_a_gpu_makes_the_same_views(kind: str) -> None:
    views = [augment(make_pictures().to(device), make_generator(), kind).cpu() for device in ("cpu", "cuda")]
    # A grey value more or less; and of a place between two pixels either may be taken.
    assert ((views[0] - views[1]).abs() > 1.5 / 255).float().mean() < 0.01
