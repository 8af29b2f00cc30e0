"""What is painted in a figure: photographs, maps over them, and colour bars, in a PDF too."""

import io
import re

import numpy as np
import pytest
from matplotlib import colormaps, rcParams
from matplotlib.transforms import Bbox
from PIL import Image

from l2d.figure import Column, draw_figure, save_figure
from l2d.tiles import Tile
from tests.l2d.test_figure import LABELS, WHITE, boxes_of, fill, make_columns, pictures_of


@pytest.mark.parametrize(("scale", "minus", "colormap"), [("grid", None, "inferno"), ("map", None, "inferno"), ("grid", 0, "coolwarm")])
def test_a_colour_bar_goes_from_low_to_high(scale: str, minus: int | None, colormap: str) -> None:
    figure = draw_figure(WHITE, make_columns(), LABELS, scale=scale, minus=minus)
    figure.canvas.draw()
    canvas = np.asarray(figure.canvas.buffer_rgba())[::-1]
    left, bottom, width, height = np.multiply(boxes_of(figure, bars=True)[-1], np.tile(figure.bbox.size, 2))
    middle = canvas[round(bottom) : round(bottom + height), round(left + width / 2)]
    along = middle if height > width else canvas[round(bottom + height / 2), round(left) : round(left + width)]
    for share in (0.0, 0.25, 1.0):
        np.testing.assert_allclose(along[round(share * (len(along) - 1))], colormaps[colormap](share, bytes=True), atol=6)


def test_a_pdf_has_its_pictures_in_their_cells_as_fine_as_they_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rcParams, "pdf.compression", 0)
    buffer, figure = io.BytesIO(), draw_figure(WHITE, make_columns(), LABELS)
    save_figure(figure, buffer, "pdf")
    drawn = re.findall(rb"1 0 0 1 (\S+) (\S+) cm (\S+) 0 0 (\S+) 0 0 cm /I\d+ Do", buffer.getvalue())
    boxes = [np.multiply(tile.box, np.tile(figure.get_size_inches() * 72, 2)) for tile in figure.findobj(Tile)]
    np.testing.assert_allclose(np.array(drawn, dtype=float), boxes, atol=0.01)
    # Of a cell of 1.7 by 1.275 inches: the photograph, and maps, which are smooth; and of a bar.
    sizes = re.findall(rb"/Width (\d+) /Height (\d+)", buffer.getvalue())
    assert {(int(width), int(height)) for width, height in sizes} == {(510, 383), (255, 191), (13, 191)}


def test_pictures_move_with_their_words_where_a_figure_is_cropped() -> None:
    figure, written = draw_figure(WHITE, make_columns(), LABELS), io.BytesIO()
    figure.canvas.draw()
    whole = np.asarray(figure.canvas.buffer_rgba())[::-1, :, :3].astype(int)
    # As bbox_inches="tight" does, which notebooks ask for; here by whole pixels.
    figure.savefig(written, dpi=100, bbox_inches=Bbox([[1, 0.5], [4, 3]]))
    cropped = np.asarray(Image.open(written).convert("RGB"))[::-1].astype(int)
    np.testing.assert_allclose(cropped, whole[50:300, 100:400], atol=8)


def test_the_photograph_is_shown_as_it_is_but_grey_below_a_map_and_pale_where_there_is_none() -> None:
    y, x = np.mgrid[0:30, 0:40] * 6
    image = Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))
    columns = [Column("Seeing", {"cat": fill(1)}, {}), Column("Blind", {"cat": fill(0)}, {})]
    plain, below, pale = pictures_of(draw_figure(image, columns, ["cat"], opacity=0.0))
    expected = np.asarray(image.resize(plain.shape[1::-1], Image.Resampling.LANCZOS), dtype=float)
    np.testing.assert_allclose(plain, expected, atol=3)
    grey = np.broadcast_to(expected.mean(-1, keepdims=True), expected.shape)
    np.testing.assert_allclose(below, grey, atol=3)
    # Above the words.
    np.testing.assert_allclose(pale[:40], 0.72 * 255 + 0.28 * grey[:40], atol=3)


@pytest.mark.parametrize(
    ("colormap", "share", "probability", "cover"),
    [
        ("inferno", 1.0, 0.9, 0.8),
        # Less paint where there is less evidence, but in jet.
        ("inferno", 0.25, 0.9, 0.8 * 1.6 * 0.25),
        ("jet", 0.25, 0.9, 0.8),
        # And where the label is improbable, in any.
        ("inferno", 1.0, 0.3, 0.8 * (0.3 + 0.5 * 0.3 / 0.6)),
        ("jet", 1.0, 0.0, 0.8 * 0.3),
        ("inferno", 1.0, None, 0.8 * 0.3),
    ],
)
def test_with_an_opacity_maps_are_painted_as_on_the_page(colormap: str, share: float, probability: float | None, cover: float) -> None:
    columns = [
        Column("One", {"cat": fill(share)}, {} if probability is None else {"cat": probability}),
        Column("Two", {"cat": fill(1)}, {}),
    ]
    figure = draw_figure(WHITE, columns, ["cat"], colormap=colormap, opacity=0.8, threshold=0.6)
    expected = 255 * (1 - cover + cover * np.array(colormaps[colormap](share)[:3]))
    np.testing.assert_allclose(pictures_of(figure)[1][20, 100], expected, atol=4)


def test_with_an_opacity_differences_are_painted_as_on_the_page() -> None:
    columns = [Column("A", {"cat": fill(1)}, {}), Column("B", {"cat": np.array([[1.0, 1.2, 2.0]]) / 3}, {"cat": 1.0})]
    painted = pictures_of(draw_figure(WHITE, columns, ["cat"], colormap="jet", smooth=False, opacity=1.0, minus=0))[2]
    # No difference, no paint; its own colour map, whichever the evidence has.
    np.testing.assert_allclose(painted[20, 20], (255, 255, 255), atol=2)
    cover = 1.6 * 0.2
    np.testing.assert_allclose(painted[20, 85], 255 * (1 - cover + cover * np.array(colormaps["coolwarm"](0.6)[:3])), atol=4)
