"""The folder of a job: what its training writes there, and how others read it while it is being written."""

import contextlib
import itertools
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from app.jobs import STUDENT, TEACHER, Progress
from l2d.disk import replace_file

logger = logging.getLogger(__name__)

# Files are written beside their place under such a name, and then renamed.
TEMPORARY = re.compile(r"\..+\.(\d+|partial)")
MAX_BYTES_READ = 2**20
BEST = "best-student-"


class Task(NamedTuple):
    """What a worker asks of a training.

    Attributes:
        stop: train no further, and keep the best student so far.
    """

    job: str
    attempt: int
    spec: dict[str, Any]
    device: str
    stop: bool = False


class Line(NamedTuple):
    """A line of metrics, and where the next one starts, in bytes."""

    record: dict[str, Any]
    after: int


class JobFolder:
    """One job's folder. It also holds one checkpoint folder per stage; what did not finish stays, so that it can be resumed.

    Attributes:
        path: the folder itself.
        order: the `Task` that the worker asks for.
        metrics, log, probes: what the training tells.
        ready: what it lays out for the catalogue, one folder per model.
    """

    def __init__(self, path: Path):
        self.path = path
        self.order = path / "order.json"
        self.metrics = path / "metrics.jsonl"
        self.log = path / "log.txt"
        self.probes = path / "probes"
        self.ready = path / "ready"

    def best(self, epoch: int) -> Path:
        """The checkpoint folder of the student of an epoch that was the best one. It is the job's best if the metrics tell so."""
        return self.path / f"{BEST}{epoch:04}"

    def forget_best(self, but: int | None = None) -> None:
        """Remove the students that were the best ones once, except that of one epoch."""
        for folder in self.path.glob(f"{BEST}*"):
            if but is None or folder != self.best(but):
                remove_folder(folder)

    def prepare(self) -> None:
        """Make the folder, and clear what a killed attempt left behind: temporary files, and half a line of metrics."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.sweep()
        self._end_last_line()
        self._number_best()

    def sweep(self) -> None:
        """Remove files and folders that were to be renamed and never were. Only while nobody writes here."""
        for path in sorted(self.path.rglob(".*"), reverse=True):
            if TEMPORARY.fullmatch(path.name):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def write_task(self, task: Task) -> None:
        """Ask for a training; whole or not at all, since the next worker reads it if this one is killed now."""
        replace_file(self.order, lambda part: part.write_text(json.dumps(task._asdict()), encoding="utf-8"))

    def read_task(self) -> Task:
        """What was asked for last.

        Raises:
            OSError: if it is not there, or damaged.
        """
        try:
            return Task(**json.loads(self.order.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise OSError(f"{self.order} is damaged") from error

    def append(self, record: dict[str, Any]) -> None:
        """Add one line to the metrics, whole or not at all.

        Raises:
            OSError: if it does not fit on the disk.
        """
        line = json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        with self.metrics.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                # On a disk that becomes full, a part is written without an error; only the next write says why.
                while line:
                    line = line[file.write(line) :]
            except OSError:
                file.truncate(before)
                raise

    def read(self, start: int = 0) -> list[Line]:
        """The complete lines of metrics from a byte on; about a megabyte at once. Where no line starts, all are read.

        A damaged line is left out: whatever the disk did to it, the job goes on, and the lines behind it are told.
        """
        with contextlib.suppress(FileNotFoundError), self.metrics.open("rb") as file:
            start = start if _starts_line(file, start) else 0
            # Of what is read at once, all may be damaged.
            while complete := _read_lines(file, start):
                ends = list(itertools.accumulate(map(len, complete), initial=start))
                read = zip(map(_parse, complete), ends[1:], strict=True)
                if lines := [Line(record, end) for record, end in read if record is not None]:
                    return lines
                start = ends[-1]
        return []

    def read_all(self) -> Iterator[dict[str, Any]]:
        """All complete lines of metrics."""
        place = 0
        while lines := self.read(place):
            place = lines[-1].after
            yield from (line.record for line in lines)

    def read_log(self, limit: int) -> str:
        """The end of the log, at most `limit` bytes of it, from the start of a line."""
        try:
            with self.log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - limit))
                data = file.read(limit)
        except FileNotFoundError:
            return ""
        return (data if size <= limit else data[data.find(b"\n") + 1 :]).decode(errors="replace")

    def forget_training(self) -> None:
        """Remove what was needed to resume; metrics, log and probes stay."""
        remove_folder(self.ready)
        self.forget_best()
        for stage in (TEACHER, STUDENT):
            remove_folder(self.path / stage)

    def _end_last_line(self) -> None:
        if not self.metrics.exists():
            return
        data = self.metrics.read_bytes()
        if data and not data.endswith(b"\n"):
            os.truncate(self.metrics, data.rfind(b"\n") + 1)

    def _number_best(self) -> None:
        """Name the best student by its epoch; older revisions did not, and kept one of its teacher, too."""
        remove_folder(self.path / f"best-{TEACHER}")
        unnumbered = self.path / f"best-{STUDENT}"
        if not unnumbered.is_dir():
            return
        epochs = [line["epoch"] for line in self.read_all() if line["event"] == "epoch" and line["stage"] == STUDENT and line["best"]]
        if epochs and not self.best(epochs[-1]).exists():
            unnumbered.rename(self.best(epochs[-1]))
        remove_folder(unnumbered)


class Summary:
    """What the lines of metrics say about a job as a whole, kept up to date line by line.

    Args:
        attempt: the one that runs now; why an earlier one failed is over.
    """

    def __init__(self, attempt: int) -> None:
        self.attempt, self.progress = attempt, Progress()
        self.failure = ""
        self._after = 0

    def update(self, folder: JobFolder) -> Progress:
        """Read what was written since the last time."""
        while lines := folder.read(self._after):
            for record, self._after in lines:
                self._take(record)
        return self.progress

    def _take(self, record: dict[str, Any]) -> None:
        kind = record["event"]
        if kind == "attempt":
            self.progress = self.progress._replace(versions=record["versions"], seconds_left=None)
        elif kind == "failed" and record.get("attempt") == self.attempt:
            self.failure = record["reason"]
        elif kind in ("step", "epoch", "stage"):
            names = ("progress", "seconds_left", "stage", "epoch")
            self.progress = self.progress._replace(**{name: record[name] for name in names if name in record})
        # A teacher's score would be mistaken for the student's.
        if kind == "epoch" and record["best"] and record["stage"] == STUDENT:
            self.progress = self.progress._replace(best_score=record["mAP"], best_epoch=record["epoch"])


def _read_lines(file: BinaryIO, start: int) -> list[bytes]:
    file.seek(start)
    return [line for line in file.readlines(MAX_BYTES_READ) if line.endswith(b"\n")]


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("event"), str) else None


def _starts_line(file: BinaryIO, place: int) -> bool:
    if place == 0 or place > file.seek(0, os.SEEK_END):
        return place == 0
    file.seek(place - 1)
    return file.read(1) == b"\n"


def remove_folder(folder: Path) -> None:
    """Remove a folder so that nobody ever sees half of it. What cannot be removed is out of sight, and left to `sweep_removed`."""
    gone = folder.with_name(f".{folder.name}.gone.{os.getpid()}")
    try:
        folder.rename(gone)
    except FileNotFoundError:
        return
    _discard(gone)


def sweep_removed(folder: Path) -> None:
    """Remove what is left of the folders that were removed from this one."""
    for gone in folder.glob(".*.gone.*"):
        _discard(gone)


def _discard(gone: Path) -> None:
    # Not an error: whoever removed it has what they wanted, and another process may be removing it, too.
    shutil.rmtree(gone, ignore_errors=True)
    if gone.exists():
        logger.warning("%s cannot be removed to its end; the next worker that starts tries again.", gone)
