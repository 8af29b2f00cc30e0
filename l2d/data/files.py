"""What every reader checks about the files that its annotations name."""

import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

SPLITS = ("train", "test")
SHOWN = 3


class EmptySplitError(ValueError):
    """A data set that has no pictures for training, or none for testing."""


def find_missing(paths: Sequence[Path]) -> list[Path]:
    """The paths that are no file, in their order. Each folder is listed once: 80,000 pictures take well under a second."""
    names = {folder: _list_files(folder) for folder in {path.parent for path in paths}}
    missing = [path for path in paths if path.name not in names[path.parent]]
    # On a Mac a file is found by another spelling than it is listed by: in capitals, or with an accent as a sign of its own.
    folded = {folder: set(map(_fold, names[folder])) for folder in {path.parent for path in missing}}
    return [path for path in missing if _fold(path.name) not in folded[path.parent] or not os.path.isfile(path)]


def find_spelled(folder: Path, names: Sequence[str]) -> list[str]:
    """Where files of these names lie, also where they are spelled with another coding of accents, as files are that come from a Mac.

    Each folder is listed once: to ask for every single file takes minutes where half a million lie on another host.
    """
    spelled: dict[str, dict[str, str]] = {}
    places = []
    for name in names:
        # Not as a Path, which takes several times as long to make.
        place = os.path.join(folder, name)
        if not name.isascii():
            above, last = os.path.split(name)
            if above not in spelled:
                spelled[above] = _spell_files(folder, above)
            place = spelled[above].get(last) or spelled[above].get(unicodedata.normalize("NFC", last), place)
        places.append(place)
    return places


def require_split(split: str, data: str) -> None:
    """Refuse a split that no data set has.

    Raises:
        ValueError: naming those that there are.
    """
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r} of {data}; the known ones are {', '.join(SPLITS)}.")


def require_files(paths: Sequence[Path], source: object) -> None:
    """Refuse a data set of which files are missing that `source` names.

    Raises:
        FileNotFoundError: with the first missing files and their number.
    """
    missing = find_missing(paths)
    if missing:
        raise FileNotFoundError(f"Files named in {source} are missing, {len(missing)} of {len(paths)}: {name_some(missing)}.")


def require_annotations(path: Path, expected: str) -> None:
    """Refuse a folder without its annotations.

    Raises:
        FileNotFoundError: naming the file that was looked for, and the layout (`expected`) it belongs to.
    """
    # A pipe would keep its reader waiting for ever, and a device would never end.
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Expected {expected}.")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, without blanks at their ends.

    Raises:
        ValueError: naming the file, if it is not text in UTF-8.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text in UTF-8: {error}.") from error


def require_labels(labels: Sequence[str], source: Path) -> tuple[str, ...]:
    """The names of the labels, refused if there are none or one stands twice: reports are keyed by them.

    Warns of names that differ in case, spaces or the coding of accents alone: of several people who label, each may spell in a way of
    their own.

    Raises:
        ValueError: naming what is wrong.
    """
    twice = sorted(label for label, count in Counter(labels).items() if count > 1)
    if twice:
        wrong = f"{name_some(twice)} more than once"
    elif not labels:
        wrong = "none at all"
    elif "" in labels:
        wrong = "one without a name"
    else:
        _doubt_alike(labels, source)
        return tuple(labels)
    raise ValueError(f"{source} must name every label once; it names {wrong}.")


def _doubt_alike(labels: Sequence[str], source: Path) -> None:
    if alike := _find_alike(labels):
        warnings.warn(
            f"{source} has labels that differ in case, spaces or the coding of accents alone: {name_some(alike)}. They count as different "
            "ones; spell them alike if they are the same.",
            stacklevel=4,
        )


def _find_alike(labels: Sequence[str]) -> list[str]:
    """In words, labels that are the same but for case, spaces and the coding of accents."""
    spelled: dict[str, list[str]] = {}
    for label in labels:
        # Some systems write an accented letter as one sign, others as two.
        spelled.setdefault(unicodedata.normalize("NFC", "".join(label.split()).casefold()), []).append(label)
    return [" and ".join(map(repr, names)) for names in spelled.values() if len(names) > 1]


def describe_differences(expected: Sequence[str], found: Sequence[str]) -> str:
    """In words, how labels differ from those that are expected; empty if they do not, and stand in the same order."""
    known, there = set(expected), set(found)
    unknown = [label for label in found if label not in known]
    missing = [label for label in expected if label not in there]
    parts = [f"{len(labels)} {which} ({name_some(labels)})" for which, labels in (("unknown", unknown), ("missing", missing)) if labels]
    if not parts and (moved := [label for label, other in zip(expected, found, strict=True) if label != other]):
        return f"the same labels in another order ({name_some(moved)})"
    return ", ".join(parts)


def name_some(things: Sequence[object], most: int = SHOWN) -> str:
    """The first few of a list, for a message."""
    return ", ".join(str(thing) for thing in things[:most]) + (", ..." if len(things) > most else "")


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _spell_files(folder: Path, above: str) -> dict[str, str]:
    """Where the files below a folder lie, by their names and by these with composed accents; `above` may be coded in any way, too."""
    codings = dict.fromkeys((above, unicodedata.normalize("NFC", above), unicodedata.normalize("NFD", above)))
    # What is spelled as asked for comes last, and stays.
    places = [os.path.join(folder, coded) for coded in reversed(codings)]
    files = {name: os.path.join(place, name) for place in places for name in _list_files(place)}
    return {unicodedata.normalize("NFC", name): file for name, file in files.items()} | files


def _list_files(folder: str | Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if _is_file(entry)}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself, say, which need not be of the data set
        return False
