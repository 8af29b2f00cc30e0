"""The paper's Figures 2 to 4: where several networks look in one picture; rows = labels, columns = the picture, then the networks."""

import warnings
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from matplotlib import colormaps, font_manager, rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from l2d.layers import KINDS, SCALES, Layer, build_layers, find_limits, format_number, format_probability
from l2d.layout import Box, Layout
from l2d.tiles import DIVERGING, DPI, MAP_DPI, Look, Photographs, Tile, paint_map, paint_ramp

FORMATS = ("png", "pdf")
# Perceptually uniform ones, and jet "as in the paper"; matplotlib's others work too.
COLORMAPS = ("inferno", "magma", "plasma", "viridis", "cividis", "turbo", "jet")

# A PNG of more would take long to write and to open: with many rows it has fewer pixels per inch.
MOST_PIXELS = 16_000_000
# PDF's own limit, 14,400 points: some viewers show no larger page.
MOST_INCHES = 200
# zlib's. Its default takes four times as long, and photographs hardly shrink more.
COMPRESSION = 2
INK, PALE = "#1c1c1e", "#48484a"
# matplotlib brings the first one; it has no Chinese, Japanese and Korean letters. The others have them, and are used where installed.
# The last one, also matplotlib's, has a sign for whatever no other has: else every such letter is a warning.
FONTS = (
    "DejaVu Sans",
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei"),
    *("Droid Sans Fallback", "Microsoft YaHei", "SimHei", "Yu Gothic", "MS Gothic", "Malgun Gothic", "PingFang SC", "Hiragino Sans"),
    *("Hiragino Sans GB", "Apple SD Gothic Neo", "Arial Unicode MS", "Last Resort High-Efficiency"),
)

# matplotlib has the setting that a PDF is written with but once for all threads.
_WRITING = Lock()


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
    kind: str = "layercam",
    scale: str = "row",
    colormap: str = "inferno",
    smooth: bool = True,
    threshold: float = 0.5,
    opacity: float | None = None,
    minus: int | None = None,
) -> Figure:
    """Draw one picture's maps: a row per label, the picture first and then a column per network; a caption says what the colours mean.

    A cell without positive evidence says so instead of showing the colour of zero. No state of matplotlib's is touched (no pyplot), so
    threads may draw at the same time.

    Args:
        image: the picture, RGB.
        columns: one `Column`, or tuple of its fields, per network.
        labels: the rows, from top to bottom.
        kind: what the maps hold, one of `KINDS`; the caption says it.
        scale: what shares a scale from zero to the largest evidence: "row" (a label in all networks, so colours compare), "map" (each map
            its own, the paper's look) or "grid". Its ends are printed, in evidence per picture area (`l2d.layers.measure_by_area`).
        colormap: one of `COLORMAPS`, or another of matplotlib's.
        smooth: interpolate between a map's cells, or show them.
        threshold: probabilities from here on are bold.
        opacity: how much of the photograph the colours cover at most, in [0, 1], less for labels below the threshold: as the page draws.
            None draws all maps alike, and covers something everywhere.
        minus: the column whose evidence is subtracted from the others', which then show differences from blue, less, to red, more. Its
            own cells keep evidence, on scales of their own. With a scale per map the differences are those of shares of each maximum.

    Raises:
        ValueError: for no picture of Pillow's, an unknown kind, scale or colour map, an opacity out of range, no row or column, a column
            to subtract that is not there, or a map that is not a table of numbers.
    """
    if not isinstance(image, Image.Image):
        raise ValueError(f"Expected a picture of Pillow's, as Image.open and Image.fromarray give one; got {type(image).__name__}.")
    answers, look = [Column(*column) for column in columns], Look(colormap, smooth, threshold, opacity)
    _check(answers, labels, kind, scale, look, minus)
    titles = ["Photograph", *_name_columns(answers, minus)]
    caption = _describe(kind, scale, None if minus is None else answers[minus].title, look)
    layout = Layout(image.width / image.height, titles, labels, caption, scale, minus)
    figure = Figure(figsize=(layout.width, layout.height), facecolor="white")
    FigureCanvasAgg(figure)
    # A notebook takes a figure without Axes and lines for an empty one, and shows nothing.
    figure.lines.append(Line2D([], [], visible=False))
    _draw_names(figure, layout)
    layers = build_layers([answer.maps for answer in answers], labels, scale, minus)
    limits = find_limits(layers, scale, minus, smooth)
    photographs = Photographs.of(image)
    for row, label in enumerate(labels):
        figure.add_artist(Tile(layout.picture(row, 0), photographs.plain, DPI))
        for column, answer in enumerate(answers):
            box, probability = layout.picture(row, column + 1), answer.probabilities.get(label)
            _draw_cell(figure, box, photographs, layers[row][column], limits[row][column], probability, look)
            if probability is not None:
                _draw_probability(figure, layout.beside(box[:2], 4.5, 4.5), probability, probability >= threshold)
    for box, (row, column), upright in layout.bars(limits):
        if limits[row][column] > 0:
            _draw_bar(figure, layout, box, limits[row][column], colormap, upright, signed=minus not in (None, column))
    return figure


def save_figure(figure: Figure, target: Path | str | BinaryIO, format: str, dpi: int = DPI) -> None:
    """Write a figure as "png" or "pdf" to a path or an open file; without a date, so that the same figure gives the same bytes.

    A PNG has fewer pixels per inch where it would have more than `MOST_PIXELS`. Warns of a PDF with a side above `MOST_INCHES`.

    Raises:
        ValueError: for another format.
    """
    if format not in FORMATS:
        raise ValueError(f"A figure is written as {' or '.join(FORMATS)}; got {format!r}.")
    if format == "pdf":
        if (side := figure.get_size_inches().max()) > MOST_INCHES:
            sentence = f"This page has a side of {side:.0f} inches, and some PDF viewers show none above {MOST_INCHES}"
            warnings.warn(f"{sentence}: choose fewer labels, or write a PNG.", stacklevel=2)
        with _WRITING, rc_context({"pdf.fonttype": _choose_font_type(figure)}):
            figure.savefig(target, format=format, facecolor="auto", metadata={"CreationDate": None})
    else:
        most = float((MOST_PIXELS / figure.get_size_inches().prod()) ** 0.5)
        figure.savefig(target, format=format, facecolor="auto", dpi=min(dpi, most), pil_kwargs={"compress_level": COMPRESSION})


def _choose_font_type(figure: Figure) -> int:
    """Type 42, since publishers refuse Type 3; but 3 where other fonts help out: matplotlib embeds some of them in no other way."""
    own = all(len(text.get_fontfamily()) == 1 and text.get_fontname() == FONTS[0] for text in figure.findobj(Text))
    return 42 if own else 3


def _draw_names(figure: Figure, layout: Layout) -> None:
    for number, lines in enumerate(layout.titles):
        _write(figure, layout.title(number), lines, ha="center", va="baseline", weight="bold")
    for row, lines in enumerate(layout.labels):
        _write(figure, layout.label(row), lines, ha="right", va="center")
    _write(figure, layout.foot(), layout.caption, va="bottom", size=7.5, color=PALE)


def _name_columns(answers: Sequence[Column], minus: int | None) -> list[str]:
    titles = [answer.title for answer in answers]
    if minus is None:
        return titles
    # No line ends with the sign: it stays with the word behind it.
    return [title if number == minus else f"{title} −\N{NO-BREAK SPACE}{titles[minus]}" for number, title in enumerate(titles)]


def _describe(kind: str, scale: str, minus: str | None, look: Look) -> str:
    """What the colours mean, in the page's words; `minus` is the title of the network that is subtracted."""
    what = KINDS[kind]
    if minus is not None:
        shares = ", as shares of each map's maximum" if scale == "map" else ""
        what = f"{what.partition(',')[0]} minus that of {minus}{shares}"
    fading = "" if look.opacity is None else "; maps of improbable labels fade"
    return f"Colours: {what}; {SCALES[scale]}. In each map its probability, bold from {look.threshold:.2f}{fading}."


def _draw_cell(
    figure: Figure, box: Box, photographs: Photographs, layer: Layer | None, limit: float, probability: float | None, look: Look
) -> None:
    if layer is None:
        figure.add_artist(Rectangle(box[:2], *box[2:], color="#f5f5f5", linewidth=0, transform=figure.transFigure))
        return _remark(figure, box, "label not known")
    if layer.find_peak(look.smooth) <= 0:
        figure.add_artist(Tile(box, photographs.pale, DPI))
        return _remark(figure, box, "no evidence" if layer.other is None else "no difference")
    # The photograph is grey below a map, so that no colour of its own is read as evidence.
    figure.add_artist(Tile(box, photographs.grey, DPI))
    figure.add_artist(Tile(box, partial(paint_map, layer, limit, probability, look), MAP_DPI))


def _remark(figure: Figure, box: Box, words: str) -> None:
    _write(figure, (box[0] + box[2] / 2, box[1] + box[3] / 2), [words], ha="center", va="center", size=9, style="italic")


def _draw_probability(figure: Figure, place: tuple[float, float], probability: float, sure: bool) -> None:
    patch = {"boxstyle": "round,pad=0.22,rounding_size=0.25", "facecolor": "white", "edgecolor": "none", "alpha": 0.88 if sure else 0.7}
    look: dict[str, Any] = {"weight": "bold", "color": INK} if sure else {"weight": "normal", "color": PALE}
    _write(figure, place, [format_probability(probability)], size=8.5, va="bottom", bbox=patch, **look)


def _draw_bar(figure: Figure, layout: Layout, box: Box, limit: float, colormap: str, upright: bool, signed: bool) -> None:
    """A colour bar from zero, or from -limit, to `limit`, with its ends (and middle, where there is room) in evidence per picture area."""
    figure.add_artist(Tile(box, partial(paint_ramp, DIVERGING if signed else colormap, upright), MAP_DPI))
    left, bottom, width, height = box
    low = -limit if signed else 0.0
    # The outer texts keep within the bar, so that those of two rows never meet.
    parts = {"bottom": 0.0, "center": 0.5, "top": 1.0} if upright else {"left": 0.0, "right": 1.0}
    for side, part in parts.items():
        words = format_number(low + part * (limit - low))
        if upright:
            _write(figure, layout.beside((left + width, bottom + part * height), 2.5, 0), [words], va=side, size=7.5)
        else:
            _write(figure, layout.beside((left + part * width, bottom), 0, -2.5), [words], va="top", ha=side, size=6.5)


def _write(figure: Figure, place: tuple[float, float], lines: Sequence[str], **look: Any) -> None:
    # Names are text: a label with two dollar signs is no formula.
    family = choose_family("".join(lines))
    figure.text(*place, "\n".join(lines), parse_math=False, linespacing=1.15, family=family, **{"color": INK, "size": 9.5, **look})


def choose_family(text: str) -> str | list[str]:
    """The font for a text without line breaks; several, where the first of `FONTS` lacks a letter."""
    return FONTS[0] if _list_letters().issuperset(map(ord, text)) else find_fonts()


@cache
def _list_letters() -> frozenset[int]:
    """Those of the first of `FONTS`."""
    return frozenset(font_manager.get_font(font_manager.findfont(FONTS[0])).get_charmap())


@cache
def find_fonts() -> list[str]:
    """Those of `FONTS` that are installed, in the order in which they are asked for a letter."""
    installed = set(font_manager.get_font_names())
    return [name for name in FONTS if name in installed]


def _check(columns: Sequence[Column], labels: Sequence[str], kind: str, scale: str, look: Look, minus: int | None) -> None:
    if kind not in KINDS:
        raise ValueError(f"Unknown kind of map {kind!r}; known are {', '.join(KINDS)}.")
    if scale not in SCALES:
        raise ValueError(f"Unknown scale {scale!r}; known are {', '.join(SCALES)}.")
    if look.colormap not in colormaps:
        raise ValueError(f"Unknown colour map {look.colormap!r}; use {', '.join(COLORMAPS)} or another of matplotlib's.")
    if look.opacity is not None and not 0 <= look.opacity <= 1:
        raise ValueError(f"The opacity must be between 0 and 1; got {look.opacity}.")
    if isinstance(labels, str):
        raise ValueError(f"The rows are a list of labels, [{labels!r}]; got {labels!r} alone.")
    if not labels or not columns:
        raise ValueError(f"A figure needs at least one label and one network; got labels: {len(labels)}, networks: {len(columns)}.")
    if minus is not None and not 0 <= minus < len(columns):
        raise ValueError(f"The column to subtract must be the number of a network, from 0 to {len(columns) - 1}; got {minus}.")
    for column in columns:
        for label, evidence in column.maps.items():
            if np.ndim(evidence) != 2:
                raise ValueError(f"{column.title}'s map of {label} must be a table (h, w); it has the shape {np.shape(evidence)}.")
