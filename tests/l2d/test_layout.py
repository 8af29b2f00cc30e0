"""Where a figure's cells, names and bars stand, whatever the shape of the picture."""

import pytest
from PIL import Image

from l2d.figure import Column, draw_figure
from l2d.layers import SCALES
from tests.l2d.test_figure import LABELS, WHITE, boxes_of, caption_of, fill, make_columns, texts_of


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("size", [(40, 30), (10, 90), (90, 10)])
def test_nothing_covers_anything_else_and_names_stand_at_the_middle_of_their_cells(size: tuple[int, int], scale: str) -> None:
    labels = ["some words that take as many as four lines", "and other words that take four lines"]
    maps = dict.fromkeys(labels, fill(1))
    columns = [Column(name, maps, {}) for name in ("MobileNetV2 distilled by L2D from a ResNet-101", "Vanilla")]
    figure = draw_figure(Image.new("RGB", size), columns, labels, scale=scale)
    figure.canvas.draw()
    cells, bars = (boxes_of(figure, bars) for bars in (False, True))
    assert len(cells) == 6
    placed = [(box[0], box[1], box[0] + box[2], box[1] + box[3]) for box in cells + bars]
    placed += [tuple(text.get_window_extent().transformed(figure.transFigure.inverted()).extents) for text in figure.texts]
    for number, (left, bottom, right, top) in enumerate(placed):
        assert min(left, bottom, 1 - right, 1 - top) >= 0
        assert all(left >= other[2] or right <= other[0] or bottom >= other[3] or top <= other[1] for other in placed[:number])
    middles = [(left + width / 2, bottom + height / 2) for left, bottom, width, height in cells]
    assert [text.get_position()[0] for text in figure.texts[:3]] == pytest.approx([x for x, _ in middles[:3]])
    assert [text.get_position()[1] for text in figure.texts[3:5]] == pytest.approx([middles[0][1], middles[3][1]])


@pytest.mark.parametrize(("scale", "rows"), [("row", [(0, 0), (1, 1)]), ("grid", [(0, 1)])])
def test_a_colour_bar_is_as_high_as_the_rows_whose_scale_it_is(scale: str, rows: list[tuple[int, int]]) -> None:
    figure = draw_figure(WHITE, make_columns(), LABELS, scale=scale)
    cells = boxes_of(figure, bars=False)[::3]
    found = [(bottom + height, bottom) for _, bottom, _, height in boxes_of(figure, bars=True)]
    assert [end for ends in found for end in ends] == pytest.approx(
        [end for first, last in rows for end in (cells[first][1] + cells[first][3], cells[last][1])]
    )


def test_a_panorama_has_hardly_more_height_than_its_picture() -> None:
    figure = draw_figure(Image.new("RGB", (400, 100)), make_columns(), LABELS)
    (_, upper, _, height), (_, lower, _, _) = boxes_of(figure, bars=False)[0], boxes_of(figure, bars=False)[3]
    assert height < upper - lower < 1.4 * height


@pytest.mark.parametrize("size", [(40, 30), (10, 90), (90, 10)])
def test_the_caption_stands_below_everything_else(size: tuple[int, int]) -> None:
    figure = draw_figure(Image.new("RGB", size), make_columns()[:1], LABELS, scale="map")
    figure.canvas.draw()
    extents = {text.get_text(): text.get_window_extent() for text in figure.texts}
    caption = extents.pop(caption_of(figure))
    assert 0 < caption.y0 < caption.y1 < min(other.y0 for other in extents.values())
    assert 0 < caption.x0 < caption.x1 < figure.bbox.width


def test_titles_above_narrow_columns_break_between_words_and_before_a_minus() -> None:
    columns = [column._replace(title=f"MobileNetV2 {column.title}") for column in make_columns()]
    figure = draw_figure(Image.new("RGB", (20, 60)), columns, LABELS, minus=0)
    assert texts_of(figure)[1:3] == ["MobileNetV2\nVanilla", "MobileNetV2\nL2D\n−\N{NO-BREAK SPACE}MobileNetV2\nVanilla"]
    # A number behind a hyphen stays with it.
    columns = [column._replace(title=title) for column, title in zip(make_columns(), ("ResNet-50", "L2D"), strict=True)]
    figure = draw_figure(Image.new("RGB", (20, 60)), columns, LABELS, minus=0)
    assert texts_of(figure)[1:3] == ["ResNet-50", "L2D\n−\N{NO-BREAK SPACE}ResNet-50"]
