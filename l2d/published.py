"""What the paper published: its tables' rows and scores; and the recipes that ship with the package, the paper's among them."""

import json
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # torch would be imported with it
    from l2d.data.images import Index

TABLES = ("table1", "table2", "table3", "table4")
MEASURES = ("mAP", "OF1", "CF1")
# How a sentence on pictures ends that are not the paper's.
COMPARE = "compare the order and gains of methods, not numbers."


class Row(NamedTuple):
    """One teacher-student pair of a table.

    Attributes:
        number: 1 for the table's first.
        data, teacher, student: as the paper writes them.
        scores: the paper's, method -> measure -> percent; the teacher's own under "teacher".
    """

    number: int
    data: str
    teacher: str
    student: str
    scores: dict[str, dict[str, float]]


def read_recipes() -> dict[str, Any]:
    """The recipes that ship with the package."""
    return json.loads((resources.files("l2d") / "recipes.json").read_text(encoding="utf-8"))


def read_reference() -> dict[str, Any]:
    """The paper's scores, in percent: `source`, and `rows` of table, data, teacher, student, and scores (method -> measure -> percent)."""
    return json.loads((resources.files("l2d") / "reference.json").read_text(encoding="utf-8"))


def read_rows(table: str) -> list[Row]:
    """The rows of a table, with the paper's scores.

    Raises:
        ValueError: for an unknown table.
    """
    if table not in TABLES:
        raise ValueError(f"Unknown table {table!r}; the known ones are {', '.join(TABLES)}, and figure1.")
    rows = [row for row in read_reference()["rows"] if f"table{row['table']}" == table]
    return [Row(number, row["data"], row["teacher"], row["student"], row["scores"]) for number, row in enumerate(rows, 1)]


def choose_rows(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """The rows with these numbers or names, in the table's order; all, if there are no names.

    A name is teacher:student in timm's spelling, of which the beginning is enough: `resnet50:mobilenetv2`, `swin:resnet18`.

    Raises:
        ValueError: for a name that no row has, listing the rows.
    """
    chosen = set()
    for name in names:
        found = {row.number for row in rows if name == str(row.number) or _is_called(row, name)}
        if not found:
            known = ", ".join(f"{row.number} ({':'.join(name_pair(row))})" for row in rows)
            raise ValueError(f"No row {name!r} in the table; it has {known}.")
        chosen |= found
    return [row for row in rows if not names or row.number in chosen]


def name_pair(row: Row) -> tuple[str, str]:
    """Teacher and student by timm name."""
    backbones = read_recipes()["backbones"]
    return backbones[row.teacher], backbones[row.student]


def describe_data(name: str, kind: str, index: "Index") -> list[str]:
    """In a sentence, how training pictures differ from those of the paper's data set `name`, if they do: one's own may be laid out alike.

    Args:
        kind: the layout, one of `l2d.data.READERS`, or shapes.
    """
    recipes = read_recipes()
    labels, pictures = recipes["sizes"][name]
    if recipes["data"][name] != kind:
        return [f"The data set is {kind}, the paper's is {name}: {COMPARE}"]
    sizes = {"labels": (len(index.labels), labels), "training pictures": (len(index.paths), pictures)}
    others = [f"{found:,} instead of {expected:,} {things}" for things, (found, expected) in sizes.items() if found != expected]
    return [f"The pictures are not those of {name} ({', '.join(others)}): {COMPARE}"] if others else []


def _is_called(row: Row, name: str) -> bool:
    parts = name.split(":")
    return len(parts) == 2 and all(part and full.startswith(part) for part, full in zip(parts, name_pair(row), strict=True))
