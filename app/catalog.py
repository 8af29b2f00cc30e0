"""The checkpoints that can be asked: which folders load, and why the others do not."""

import os
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from cachetools import LRUCache

from app.entries import Entry, FolderStamp, Stamp, read_entry, take_stamp, take_version
from app.errors import ParameterError, UnavailableError, UnknownModelError, describe_unknown
from l2d.checkpoint import CheckpointError, check_hash, load_checkpoint, load_head, read_card
from l2d.head import LabelHead
from l2d.model import merge_branches
from l2d.runtime import Runner, find_prepared, prepare

# Networks in memory at once; the one that was not asked for the longest time goes first.
MAX_LOADED = 16
# Folders compared when none of the preferred ones exists.
MAX_DEFAULTS = 4


class Loaded(NamedTuple):
    """A model in memory: what reads pictures with it, and the head that makes maps from what was read."""

    head: LabelHead
    read: Runner


class Catalog:
    """The checkpoint folders below one folder or two. New, changed and removed ones are noticed at the next question.

    Safe to use from several threads.

    Args:
        folder: holds one folder per model; may not exist yet.
        defaults: names that are listed first, and compared when nobody says which.
        made: another folder of the same kind, of models that jobs made; the first folder's go before those of the same name.
        cache: folder for networks in the form that this machine runs fastest.
        streams: pictures read at once, on the CPU each by one processor thread; by default as many as torch would use threads.
    """

    def __init__(
        self, folder: Path, defaults: Sequence[str] = (), made: Path | None = None, cache: Path | None = None, streams: int | None = None
    ):
        self.folders = (folder,) if made is None else (folder, made)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # A GPU is full with one picture after another.
        self.streams = (streams or torch.get_num_threads()) if self.device.type == "cpu" else 1
        self._cache = cache
        self._defaults = tuple(defaults)
        # The first one guards what is known and is held for moments; the second one lets one network at a time be read, and each once.
        self._lock, self._loading = threading.Lock(), threading.Lock()
        self._stamps: list[Stamp] = []
        # The last scan's, with those whose weights were refused since: only what changed is read again, a thousand cards take seconds.
        self._read_entries: dict[str, Entry] = {}
        self._entries: dict[str, Entry] = {}
        self._refused: dict[str, str] = {}
        self._networks: LRUCache[tuple[str, str], Loaded] = LRUCache(MAX_LOADED)

    def entries(self) -> list[Entry]:
        """All usable models: the preferred ones in their order, then the others by name."""
        self._scan()
        return list(self._entries.values())

    def refused(self) -> dict[str, str]:
        """Folder name -> why it is not a model."""
        self._scan()
        # A name on a disk need not be text, as that in an answer has to be.
        return {os.fsencode(name).decode(errors="replace"): reason for name, reason in self._refused.items()}

    def find(self, name: str) -> Entry:
        """Look a model up.

        Raises:
            UnknownModelError: naming the known ones, and the reason if a folder of that name was refused.
        """
        self._scan()
        return self._find(name)

    def choose(self, names: Sequence[str] | None, limit: int) -> list[Entry]:
        """The models of a request, each once: those named, else the preferred ones that exist, else the first few.

        Raises:
            UnknownModelError: for a name that is not there.
            ParameterError: for more than `limit` names.
            UnavailableError: if there is no model at all.
        """
        if names:
            unique = list(dict.fromkeys(names))
            if len(unique) > limit:
                raise ParameterError(f"At most {limit} model{'s' * (limit > 1)} can be compared at once; got {len(unique)}.")
            self._scan()
            return [self._find(name) for name in unique]
        entries = self.entries()
        if not entries:
            raise UnavailableError("There is no model: the folder of checkpoints holds none that can be used.")
        return [entry for entry in entries if entry.detail.default][:limit]

    def load(self, entry: Entry) -> Loaded:
        """The model of an entry, ready to be asked; read from disk when first needed.

        Raises:
            UnavailableError: if its files turn out to be damaged, or were replaced just now.
        """
        # Whoever asks for a network that is there does not wait for one that is being read.
        if loaded := self._find_loaded(entry):
            return loaded
        with self._loading:
            if loaded := self._find_loaded(entry):
                return loaded
            loaded = self._read(entry)
            with self._lock:
                self._networks[entry.key] = loaded
            return loaded

    def has_loaded(self, entry: Entry) -> bool:
        """Whether `load` has it at once."""
        return self._find_loaded(entry) is not None

    def check(self, entry: Entry) -> None:
        """Read the weights of a model that nobody has asked for yet; it is refused from now on if they are not those of its card.

        Raises:
            UnavailableError: if so.
        """
        if self.has_loaded(entry):
            return
        folder = entry.place / entry.name
        try:
            check_hash(folder, read_card(folder))
        except CheckpointError as error:
            raise self._refuse(entry, error) from error
        except OSError:  # removed just now; the next question notices
            return

    def _find(self, name: str) -> Entry:
        entries, refused = self._entries, self._refused
        if name in entries:
            return entries[name]
        if name in refused:
            raise UnknownModelError(f"The checkpoint {name!r} cannot be used: {refused[name]} Known are: {', '.join(entries)}.")
        raise UnknownModelError(describe_unknown("model", name, entries))

    def _find_loaded(self, entry: Entry) -> Loaded | None:
        with self._lock:
            return self._networks.get(entry.key)

    def _read(self, entry: Entry) -> Loaded:
        folder, ready = entry.place / entry.name, find_prepared(entry.card, self.device, self._cache)
        try:
            if ready is not None:
                # The backbone would be built for nothing, and takes longer than all else.
                head, card = load_head(folder)
            else:
                network, card = load_checkpoint(folder)
        except CheckpointError as error:
            raise self._refuse(entry, error) from error
        if take_version(card) != entry.version:
            raise UnavailableError(f"The model {entry.name!r} was replaced just now; ask again.")
        if ready is not None:
            return Loaded(head, ready)
        network = merge_branches(network).to(self.device)
        return Loaded(network.head, prepare(network, card, self.device, self._cache))

    def _refuse(self, entry: Entry, error: CheckpointError) -> UnavailableError:
        """Take an entry out of the list; returns what to tell whoever asked for it."""
        reason = self._hide_path(error)
        with self._lock:
            # Unless it was replaced, or moved, meanwhile.
            known = self._entries.get(entry.name)
            if known is not None and (known.place, known.stamp) == (entry.place, entry.stamp):
                self._entries = self._arrange({name: other for name, other in self._entries.items() if name != entry.name})
                # Others go through the former one without the lock.
                self._refused = self._refused | {entry.name: reason}
        return UnavailableError(f"The model {entry.name!r} cannot be loaded: {reason}")

    def _scan(self) -> None:
        with self._lock:
            stamps = [take_stamp(place) for place in self.folders]
            if stamps == self._stamps:
                return
            read: dict[str, Entry] = {}
            refused: dict[str, str] = {}
            for place, found in zip(self.folders, stamps, strict=True):
                for stamp in found:
                    if (name := stamp[0]) not in read and name not in refused:
                        self._read_folder(place, stamp, read, refused)
            self._read_entries, self._refused, self._stamps = read, refused, stamps
            self._entries = self._arrange({name: entry for name, entry in read.items() if name not in refused})

    def _read_folder(self, place: Path, stamp: FolderStamp, read: dict[str, Entry], refused: dict[str, str]) -> None:
        """Add a folder's entry, as it was if it did not change, or why there is none."""
        name, before = stamp[0], self._read_entries.get(stamp[0])
        if before is not None and (before.place, before.stamp) == (place, stamp):
            read[name] = before
            if name in self._refused:
                refused[name] = self._refused[name]
            return
        try:
            read[name] = read_entry(place, stamp)
        except CheckpointError as error:
            refused[name] = self._hide_path(error)
        except OSError as error:  # a link in a circle, or one that nobody here may follow
            refused[name] = f"{name} cannot be read: {error.strerror}."

    def _arrange(self, found: dict[str, Entry]) -> dict[str, Entry]:
        preferred = [name for name in self._defaults if name in found]
        names = preferred + sorted(found.keys() - set(preferred))
        defaults = preferred or names[:MAX_DEFAULTS]
        titles = _entitle(found.values())
        return {name: _complete(found[name], titles[name], name in defaults) for name in names}

    def _hide_path(self, error: CheckpointError) -> str:
        text = str(error)
        for place in self.folders:
            text = text.replace(f"{place}{os.sep}", "")
        return text


def _entitle(entries: Iterable[Entry]) -> dict[str, str]:
    """Name -> a title of no other model: students of jobs often share one, and so do copied folders."""
    titles = {entry.name: f"{entry.card.title} ({job[:6]})" if (job := entry.detail.job) else entry.card.title for entry in entries}
    times = Counter(titles.values())
    return {name: title if times[title] == 1 else name for name, title in titles.items()}


def _complete(entry: Entry, title: str, default: bool) -> Entry:
    return entry._replace(detail=entry.detail.model_copy(update={"title": title, "default": default}))
