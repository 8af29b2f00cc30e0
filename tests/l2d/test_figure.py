"""The figure: every cell, word, colour and scale where it belongs, written as PNG and PDF, from any number of threads."""

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from l2d.figure import FAINT, SCALES, STRONG, Column, draw_figure, save_figure

LABELS = ["cat", "traffic light"]
WHITE = Image.new("RGB", (40, 30), "white")


def fill(value: float, size: tuple[int, int] = (2, 2)) -> NDArray[np.float32]:
    return np.full(size, value, dtype=np.float32)


def make_columns() -> list[Column]:
    vanilla = Column("Vanilla", {"cat": fill(0.2), "traffic light": fill(0.6)}, {"cat": 0.914, "traffic light": 0.5})
    l2d = Column("L2D", {"cat": fill(0.4), "traffic light": fill(0.8)}, {"cat": 0.499, "traffic light": 0.0})
    return [vanilla, l2d]


def texts_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")) if text.get_text()]


def pictures_of(figure: Figure) -> list[NDArray[np.uint8]]:
    """The pixels of every cell, row by row; colour bars have no third axis."""
    arrays = [axes.images[0].get_array() for axes in figure.axes]
    return [np.asarray(array) for array in arrays if array.ndim == 3]


def bars_of(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.images[0].get_array().ndim == 2]


def ticks_of(axes: Axes) -> list[str]:
    return [text.get_text() for text in (*axes.get_xticklabels(), *axes.get_yticklabels())]


def blend_with_white(share: float, colormap: str = "inferno") -> NDArray[np.float64]:
    cover = FAINT + (STRONG - FAINT) * share
    return 255 * (1 - cover + cover * np.array(colormaps[colormap](float(share))[:3]))


def test_rows_are_labels_and_columns_are_the_picture_then_the_networks() -> None:
    figure = draw_figure(WHITE, make_columns(), LABELS)
    boxes = [axes.get_position() for axes in figure.axes if axes.images[0].get_array().ndim == 3]
    assert len(boxes) == 2 * 3
    assert boxes[0].x0 < boxes[1].x0 < boxes[2].x0
    assert boxes[0].y0 == boxes[1].y0 > boxes[3].y0
    assert (pictures_of(figure)[0] == 255).all()
    assert [text.get_text() for text in figure.texts] == ["Picture", "Vanilla", "L2D", "cat", "traffic light"]


@pytest.mark.parametrize(
    ("scale", "shares"),
    [("row", [0.2 / 0.4, 1, 0.6 / 0.8, 1]), ("map", [1, 1, 1, 1]), ("grid", [0.2 / 0.8, 0.4 / 0.8, 0.6 / 0.8, 1])],
)
@pytest.mark.parametrize("colormap", ["inferno", "jet"])
def test_colours_follow_the_scale(scale: str, shares: list[float], colormap: str) -> None:
    pictures = pictures_of(draw_figure(WHITE, make_columns(), LABELS, scale=scale, colormap=colormap))
    for picture, share in zip([pictures[i] for i in (1, 2, 4, 5)], shares, strict=True):
        np.testing.assert_allclose(picture[100, 100], blend_with_white(share, colormap), atol=4)


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        ("row", [["0", "0.2", "0.4"], ["0", "0.4", "0.8"]]),
        ("map", [["0", "0.2"], ["0", "0.4"], ["0", "0.6"], ["0", "0.8"]]),
        ("grid", [["0", "0.4", "0.8"]]),
    ],
)
def test_colour_bars_are_in_the_units_of_the_maps(scale: str, ticks: list[list[str]]) -> None:
    assert [ticks_of(bar) for bar in bars_of(draw_figure(WHITE, make_columns(), LABELS, scale=scale))] == ticks


def test_probabilities_are_bold_from_the_threshold_on() -> None:
    figure = draw_figure(WHITE, make_columns(), LABELS, threshold=0.5)
    written = [(text.get_text(), text.get_weight()) for axes in figure.axes for text in axes.texts if text.get_text()]
    # The second one is 0.499.
    assert written == [("0.91", "bold"), ("0.50", "normal"), ("0.50", "bold"), ("0.00", "normal")]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("nothing", [fill(0), fill(-1), fill(np.nan)])
def test_no_evidence_is_said_and_not_coloured(scale: str, nothing: NDArray[np.float32]) -> None:
    columns = [make_columns()[0], Column("Blind", {"cat": nothing, "traffic light": nothing}, {})]
    figure = draw_figure(Image.new("RGB", (40, 30), "red"), columns, LABELS, scale=scale)
    assert texts_of(figure).count("no evidence") == 2
    blind = pictures_of(figure)[2]
    assert (blind == blind[0, 0, 0]).all()


@pytest.mark.parametrize("scale", SCALES)
def test_a_row_without_any_evidence_has_no_colour_bar(scale: str) -> None:
    figure = draw_figure(WHITE, [Column("Blind", {"cat": fill(0)}, {"cat": 0.1})], ["cat"], scale=scale)
    assert bars_of(figure) == []


def test_a_label_that_a_network_does_not_know_is_said() -> None:
    figure = draw_figure(WHITE, [*make_columns(), Column("VOC", {}, {})], LABELS)
    assert texts_of(figure).count("label not known") == 2


def test_smooth_interpolates_and_cells_do_not() -> None:
    columns = [Column("One", {"cat": np.array([[0, 1], [2, 3]])}, {})]
    cells = pictures_of(draw_figure(WHITE, columns, ["cat"], smooth=False))[1]
    smooth = pictures_of(draw_figure(WHITE, columns, ["cat"], smooth=True))[1]
    assert len(np.unique(cells.reshape(-1, 3), axis=0)) == 4
    assert len(np.unique(smooth.reshape(-1, 3), axis=0)) > 50
    np.testing.assert_array_equal(cells[0, 0], smooth[0, 0])
    np.testing.assert_array_equal(cells[-1, -1], smooth[-1, -1])


@pytest.mark.parametrize("size", [(1, 1), (2000, 40), (30, 900)])
def test_any_shape_of_picture_fits(size: tuple[int, int]) -> None:
    figure = draw_figure(Image.new("L", size, 90), make_columns(), LABELS)
    save_figure(figure, io.BytesIO(), "png", dpi=50)
    assert max(figure.get_size_inches()) < 10


def test_names_are_text_and_long_ones_are_wrapped() -> None:
    label = "5 $\\frac$ and a very long name of a label"
    figure = draw_figure(WHITE, [Column("MobileNetV2 distilled by L2D $^$", {label: fill(1)}, {})], [label])
    save_figure(figure, io.BytesIO(), "pdf")
    written = texts_of(figure)
    assert label in [text.replace("\n", " ") for text in written]
    assert "MobileNetV2\ndistilled by L2D\n$^$" in written


def test_png_has_the_resolution_asked_for(tmp_path: Path) -> None:
    figure = draw_figure(WHITE, make_columns(), LABELS)
    save_figure(figure, tmp_path / "figure.png", "png")
    with Image.open(tmp_path / "figure.png") as image:
        assert image.size == tuple(int(side * 300) for side in figure.get_size_inches())
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_pdf_is_a_page_with_text(tmp_path: Path) -> None:
    save_figure(draw_figure(WHITE, make_columns(), LABELS), tmp_path / "figure.pdf", "pdf")
    written = (tmp_path / "figure.pdf").read_bytes()
    assert written.startswith(b"%PDF-")
    assert b"DejaVuSans-Bold" in written


@pytest.mark.parametrize("format", ["png", "pdf"])
def test_threads_draw_the_same_figure_as_one(format: str) -> None:
    def draw(turn: int) -> bytes:
        buffer = io.BytesIO()
        save_figure(draw_figure(WHITE, make_columns(), LABELS, scale=SCALES[turn % 3]), buffer, format, dpi=30)
        return buffer.getvalue()

    expected = [draw(turn) for turn in range(3)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(draw, range(8))) == [expected[turn % 3] for turn in range(8)]


def test_pyplot_is_never_loaded() -> None:
    code = "import sys, l2d.figure; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"scale": "column"}, "Unknown scale 'column'; known are row, map, grid"),
        ({"colormap": "rainbows"}, "Unknown colour map 'rainbows'; use inferno, .*jet"),
        ({"labels": []}, "got 0 labels and 2 networks"),
        ({"columns": []}, "got 2 labels and 0 networks"),
        ({"columns": [Column("Flat", {"cat": np.ones(4)}, {})]}, r"Flat's map of cat must be a table \(h, w\); it has the shape \(4,\)"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(change: dict[str, object], sentence: str) -> None:
    arguments = {"image": WHITE, "columns": make_columns(), "labels": LABELS, **change}
    with pytest.raises(ValueError, match=sentence):
        draw_figure(**arguments)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="png or pdf; got 'svg'"):
        save_figure(draw_figure(WHITE, make_columns(), LABELS), io.BytesIO(), "svg")


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        # The subtracted column keeps its evidence and a bar of its own; the other one is 0.2 above it in both rows.
        ("row", [["0", "0.2"], ["0", "0.6"], ["−0.2", "0", "0.2"], ["−0.2", "0", "0.2"]]),
        ("grid", [["0", "0.2"], ["0", "0.6"], ["−0.2", "0", "0.2"]]),
        # Both maps are even, so as shares of their own maxima they do not differ.
        ("map", [["0", "0.2"], ["0", "0.6"]]),
    ],
)
def test_a_figure_of_differences_is_signed_and_names_what_is_subtracted(scale: str, ticks: list[list[str]]) -> None:
    figure = draw_figure(WHITE, make_columns(), LABELS, scale=scale, minus=0)
    assert [ticks_of(bar) for bar in bars_of(figure)] == ticks
    assert [text.get_text().replace("\n", " ") for text in figure.texts][:3] == ["Picture", "Vanilla", "L2D − Vanilla"]
    assert texts_of(figure).count("no difference") == (2 if scale == "map" else 0)


def test_more_evidence_than_the_subtracted_network_is_red_and_less_is_blue() -> None:
    columns = [Column("A", {"cat": np.array([[1.0, 3.0]])}, {}), Column("B", {"cat": np.array([[2.0, 1.0], [2.0, 1.0]])}, {})]
    difference = pictures_of(draw_figure(WHITE, columns, ["cat"], smooth=False, minus=1))[1]
    height, width = difference.shape[:2]
    (red, _, blue), (more, _, less) = difference[height // 2, width // 4], difference[height // 2, 3 * width // 4]
    assert red < blue
    assert more > less
