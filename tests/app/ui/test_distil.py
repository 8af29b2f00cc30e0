"""The Distil tab without a browser: what its form orders, and what it shows of a job."""

import asyncio
import json
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from app.access import Access
from app.catalog import Catalog
from app.errors import UnavailableError
from app.jobs import Progress
from app.orders import choose_first_order
from app.places import Places
from app.queue import Queue
from app.records import JobFolder
from app.ui.distil import NO_JOB, Bench, build_distil_tab
from app.ui.form import fill_fields
from app.workshop import Workshop
from l2d.data.check import check_data

FIRST_ORDER = choose_first_order([])
HELD = fill_fields(FIRST_ORDER)
FORM = list(HELD.values())
# What a browser sends that shows the server's own page.
HERE, HOME = {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860"}, {"host": "127.0.0.1"}
OWN = gr.Request(headers=HERE, client=HOME)
PICTURE = {"file": "0.jpg", "width": 40, "height": 30, "labels": ["<b>"]}
EPOCH = {"event": "epoch", "stage": "student", "epoch": 1, "losses": {"bce": 2.0, "mld": 0.5}, "mAP": 40.0, "best": True, "progress": 0.5}


def maps(value: float) -> dict:
    return {"pictures": [[{"label": "<b>", "score": 0.75, "rows": [[0.0, value], [0.0, 0.0]]}]]}


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    places = Places(tmp_path / "state", tmp_path / "data", tmp_path / "checkpoints")
    return Workshop(places, Catalog(places.checkpoints, made=places.models))


@pytest.fixture
def bench(workshop: Workshop) -> Bench:
    return Bench(workshop, Access(None))


def start(bench: Bench, **changes: object) -> str:
    return bench.start("", OWN, *(HELD | changes).values())[0]["value"]


def test_the_tab_can_be_built(workshop: Workshop):
    async def build() -> gr.Blocks:
        with gr.Blocks(analytics_enabled=False) as page, gr.Tab("Distil") as tab:
            build_distil_tab(workshop, Access("secret"), tab, ())
        return page

    # One order need not wait for another, whose data set may take minutes to be looked through.
    (limit,) = (event.concurrency_limit for event in asyncio.run(build()).fns.values() if event.name == "order")
    assert limit is None


def test_the_form_as_it_opens_orders_the_first_job(bench: Bench, workshop: Workshop):
    job = workshop.queue.find(start(bench))
    assert job.spec == FIRST_ORDER.model_dump()
    assert bench.preview(*FORM).splitlines() == workshop.describe_command(job.spec)


def test_a_wrong_form_says_why_in_preview_and_on_start(bench: Bench, workshop: Workshop):
    wrong = list((HELD | {"epochs": 0}).values())
    assert bench.preview(*wrong).startswith("# Epochs: ")
    _, told, way = bench.start("", OWN, *wrong)
    assert ("Epochs: " in told, way["visible"]) == (True, False)
    assert workshop.queue.page(10) == []


def test_what_start_would_refuse_is_told_by_the_preview(bench: Bench, workshop: Workshop):
    wrong = list((HELD | {"teacher": "nobody"}).values())
    assert bench.preview(*wrong).startswith("# Unknown teacher 'nobody'.")
    assert "Unknown teacher &#x27;nobody&#x27;." in bench.start("", OWN, *wrong)[1]


def test_start_says_which_place_the_job_has(bench: Bench):
    chosen, first, way = bench.start("", OWN, *FORM)
    assert (chosen["value"] in first, "next in line" in first) == (True, True)
    assert way["visible"]
    assert "1 other waits before it" in bench.start("", OWN, *FORM)[1]
    assert "2 others wait before it" in bench.start("", OWN, *FORM)[1]


def test_how_far_a_data_set_is_looked_through_is_told_until_the_order_is_done(
    bench: Bench, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, write_table: Callable[[Path], None]
):
    write_table(workshop.places.data / "own")
    go_on = threading.Event()

    def look_slowly(spec: str, split: str, progress: Callable[[int, int], None]) -> dict[str, Any]:
        progress(1200, 82783)
        assert go_on.wait(60)
        return check_data(spec, split)

    monkeypatch.setattr("app.datasets.check_data", look_slowly)
    monkeypatch.setattr("app.ui.distil.POLL_SECONDS", 0.02)
    answers = bench.order("", OWN, *(HELD | {"data": "own"}).values())
    assert any("own, 1,200 of 82,783 to train." in told for _, told, _ in islice(answers, 100))
    go_on.set()
    *_, (_, told, way) = answers
    assert ("Ordered as job" in told, way["visible"]) == (True, True)
    assert workshop.datasets.describe_look() == ""


def test_what_was_asked_for_is_not_offered_again(bench: Bench, workshop: Workshop):
    job = start(bench)
    workshop.queue.claim("w", job)

    def offered() -> list[bool]:
        return [button["visible"] for button in bench.refresh("", job, {}, {}, OWN)[2:6]]

    assert offered() == [True, True, False, False]
    bench.ask("stop")("", job, "", OWN)
    assert offered() == [False, True, False, False]
    bench.ask("cancel")("", job, "", OWN)
    assert offered() == [False, False, False, False]


def test_a_deletion_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []
    monkeypatch.setattr(gr, "Info", told.append)
    job = start(bench)
    bench.ask("cancel")("", job, "", OWN)
    assert told == []
    # The page was opened again meanwhile, and tells of no order.
    assert bench.ask("delete")("", job, None, OWN) == [gr.skip(), gr.skip()]
    assert [job in sentence for sentence in told] == [True]
    assert bench.workshop.queue.page(10) == []


def test_what_was_told_about_an_order_goes_with_its_job_alone(bench: Bench):
    chosen, told, _ = bench.start("", OWN, *FORM)
    job, other = chosen["value"], start(bench)
    kept = [gr.skip(), gr.skip()]
    for each in (job, other):
        assert bench.ask("cancel")("", each, told, OWN) == kept
    assert bench.ask("delete")("", None, told, OWN) == bench.ask("delete")("", other, told, OWN) == kept
    assert bench.ask("delete")("", job, told, OWN) == ["", gr.update(visible=False)]


def test_vanilla_takes_no_teacher_whatever_the_list_says(bench: Bench, workshop: Workshop):
    spec = workshop.queue.find(start(bench, method="vanilla")).spec
    assert (spec["teacher"], spec["teacher_backbone"]) == (None, None)


def test_without_the_token_nothing_is_done_or_shown(workshop: Workshop):
    shut = Bench(workshop, Access("secret"))
    # In the page's words: nobody sends headers from there.
    assert "into the field Token" in shut.start("", OWN, *FORM)[1]
    job = Bench(workshop, Access(None)).start("", OWN, *FORM)[0]["value"]
    for verb in ("cancel", "stop", "resume", "delete"):
        with pytest.raises(gr.Error, match="token"):
            shut.ask(verb)("wrong", job, "", OWN)
    assert job not in str(shut.refresh("wrong", job, {}, {}, OWN))
    assert shut.scrub("wrong", job, 1, OWN) == ("", "", {})
    assert job in str(shut.refresh("secret", job, {}, {}, OWN))


@pytest.mark.parametrize(
    ("headers", "client"),
    [({"host": "evil.example"}, HOME), (HERE | {"origin": "http://evil.example"}, HOME), (HERE, {"host": "192.0.2.1"})],
    ids=["rebound name", "other site", "behind a proxy"],
)
def test_without_a_token_nobody_else_orders_or_sees_a_job(
    bench: Bench, workshop: Workshop, headers: dict[str, str], client: dict[str, str]
):
    job, evil = start(bench), gr.Request(headers=headers, client=client)
    assert "Without a token" in bench.start("", evil, *FORM)[1]
    for verb in ("cancel", "stop", "resume", "delete"):
        with pytest.raises(gr.Error, match="Without a token"):
            bench.ask(verb)("", job, "", evil)
    assert job not in str(bench.refresh("", job, {}, {}, evil))
    assert bench.scrub("", job, 1, evil) == ("", "", {})
    assert [(known.id, known.state) for known in workshop.queue.page(10)] == [(job, "queued")]


def test_a_refusal_is_escaped_and_gone_when_its_cause_is(bench: Bench, workshop: Workshop):
    job = start(bench)
    first = bench.refresh("", job, {}, {}, OWN)
    refused = bench.refresh("", job, {}, first[-1], gr.Request(headers={"host": "evil<b>.example"}, client=HOME))
    assert ("evil&lt;b&gt;.example" in refused[1], "<b>" in refused[1]) == (True, False)
    assert "Waiting" in bench.refresh("", job, {}, refused[-1], OWN)[1]


def test_a_queue_that_cannot_be_used_is_told_by_every_button(bench: Bench, workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    job = start(bench)

    def fail(*_: object) -> None:
        raise UnavailableError("The queue cannot be used now.")

    monkeypatch.setattr(Workshop, "queue", property(fail))
    with pytest.raises(gr.Error, match="cannot be used now"):
        bench.ask("cancel")("", job, "", OWN)


@pytest.mark.parametrize("method", ["count", "page"])
def test_a_queue_that_fails_once_the_order_is_placed_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch, method: str):
    def fail(*_: object) -> None:
        raise UnavailableError("The queue cannot be used now.")

    monkeypatch.setattr(Queue, method, fail)
    assert "cannot be used now" in bench.start("", OWN, *FORM)[1]


def test_a_job_that_another_tab_deletes_meanwhile_is_no_error(bench: Bench, workshop: Workshop, monkeypatch: pytest.MonkeyPatch):
    job = start(bench)
    bench.ask("cancel")("", job, "", OWN)
    listed = workshop.queue.page(10)
    workshop.delete(job)
    assert bench.scrub("", job, 1, OWN) == ("", "", {})
    for verb in ("cancel", "stop", "resume", "delete"):
        # In the page's words: it has no routes.
        with pytest.raises(gr.Error, match=f"^'Job {job} is not there any more: it was deleted elsewhere.'$"):
            bench.ask(verb)("", job, "", OWN)
    monkeypatch.setattr(Queue, "page", lambda *_: listed)
    assert "cancelled" in bench.refresh("", job, {}, {}, OWN)[1]


def test_the_chosen_job_is_shown_or_else_the_newest(bench: Bench):
    older, newest = start(bench, title="Older"), start(bench)
    for chosen, shown in ((older, older), (newest, newest), (None, newest), ("gone", newest)):
        listed, status, *_, seen = bench.refresh("", chosen, {}, {}, OWN)
        assert f"Job {shown}" in status
        # A choice that stands is not sent back: it would undo one that is made meanwhile.
        assert listed.get("value", "stays") == ("stays" if chosen == shown else shown)
        assert listed["choices"] == [(f"First student: queued ({newest})", newest), (f"Older: queued ({older})", older)]
        # Another one is, also to a browser that lost it.
        assert bench.refresh("", chosen, {}, seen, OWN)[0] == (gr.skip() if chosen == shown else listed)


def test_without_a_job_that_is_told_once_and_nothing_else_is_shown(bench: Bench):
    listed, status, *buttons, curves, epoch, probes, log, seen = first = bench.refresh("", None, {}, {}, OWN)
    assert (listed["choices"], status) == ([], NO_JOB)
    assert not any(part["visible"] for part in (*buttons, epoch))
    assert (curves, probes, log) == ("", "", "")
    assert bench.refresh("", None, {}, seen, OWN) == [*[gr.skip()] * (len(first) - 1), seen]
    assert bench.scrub("", None, 1, OWN) == ("", "", {})


def test_only_what_changed_is_sent_again(bench: Bench, workshop: Workshop):
    job = start(bench)
    first = bench.refresh("", job, {}, {}, OWN)
    assert "Waiting" in first[1]
    assert "No worker is seen" in first[1]
    again = bench.refresh("", job, {}, first[-1], OWN)
    assert all(value == gr.skip() for value in again[:-1])
    bench.ask("cancel")("", job, "", OWN)
    changed = bench.refresh("", job, {}, again[-1], OWN)
    assert "cancelled" in changed[1]
    assert changed[6] == gr.skip(), "the curves are as they were"


def test_a_job_is_shown_after_its_newest_epoch_until_somebody_looks_at_an_earlier_one(bench: Bench, workshop: Workshop):
    job = start(bench)
    probes = JobFolder(workshop.places.jobs / job).probes
    probes.mkdir(parents=True)
    for epoch in (1, 2, 3):
        (probes / f"{epoch:04}.json").write_text('{"pictures": []}')
    # What is asked while the first answer is on its way, with the slider of the job before, changes nothing.
    first = bench.refresh("", job, {"another": 1}, {}, OWN)
    assert first[7]["value"] == 3
    assert bench.refresh("", job, {"another": 1}, first[-1], OWN)[7] == gr.skip()
    looked = bench.scrub("", job, 2, OWN)[-1]
    assert bench.refresh("", job, looked, first[-1], OWN)[7]["value"] == 2
    assert bench.scrub("", job, 3, OWN)[-1] == {}, "the newest one is followed"


def test_a_running_job_shows_progress_curves_maps_and_log(bench: Bench, workshop: Workshop):
    job = start(bench)
    workshop.queue.claim("w", job)
    workshop.queue.beat(job, "w", Progress(0.25, 75.0, "student", 1))
    folder = JobFolder(workshop.places.jobs / job)
    folder.prepare()
    folder.append(EPOCH)
    folder.log.write_text("<script>\n")
    folder.probes.mkdir()
    Image.new("RGB", (40, 30), "white").save(folder.probes / "0.jpg")
    for name, content in {"pictures": {"pictures": [PICTURE]}, "0001": maps(1.0), "0002": maps(4.0), "teacher": maps(9.0)}.items():
        (folder.probes / f"{name}.json").write_text(json.dumps(content))
    _, status, *buttons, curves, epoch, probes, log, _ = bench.refresh("", job, {}, {}, OWN)
    assert 'value="0.2500"' in status
    assert "25%, about 75 s left" in status
    assert [button["visible"] for button in buttons] == [True, True, False, False]
    assert curves.count("<polyline") == 3
    assert (epoch["maximum"], epoch["value"]) == (2, 2)
    assert "<th>Teacher</th>" in probes
    assert "&lt;b&gt;" in probes
    assert "<b>" not in probes
    assert "&lt;script&gt;" in log
    marked, earlier, looked = bench.scrub("", job, 1, OWN)
    assert earlier != probes
    assert 'class="mark"' in marked
    assert looked == {job: 1}
