"""Paths on the command line: an empty one, as of a variable that is not set, is refused. As a path it would be the current folder."""

from pathlib import Path
from typing import Any

import typer


def parse_path(text: str | Path) -> Path:
    """A path of the command line.

    Raises:
        typer.BadParameter: if it is empty.
    """
    if text == "":
        raise typer.BadParameter("expected a path; got an empty text. The current folder is `.`.")
    return Path(text)


def parse_known_path(text: str | Path) -> Path:
    """A path of the command line at which there is something.

    Raises:
        typer.BadParameter: if it is empty, or there is nothing.
    """
    path = parse_path(text)
    if not path.exists():
        raise typer.BadParameter(f"{path} does not exist.")
    return path


# For typer's options and arguments.
PATH: dict[str, Any] = {"parser": parse_path, "metavar": "PATH"}
KNOWN_PATH: dict[str, Any] = {"parser": parse_known_path, "metavar": "PATH"}
