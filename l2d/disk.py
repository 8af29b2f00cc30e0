"""Where files go on the disk, and how: whole, or not at all."""

import contextlib
import errno
import fcntl
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

# A writer that lives adds to its file more often than this; what is older was left by one that was killed.
ABANDONED_SECONDS = 3600
# In a folder while somebody holds it.
LOCK = ".lock"


def check_writable(folder: Path) -> None:
    """Say before hours of training that a folder cannot be made or written; leaves nothing behind.

    Raises:
        OSError: naming the folder.
    """
    place = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise OSError(f"{folder} cannot be written: {error.strerror}.") from error


@contextlib.contextmanager
def hold_folder(folder: Path, *, patient: bool = False) -> Iterator[None]:
    """Make a folder, and keep others out that want to hold it; the system lets go of it when the process ends, however.

    Those of other hosts too, where a network file system passes locks on. A folder that it made and nobody filled goes again.

    Args:
        patient: wait while somebody holds it, for what takes moments.

    Raises:
        ValueError: if somebody holds it.
    """
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        place = _lock(folder / LOCK, fcntl.LOCK_EX | (0 if patient else fcntl.LOCK_NB))
    except BlockingIOError:
        raise ValueError(
            f"Another process trains in {folder} just now: choose another folder, or wait for it and give the same command again. "
            f"If it is a run left open in a notebook, run.close() ends it. If it was on a host that died, remove {folder / LOCK}."
        ) from None
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        os.close(place)
        if new:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _lock(path: Path, how: int) -> int:
    """Open a file that nobody else has locked, and lock it. Not the folder itself: NFS passes locks on for files open for writing alone."""
    while True:
        place = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(place, how)
            # Whoever had it may have removed it meanwhile, and somebody else locked the next one.
            if os.path.samestat(os.fstat(place), path.stat()):
                return place
        except BlockingIOError:
            os.close(place)
            raise
        except OSError as error:
            # Not every network file system knows locks; one that does tells in these ways that the file was removed.
            if error.errno not in (errno.ENOENT, errno.ESTALE):
                return place
        os.close(place)


def find_cache() -> Path:
    """Folder for what can be made again: $L2D_CACHE, or the user's cache folder.

    Raises:
        OSError: for a user without a home, as some containers' are.
    """
    own, users = os.environ.get("L2D_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own)
    try:
        return (Path(users) if users else Path.home() / ".cache") / "l2d"
    except RuntimeError as error:
        raise OSError("You have no home folder to keep drawn pictures and converted networks in; set L2D_CACHE to a folder.") from error


def replace_file(path: Path, write: Callable[[Path], object], *, durable: bool = True) -> None:
    """Let `write` make a file beside `path`, and put it there only when it is complete.

    Args:
        durable: wait until it lies on the disk, so that it survives a power cut. What can be made again need not.

    Raises:
        OSError: naming the file, also where the system does not, as when a disk is full.
    """
    # A name of its own: other processes, of other hosts and containers too, may be writing the same file.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        write(temporary)
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        # One without a number has its own words, which a name would take the place of. The temporary name tells nobody anything.
        if error.errno is not None and error.filename in (None, temporary, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def sweep_partial(folder: Path) -> None:
    """Remove what killed writers left of files that `replace_file` was to put there, but nothing of the last hour: some may still live."""
    for left in folder.glob(f".*.{'[0-9a-f]' * 32}.partial"):
        # Another process may sweep too, and what stays does no harm.
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                left.unlink()
