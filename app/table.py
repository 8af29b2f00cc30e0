"""The queue's file: a table in SQLite, how it is opened, and what is said while it cannot be used."""

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from app.errors import UnavailableError
from app.jobs import STATES, Job

# How long a statement waits while another process writes.
LOCK_SECONDS = 5.0
FILE = "jobs.sqlite"
# By the beginning of SQLite's names. It also has its "disk I/O error" where there is no room for its shared memory.
_FULL, _MOVED = ": the disk may be full", f": {FILE} may have been moved, or be read-only; if it is lost, start server and workers anew"
_DAMAGED = f": {FILE} is damaged; stop server and workers, and put a copy in its place, or move it away to begin with an empty queue"
_HINTS = {"SQLITE_FULL": _FULL, "SQLITE_IOERR": _FULL, "SQLITE_CANTOPEN": _MOVED, "SQLITE_CORRUPT": _DAMAGED, "SQLITE_NOTADB": _DAMAGED}

_TABLE = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    spec TEXT NOT NULL,
    idempotency_key TEXT UNIQUE,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    heartbeat REAL,
    worker TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    request TEXT,
    reason TEXT NOT NULL DEFAULT '',
    progress REAL NOT NULL DEFAULT 0,
    seconds_left REAL,
    stage TEXT NOT NULL DEFAULT '',
    epoch INTEGER NOT NULL DEFAULT 0,
    best_score REAL,
    best_epoch INTEGER,
    versions TEXT NOT NULL DEFAULT '{}',
    models TEXT NOT NULL DEFAULT '[]'
)
"""
_INDEX = "CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, number)"

COLUMNS = ", ".join(field.name for field in fields(Job))
_JSON = ("spec", "versions", "models")


def create_table(folder: Path) -> Path:
    """Make the file in its folder, where it is missing; returns its path.

    Raises:
        UnavailableError: as all of these functions do, while the file cannot be read or written.
    """
    path = folder / FILE
    with _sentences():
        folder.mkdir(parents=True, exist_ok=True)
    with connect(path, "rwc") as connection:
        connection.execute(f"PRAGMA journal_mode = {choose_journal(folder)}")
        connection.execute(_TABLE)
        connection.execute(_INDEX)
    return path


def fetch_jobs(path: Path, statement: str, values: tuple[Any, ...]) -> list[Job]:
    """The rows that a statement selects, or that it has changed."""
    with connect(path) as connection:
        # All rows are fetched: only then is a statement with RETURNING complete, and committed.
        return [_read_row(row) for row in connection.execute(statement, values).fetchall()]


@contextlib.contextmanager
def connect(path: Path, mode: str = "rw") -> Iterator[sqlite3.Connection]:
    """A connection for one statement: costs a tenth of a millisecond, and no thread or forked process ever shares one."""
    # None is made where one was: it may come back, with its volume.
    address = f"{path.absolute().as_uri()}?mode={mode}"
    with _sentences(), contextlib.closing(sqlite3.connect(address, timeout=LOCK_SECONDS, isolation_level=None, uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
        raise  # a mistake of ours; all others are the file's
    except (sqlite3.DatabaseError, OSError) as error:
        kind = getattr(error, "sqlite_errorname", "")
        hint = next((hint for beginning, hint in _HINTS.items() if kind.startswith(beginning)), "")
        raise UnavailableError(f"The queue of jobs cannot be used now ({error}{hint}); ask again, or see to L2D_STATE.") from error


def choose_journal(folder: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """WAL, unless the folder lies on a network file system: there SQLite's shared memory does not reach the other hosts."""
    if not mounts.exists():
        return "WAL"
    lines = [line.split() for line in os.fsdecode(mounts.read_bytes()).splitlines()]
    place = folder.resolve()
    around = [(len(mount), kind) for _, mount, kind, *_ in lines if place.is_relative_to(mount.replace("\\040", " "))]
    kind = max(around, default=(0, ""))[1]
    return "DELETE" if kind.startswith(("nfs", "cifs", "smb", "fuse.", "9p", "ceph", "lustre", "glusterfs")) else "WAL"


def _read_row(row: sqlite3.Row) -> Job:
    try:
        if row["state"] not in STATES:
            raise ValueError(f"its state is {row['state']!r}")
        return Job(**dict(row) | {name: json.loads(row[name]) for name in _JSON})
    except (ValueError, TypeError) as error:
        what = f"The row of job {row['id']!r} in {FILE} is damaged, or of a newer revision ({error})"
        raise UnavailableError(f"{what}: mend it or remove it, or use that revision.") from error
