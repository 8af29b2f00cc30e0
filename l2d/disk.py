"""How files get to the disk: whole, or not at all."""

import os
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path


def check_writable(folder: Path) -> None:
    """Say before hours of training that a folder cannot be made or written; leaves nothing behind.

    Raises:
        OSError: naming the folder.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise OSError(f"{folder} cannot be written: {error.strerror}.") from error


def replace_file(path: Path, write: Callable[[Path], object], *, durable: bool = True) -> None:
    """Let `write` make a file beside `path`, and put it there only when it is complete.

    Args:
        durable: wait until it lies on the disk, so that it survives a power cut. What can be made again need not.
    """
    # A name of its own: other processes, of other hosts and containers too, may be writing the same file.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        write(temporary)
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
