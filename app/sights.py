"""What models saw in a picture: the one thing that is kept between requests, and waited for together."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.entries import Entry
from app.ticket import Ticket
from l2d.cam import OWN_KINDS
from l2d.runtime import Reading

Map = NDArray[np.float32]
# Of the picture, its hash; of the model, `Entry.key`.
Key = tuple[str, str, str]


class Stages(NamedTuple):
    """Seconds spent on one model."""

    decode: float = 0.0
    network: float = 0.0


@dataclass(frozen=True)
class Sight:
    """What one model saw in one picture; kept, so that more labels cost their maps alone.

    Attributes:
        width, height: of the upright picture, in pixels.
        sha256: of the bytes that were uploaded.
        reading: what maps are made from, on the network's device.
        scores: probability of each of the model's labels, (C,).
        maps: kind of map and index of a label -> its numbers (h, w), for what was asked so far; whoever adds some holds `mapping`.
    """

    entry: Entry
    sha256: str
    width: int
    height: int
    reading: Reading
    scores: NDArray[np.float32]
    stages: Stages
    maps: dict[tuple[str, int], Map] = field(default_factory=dict)
    mapping: threading.Lock = field(default_factory=threading.Lock)

    @property
    def map_size(self) -> tuple[int, int]:
        """Rows and columns of every map."""
        return self.reading.last_map.shape[2], self.reading.last_map.shape[3]

    @property
    def nbytes(self) -> int:
        """Memory that it takes once every label is mapped in every kind."""
        maps = self.scores.size * len(OWN_KINDS) * self.map_size[0] * self.map_size[1]
        return 4 * (maps + sum(part.numel() for part in (self.reading.last_map, *self.reading.memory)))


@dataclass
class Flight:
    """A sight that somebody waits for. Whoever asks for the same one joins; it goes on as long as anybody waits."""

    key: Key
    entry: Entry
    tickets: list[Ticket]
    future: "Future[Sight]" = field(default_factory=Future)

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits."""
        return any(time.monotonic() <= ticket.due for ticket in self.tickets)


class View(NamedTuple):
    """A sight as one request got it: `stages` is what it had to wait for, nothing if it was there already.

    Its `entry` is the model's of now. That of the sight may have had another title, or lain elsewhere.
    """

    entry: Entry
    sight: Sight
    stages: Stages
    cached: bool


def missing_labels(sight: Sight, labels: Sequence[str], kind: str) -> list[int]:
    """Indices of those labels that the sight's model knows but has not mapped yet in this kind."""
    known = sight.entry.card.labels
    return [index for index in (known.index(label) for label in labels if label in known) if (kind, index) not in sight.maps]
