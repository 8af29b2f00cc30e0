"""The figure: every cell, word, colour and scale where it belongs, written as PNG and PDF, from any number of threads."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from l2d.figure import MOST_PIXELS, Column, draw_figure, find_fonts, save_figure
from l2d.layers import SCALES
from l2d.tiles import FAINT, STRONG, Tile

LABELS = ["cat", "traffic light"]
WHITE = Image.new("RGB", (40, 30), "white")


def fill(value: float) -> NDArray[np.float32]:
    """A map with this much evidence per picture area everywhere."""
    return np.full((2, 2), value / 4, dtype=np.float32)


def make_columns() -> list[Column]:
    vanilla = Column("Vanilla", {"cat": fill(0.2), "traffic light": fill(0.6)}, {"cat": 0.998, "traffic light": 0.5})
    l2d = Column("L2D", {"cat": fill(0.4), "traffic light": fill(0.8)}, {"cat": 0.499, "traffic light": 0.0})
    return [vanilla, l2d]


def texts_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")) if text.get_text()]


def pictures_of(figure: Figure) -> list[NDArray[np.uint8]]:
    """The pixels of every cell that has any, row by row, as they are written at 100 to an inch."""
    figure.canvas.draw()
    canvas = np.asarray(figure.canvas.buffer_rgba())[::-1, :, :3]
    found = []
    for box in boxes_of(figure, bars=False):
        left, bottom, width, height = (round(part) for part in np.multiply(box, np.tile(figure.bbox.size, 2)))
        found.append(canvas[bottom : bottom + height, left : left + width][::-1])
    return found


def boxes_of(figure: Figure, bars: bool) -> list[tuple[float, float, float, float]]:
    """Where cells are, or colour bars, which are thin."""
    boxes = dict.fromkeys(tile.box for tile in figure.findobj(Tile))
    return [box for box in boxes if (np.multiply(box[2:], figure.get_size_inches()).min() < 0.1) == bars]


def ticks_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts if text.get_fontsize() < 8 and text.get_text() != caption_of(figure)]


def caption_of(figure: Figure) -> str:
    return next(text for text in texts_of(figure) if text.startswith("Colours: "))


def blend_with_white(share: float, colormap: str = "inferno") -> NDArray[np.float64]:
    # Jet is painted evenly, as in the paper.
    cover = FAINT + (STRONG - FAINT) * (0.5 if colormap == "jet" else share)
    return 255 * (1 - cover + cover * np.array(colormaps[colormap](float(share))[:3]))


def test_rows_are_labels_and_columns_are_the_picture_then_the_networks() -> None:
    figure = draw_figure(WHITE, make_columns(), LABELS)
    boxes = boxes_of(figure, bars=False)
    assert len(boxes) == 2 * 3
    assert boxes[0][0] < boxes[1][0] < boxes[2][0]
    assert boxes[0][1] == boxes[1][1] > boxes[3][1]
    assert (pictures_of(figure)[0] == 255).all()
    assert [text.get_text() for text in figure.texts][:5] == ["Photograph", "Vanilla", "L2D", "cat", "traffic light"]


@pytest.mark.parametrize(
    ("scale", "shares"),
    [("row", [0.2 / 0.4, 1, 0.6 / 0.8, 1]), ("map", [1, 1, 1, 1]), ("grid", [0.2 / 0.8, 0.4 / 0.8, 0.6 / 0.8, 1])],
)
@pytest.mark.parametrize("colormap", ["inferno", "jet"])
def test_colours_follow_the_scale(scale: str, shares: list[float], colormap: str) -> None:
    pictures = pictures_of(draw_figure(WHITE, make_columns(), LABELS, scale=scale, colormap=colormap))
    for picture, share in zip([pictures[i] for i in (1, 2, 4, 5)], shares, strict=True):
        np.testing.assert_allclose(picture[20, 100], blend_with_white(share, colormap), atol=4)


@pytest.mark.parametrize(
    ("scale", "ticks"),
    [
        ("row", ["0", "0.20", "0.40", "0", "0.40", "0.80"]),
        ("map", ["0", "0.20", "0", "0.40", "0", "0.60", "0", "0.80"]),
        ("grid", ["0", "0.40", "0.80"]),
    ],
)
def test_colour_bars_are_in_evidence_per_picture_area(scale: str, ticks: list[str]) -> None:
    figure = draw_figure(WHITE, make_columns(), LABELS, scale=scale)
    assert ticks_of(figure) == ticks
    assert len(boxes_of(figure, bars=True)) == ticks.count("0")


def test_probabilities_are_bold_from_the_threshold_on() -> None:
    figure = draw_figure(WHITE, make_columns(), LABELS, threshold=0.5)
    written = [(text.get_text(), text.get_weight()) for text in figure.texts if text.get_fontsize() == 8.5]
    # The second one is 0.499.
    assert written == [(">0.99", "bold"), ("0.50", "normal"), ("0.50", "bold"), ("0.00", "normal")]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("nothing", [fill(0), fill(-1), fill(np.nan)])
def test_no_evidence_is_said_and_not_coloured(scale: str, nothing: NDArray[np.float32]) -> None:
    columns = [make_columns()[0], Column("Blind", {"cat": nothing, "traffic light": nothing}, {})]
    figure = draw_figure(Image.new("RGB", (40, 30), "red"), columns, LABELS, scale=scale)
    assert texts_of(figure).count("no evidence") == 2
    left, bottom, width, height = boxes_of(figure, bars=False)[2]
    (middle, *_) = [text.get_position() for text in figure.texts if text.get_text() == "no evidence"]
    assert middle == pytest.approx((left + width / 2, bottom + height / 2))
    # Above the words.
    blind = pictures_of(figure)[2][:40]
    assert (blind == blind[0, 0, 0]).all()


@pytest.mark.parametrize("scale", SCALES)
def test_a_row_without_any_evidence_has_no_colour_bar(scale: str) -> None:
    figure = draw_figure(WHITE, [Column("Blind", {"cat": fill(0)}, {"cat": 0.1})], ["cat"], scale=scale)
    assert boxes_of(figure, bars=True) == []


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


def test_wide_letters_have_twice_the_room_and_fonts_that_hold_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matplotlib.font_manager.get_font_names", lambda: ["Noto Sans CJK SC", "DejaVu Sans", "Another"])
    find_fonts.cache_clear()
    columns = [Column("学生 one", {"交通信号灯和红绿灯": fill(1), "cat": fill(1)}, {})]
    figure = draw_figure(WHITE, columns, ["交通信号灯和红绿灯", "cat"])
    assert {"交通信号灯和红\n绿灯", "学生 one"} <= set(texts_of(figure))
    families = {text.get_text()[0]: text.get_fontfamily() for text in figure.texts}
    assert families["交"] == families["学"] == ["DejaVu Sans", "Noto Sans CJK SC"]
    assert families["c"] == ["DejaVu Sans"]
    wide, narrow = (draw_figure(WHITE, make_columns()[:1], [label]).get_size_inches()[0] for label in ("交通信号灯和红", "abcdefghijklmn"))
    find_fonts.cache_clear()
    assert wide == pytest.approx(narrow)


@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_letters_that_no_font_has_do_not_end_a_figure_where_warnings_are_errors(kind: str) -> None:
    # Of Egypt, in the first plane beyond the basic one.
    label = "\U00013000"
    figure = draw_figure(WHITE, [Column(label, {label: fill(1)}, {})], [label])
    save_figure(figure, file := io.BytesIO(), kind)
    assert file.getvalue()


def test_a_notebook_shows_it_and_its_styles_change_nothing() -> None:
    with rc_context({"font.family": "serif", "savefig.facecolor": "black"}):
        figure, written = draw_figure(WHITE, make_columns(), LABELS), io.BytesIO()
        # What IPython takes for no figure at all.
        assert figure.axes or figure.lines
        save_figure(figure, written, "png")
        styled = {text.get_fontname() for text in figure.findobj(Text)}
    assert (styled, Image.open(written).convert("RGB").getpixel((0, 0))) == ({"DejaVu Sans"}, (255, 255, 255))


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
    # Publishers refuse fonts of Type 3; those that help out with other letters may be embedded in no other way.
    assert b"/CIDFontType2" in written
    assert b"/Type3" not in written
    save_figure(draw_figure(WHITE, [Column("学生", {"cat": fill(1)}, {})], ["cat"]), helped := io.BytesIO(), "pdf")
    assert b"/Type3" in helped.getvalue()
    assert b"/CIDFontType2" not in helped.getvalue()


@pytest.mark.parametrize("format", ["png", "pdf"])
def test_threads_draw_the_same_figure_as_one(format: str) -> None:
    def draw(turn: int) -> bytes:
        buffer = io.BytesIO()
        save_figure(draw_figure(WHITE, make_columns(), LABELS, scale=list(SCALES)[turn % 3]), buffer, format, dpi=30)
        return buffer.getvalue()

    expected = [draw(turn) for turn in range(3)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(draw, range(8))) == [expected[turn % 3] for turn in range(8)]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image": np.asarray(WHITE)}, "a picture of Pillow's, .*; got ndarray"),
        ({"scale": "column"}, "Unknown scale 'column'; known are row, map, grid"),
        ({"kind": "magic"}, "Unknown kind of map 'magic'; known are layercam, attention"),
        ({"opacity": 1.5}, "opacity must be between 0 and 1; got 1.5"),
        ({"colormap": "rainbows"}, "Unknown colour map 'rainbows'; use inferno, .*jet"),
        ({"labels": "cat"}, r"a list of labels, \['cat'\]; got 'cat' alone"),
        ({"labels": []}, "got labels: 0, networks: 2"),
        ({"columns": []}, "got labels: 2, networks: 0"),
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
        ("row", ["0", "0.20", "0", "0.60", "−0.20", "0", "0.20", "−0.20", "0", "0.20"]),
        ("grid", ["0", "0.20", "0", "0.60", "−0.20", "0", "0.20"]),
        # Both maps are even, so as shares of their own maxima they do not differ.
        ("map", ["0", "0.20", "0", "0.60"]),
    ],
)
def test_a_figure_of_differences_is_signed_and_names_what_is_subtracted(scale: str, ticks: list[str]) -> None:
    figure = draw_figure(WHITE, make_columns(), LABELS, scale=scale, minus=0)
    assert ticks_of(figure) == ticks
    assert [" ".join(text.get_text().split()) for text in figure.texts][:3] == ["Photograph", "Vanilla", "L2D − Vanilla"]
    assert texts_of(figure).count("no difference") == (2 if scale == "map" else 0)


@pytest.mark.parametrize("scale", SCALES)
def test_a_network_alone_may_be_the_one_that_is_subtracted(scale: str) -> None:
    figure = draw_figure(WHITE, make_columns()[:1], LABELS, scale=scale, minus=0)
    assert ticks_of(figure) == ["0", "0.20", "0", "0.60"]


def test_more_evidence_than_the_subtracted_network_is_red_and_less_is_blue() -> None:
    columns = [Column("A", {"cat": np.array([[1.0, 3.0]]) / 2}, {}), Column("B", {"cat": np.array([[2.0, 1.0], [2.0, 1.0]]) / 4}, {})]
    difference = pictures_of(draw_figure(WHITE, columns, ["cat"], smooth=False, minus=1))[1]
    height, width = difference.shape[:2]
    (red, _, blue), (more, _, less) = difference[height // 2, width // 4], difference[height // 2, 3 * width // 4]
    assert red < blue
    assert more > less


def make_many(rows: int) -> tuple[Image.Image, list[Column], list[str]]:
    """A picture that no compression makes smaller, and two networks' maps of many labels."""
    labels, chance = [f"label {number}" for number in range(rows)], np.random.default_rng(0)
    columns = [Column(name, {label: chance.random((7, 7)) for label in labels}, dict.fromkeys(labels, 0.5)) for name in ("A", "B")]
    return Image.effect_noise((510, 510), 80), columns, labels


def test_a_png_of_many_rows_has_fewer_pixels_per_inch(monkeypatch: pytest.MonkeyPatch) -> None:
    most = MOST_PIXELS // 4
    monkeypatch.setattr("l2d.figure.MOST_PIXELS", most)
    buffer = io.BytesIO()
    figure = draw_figure(*make_many(10))
    save_figure(figure, buffer, "png")
    with Image.open(buffer) as image:
        assert 0.98 * most < image.width * image.height <= most
        assert image.width / image.height == pytest.approx(figure.get_figwidth() / figure.get_figheight(), rel=0.01)


def test_a_pdf_holds_the_picture_once_however_many_rows_there_are() -> None:
    def measure(rows: int) -> int:
        buffer = io.BytesIO()
        save_figure(draw_figure(*make_many(rows)), buffer, "pdf")
        return len(buffer.getvalue())

    one = measure(1)
    assert (measure(6) - one) / 5 < one / 4


def test_a_pdf_higher_than_some_viewers_show_is_warned_about() -> None:
    labels = [f"label {number}" for number in range(116)]
    figure = draw_figure(Image.new("RGB", (8, 8)), [Column("A", {}, {})], labels)
    with pytest.warns(
        UserWarning, match="a side of 205 inches, and some PDF viewers show none above 200: choose fewer labels, or write a PNG"
    ):
        save_figure(figure, io.BytesIO(), "pdf")


def test_the_caption_says_what_the_colours_mean() -> None:
    def read(**look: Any) -> str:
        return caption_of(draw_figure(WHITE, make_columns(), LABELS, **look)).replace("\n", " ")

    probability = "In each map its probability, bold from 0.50"
    assert read() == f"Colours: LayerCAM evidence per picture area, from zero; one scale per row. {probability}."
    assert read(scale="map", minus=0) == (
        "Colours: LayerCAM evidence per picture area minus that of Vanilla, as shares of each map's maximum; "
        f"every map up to its own maximum. {probability}."
    )
    assert read(kind="attention", scale="grid", threshold=0.25, opacity=0.8) == (
        "Colours: the head's attention in multiples of an even spread, whether the label is there or not; one scale for the whole grid. "
        "In each map its probability, bold from 0.25; maps of improbable labels fade."
    )
