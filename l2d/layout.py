"""Where everything stands in a figure of rows and columns: cells, names, colour bars, caption."""

import textwrap
import unicodedata
from collections.abc import Iterator, Sequence

# Inches. The longer side of a picture is CELL. A cell is at least as wide as its remarks, NARROW, and as high as the
# three numbers of the bar beside it, LOW.
CELL, NARROW, LOW = 1.7, 0.95, 0.5
GAP, MARGIN, LINE, CAPTION_LINE = 0.06, 0.12, 0.155, 0.125
BAR, BAR_ROOM, OWN_BAR, OWN_BAR_ROOM = 0.085, 0.5, 0.045, 0.2
# Width of a letter, plain and bold, at 9.5 points, and in the caption; and the longest line of a row's label, in letters.
LETTER, BOLD_LETTER, CAPTION_LETTER, LABEL_LETTERS = 0.08, 0.088, 0.061, 14

# Stands for the second half of a wide letter; never drawn.
PAD = "\N{WORD JOINER}"

# Left, bottom, width and height as shares of the figure.
Box = tuple[float, float, float, float]


class Layout:
    """Where everything stands, in inches from the upper left corner; every method gives shares of the figure, as matplotlib counts.

    Args:
        aspect: width of the picture by its height.
        titles: of the columns; the first one's is the picture's.
        labels: of the rows.
        caption: stands below the rows, wrapped to their width.
        scale: as `l2d.figure.draw_figure` takes it; so is `minus`.
    """

    def __init__(self, aspect: float, titles: Sequence[str], labels: Sequence[str], caption: str, scale: str, minus: int | None):
        self.scale, self.minus = scale, minus
        self.picture_width, self.picture_height = (CELL, CELL / aspect) if aspect > 1 else (CELL * aspect, CELL)
        self.labels = [_wrap(label, LABEL_LETTERS) for label in labels]
        # Beside a tall picture there is room for a title's longest word, beneath a flat one for a label's last line.
        words = [word for title in titles for word in textwrap.wrap(_pad(title), 1, break_long_words=False)]
        longest = min(BOLD_LETTER * max(map(len, words)), CELL)
        self.cell_width = max(self.picture_width, NARROW, longest)
        self.cell_height = max(self.picture_height, LOW, LINE * max(map(len, self.labels)))
        self.titles = [_wrap(title, int(self.cell_width / BOLD_LETTER + 0.01)) for title in titles]
        self.row_height = self.cell_height + (0 if scale != "map" and minus is None else OWN_BAR_ROOM) + GAP
        self.left = MARGIN + LETTER * max(len(_pad(line)) for lines in self.labels for line in lines) + 2 * GAP
        self.top = MARGIN + LINE * max(len(lines) for lines in self.titles) + GAP
        self.right = self.left + len(self.titles) * (self.cell_width + GAP)
        self.width = self.right + (MARGIN if scale == "map" else GAP + BAR + BAR_ROOM)
        self.caption = _wrap(caption, int((self.width - 2 * MARGIN) / CAPTION_LETTER))
        self.height = self.top + len(labels) * self.row_height + GAP + CAPTION_LINE * len(self.caption) + MARGIN

    def picture(self, row: int, column: int) -> Box:
        """The middle of a cell, which the picture fills but for a panorama's margins."""
        x, y = self._x(column) + (self.cell_width - self.picture_width) / 2, self._y(row) + (self.cell_height - self.picture_height) / 2
        return self._box(x, y, self.picture_width, self.picture_height)

    def bars(self, limits: Sequence[Sequence[float]]) -> Iterator[tuple[Box, tuple[int, int], bool]]:
        """Every colour bar, row and column of a cell whose scale it is, and whether it stands upright beside the rows."""
        for row in range(len(limits)):
            for column in range(len(limits[0])):
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
        """The middle of the lowest line of a column's title."""
        return (self._x(column) + self.cell_width / 2) / self.width, 1 - (self.top - 1.4 * GAP) / self.height

    def label(self, row: int) -> tuple[float, float]:
        """The right end of a row's label, at half its height."""
        return (self.left - 2 * GAP) / self.width, 1 - (self._y(row) + self.cell_height / 2) / self.height

    def foot(self) -> tuple[float, float]:
        """The lower left corner of the caption."""
        return MARGIN / self.width, MARGIN / self.height

    def beside(self, place: tuple[float, float], right: float, up: float) -> tuple[float, float]:
        """A place so many points further right and up."""
        return place[0] + right / 72 / self.width, place[1] + up / 72 / self.height

    def _x(self, column: int) -> float:
        return self.left + column * (self.cell_width + GAP)

    def _y(self, row: int) -> float:
        return self.top + row * self.row_height

    def _box(self, x: float, y: float, width: float, height: float) -> Box:
        return x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height


def _wrap(text: str, letters: int) -> list[str]:
    return [line.replace(PAD, "") for line in textwrap.wrap(_pad(text), letters)] or [""]


def _pad(text: str) -> str:
    """A text with as many letters as it is wide in Latin ones; Chinese, Japanese and Korean ones are twice as wide."""
    return "".join(letter + PAD if unicodedata.east_asian_width(letter) in "WF" else letter for letter in text)
