"""One's own pictures: a CSV file with a line for each."""

import csv
import os
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import torch

from l2d.data.files import SPLITS, EmptySplitError, find_spelled, name_some, require_annotations, require_labels, require_split
from l2d.data.images import Index

# What a table is called in a folder that is a data set.
TABLE = "labels.csv"
# Without a column `split`, one picture in this many is for testing.
TEST_SHARE = 5
# What people separate labels by, too. In a name of one they would be in the way of the commands.
FOREIGN = {",": "a comma", "\n": "a line break", "\r": "a line break", "\t": "a tab"}


def read_table(path: Path, split: str) -> Index:
    """Read a CSV file with the columns `file` and `labels`, and `split` if you have one.

    ```
    file,labels,split
    photos/beach.jpg,person; dog,train
    photos/desk.jpg,cup | laptop,test
    photos/wall.jpg,,train
    ```
    `file` is relative to the CSV file, with the folders separated by / or, as on Windows, by \\; labels are separated by ; or |, and a
    picture that shows none has an empty cell. Spaces at the ends of columns and labels do not count, nor do lines of nothing but commas.
    The labels are all that occur in the file, in either split, in alphabetical order.
    Without `split`, a fifth of the pictures are for testing, chosen by a checksum of their names: adding lines moves no picture from one
    split to the other. No picture is opened.

    Args:
        path: the CSV file, UTF-8.
        split: "train" or "test".

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: for another form, an unknown split, a picture named twice, no label at all, a label with a comma, a tab or a line
            break, or a split without pictures.
    """
    require_split(split, "a table")
    require_annotations(path, "a CSV file with the columns file and labels")
    rows = _read_rows(path)
    places = find_spelled(path.parent, [_separate(path.parent, row["file"]) for row in rows])
    _check_files(rows, places, path)
    labels = require_labels(sorted({label for row in rows for label in _split_labels(row["labels"])}), path)
    _check_separators(labels, path)
    chosen = [number for number, row in enumerate(rows) if _split_of(row, path) == split]
    if not chosen:
        raise EmptySplitError(f"{path} has no picture for {split}; give its pictures a column split with train or test.")
    columns = {label: column for column, label in enumerate(labels)}
    shown = [(row, columns[label]) for row, number in enumerate(chosen) for label in _split_labels(rows[number]["labels"])]
    targets = torch.zeros(len(chosen), len(labels))
    if shown:
        targets[tuple(torch.tensor(shown).T)] = 1.0
    return Index([Path(places[number]) for number in chosen], targets, labels)


def name_table(path: Path) -> str:
    """What the pictures of a table are called: as its file, or as the folder of a `labels.csv`, like the data sets of jobs."""
    place = path.absolute()
    return place.parent.name if place.name == TABLE else place.stem


def _read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        # Spreadsheets write lines of nothing but commas below a table, and where rows were emptied.
        filled = ((number, cells) for number, cells in _read_lines(file, path) if any(cells))
        # Before the other lines are read: in a table that other signs separate, these may be no CSV at all.
        names = _check_names(next(filled, (0, []))[1], path)
        return [_name_cells(cells, names, f"Line {number} of {path}") for number, cells in filled]


def _read_lines(file: TextIO, path: Path) -> Iterator[tuple[int, list[str]]]:
    reader, number = csv.reader(file, strict=True, skipinitialspace=True), 0
    try:
        for cells in reader:
            # A cell may go over several lines, to the end of the file where its quotes are never closed.
            number = reader.line_num
            yield number, [cell.strip() for cell in cells]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8; save it so, in a spreadsheet as CSV UTF-8 with commas.") from error
    except csv.Error as error:
        where = f" after its line {number}" if number else ""
        raise ValueError(f"{path} is not a CSV file{where}: {error}. Mend what stands there.") from error


def _check_names(names: list[str], path: Path) -> list[str]:
    if not names.count("file") == names.count("labels") == 1 or names.count("split") > 1:
        expected = "needs the columns file and labels in its first line, once each and separated by commas"
        raise ValueError(f"{path} {expected}; it has {', '.join(names) or 'none'}.")
    return names


def _name_cells(cells: Sequence[str], names: Sequence[str], line: str) -> dict[str, str]:
    if len(cells) != len(names):
        raise ValueError(
            f"{line} has {len(cells)} column{'s' * (len(cells) != 1)}; expected {len(names)}, as in the first line. "
            "Labels are separated by ; or |, and a name with a comma stands in quotes."
        )
    row = dict(zip(names, cells, strict=True))
    if not row["file"]:
        raise ValueError(f"{line} names no file.")
    return row


def _check_files(rows: Sequence[dict[str, str]], places: Sequence[str], path: Path) -> None:
    # By where they lie: p.jpg, ./p.jpg and its absolute path are one picture, and could be one of each split. A Mac finds accents in
    # either coding.
    spelled: dict[str, list[str]] = {}
    for row, place in zip(rows, places, strict=True):
        spelled.setdefault(unicodedata.normalize("NFC", os.path.abspath(place)), []).append(row["file"])
    twice = sorted(names[0] for names in spelled.values() if len(names) > 1)
    if twice:
        raise ValueError(f"{path} names pictures more than once, {len(twice)} in all: {name_some(twice)}.")


def _separate(folder: Path, name: str) -> str:
    """A picture's name with / between its folders. It may be a file's name as it stands, too: other systems than Windows allow any sign."""
    if "\\" in name and not os.path.exists(os.path.join(folder, name)):
        return name.replace("\\", "/")
    return name


def _check_separators(labels: Sequence[str], path: Path) -> None:
    for sign, name in FOREIGN.items():
        several = next((label for label in labels if sign in label), None)
        if several is not None:
            raise ValueError(f"{path} has a label with {name}, {several!r}: separate the labels of a picture by ; or |.")


def _split_labels(cell: str) -> list[str]:
    return [label.strip() for label in cell.replace("|", ";").split(";") if label.strip()]


def _split_of(row: dict[str, str], path: Path) -> str:
    if "split" not in row:
        return "test" if zlib.crc32(row["file"].encode()) % TEST_SHARE == 0 else "train"
    if row["split"] not in SPLITS:
        raise ValueError(f"{path} gives {row['file']} the split {row['split']!r}; expected {' or '.join(SPLITS)}.")
    return row["split"]
