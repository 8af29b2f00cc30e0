"""The one gate to the networks, for page and API alike: bounded, in order, and nothing is computed twice."""

import contextlib
import hashlib
import logging
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from anyio import CapacityLimiter
from cachetools import LRUCache

from app.catalog import Catalog
from app.entries import Entry
from app.errors import BusyError, RequestError, UnavailableError
from app.metrics import Metrics
from app.settings import Settings
from app.sights import Flight, Key, Sight, Stages, View, missing_labels
from app.ticket import CLOSING, Ticket
from app.uploads import Inputs, read_inputs
from l2d.cam import maps_from_features

logger = logging.getLogger(__name__)

# A grey BMP, 8 x 8 pixels, 24 bits.
_PLAIN_PICTURE = b"BM" + struct.pack("<IIIIiiHHIIiiII", 54 + 192, 0, 54, 40, 8, 8, 1, 24, 0, 192, 2835, 2835, 0, 0) + b"\x80" * 192
RETRY_SECONDS = 1
# Of those in which clients wait: beyond the places.
SPARE_THREADS = 8
# Pictures decoded at once: enough to keep one gate busy, few enough for their memory.
DECODERS = 2

P = ParamSpec("P")
T = TypeVar("T")


class Engine:
    """Runs the catalogue's networks in the order of the requests, several side by side, each on one processor thread.

    Decoding has its own threads; a picture's pixels live only until the networks' inputs are made. So has reading a network from disk,
    which takes seconds: those that are there are asked meanwhile. Safe to use from any thread.

    Args:
        settings: places, deadline, memory, threads.

    Attributes:
        metrics: what it counts and times.
        threads: in which clients wait; more than there are places, so that a full gate can still say so.
    """

    def __init__(self, catalog: Catalog, settings: Settings):
        self.catalog, self.settings, self.metrics = catalog, settings, Metrics()
        self.threads = CapacityLimiter(settings.max_requests + SPARE_THREADS)
        self._places = threading.BoundedSemaphore(settings.max_requests)
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
        alone: dict[str, Any] = {"initializer": torch.set_num_threads, "initargs": (1,)}
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load", **alone)
        self._gate = ThreadPoolExecutor(catalog.streams, thread_name_prefix="networks", **alone)
        self._lock = threading.Lock()
        self._sights: LRUCache[Key, Sight] = LRUCache(settings.cache_bytes, getsizeof=lambda sight: sight.nbytes)
        self._flights: dict[Key, Flight] = {}
        self._ready = self._closed = False

    @contextlib.contextmanager
    def place(self, ticket: Ticket | None = None) -> Iterator[Ticket]:
        """Take one of the places for a request, with its ticket or a new one.

        Raises:
            BusyError: if all are taken.
            UnavailableError: after `close`.
        """
        if self._closed:
            raise UnavailableError(CLOSING)
        if not self._places.acquire(blocking=False):
            most = self.settings.max_requests
            places = "The only place is" if most == 1 else f"All {most} places are"
            raise BusyError(f"{places} taken. Ask again in {RETRY_SECONDS} second.", retry_seconds=RETRY_SECONDS)
        self.metrics.queue_depth.inc()
        try:
            yield ticket or Ticket(self.settings.request_seconds)
        finally:
            self.metrics.queue_depth.dec()
            self._places.release()

    def look(self, data: bytes, entries: Sequence[Entry], ticket: Ticket) -> Iterator[View]:
        """Let models look at an encoded picture: from memory, together with others who asked for the same, or anew.

        All start at once; whoever iterates waits for one after the other.

        Raises:
            RequestError: if the picture cannot be read, or the answer is not there in time.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        new: list[Flight] = []
        with self._lock:
            found = [self._sights.get((sha256, *entry.key)) or self._join((sha256, *entry.key), entry, ticket, new) for entry in entries]
        self.metrics.looks.labels("hit").inc(sum(isinstance(sight, Sight) for sight in found))
        self.metrics.looks.labels("miss").inc(len(new))
        if new:
            self._start(data, new)
        return (_view(entry, sight_or_flight, ticket) for entry, sight_or_flight in zip(entries, found, strict=True))

    def explain(self, views: Iterable[View], labels: Sequence[str], ticket: Ticket, kind: str = "layercam") -> list[tuple[View, float]]:
        """Make sure that every sight holds the maps of those labels that its model knows; gives the seconds spent on each.

        Args:
            kind: one of `l2d.cam.OWN_KINDS`.

        Raises: as `look`.
        """
        # One sight's maps are made while other models still look.
        started = [(view, self._start_maps(view, labels, ticket, kind)) for view in views]
        return [(view, ticket.wait(future) if future else 0.0) for view, future in started]

    def run_aside(self, ticket: Ticket, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do other heavy work for a request, such as drawing a figure, with the same bounds as decoding.

        Raises:
            RequestError: if there is no place, or the time runs out.
        """

        def work_if_wanted() -> T:
            ticket.check()
            return work(*args, **kwargs)

        with self.place(ticket):
            return ticket.wait(self._submit(self._decoders, work_if_wanted))

    def warm_up(self) -> None:
        """Load the default networks and let each explain a plain picture, so that the first request need not wait for that."""
        entries = self.catalog.entries()
        if not entries:
            logger.warning("There is no model to ask: %s holds none that can be used (L2D_CHECKPOINTS).", self.settings.checkpoints)
        for entry in (entry for entry in entries if entry.detail.default):
            ticket = Ticket(self.settings.request_seconds)
            try:
                self.explain(self.look(_PLAIN_PICTURE, [entry], ticket), entry.card.labels[:1], ticket)
            except RequestError as error:
                if self._closed:
                    return
                logger.warning("%s", error)
            except Exception:
                # Whatever it is, the others can be asked.
                logger.exception("The model %r could not be warmed up.", entry.name)
        self._ready = True

    def check_others(self) -> None:
        """Read the weights of all models that were not loaded, one by one: damaged ones are named in the log, and listed no more."""
        for entry in self.catalog.entries():
            if self._closed:
                return
            try:
                self.catalog.check(entry)
            except UnavailableError as error:
                logger.warning("%s", error)

    @property
    def ready(self) -> bool:
        """Whether requests are answered at full speed: loaded, and not shutting down."""
        return self._ready and not self._closed

    def close(self) -> None:
        """Finish what is running, refuse what is waiting, and stop the threads."""
        self._closed = True
        for pool in (self._decoders, self._loader, self._gate):
            pool.shutdown(wait=True, cancel_futures=True)
        for flight in list(self._flights.values()):
            self._land(flight, UnavailableError(CLOSING))

    def _join(self, key: Key, entry: Entry, ticket: Ticket, new: list[Flight]) -> Flight:
        if key not in self._flights:
            self._flights[key] = Flight(key, entry, [])
            new.append(self._flights[key])
        self._flights[key].tickets.append(ticket)
        return self._flights[key]

    def _start(self, data: bytes, flights: list[Flight]) -> None:
        try:
            self._submit(self._decoders, self._prepare, data, flights)
        except UnavailableError as error:
            for flight in flights:
                self._land(flight, error)

    def _prepare(self, data: bytes, flights: list[Flight]) -> None:
        """Decode a picture once and hand every network its input (decoder's thread)."""
        flights = [flight for flight in flights if self._is_wanted(flight)]
        if not flights:
            return
        try:
            start = time.perf_counter()
            inputs = read_inputs(data, self.settings.max_pixels, {flight.entry.card.image_size for flight in flights})
            decode = time.perf_counter() - start
            self.metrics.stage_seconds.labels("decode").observe(decode)
            for flight in flights:
                pool, work = (self._gate, self._see) if self.catalog.has_loaded(flight.entry) else (self._loader, self._load)
                self._submit(pool, work, flight, inputs, decode)
        except BaseException as error:
            # Whoever waits must hear of it, whatever it is.
            for flight in flights:
                self._land(flight, error)

    def _load(self, flight: Flight, inputs: Inputs, decode: float) -> None:
        """Read a network that is not there yet, and let it look at the picture in its turn (loader's thread)."""
        if not self._is_wanted(flight):
            return
        try:
            self.catalog.load(flight.entry)
            self._submit(self._gate, self._see, flight, inputs, decode)
        except BaseException as error:
            self._land(flight, error)

    def _see(self, flight: Flight, inputs: Inputs, decode: float) -> None:
        """Run one network on one picture (gate's thread)."""
        if not self._is_wanted(flight):
            return
        try:
            read = self.catalog.load(flight.entry).read
            start = time.perf_counter()
            reading = read(inputs.pixels[flight.entry.card.image_size][None])
            scores = reading.scores[0].cpu().numpy()
            if not np.isfinite(scores).all():
                raise UnavailableError(f"The model {flight.entry.name!r} gives no numbers for this picture; its weights may be damaged.")
            stages = Stages(decode, time.perf_counter() - start)
            self.metrics.stage_seconds.labels("network").observe(stages.network)
            self._land(flight, Sight(flight.entry, flight.key[0], inputs.width, inputs.height, reading, scores, stages))
        except BaseException as error:
            self._land(flight, error)

    def _is_wanted(self, flight: Flight) -> bool:
        """Whether to go on with a flight. If not, nobody can join it any more; its tickets are over, and say so themselves."""
        with self._lock:
            if flight.wanted:
                return self._flights.get(flight.key) is flight
            self._forget(flight)
            return False

    def _land(self, flight: Flight, result: Sight | BaseException) -> None:
        """Give a flight its result, once, and remember a good one."""
        with self._lock:
            if not self._forget(flight):
                return
            if isinstance(result, Sight) and result.nbytes <= self._sights.maxsize:
                self._sights[flight.key] = result
        if isinstance(result, Sight):
            flight.future.set_result(result)
        else:
            flight.future.set_exception(result)

    def _forget(self, flight: Flight) -> bool:
        """Let nobody join a flight any more; False if that was so already, be another one of its key on its way by now (lock held)."""
        known = self._flights.get(flight.key) is flight
        if known:
            del self._flights[flight.key]
        return known

    def _start_maps(self, view: View, labels: Sequence[str], ticket: Ticket, kind: str) -> "Future[float] | None":
        return self._submit(self._gate, self._map, view, labels, ticket, kind) if missing_labels(view.sight, labels, kind) else None

    def _map(self, view: View, labels: Sequence[str], ticket: Ticket, kind: str) -> float:
        """Add the maps that a sight lacks; gives the seconds that it took (gate's thread)."""
        ticket.check()
        sight = view.sight
        head, (last_map, memory, _) = self.catalog.load(view.entry).head, sight.reading
        with sight.mapping:
            # Asked again here: another request may have brought them in the meantime.
            missing = missing_labels(sight, labels, kind)
            if not missing:
                return 0.0
            start = time.perf_counter()
            maps = maps_from_features(head, last_map, missing, kind, memory).cpu().numpy()
            sight.maps.update({(kind, index): numbers for index, numbers in zip(missing, maps, strict=True)})
            seconds = time.perf_counter() - start
        self.metrics.stage_seconds.labels("maps").observe(seconds)
        self.metrics.batch_size.observe(len(missing))
        return seconds

    def _submit(self, pool: ThreadPoolExecutor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        submitted = time.perf_counter()

        def begin() -> T:
            self.metrics.stage_seconds.labels("wait").observe(time.perf_counter() - submitted)
            return work(*args, **kwargs)

        try:
            return pool.submit(begin)
        except RuntimeError as error:
            raise UnavailableError(CLOSING) from error


def _view(entry: Entry, found: Sight | Flight, ticket: Ticket) -> View:
    if isinstance(found, Sight):
        return View(entry, found, Stages(), cached=True)
    sight = ticket.wait(found.future)
    return View(entry, sight, sight.stages, cached=False)
