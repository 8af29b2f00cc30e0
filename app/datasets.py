"""The data sets that a job may name: folders below one configured folder, and `shapes`; each looked through before a job is accepted."""

import contextlib
import functools
import hashlib
import json
import logging
import math
import os
import re
import threading
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, Field

from app.errors import BusyError, ParameterError, describe_unknown
from l2d import data
from l2d.data import LAYOUTS, MARKS, SPLITS, find_spec
from l2d.data.check import check_data
from l2d.data.files import describe_differences
from l2d.data.shapes import COUNT, LABELS, TEST_SHARE
from l2d.disk import replace_file
from l2d.progress import Progress

# Letters of any script, digits, and what people put between them; no name is a path.
NAME = re.compile(r"\w[\w .-]{0,79}")
SHAPES = "shapes"
# By what lies in their folders.
KINDS = tuple(dict.fromkeys(kind for kind, _ in MARKS))
NOTES = ".DS_Store"
# Requests that look through a data set, or wait for whoever does: few of the server's threads, which all other routes need as well.
MAX_CHECKS = 4
# Told to the next one. A look through thousands of pictures takes longer, but its end is not known.
RETRY_SECONDS = 10

logger = logging.getLogger(__name__)


class Dataset(NamedTuple):
    """A data set by its name, how `l2d --data` spells it, and where it lies; what the program draws lies nowhere."""

    name: str
    kind: str
    spec: str
    folder: Path


class DatasetFacts(BaseModel):
    """What was found in a data set."""

    name: str = Field(examples=["shapes"])
    kind: str = Field(description=f"{', '.join((SHAPES, *KINDS))}; empty if it is none of them", examples=["shapes"])
    labels: list[str] = Field(default_factory=list, description="names of the labels, once it was looked through")
    train: int | None = Field(default=None, description="number of training pictures, once it was looked through")
    test: int | None = Field(default=None, description="number of test pictures, once it was looked through")
    problem: str = Field(default="", description="why a job would be refused, naming the first broken file; empty if none is known")


# Not drawn before they are needed.
SHAPES_FACTS = DatasetFacts(name=SHAPES, kind=SHAPES, labels=list(LABELS), train=COUNT, test=math.ceil(COUNT / TEST_SHARE))


class DatasetError(ParameterError):
    """A data set that cannot be trained on."""

    code = "bad_dataset"


class Datasets:
    """The data sets of one folder.

    Every picture is decoded once, in full; what was found is kept and holds until a file is added, removed or changed, or what reads it.

    Args:
        folder: one folder per data set; may not exist.
        memory: folder where the findings are kept.
    """

    def __init__(self, folder: Path, memory: Path):
        self.folder, self.memory = folder, memory
        # One data set is looked through at a time; others wait for it in a place each.
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(MAX_CHECKS)
        self._look = ""

    def names(self) -> list[str]:
        """`shapes`, then those in the folder."""
        return [SHAPES, *self._list()]

    def _list(self) -> dict[str, Path]:
        """The folders by their names. On the disk an accent may be a sign of its own, as Macs write it; here it is part of its letter."""
        found = {unicodedata.normalize("NFC", path.name): path for path in _list_folders(self.folder)}
        return {name: path for name, path in found.items() if NAME.fullmatch(name) and name != SHAPES}

    def find(self, name: str) -> Dataset:
        """Look a data set up, opening no picture.

        Raises:
            ParameterError: for an unknown name, or a folder that is laid out in none of the known ways.
        """
        name, known = unicodedata.normalize("NFC", name), self._list()
        if name == SHAPES:
            return Dataset(name, SHAPES, SHAPES, Path())
        if name not in known:
            raise ParameterError(describe_unknown("data set", name, [SHAPES, *known]))
        spec = find_spec(known[name])
        if spec is None:
            raise DatasetError(f"The data set {name!r} is laid out in none of the known ways; it needs {LAYOUTS}.")
        return Dataset(name, spec.partition(":")[0], spec, known[name])

    def describe(self, name: str) -> DatasetFacts:
        """What is known of a data set without looking through it."""
        try:
            dataset = self.find(name)
        except DatasetError as error:
            return DatasetFacts(name=name, kind="", problem=error.message)
        return self._recall(dataset) or DatasetFacts(name=name, kind=dataset.kind)

    def recall(self, name: str) -> DatasetFacts:
        """What was found in a data set when it was last looked through, if it ever was; whether it changed since is not asked.

        Raises:
            ParameterError: as `find`.
        """
        dataset = self.find(name)
        if dataset.kind == SHAPES:
            return SHAPES_FACTS
        _, facts = self._read_findings(dataset)
        return facts

    def check(self, name: str) -> DatasetFacts:
        """Look through a data set, unless that was done since it last changed.

        Raises:
            ParameterError: for an unknown name.
            DatasetError: if a job would fail on it, naming the first broken file.
            BusyError: if it would have to be looked through, and too many requests wait for that already.
        """
        dataset = self.find(name)
        facts = self._recall(dataset) or self._look_in_turn(dataset)
        if facts.problem:
            raise DatasetError(facts.problem)
        return facts

    def describe_look(self) -> str:
        """How far the data set that is being looked through is, as a sentence; empty if none is."""
        return f"Before the first job on a data set all its pictures are looked through: {self._look}." if self._look else ""

    def _look_in_turn(self, dataset: Dataset) -> DatasetFacts:
        if not self._places.acquire(blocking=False):
            raise BusyError(
                f"Other orders wait until their data sets are looked through. Order {dataset.name!r} again in {RETRY_SECONDS} seconds.",
                RETRY_SECONDS,
            )
        try:
            with self._lock:
                try:
                    # Whoever was before may have looked through the same one.
                    return self._recall(dataset) or self._look_through(dataset)
                finally:
                    self._look = ""
        finally:
            self._places.release()

    def _look_through(self, dataset: Dataset) -> DatasetFacts:
        # Before anything is read: what changes meanwhile is looked through again.
        self._look = f"what {dataset.name} holds is being read"
        stamp, facts = _take_stamp(dataset.folder), DatasetFacts(name=dataset.name, kind=dataset.kind)
        try:
            train, test = (check_data(dataset.spec, split, progress=self._follow(dataset, split)) for split in SPLITS)
            _check_labels(list(train["labels"]))
            facts.labels, facts.train, facts.test = list(train["labels"]), train["pictures"], test["pictures"]
            facts.problem = _find_problem(train, test)
        except (ValueError, OSError) as error:
            facts.problem = str(error)
        except Exception as error:  # whatever a reader does not foresee is a fault of the data set too, and told
            logger.exception("The data set %s cannot be read", dataset.name)
            facts.problem = f"It cannot be read: {type(error).__name__}: {error}"
        facts.problem = _spell(facts.problem.replace(f"{self.folder}{os.sep}", ""))
        self._keep(dataset, stamp, facts)
        return facts

    def _follow(self, dataset: Dataset, split: str) -> Progress:
        def follow(done: int, total: int) -> None:
            self._look = f"{dataset.name}, {done:,} of {total:,} to {split}"

        return follow

    def _keep(self, dataset: Dataset, stamp: str, facts: DatasetFacts) -> None:
        path, kept = self._place(dataset), json.dumps({"stamp": stamp, "facts": facts.model_dump()})
        # On a full disk it is looked through again next time.
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, lambda part: part.write_text(kept, encoding="utf-8"), durable=False)

    def _recall(self, dataset: Dataset) -> DatasetFacts | None:
        """What was kept, as long as it holds."""
        if dataset.kind == SHAPES:
            return SHAPES_FACTS
        stamp, facts = self._read_findings(dataset)
        return facts if stamp and stamp == _take_stamp(dataset.folder) else None

    def _read_findings(self, dataset: Dataset) -> tuple[str, DatasetFacts]:
        """The stamp of what was looked through, and what was found; no stamp where nothing is kept."""
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            kept = json.loads(self._place(dataset).read_text(encoding="utf-8"))
            facts = DatasetFacts.model_validate(kept["facts"])
            if facts.kind == dataset.kind:
                return kept["stamp"], facts
        return "", DatasetFacts(name=dataset.name, kind=dataset.kind)

    def _place(self, dataset: Dataset) -> Path:
        return self.memory / f"{dataset.name}.json"


def _check_labels(labels: list[str]) -> None:
    for label in labels:
        if _spell(label) != label:
            raise ValueError(f"The label '{_spell(label)}' holds half of a character: spell it anew.")


def _spell(text: str) -> str:
    """The same as every answer can hold it: JSON can spell halves of characters, which are none."""
    return text.encode(errors="backslashreplace").decode()


def _find_problem(train: dict[str, Any], test: dict[str, Any]) -> str:
    if differences := describe_differences(list(train["labels"]), list(test["labels"])):
        return f"Its test pictures do not have the labels of its training pictures: {differences}."
    broken = [*train["broken"], *test["broken"]]
    return f"Pictures that are missing or cannot be decoded: {len(broken)}, the first: {broken[0]}" if broken else ""


def _take_stamp(root: Path) -> str:
    """Changes whenever a file or folder below is added, removed or rewritten, and with what reads them.

    Links are followed, to every folder once.
    """
    digest, seen = hashlib.sha256(_hash_readers()), set[str]()
    for folder, folders, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            # Two links to a folder above would double the paths at every level, without end.
            digest.update(os.fsencode(f"{folder} {real}\n"))
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        # A Mac writes its own notes into every folder that it shows.
        for name in sorted(set(files) - {NOTES}):
            # A name need not be text.
            digest.update(os.fsencode(f"{folder}/{name} {_stamp_file(os.path.join(folder, name))}\n"))
    return digest.hexdigest()


@functools.cache
def _hash_readers() -> bytes:
    # What an older revision could not read, this one may.
    return b"".join(hashlib.sha256(path.read_bytes()).digest() for path in sorted(Path(data.__file__).parent.glob("*.py")))


def _stamp_file(path: str) -> tuple[int, int] | None:
    """Size and time of a file; None of a link that leads nowhere, or of a file that was just removed."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _list_folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []
