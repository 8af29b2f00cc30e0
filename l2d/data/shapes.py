"""Pictures that the program draws itself: coloured shapes on textured backgrounds, with boxes. Needs no download.

A small task with the traits that make photographs hard: several objects in a picture, of any colour, size and angle; shapes that
resemble each other (circle, ring, crescent); and company that misleads: each of three backgrounds favours a third of the labels, so
that a network can guess them from the surroundings, and its maps show whether it did.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw

from l2d.data.files import SPLITS, require_split
from l2d.data.images import Box, Boxes, Index
from l2d.disk import find_cache, replace_file

COUNT = 2000
SIDE = 96
# Test pictures, as a share of the training pictures.
TEST_SHARE = 4
# Part of the cache folder's name: change it whenever anything else is drawn for a seed.
VERSION = 1
# Drawn this much larger and then reduced, for smooth edges.
OVERSAMPLING = 2
# A background's favourites are this many times as frequent as the others.
FAVOUR = 4.0

Point = tuple[float, float]


def _spread(count: int, radius: float = 1.0, turn: float = 0.0) -> list[Point]:
    """Points at equal steps on a circle."""
    return [(radius * math.cos(turn + 2 * math.pi * k / count), radius * math.sin(turn + 2 * math.pi * k / count)) for k in range(count)]


def _heart() -> list[Point]:
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x = 16 * np.sin(angles) ** 3
    y = 13 * np.cos(angles) - 5 * np.cos(2 * angles) - 2 * np.cos(3 * angles) - np.cos(4 * angles)
    return [(float(a), float(b)) for a, b in zip(x / 17, -(y + 2.5) / 17, strict=True)]


def _crescent() -> list[Point]:
    outer = [(math.cos(a), math.sin(a)) for a in np.linspace(0.7, 2 * math.pi - 0.7, 30)]
    inner = [(0.35 + 0.75 * math.cos(a), 0.75 * math.sin(a)) for a in np.linspace(2 * math.pi - 1.03, 1.03, 24)]
    return outer + inner


# Outlines in a circle of radius 1. The ring is a circle with a hole.
OUTLINES: dict[str, list[Point]] = {
    "arrow": [(1, 0), (0.2, 0.75), (0.2, 0.3), (-0.95, 0.3), (-0.95, -0.3), (0.2, -0.3), (0.2, -0.75)],
    "circle": _spread(40, 0.9),
    "crescent": _crescent(),
    "cross": [(x * s, y * s) for s in (1, -1) for x, y in ((0.95, -0.3), (0.95, 0.3), (0.3, 0.3), (0.3, 0.95), (-0.3, 0.95), (-0.3, 0.3))],
    "heart": _heart(),
    "ring": _spread(40, 0.95),
    "square": _spread(4),
    "star": [point for pair in zip(_spread(5), _spread(5, 0.42, math.pi / 5), strict=True) for point in pair],
    "triangle": _spread(3),
}
LABELS = tuple(OUTLINES)
HOLE = 0.58
# Brightness from -1 to 1 by two directions at right angles, in radians across the picture.
TEXTURES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "stripes": lambda along, across: np.sin(8 * along),
    "checks": lambda along, across: np.sign(np.sin(5 * along) * np.sin(5 * across)),
    "clouds": lambda along, across: (np.sin(2 * along + 2 * np.sin(across)) + np.sin(3 * across + 2 * np.sin(2 * along))) / 2,
}
FAVOURITES = {"stripes": ("arrow", "circle", "star"), "checks": ("cross", "ring", "triangle"), "clouds": ("crescent", "heart", "square")}


class Shape(NamedTuple):
    """One object: its label, outline in pixels of the picture, and colour. `hole` is empty but for a ring."""

    label: int
    outline: list[Point]
    hole: list[Point]
    colour: tuple[int, int, int]

    def box(self) -> Box:
        """The smallest box around the outline."""
        xs, ys = zip(*self.outline, strict=True)
        return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


class Scene(NamedTuple):
    """Everything that is drawn: a texture with two colours and a direction, and the shapes, none hiding another."""

    texture: str
    colours: np.ndarray
    angle: float
    shapes: list[Shape]


def read_shapes(split: str, count: int = COUNT, *, seed: int = 0, side: int = SIDE, folder: Path | None = None) -> Index:
    """Index of `count` training pictures, or a quarter as many test pictures, drawing those that are not on disk yet.

    Picture k of a split is the same for the same seed, however many there are. They are kept as PNG in `folder`; by default in
    $L2D_CACHE, or the user's cache folder. A thousand take about two seconds.

    Args:
        split: "train" or "test".
        count: number of training pictures.
        seed: another seed gives other pictures.
        side: width and height in pixels.
        folder: where to keep them.

    Raises:
        ValueError: for an unknown split or a count below 1.
        OSError: if the folder cannot be written to.
    """
    require_split(split, "shapes")
    if count < 1:
        raise ValueError(f"Expected at least one picture; got {count}.")
    amount = count if split == "train" else math.ceil(count / TEST_SHARE)
    place = (folder or find_cache()) / f"shapes-{VERSION}-{side}px-seed{seed}" / split
    _make_folder(place)
    paths = [place / f"{number:06}.png" for number in range(amount)]
    targets, boxes = torch.zeros(amount, len(LABELS)), []
    for number, path in enumerate(paths):
        generator = np.random.default_rng([seed, SPLITS.index(split), number])
        scene = imagine_scene(generator, side)
        if not path.exists():
            replace_file(path, partial(draw_scene(scene, side).save, format="PNG", compress_level=1), durable=False)
        boxes.append(_read_boxes(scene.shapes))
        targets[number, list(boxes[-1])] = 1.0
    return Index(paths, targets, LABELS, boxes)


def imagine_scene(generator: np.random.Generator, side: int) -> Scene:
    """Choose what a picture shows: 1 to 5 shapes, mostly those that its texture favours."""
    texture = list(TEXTURES)[generator.integers(len(TEXTURES))]
    favour = np.array([FAVOUR if label in FAVOURITES[texture] else 1.0 for label in LABELS])
    ground = generator.integers(40, 216, size=3)
    colours = np.stack([ground, ground + generator.integers(-40, 41, size=3)]).clip(0, 255).astype(np.float32)
    wanted = generator.choice(len(LABELS), size=generator.integers(1, 6), p=favour / favour.sum())
    shapes: list[Shape] = []
    circles: list[tuple[float, float, float]] = []
    for label in wanted:
        circle = _find_room(generator, side, circles)
        if circle is not None:
            circles.append(circle)
            shapes.append(_make_shape(generator, int(label), circle, ground))
    return Scene(texture, colours, float(generator.uniform(0, math.pi)), shapes)


def draw_scene(scene: Scene, side: int) -> Image.Image:
    """The picture of a scene, RGB, `side` pixels wide and high."""
    large = side * OVERSAMPLING
    image = Image.fromarray(_weave(scene, side)).resize((large, large), Image.Resampling.BILINEAR)
    ground = image.copy()
    pen, mask = ImageDraw.Draw(image), Image.new("1", (large, large))
    for shape in scene.shapes:
        pen.polygon(_scale(shape.outline), fill=shape.colour)
        if shape.hole:
            ImageDraw.Draw(mask).polygon(_scale(shape.hole), fill=1)
    image.paste(ground, mask=mask)
    return image.reduce(OVERSAMPLING)


def _find_room(generator: np.random.Generator, side: int, taken: Sequence[tuple[float, float, float]]) -> tuple[float, float, float] | None:
    """A circle (x, y, radius) that touches none of those taken; None after a few tries."""
    for _ in range(20):
        radius = float(generator.uniform(0.09, 0.22)) * side
        x, y = (float(value) for value in generator.uniform(radius, side - radius, size=2))
        if all(math.hypot(x - a, y - b) >= radius + other for a, b, other in taken):
            return x, y, radius
    return None


def _make_shape(generator: np.random.Generator, label: int, circle: tuple[float, float, float], ground: np.ndarray) -> Shape:
    name, (x, y, radius) = LABELS[label], circle
    # At least this far from the ground's colour, so that no shape is invisible.
    colour = generator.integers(0, 256, size=3)
    while np.abs(colour - ground).max() < 90:
        colour = generator.integers(0, 256, size=3)
    turn = generator.uniform(0, 2 * math.pi)
    outline = _place(OUTLINES[name], x, y, radius, turn)
    hole = _place(_spread(40, HOLE), x, y, radius, turn) if name == "ring" else []
    return Shape(label, outline, hole, (int(colour[0]), int(colour[1]), int(colour[2])))


def _place(points: Sequence[Point], x: float, y: float, radius: float, turn: float) -> list[Point]:
    cos, sin = radius * math.cos(turn), radius * math.sin(turn)
    return [(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in points]


def _scale(points: Sequence[Point]) -> list[Point]:
    return [(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points]


def _weave(scene: Scene, side: int) -> np.ndarray:
    """The background, bytes (side, side, 3)."""
    steps = np.linspace(0, 2 * np.pi, side, endpoint=False, dtype=np.float32)
    cos, sin = np.float32(math.cos(scene.angle)), np.float32(math.sin(scene.angle))
    along, across = steps * cos + steps[:, None] * sin, steps[:, None] * cos - steps * sin
    share = (TEXTURES[scene.texture](along, across)[..., None] + 1) / 2
    return (scene.colours[0] * share + scene.colours[1] * (1 - share)).astype(np.uint8)


def _read_boxes(shapes: Sequence[Shape]) -> Boxes:
    boxes: Boxes = {}
    for shape in shapes:
        boxes.setdefault(shape.label, []).append(shape.box())
    return boxes


def _make_folder(place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"Cannot keep drawn pictures in {place} ({error}); set L2D_CACHE to a folder that can be written to.") from error
