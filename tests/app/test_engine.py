"""One gate: nothing twice, nothing mixed up, and a sentence when it is full or late."""

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import numpy as np
import pytest
import torch
from PIL import Image

from app import engine as engines
from app.catalog import Catalog, Loaded
from app.compare import compare
from app.engine import DECODERS, Engine
from app.entries import Entry
from app.errors import BusyError, DeadlineError, LeftError, PictureError, UnavailableError
from app.settings import Settings
from app.sights import Sight, View
from app.ticket import Ticket
from l2d.cam import OWN_KINDS, label_maps
from l2d.checkpoint import load_checkpoint, save_checkpoint
from l2d.data.images import to_input
from l2d.runtime import OpenVino
from tests.app.conftest import encode, encode_flat

SOON = 20.0


class Counter:
    """Counts the calls of a method, and can hold them up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str):
        self.calls = 0
        self.open = threading.Event()
        self.open.set()
        real: Callable[..., object] = getattr(owner, name)

        def counted(*args: object, **kwargs: object) -> object:
            self.calls += 1
            assert self.open.wait(SOON)
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)


@pytest.fixture
def network_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    counter = Counter(monkeypatch, OpenVino, "__call__")
    yield counter
    counter.open.set()


def start_engine(settings: Settings, **changes: object) -> Engine:
    settings = settings.model_copy(update=changes)
    return Engine(Catalog(settings.checkpoints, settings.default_models, cache=settings.cache, streams=settings.threads), settings)


def look(engine: Engine, data: bytes, *names: str) -> list[Sight]:
    with engine.place() as ticket:
        return [view.sight for view in engine.look(data, engine.catalog.choose(names, 8), ticket)]


def test_numbers_are_those_of_the_bare_network(engine: Engine, upload: bytes, photograph: Image.Image):
    for name in ("the-teacher", "student-l2d"):
        sight = look(engine, upload, name)[0]
        engine.explain([View(sight.entry, sight, sight.stages, cached=True)], ["cup", "cat"], Ticket(SOON))
        network, card = load_checkpoint(sight.entry.place / name)
        image = to_input(photograph, card.image_size, card.mean, card.std)
        with torch.no_grad():
            expected = network(image).logits[0].sigmoid().numpy()
        np.testing.assert_allclose(sight.scores, expected, rtol=1e-4)
        np.testing.assert_allclose(sight.maps["layercam", 3], label_maps(network, image, [3])[0].numpy(), rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(sight.maps["layercam", 0], label_maps(network, image, [0])[0].numpy(), rtol=1e-4, atol=1e-7)
        assert set(sight.maps) == {("layercam", 0), ("layercam", 3)}
        assert sight.maps["layercam", 3].dtype == sight.scores.dtype == np.float32


def test_same_picture_is_looked_at_once(engine: Engine, upload: bytes, network_runs: Counter, monkeypatch: pytest.MonkeyPatch):
    maps = Counter(monkeypatch, type(engine), "_map")
    first = compare(engine, upload, ["the-teacher", "alien"], ["cat"])
    again = compare(engine, upload, ["alien", "the-teacher"], ["cat"])
    assert network_runs.calls == 2
    assert maps.calls == 2
    assert [model.cached for model in first.models] == [False, False]
    assert [model.cached for model in again.models] == [True, True]
    assert again.models[0].maps == first.models[1].maps
    assert again.models[0].timings_ms.total == 0
    assert min(first.models[0].timings_ms.model_dump().values()) > 0


def test_another_label_costs_its_map_alone(engine: Engine, upload: bytes, network_runs: Counter):
    compare(engine, upload, ["alien"], ["cat"])
    timings = compare(engine, upload, ["alien"], ["cat", "zebra"]).models[0].timings_ms
    assert network_runs.calls == 1
    assert timings.decode == timings.network == 0
    assert timings.total == timings.maps > 0


def test_requests_at_the_same_time_share_the_work(engine: Engine, upload: bytes, network_runs: Counter):
    network_runs.open.clear()
    with ThreadPoolExecutor(8) as clients:
        answers = [clients.submit(compare, engine, upload, ["the-teacher"], ["cat"]) for _ in range(8)]
        while network_runs.calls == 0:
            time.sleep(0.01)
        network_runs.open.set()
        results = [answer.result(SOON) for answer in answers]
    assert network_runs.calls == 1
    assert all(result.models[0].maps == results[0].models[0].maps for result in results)


def test_maps_asked_for_at_the_same_time_are_made_once(settings: Settings, upload: bytes, monkeypatch: pytest.MonkeyPatch):
    engine = start_engine(settings, threads=2)
    sight = look(engine, upload, "alien")[0]
    asked, made = Counter(monkeypatch, Engine, "_map"), Counter(monkeypatch, engines, "maps_from_features")
    made.open.clear()
    with ThreadPoolExecutor(2) as clients:
        view = View(sight.entry, sight, sight.stages, cached=True)
        answers = [clients.submit(engine.explain, [view], ["cat"], Ticket(SOON)) for _ in range(2)]
        while asked.calls < 2 or made.calls == 0:
            time.sleep(0.01)
        time.sleep(0.05)
        made.open.set()
        assert sorted(answer.result(SOON)[0][1] > 0 for answer in answers) == [False, True]
    assert made.calls == 1
    engine.close()


def test_many_threads_get_the_right_answers(engine: Engine):
    pictures = [encode_flat(value, 40) for value in range(0, 250, 25)]
    expected = [compare(engine, data, ["student-l2d"], ["cat", "sky"]).models[0] for data in pictures]
    engine._sights.clear()
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda data: compare(engine, data, ["student-l2d"], ["cat", "sky"]).models[0], pictures * 4))
    for answer, right in zip(answers, expected * 4, strict=True):
        np.testing.assert_allclose(answer.maps["cat"], right.maps["cat"], rtol=1e-4, atol=1e-7)
        assert [p.label for p in answer.predictions] == [p.label for p in right.predictions]


def test_full_queue_is_refused_at_once_and_its_places_come_back(settings: Settings, upload: bytes, network_runs: Counter):
    engine = start_engine(settings, max_requests=2)
    network_runs.open.clear()
    with ThreadPoolExecutor(2) as clients:
        running = [clients.submit(compare, engine, upload, [name], ["cat"]) for name in ("alien", "the-teacher")]
        while engine._places._value:
            time.sleep(0.01)
        with pytest.raises(BusyError, match="All 2 places are taken") as refusal:
            compare(engine, upload, ["alien"])
        assert refusal.value.headers == {"Retry-After": "1"}
        network_runs.open.set()
        assert [answer.result(SOON).labels for answer in running] == [["cat"], ["cat"]]
    for _ in range(3):
        compare(engine, upload, ["alien"])
    engine.close()


def test_a_place_is_held_for_the_ticket_of_its_request(engine: Engine, upload: bytes):
    ticket = Ticket(60)
    ticket.leave()
    with pytest.raises(LeftError):
        compare(engine, upload, ["alien"], ["cat"], ticket=ticket)


def test_late_answer_is_refused_and_what_nobody_waits_for_is_not_computed(settings: Settings, upload: bytes, network_runs: Counter):
    engine = start_engine(settings, request_seconds=0.3, threads=1)
    for entry in engine.catalog.choose(["alien", "the-teacher"], 8):
        engine.catalog.load(entry)
    network_runs.open.clear()
    with pytest.raises(DeadlineError, match="not ready in time"):
        compare(engine, upload, ["alien", "the-teacher"])
    network_runs.open.set()
    engine._gate.submit(lambda: None).result(SOON)
    assert network_runs.calls == 1
    assert compare(engine, upload, ["alien"]).models[0].cached
    engine.close()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_whoever_asks_as_the_only_other_one_leaves_is_answered(settings: Settings, upload: bytes, moment: str):
    """Asked just before and just after a network's thread decides that nobody waits for what it is about to do."""
    engine = start_engine(settings, threads=1)
    entries, go_on, views = engine.catalog.choose(["alien"], 8), threading.Event(), Queue[Iterator[View]]()
    running, left = engine._gate.submit(go_on.wait, SOON), Ticket(SOON)
    engine.look(upload, entries, left)
    while not engine._gate._work_queue.qsize():
        time.sleep(0.01)
    left.leave()
    lock = engine._lock

    @contextlib.contextmanager
    def decide() -> Iterator[None]:
        engine._lock = lock
        if moment == "before":
            views.put(engine.look(upload, entries, Ticket(SOON)))
        with lock:
            yield
        if moment == "after":
            views.put(engine.look(upload, entries, Ticket(SOON)))

    engine._lock = decide()
    go_on.set()
    assert running.result(SOON)
    assert [view.sight.entry.name for view in views.get(timeout=SOON)] == ["alien"]
    engine.close()


def test_what_was_given_up_and_runs_after_all_takes_nothing_from_those_who_asked_anew(
    engine: Engine, upload: bytes, network_runs: Counter, monkeypatch: pytest.MonkeyPatch
):
    """A pool keeps what it was given also where the system has no thread for it."""
    left: list[Callable[[], object]] = []

    def submit(work: Callable[[], object]) -> None:
        left.append(work)
        raise RuntimeError("can't start new thread")

    engine.catalog.load(engine.catalog.find("alien"))
    with monkeypatch.context() as patch:
        patch.setattr(engine._gate, "submit", submit)
        with pytest.raises(UnavailableError):
            look(engine, upload, "alien")
    network_runs.open.clear()
    with ThreadPoolExecutor(1) as clients:
        waiting = clients.submit(look, engine, upload, "alien")
        while not network_runs.calls:
            time.sleep(0.01)
        left[0]()
        network_runs.open.set()
        assert len(waiting.result(SOON)) == network_runs.calls == 1


def test_bad_picture_is_told_to_everybody_and_forgotten(engine: Engine, upload: bytes):
    for _ in range(2):
        with pytest.raises(PictureError, match="damaged or cut off"):
            compare(engine, upload[:-200])
    assert engine._flights == {}


def test_failing_network_frees_its_place_and_is_tried_again(engine: Engine, upload: bytes, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as broken:
        broken.setattr(OpenVino, "__call__", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            compare(engine, upload, ["alien"])
    assert not compare(engine, upload, ["alien"]).models[0].cached


def test_a_network_without_numbers_is_refused_by_name(engine: Engine, checkpoints: Path, upload: bytes):
    """A training may end with such weights: its losses are looked at before its last step."""
    folder = checkpoints / "student-l2d"
    model, card = load_checkpoint(folder)
    model.head.bias[0] = torch.nan  # one label's are enough
    save_checkpoint(folder, model, card)
    with pytest.raises(UnavailableError, match="'student-l2d' gives no numbers"):
        compare(engine, upload, ["student-l2d"])
    assert compare(engine, upload, ["the-teacher"]).models


def test_memory_is_bounded_and_the_oldest_goes_first(settings: Settings, network_runs: Counter):
    pictures = [encode_flat(value, 40) for value in (10, 20, 30)]
    engine = start_engine(settings)
    size = look(engine, pictures[0], "alien")[0].nbytes
    engine.close()
    engine = start_engine(settings, cache_bytes=2 * size)
    for data in pictures:
        look(engine, data, "alien")
    network_runs.calls = 0
    look(engine, pictures[2], "alien")
    look(engine, pictures[1], "alien")
    assert network_runs.calls == 0
    look(engine, pictures[0], "alien")
    assert network_runs.calls == 1
    assert engine._sights.currsize <= 2 * size
    engine.close()


def test_memory_is_counted_as_it_is_once_every_label_is_mapped_in_every_kind(engine: Engine, upload: bytes):
    (sight,) = look(engine, upload, "alien")
    for kind in OWN_KINDS:
        engine.explain([View(sight.entry, sight, sight.stages, cached=True)], sight.entry.card.labels, Ticket(SOON), kind)
    read = sum(part.nbytes for part in (sight.reading.last_map, *sight.reading.memory))
    assert sight.nbytes == read + sum(numbers.nbytes for numbers in sight.maps.values())


def test_without_memory_everything_still_works(settings: Settings, upload: bytes):
    engine = start_engine(settings, cache_bytes=0)
    assert [compare(engine, upload, ["alien"]).models[0].cached for _ in range(2)] == [False, False]
    engine.close()


def test_pixels_are_let_go(engine: Engine):
    compare(engine, encode_flat(99, 3000), ["alien"])
    gc.collect()
    assert not [item for item in gc.get_objects() if type(item) is Image.Image and item.size == (3000, 3000)]


def test_warm_up_makes_it_ready_and_closing_ends_that(
    settings: Settings, upload: bytes, checkpoints: Path, caplog: pytest.LogCaptureFixture
):
    (checkpoints / "student-vanilla" / "model.safetensors").write_bytes(b"damaged")
    engine = start_engine(settings)
    assert not engine.ready
    engine.warm_up()
    assert engine.ready
    assert "The model 'student-vanilla' cannot be loaded" in caplog.text
    assert b'l2d_stage_seconds_count{stage="maps"} 2.0' in engine.metrics.export(), "each of the others made a map"
    compare(engine, upload, ["alien"], ["cat"])
    threads = threading.active_count()
    engine.close()
    assert not engine.ready
    assert threading.active_count() < threads
    for models, labels in ((None, None), (["alien"], ["cat"])):  # also where everything is there already
        with pytest.raises(UnavailableError, match="shutting down"):
            compare(engine, upload, models, labels)


def test_a_folder_without_a_model_is_told_in_the_log(settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    engine = start_engine(settings.model_copy(update={"checkpoints": tmp_path / "nowhere"}))
    engine.warm_up()
    assert f"There is no model to ask: {tmp_path / 'nowhere'} holds none" in caplog.text
    engine.close()


def test_models_that_nobody_asked_for_are_checked_until_it_closes(engine: Engine, checkpoints: Path, caplog: pytest.LogCaptureFixture):
    for name in ("alien", "student-l2d"):
        (checkpoints / name / "model.safetensors").write_bytes(b"damaged")
    engine.check_others()
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "The model 'student-l2d' cannot be loaded",
        "The model 'alien' cannot be loaded",
    ]
    assert [entry.name for entry in engine.catalog.entries()] == ["the-teacher", "student-vanilla"]
    (checkpoints / "the-teacher" / "model.safetensors").write_bytes(b"damaged")
    engine.close()
    engine.check_others()
    engine.warm_up()
    assert len(caplog.records) == 2


def test_a_model_that_fails_keeps_nobody_from_being_ready(
    engine: Engine, upload: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    real, asked = Catalog.load, set[str]()

    def load(catalog: Catalog, entry: Entry) -> Loaded:
        asked.add(entry.name)
        if entry.name == "the-teacher":
            raise RuntimeError("CUDA out of memory")
        return real(catalog, entry)

    with monkeypatch.context() as broken:
        broken.setattr(Catalog, "load", load)
        engine.warm_up()
    assert engine.ready
    assert asked == {"the-teacher", "student-vanilla", "student-l2d"}, "only the default ones"
    assert all(told in caplog.text for told in ("The model 'the-teacher' could not be warmed up", "CUDA out of memory"))
    assert compare(engine, upload, ["the-teacher", "student-l2d"], ["cat"]).models[0].maps


def test_whoever_waits_for_a_network_to_be_read_keeps_nobody_from_those_that_are_there(
    settings: Settings, upload: bytes, photograph: Image.Image, monkeypatch: pytest.MonkeyPatch
):
    engine = start_engine(settings, threads=1)
    look(engine, upload, "the-teacher")
    read = Counter(monkeypatch, Catalog, "_read")
    read.open.clear()
    other = encode(photograph.rotate(90))
    with ThreadPoolExecutor(2) as clients:
        waiting = [clients.submit(look, engine, picture, "alien") for picture in (upload, other)]
        while not read.calls:
            time.sleep(0.01)
        assert look(engine, other, "the-teacher")
        assert not any(answer.done() for answer in waiting)
        read.open.set()
        assert [answer.result(SOON)[0].entry.name for answer in waiting] == ["alien", "alien"]
    assert read.calls == 1
    engine.close()


def test_figures_of_those_who_left_are_not_drawn(engine: Engine):
    begun, go_on, drawn = threading.Barrier(DECODERS + 1), threading.Event(), []

    def occupy() -> bool:
        begun.wait(SOON)
        return go_on.wait(SOON)

    with ThreadPoolExecutor(4) as clients:
        running = [clients.submit(engine.run_aside, Ticket(SOON), occupy) for _ in range(DECODERS)]
        begun.wait(SOON)
        left, patient = Ticket(SOON), Ticket(SOON)
        forgotten = clients.submit(engine.run_aside, left, drawn.append, "forgotten")
        wanted = clients.submit(engine.run_aside, patient, drawn.append, "wanted")
        while engine._decoders._work_queue.qsize() < 2:
            time.sleep(0.01)
        left.leave()
        with pytest.raises(LeftError):
            forgotten.result(SOON)
        go_on.set()
        wanted.result(SOON)
        assert all(figure.result(SOON) for figure in running)
    assert drawn == ["wanted"]


def test_what_those_who_left_asked_for_is_not_looked_at(settings: Settings, upload: bytes, network_runs: Counter):
    engine = start_engine(settings, threads=1)
    left, go_on = Ticket(SOON), threading.Event()
    running = engine._gate.submit(go_on.wait, SOON)
    engine.look(upload, engine.catalog.choose(["alien"], 8), left)
    while not engine._gate._work_queue.qsize():
        time.sleep(0.01)
    left.leave()
    go_on.set()
    assert running.result(SOON)
    engine._gate.submit(lambda: None).result(SOON)
    assert network_runs.calls == 0
    assert engine._flights == {}
    engine.close()


@pytest.mark.parametrize(
    ("pool", "threads", "owner", "work"), [("_decoders", DECODERS, engines, "read_inputs"), ("_loader", 1, Catalog, "_read")]
)
def test_for_those_who_left_nothing_is_decoded_and_no_network_read(
    settings: Settings, upload: bytes, monkeypatch: pytest.MonkeyPatch, pool: str, threads: int, owner: object, work: str
):
    engine, done = start_engine(settings), Counter(monkeypatch, owner, work)
    busy, go_on, left = getattr(engine, pool), threading.Event(), Ticket(SOON)
    running = [busy.submit(go_on.wait, SOON) for _ in range(threads)]
    while not all(one.running() for one in running):
        time.sleep(0.01)
    engine.look(upload, engine.catalog.choose(["alien"], 8), left)
    while not busy._work_queue.qsize():
        time.sleep(0.01)
    left.leave()
    go_on.set()
    while engine._flights:
        time.sleep(0.01)
    engine.close()
    assert done.calls == 0


def test_maps_for_those_who_left_are_not_made(settings: Settings, upload: bytes):
    engine = start_engine(settings, threads=1)
    sight, ticket, go_on = look(engine, upload, "alien")[0], Ticket(SOON), threading.Event()
    running = engine._gate.submit(go_on.wait, SOON)
    with ThreadPoolExecutor(1) as clients:
        answer = clients.submit(engine.explain, [View(sight.entry, sight, sight.stages, cached=True)], ["cat"], ticket)
        while not engine._gate._work_queue.qsize():
            time.sleep(0.01)
        ticket.leave()
        with pytest.raises(LeftError):
            answer.result(SOON)
        go_on.set()
        assert running.result(SOON)
    engine._gate.submit(lambda: None).result(SOON)
    assert sight.maps == {}
    engine.close()


def test_figures_take_places_like_everything_else(settings: Settings):
    engine = start_engine(settings, max_requests=1)
    with engine.place(), pytest.raises(BusyError):
        engine.run_aside(Ticket(SOON), list)
    assert engine.run_aside(Ticket(SOON), list) == []
    engine.close()


def test_closing_tells_those_whose_turn_never_came(settings: Settings, upload: bytes, network_runs: Counter):
    engine = start_engine(settings, threads=1)
    network_runs.open.clear()
    views = engine.look(upload, engine.catalog.choose(["alien", "the-teacher"], 8), Ticket(SOON))
    while network_runs.calls == 0 or not engine._gate._work_queue.qsize():
        time.sleep(0.01)
    with ThreadPoolExecutor(1) as clients:
        closing = clients.submit(engine.close)
        while engine._gate._work_queue.qsize() > 1 or not engine._gate._shutdown:
            time.sleep(0.01)
        network_runs.open.set()
        closing.result(SOON)
    assert next(views).sight.entry.name == "alien"
    with pytest.raises(UnavailableError, match="shutting down"):
        next(views)


def test_closing_tells_those_who_had_a_place_but_had_not_asked(settings: Settings, upload: bytes):
    engine = start_engine(settings)
    with engine.place() as ticket:
        engine.close()
        views = engine.look(upload, engine.catalog.choose(["alien"], 8), ticket)
        with pytest.raises(UnavailableError, match="shutting down"):
            next(views)


def test_closing_tells_those_who_wait(settings: Settings, upload: bytes, network_runs: Counter):
    engine = start_engine(settings)
    network_runs.open.clear()
    with ThreadPoolExecutor(2) as clients:
        answer = clients.submit(compare, engine, upload, ["alien", "the-teacher"], ["cat"])
        while network_runs.calls == 0:
            time.sleep(0.01)
        closing = clients.submit(engine.close)
        while not engine._gate._shutdown:
            time.sleep(0.01)
        network_runs.open.set()
        closing.result(SOON)
        with pytest.raises(UnavailableError, match="shutting down"):
            answer.result(SOON)
