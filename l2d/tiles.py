"""The pixels of a figure: photographs, the maps over them, and colour bars, painted for the resolution at which they are written."""

from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.transforms import Affine2D, Bbox
from numpy.typing import NDArray
from PIL import Image

from l2d.layers import Layer, Numbers
from l2d.layout import CELL, Box

# Those that cover the photograph everywhere alike, as the paper's figures do; else little evidence is little paint.
EVEN = ("jet",)
# For differences: zero in the middle.
DIVERGING = "coolwarm"

# Pixels per inch: of a figure and its photographs; and of maps in a PDF, which are smooth.
DPI, MAP_DPI = 300, 150
# How much of the map's colour covers the photograph where there is no evidence, and at the scale's end.
FAINT, STRONG = 0.35, 0.75

# RGBA, the lowest row first, as matplotlib's renderers take them; and what paints so many, (width, height).
Pixels = NDArray[np.uint8]
Painter = Callable[[tuple[int, int]], Pixels]


class Look(NamedTuple):
    """How maps are drawn; the fields are explained at `draw_figure`."""

    colormap: str
    smooth: bool
    threshold: float
    opacity: float | None


class Tile(Artist):
    """Pixels in a box of the figure, painted for the resolution at which it is written.

    An Axes for each would take longer than all the rest. A PDF stores an array once however often it is drawn, so tiles should share a
    painter that gives the same one.

    Args:
        box: where.
        painter: paints it in any size.
        dpi: pixels per inch in a PDF.
    """

    def __init__(self, box: Box, painter: Painter, dpi: int):
        super().__init__()
        self.box, self.painter, self.dpi = box, painter, dpi

    def draw(self, renderer: Any) -> None:
        """Draw the pixels, as matplotlib asks every artist to."""
        left, bottom, width, height = self.get_window_extent().bounds
        context = renderer.new_gc()
        if renderer.option_scale_image():
            pixels = self.painter(_round(width / self.figure.dpi * self.dpi, height / self.figure.dpi * self.dpi))
            renderer.draw_image(context, left, bottom, pixels, Affine2D().scale(width, height))
        else:
            renderer.draw_image(context, round(left), round(bottom), self.painter(_round(width, height)))
        context.restore()

    def get_window_extent(self, renderer: Any = None) -> Bbox:
        """Where it is in pixels of the canvas: `bbox_inches="tight"`, as in notebooks, crops the figure and moves what is left."""
        whole = self.get_transform().transform_bbox(Bbox.unit())
        left, bottom, width, height = np.multiply(self.box, np.tile(whole.size, 2)).tolist()
        return Bbox.from_bounds(whole.x0 + left, whole.y0 + bottom, width, height)


class Photographs(NamedTuple):
    """Painters of the picture: as it is, below a map, and where there is none to lay over it."""

    plain: Painter
    grey: Painter
    pale: Painter

    @classmethod
    def of(cls, image: Image.Image) -> "Photographs":
        # Once from however many pixels there are to as many as a cell has, and from there to every other size.
        factor = CELL * DPI / max(image.size)
        fitted = _resize(image.convert("RGB"), _round(image.width * factor, image.height * factor))

        def painter(coloured: bool, white: float) -> Painter:
            return cache(partial(_paint_photograph, fitted, coloured, white))

        return cls(painter(True, 0), painter(False, 0), painter(False, 0.72))


def _paint_photograph(image: Image.Image, coloured: bool, white: float, size: tuple[int, int]) -> Pixels:
    """The picture in colours or in grey, with a share of white in it."""
    photo = np.asarray(_resize(image, size), dtype=np.float32)
    if not coloured:
        photo = photo.mean(-1, keepdims=True)
    pixels = np.full((*photo.shape[:2], 4), 255, dtype=np.uint8)
    pixels[::-1, :, :3] = (255 * white + (1 - white) * photo).round()
    return pixels


def paint_map(layer: Layer, limit: float, probability: float | None, look: Look, size: tuple[int, int]) -> Pixels:
    """A map's colours, and as their alpha how much of the photograph they cover."""
    signed = layer.other is not None
    share = np.clip(layer.spread(size, look.smooth) / np.float32(limit), -1 if signed else 0, 1)
    colours = colormaps[DIVERGING if signed else look.colormap]((share + 1) / 2 if signed else share, bytes=True)
    colours[..., 3] = np.round(255 * _cover(np.abs(share), look.colormap in EVEN and not signed, probability, look))
    return np.ascontiguousarray(colours[::-1])


def _cover(share: Numbers, even: bool, probability: float | None, look: Look) -> Numbers:
    """How much of the photograph is covered where a map has a share, in [0, 1], of its scale; with an opacity as the page's script does."""
    if look.opacity is None:
        return FAINT + (STRONG - FAINT) * (np.full_like(share, 0.5) if even else share)
    sure = probability is not None and probability >= look.threshold
    fade = 1 if sure else 0.3 + 0.5 * (probability / look.threshold if probability else 0)
    return look.opacity * fade * (np.ones_like(share) if even else np.minimum(1, 1.6 * share))


@lru_cache(maxsize=8)
def paint_ramp(colormap: str, upright: bool, size: tuple[int, int]) -> Pixels:
    """A colour map from low to high, to the right or up."""
    steps = colormaps[colormap](np.linspace(0, 1, size[upright]), bytes=True)
    return np.broadcast_to(steps[:, None] if upright else steps, (size[1], size[0], 4)).copy()


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.LANCZOS)


def _round(width: float, height: float) -> tuple[int, int]:
    return max(1, round(width)), max(1, round(height))
