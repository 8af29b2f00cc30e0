"""The paper's Figures 2 to 4: where several networks look in one picture; rows = labels, columns = the picture, then the networks."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from l2d.layers import SCALES, Layer, Numbers, build_layers, find_limits

FORMATS = ("png", "pdf")
# Perceptually uniform ones, and jet "as in the paper"; matplotlib's others work too.
COLORMAPS = ("inferno", "magma", "plasma", "viridis", "cividis", "turbo", "jet")
# For differences: zero in the middle.
DIVERGING = "coolwarm"

# Inches. The longer side of a cell is CELL, the shorter one at least NARROW: then a panorama has margins.
CELL, NARROW = 1.7, 0.95
GAP, MARGIN, LINE = 0.06, 0.12, 0.155
BAR, BAR_ROOM, OWN_BAR, OWN_BAR_ROOM = 0.085, 0.5, 0.045, 0.2
# Width of a letter, plain and bold, at 9.5 points; and the longest line of a row's label, in letters.
LETTER, BOLD_LETTER, LABEL_LETTERS = 0.08, 0.088, 14
# Pixels of a picture's longer side in the figure: a cell at 300 dpi. More would only make the file larger.
PIXELS = 510
# How much of the map's colour covers the photograph where there is no evidence, and at the scale's end.
FAINT, STRONG = 0.35, 0.75
INK, PALE = "#1c1c1e", "#48484a"

# Left, bottom, width and height as shares of the figure.
Box = tuple[float, float, float, float]


class Column(NamedTuple):
    """One network's answer.

    Attributes:
        title: stands above the column.
        maps: label -> raw evidence (h, w), of any size; without the labels that the network does not know.
        probabilities: label -> probability.
    """

    title: str
    maps: Mapping[str, NDArray[Any]]
    probabilities: Mapping[str, float]


def draw_figure(
    image: Image.Image,
    columns: Sequence[Column | tuple[str, Mapping[str, NDArray[Any]], Mapping[str, float]]],
    labels: Sequence[str],
    *,
    scale: str = "row",
    colormap: str = "inferno",
    smooth: bool = True,
    threshold: float = 0.5,
    minus: int | None = None,
) -> Figure:
    """Draw one picture's maps: a row per label, the picture first and then a column per network.

    A cell without positive evidence says so instead of showing the colour of zero. No state of matplotlib's is touched (no pyplot), so
    threads may draw at the same time.

    Args:
        image: the picture, RGB.
        columns: one `Column`, or tuple of its fields, per network.
        labels: the rows, from top to bottom.
        scale: what shares a scale from zero to the largest evidence: "row" (a label in all networks, so colours compare), "map" (each map
            its own, the paper's look) or "grid". Its ends are printed in the units of the maps.
        colormap: one of `COLORMAPS`, or another of matplotlib's.
        smooth: interpolate between a map's cells, or show them.
        threshold: probabilities from here on are bold.
        minus: the column whose evidence is subtracted from the others', which then show differences from blue, less, to red, more. Its
            own cells keep evidence, on scales of their own. With a scale per map the differences are those of shares of each maximum.

    Raises:
        ValueError: for an unknown scale or colour map, no row or column, a column to subtract that is not there, or a map that is not a
            table of numbers.
    """
    answers = [Column(*column) for column in columns]
    _check(answers, labels, scale, colormap, minus)
    photo = _fit(image)
    layout = _Layout(photo.shape[1] / photo.shape[0], _name_columns(answers, minus), labels, scale, minus)
    figure = Figure(figsize=(layout.width, layout.height), facecolor="white")
    FigureCanvasAgg(figure)
    _draw_names(figure, layout)
    layers = build_layers([answer.maps for answer in answers], labels, scale, minus)
    limits = find_limits(layers, scale, minus)
    for row, label in enumerate(labels):
        _show(figure, layout.cell(row, 0), photo)
        for column, answer in enumerate(answers):
            box = layout.cell(row, column + 1)
            axes = _draw_cell(figure, box, photo, layers[row][column], limits[row][column], colormap, smooth)
            _draw_probability(axes, answer.probabilities.get(label), threshold)
    for box, (row, column), upright in layout.bars(limits):
        if limits[row][column] > 0:
            _draw_bar(figure, box, limits[row][column], colormap, upright, signed=minus not in (None, column))
    return figure


def save_figure(figure: Figure, target: Path | BinaryIO, format: str, dpi: int = 300) -> None:
    """Write a figure as "png" or "pdf" to a path or an open file; without a date, so that the same figure gives the same bytes.

    Raises:
        ValueError: for another format.
    """
    if format not in FORMATS:
        raise ValueError(f"A figure is written as {' or '.join(FORMATS)}; got {format!r}.")
    figure.savefig(target, format=format, dpi=dpi, metadata={"CreationDate": None} if format == "pdf" else None)


class _Layout:
    """Where everything stands, in inches from the upper left corner; every method gives shares of the figure, as matplotlib counts."""

    def __init__(self, aspect: float, titles: Sequence[str], labels: Sequence[str], scale: str, minus: int | None):
        self.scale, self.minus = scale, minus
        width, height = (CELL, CELL / aspect) if aspect > 1 else (CELL * aspect, CELL)
        self.cell_width, self.cell_height = max(width, NARROW), max(height, NARROW)
        self.titles = [_wrap(title, int(self.cell_width / BOLD_LETTER)) for title in ("Picture", *titles)]
        self.labels = [_wrap(label, LABEL_LETTERS) for label in labels]
        self.row_height = self.cell_height + (0 if scale != "map" and minus is None else OWN_BAR_ROOM) + GAP
        self.left = MARGIN + LETTER * max(len(line) for lines in self.labels for line in lines) + 2 * GAP
        self.top = MARGIN + LINE * max(len(lines) for lines in self.titles) + GAP
        self.right = self.left + len(self.titles) * (self.cell_width + GAP)
        self.width = self.right + (MARGIN if scale == "map" else GAP + BAR + BAR_ROOM)
        self.height = self.top + len(labels) * self.row_height - GAP + MARGIN

    def cell(self, row: int, column: int) -> Box:
        return self._box(self._x(column), self._y(row), self.cell_width, self.cell_height)

    def bars(self, limits: Sequence[Sequence[float]]) -> Iterator[tuple[Box, tuple[int, int], bool]]:
        """Every colour bar, row and column of a cell whose scale it is, and whether it stands upright beside the rows."""
        for row, column in np.ndindex(len(limits), len(limits[0])):
            if self.scale == "map" or column == self.minus:
                y = self._y(row) + self.cell_height + 0.03
                yield self._box(self._x(column + 1), y, self.cell_width, OWN_BAR), (row, column), False
        sharing = [column for column in range(len(limits[0])) if column != self.minus]
        if self.scale == "map" or not sharing:
            return
        rows = 1 if self.scale == "row" else len(limits)
        for first in range(0, len(limits), rows):
            height = (rows - 1) * self.row_height + self.cell_height
            yield self._box(self.right + GAP, self._y(first), BAR, height), (first, sharing[0]), True

    def title(self, column: int) -> tuple[float, float]:
        return (self._x(column) + self.cell_width / 2) / self.width, 1 - (self.top - 1.4 * GAP) / self.height

    def label(self, row: int) -> tuple[float, float]:
        return (self.left - 2 * GAP) / self.width, 1 - (self._y(row) + self.cell_height / 2) / self.height

    def _x(self, column: int) -> float:
        return self.left + column * (self.cell_width + GAP)

    def _y(self, row: int) -> float:
        return self.top + row * self.row_height

    def _box(self, x: float, y: float, width: float, height: float) -> Box:
        return x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height


def _draw_names(figure: Figure, layout: _Layout) -> None:
    for number, lines in enumerate(layout.titles):
        _write(figure, layout.title(number), lines, ha="center", va="baseline", weight="bold")
    for row, lines in enumerate(layout.labels):
        _write(figure, layout.label(row), lines, ha="right", va="center")


def _name_columns(answers: Sequence[Column], minus: int | None) -> list[str]:
    titles = [answer.title for answer in answers]
    return titles if minus is None else [title if number == minus else f"{title} − {titles[minus]}" for number, title in enumerate(titles)]


def _draw_cell(figure: Figure, box: Box, photo: Numbers, layer: Layer | None, limit: float, colormap: str, smooth: bool) -> Axes:
    if layer is None:
        return _show(figure, box, np.full_like(photo, 0.96), "label not known")
    if layer.peak <= 0:
        remark = "no evidence" if layer.other is None else "no difference"
        return _show(figure, box, 0.72 + 0.28 * photo.mean(-1, keepdims=True).repeat(3, -1), remark)
    share = np.clip(layer.spread(photo.shape[1::-1], smooth) / np.float32(limit), 0 if layer.other is None else -1, 1)
    colours = colormaps[colormap](share) if layer.other is None else colormaps[DIVERGING]((share + 1) / 2)
    return _show(figure, box, _blend(photo, np.abs(share), colours[..., :3]))


def _show(figure: Figure, box: Box, pixels: Numbers, remark: str = "") -> Axes:
    axes = figure.add_axes(box)
    axes.set_axis_off()
    axes.imshow((pixels * 255).round().astype(np.uint8))
    axes.text(0.5, 0.5, remark, ha="center", va="center", size=9, style="italic", color=INK, transform=axes.transAxes)
    return axes


def _draw_probability(axes: Axes, probability: float | None, threshold: float) -> None:
    if probability is None:
        return
    sure = probability >= threshold
    patch = {"boxstyle": "round,pad=0.22,rounding_size=0.25", "facecolor": "white", "edgecolor": "none", "alpha": 0.88 if sure else 0.7}
    look: dict[str, Any] = {"weight": "bold", "color": INK} if sure else {"weight": "normal", "color": PALE}
    axes.annotate(
        f"{probability:.2f}", (0, 0), (4.5, 4.5), "axes fraction", textcoords="offset points", size=8.5, va="bottom", bbox=patch, **look
    )


def _draw_bar(figure: Figure, box: Box, limit: float, colormap: str, upright: bool, signed: bool) -> None:
    """A colour bar from zero, or from -limit, to `limit`, with its ends (and middle, where there is room) in the maps' own units."""
    axes, ramp = figure.add_axes(box), np.linspace(0, 1, 256)[None]
    low = -limit if signed else 0
    extent = (0, 1, low, limit) if upright else (low, limit, 0, 1)
    axes.imshow(ramp.T[::-1] if upright else ramp, aspect="auto", cmap=DIVERGING if signed else colormap, extent=extent)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=2.5, labelsize=7.5 if upright else 6.5, colors=INK)
    axes.set_xticks([]) if upright else axes.set_yticks([])
    axes.yaxis.tick_right()
    # The outer texts keep within the bar, so that those of two rows never meet.
    ticks, sides = ([low, (low + limit) / 2, limit], ("bottom", "center", "top")) if upright else ([low, limit], ("left", "right"))
    axis = axes.yaxis if upright else axes.xaxis
    axis.set_ticks(ticks, [f"{tick:.2g}".replace("-", "−") for tick in ticks])
    for text, side in zip(axis.get_ticklabels(), sides, strict=True):
        text.set(**{"va" if upright else "ha": side})


def _blend(photo: Numbers, share: Numbers, colours: Numbers) -> Numbers:
    """Lay a map's colours over a photograph (H, W, 3), more of them where there is more evidence, a share in [0, 1] (H, W).

    The photograph is grey there, so that no colour of its own is read as evidence.
    """
    cover = (FAINT + (STRONG - FAINT) * share)[..., None]
    return (1 - cover) * photo.mean(-1, keepdims=True) + cover * colours


def _fit(image: Image.Image) -> Numbers:
    """The picture's pixels in [0, 1], (H, W, 3), as many as the figure can show."""
    factor = PIXELS / max(image.size)
    width, height = (max(1, round(side * factor)) for side in image.size)
    return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS), dtype=np.float64) / 255


def _wrap(text: str, letters: int) -> list[str]:
    return textwrap.wrap(text, letters) or [""]


def _write(figure: Figure, place: tuple[float, float], lines: Sequence[str], **look: Any) -> None:
    # Names are text: a label with two dollar signs is no formula.
    figure.text(*place, "\n".join(lines), color=INK, size=9.5, parse_math=False, linespacing=1.15, **look)


def _check(columns: Sequence[Column], labels: Sequence[str], scale: str, colormap: str, minus: int | None) -> None:
    if scale not in SCALES:
        raise ValueError(f"Unknown scale {scale!r}; known are {', '.join(SCALES)}.")
    if colormap not in colormaps:
        raise ValueError(f"Unknown colour map {colormap!r}; use {', '.join(COLORMAPS)} or another of matplotlib's.")
    if not labels or not columns:
        raise ValueError(f"A figure needs at least one label and one network; got {len(labels)} labels and {len(columns)} networks.")
    if minus is not None and not 0 <= minus < len(columns):
        raise ValueError(f"The column to subtract must be one of the {len(columns)} networks, from 0; got {minus}.")
    for column in columns:
        for label, evidence in column.maps.items():
            if np.ndim(evidence) != 2:
                raise ValueError(f"{column.title}'s map of {label} must be a table (h, w); it has the shape {np.shape(evidence)}.")
