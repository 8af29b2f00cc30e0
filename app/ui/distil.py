"""The Distil tab: order a student, and watch it learn. The page only looks: closing it changes nothing for any job."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from html import escape
from typing import Any

import gradio as gr

from app.access import Access, UnauthorizedError
from app.errors import RequestError
from app.jobs import ENDED, RESUMABLE, Job, UnknownJobError
from app.orders import Order
from app.records import JobFolder
from app.ui import curves, form, maps, progress
from app.ui.curves import recall_history, show_curves
from app.ui.form import BASIS, FITTED, FITTING, KEEP, MORE, RECALL, SHOWN, Form
from app.ui.maps import list_epochs, show_maps
from app.ui.progress import describe_state, show_log, show_status
from app.workshop import Workshop

STYLE = form.CSS + progress.CSS + curves.CSS + maps.CSS
POLL_SECONDS = 2.0
LISTED = 50
LOG_BYTES = 16 * 2**10
# Of every event: no bar over what changes, and no place in Gradio's own API.
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
# The start button until its order is answered, and a moment longer: else the second half of a double click would order again.
REST = "() => ({__type__: 'update', interactive: false, value: 'Being ordered \u2026'})"
WAKE = "() => new Promise((wake) => setTimeout(() => wake({__type__: 'update', interactive: true, value: 'Start'}), 1000))"
# The jobs lie beside the form, or far below it.
SHOW = """() => {
  const jobs = document.querySelector(".l2d-jobs"), still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  jobs.scrollIntoView({behavior: still ? "auto" : "smooth"});
  jobs.querySelector(":checked")?.focus({preventScroll: true});
}"""
# A button that has done its work is hidden, and the keyboard would be nowhere: it goes on with the job that is shown, or the next order.
# For some seconds, because the list may be drawn anew meanwhile.
GO_ON = """() => {
  const until = Date.now() + 3000, jobs = document.querySelector(".l2d-jobs");
  const goOn = () => {
    const place = jobs.querySelector("input") ? jobs.querySelector(":checked") : document.querySelector(".l2d-form button.primary");
    if (document.activeElement === document.body) place?.focus();
    if (Date.now() < until) setTimeout(goOn, 100);
  };
  setTimeout(goOn);
}"""
# What the delete button does first, in the browser: without a yes no job is named, and nothing is done. With one the keyboard leaves the
# button, which may be there for the next job as well: a second press would be meant for the first one.
CONFIRM = """(token, job, told) => {
  const sure = confirm(`Delete job ${job}, its log and every model that it trained, a teacher too? This cannot be undone.`);
  if (sure) document.activeElement.blur();
  return [token, sure ? job : null, told];
}"""
# Whoever says no may press again before the server has answered that there is nothing to do.
ASK_FIRST: dict[str, Any] = {"js": CONFIRM, "trigger_mode": "multiple"}
NO_JOB = "<p>No job yet. The form holds a small one that needs no data set: start it.</p>"
# The view beneath the list, in the order of its parts, where there is no job.
HIDDEN = gr.update(visible=False)
NOTHING: dict[str, Any] = {
    "status": NO_JOB,
    **dict.fromkeys(("stop", "cancel", "resume", "delete"), HIDDEN),
    "curves": "",
    "epoch": HIDDEN,
    "probes": "",
    "log": "",
}


def build_distil_tab(workshop: Workshop, access: Access, tab: gr.Tab, others: Iterable[gr.Tab]) -> None:
    """Fill the Distil tab of the page that is being built; the others are those beside it."""
    bench = Bench(workshop, access)
    gr.HTML(f"<style>{STYLE}</style>", apply_default_css=False)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300, elem_classes="l2d-form"):
            fields, token, start, answer, command = _build_form(bench)
        with gr.Column(scale=3, min_width=320):
            chosen, status, buttons, curves, epoch, probes, log = _build_view()
    # The slider itself may still be that of the job before.
    seen, looked = gr.State({}), gr.State({})
    view = [chosen, status, *buttons.values(), curves, epoch, probes, log, seen]
    refresh = QUIET | {"fn": bench.refresh, "inputs": [token, chosen, looked, seen], "outputs": view}
    _follow_fields(bench, tab, fields, command)
    resting = start.click(None, None, start, js=REST, **QUIET)
    # Without a limit: the next order need not wait while the data set of this one is looked through.
    ordered = resting.then(bench.order, [token, *fields.values()], [chosen, *answer], concurrency_limit=None, **QUIET)
    ordered.then(**refresh)
    for ended in (ordered.success, ordered.failure):
        ended(None, None, start, js=WAKE, **QUIET)
    answer[1].click(None, js=SHOW, **QUIET)
    for verb, button in buttons.items():
        doubtful = ASK_FIRST if verb == "delete" else {}
        asked = button.click(bench.ask(verb), [token, chosen, answer[0]], list(answer), **QUIET | doubtful)
        asked.then(**refresh).then(None, js=GO_ON, **QUIET)
    # Arrows move on before the job that they passed is answered.
    chosen.input(**refresh, trigger_mode="always_last")
    epoch.input(bench.scrub, [token, chosen, epoch], [curves, probes, looked], **QUIET)
    _watch(tab, others, refresh)


def _watch(tab: gr.Tab, others: Iterable[gr.Tab], refresh: dict[str, Any]) -> None:
    """Look at the jobs again and again while the tab is in front: the server has more to do than to ask for what nobody sees."""
    timer = gr.Timer(POLL_SECONDS, active=False)
    timer.tick(**refresh)
    tab.select(**refresh)
    for one, active in ((tab, "true"), *((other, "false") for other in others)):
        one.select(None, None, timer, js=f"() => ({{__type__: 'update', active: {active}}})", **QUIET)


def _follow_fields(bench: "Bench", tab: gr.Tab, fields: dict[str, Any], command: gr.Textbox) -> None:
    """Have the fields fit each other, and the commands tell what they hold. A choice made before the last one is answered counts, too."""
    inputs, basis, fitted = list(fields.values()), [fields[name] for name in BASIS], [fields[name] for name in FITTED]
    recalled = tab.select(bench.form.recall, gr.Textbox(visible=False), inputs, js=RECALL, **QUIET)
    # What there is to choose from comes and goes. One function, so that two of its answers come in order.
    fit = bench.form.fit
    opened = recalled.then(fit, basis, fitted, **QUIET)
    changed = gr.on([fields[name].input for name in FITTING], fit, basis, fitted, trigger_mode="always_last", **QUIET)
    for before in (opened, changed):
        before.then(bench.preview, inputs, command, trigger_mode="always_last", **QUIET)
    # Only what a person changes: what was fitted is not all there yet when the first of it has changed.
    typed = [component.input for name, component in fields.items() if name not in FITTING]
    gr.on(typed, bench.preview, inputs, command, trigger_mode="always_last", **QUIET)
    # What was fitted need not be kept: it is fitted again. Of a text Gradio calls input what is typed, not what is pasted or deleted.
    given = [component.change if isinstance(component, gr.Textbox) else component.input for component in fields.values()]
    gr.on(given, None, inputs, js=KEEP, **QUIET)


def _build_form(bench: "Bench") -> tuple[dict[str, Any], gr.Textbox, gr.Button, tuple[gr.HTML, gr.Button], gr.Textbox]:
    held = bench.form.choose_first()
    about: dict[str, Any] = {"label": "Token", "info": "The server printed it at its start, or read it from L2D_TOKEN."}
    token = gr.Textbox(**about, type="password", visible=not bench.access.open, elem_classes="l2d-long")
    fields: dict[str, Any] = {name: bench.form.build_field(name, held) for name in SHOWN}
    with gr.Accordion("More settings", open=False):
        fields |= {name: bench.form.build_field(name, held) for name in MORE}
    start = gr.Button("Start", variant="primary")
    answer = gr.HTML(), gr.Button("Show it", size="sm", visible=False)
    look: dict[str, Any] = {"interactive": False, "max_lines": 16, "buttons": ["copy"], "elem_classes": "l2d-command"}
    command = gr.Textbox(bench.preview(*held.values()), label="The same by hand", info="To be run in the repository's folder.", **look)
    return fields, token, start, answer, command


def _build_view() -> tuple[gr.Radio, gr.HTML, dict[str, gr.Button], gr.HTML, gr.Slider, gr.HTML, gr.HTML]:
    # A browser that translates replaces the text that Gradio would go on to change: a job would run for ever.
    chosen = gr.Radio([], label="Jobs", info="Newest first.", elem_classes=["l2d-jobs", "notranslate"])
    status = gr.HTML("<p>Looking for jobs\u2026</p>")
    with gr.Row():
        buttons = {
            "stop": gr.Button("Stop and keep the best", size="sm", visible=False),
            "cancel": gr.Button("Cancel", size="sm", visible=False),
            "resume": gr.Button("Resume", size="sm", visible=False),
            "delete": gr.Button("Delete", size="sm", variant="stop", visible=False),
        }
    curves = gr.HTML()
    epoch = gr.Slider(1, 2, 1, step=1, label="Where the student looks after epoch", visible=False)
    probes = gr.HTML()
    with gr.Accordion("Log", open=False):
        log = gr.HTML()
    return chosen, status, buttons, curves, epoch, probes, log


class Bench:
    """What the tab's components call. A refusal is told on the page."""

    def __init__(self, workshop: Workshop, access: Access):
        self.workshop, self.access = workshop, access
        self.form = Form(workshop)

    def preview(self, *values: Any) -> str:
        """The commands of what the form says, or why it cannot be ordered."""
        try:
            return "\n".join(self.workshop.preview(self.form.read(values)))
        except RequestError as error:
            return f"# {error.message}"

    def order(self, token: str, request: gr.Request, *values: Any) -> Iterator[list[Any]]:
        """`start`; until that is done, how far its data set is looked through, which takes minutes where there are many pictures."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="order")
        started = pool.submit(self.start, token, request, *values)
        # A page that is closed meanwhile ends the iteration, which must not wait.
        pool.shutdown(wait=False)
        while not wait([started], POLL_SECONDS).done:
            # No status to be read out, which it would be anew every time.
            yield [gr.skip(), f"<p>{escape(self.workshop.datasets.describe_look())}</p>", gr.update(visible=False)]
        yield started.result()

    def start(self, token: str, request: gr.Request, *values: Any) -> list[Any]:
        """Order what the form says, and look at it: the list, a sentence beneath the button, be it a refusal, and the way to the job."""
        try:
            self._check(token, request)
            job = self.workshop.submit(self.form.read(values))
            before, listed = self.workshop.queue.count()["queued"] - 1, self.workshop.queue.page(LISTED)
        except RequestError as error:
            # Not as a message at the window's edge: that is gone while the form is being mended, and leaves an older order told.
            return [gr.skip(), f'<p class="l2d-refused" role="alert">{escape(error.message)}</p>', gr.update(visible=False)]
        place = "next in line" if before < 1 else f"{before} {'other waits' if before == 1 else 'others wait'} before it"
        shown = gr.update(choices=_list_choices(listed), value=job.id)
        return [shown, f'<p role="status">Ordered as job {job.id}: {place}.</p>', gr.update(visible=True)]

    def ask(self, verb: str) -> Callable[[str, str | None, str | None, gr.Request], list[Any]]:
        """The function of a button; what was told about an order, if anything was, goes with its job."""

        def do(token: str, job: str | None, told: str | None, request: gr.Request) -> list[Any]:
            if not job:
                return [gr.skip(), gr.skip()]
            try:
                self._check(token, request)
                self._act(verb, job)
            except UnknownJobError as error:
                raise gr.Error(f"Job {job} is not there any more: it was deleted elsewhere.", print_exception=False) from error
            except RequestError as error:
                raise gr.Error(error.message, print_exception=False) from error
            return ["", gr.update(visible=False)] if verb == "delete" and job in (told or "") else [gr.skip(), gr.skip()]

        return do

    def _act(self, verb: str, job: str) -> None:
        if verb != "delete":
            getattr(self.workshop.queue, verb)(job)
            return
        self.workshop.delete(job)
        # Another job is shown in its place, which may look the same.
        gr.Info(f"Job {job} is deleted, with every model that it trained.")

    def refresh(self, token: str, chosen: str | None, looked: dict[str, int], seen: dict[str, str], request: gr.Request) -> list[Any]:
        """Everything in the view that changed since it was shown last: list, status, four buttons, curves, slider, maps, log.

        Args:
            looked: job -> the earlier epoch that somebody looks at.
            seen: part of the view -> digest of what is shown there.
        """
        try:
            self._check(token, request)
            listed = self.workshop.queue.page(LISTED)
        except RequestError as error:
            # Whatever comes next is shown in place of it.
            return [gr.skip(), f"<p>{escape(error.message)}</p>", *[gr.skip()] * 8, seen | {"status": "", "chosen": ""}]
        job = next((job for job in listed if job.id == chosen), listed[0] if listed else None)
        # A choice that stands is not sent back: somebody may have moved on since. Another one is, until it stands: a browser can lose it.
        wanted = job.id if job else None
        moved: dict[str, Any] = {} if wanted == chosen else {"value": wanted}
        choices = gr.update(choices=_list_choices(listed), **moved)
        shown = {"chosen": choices} | (self._show(job, looked.get(job.id)) if job else NOTHING)
        digests = {name: _digest(value) for name, value in shown.items()}
        known = {name for name, digest in digests.items() if seen.get(name) == digest} - ({"chosen"} if moved else set())
        return [*(gr.skip() if name in known else value for name, value in shown.items()), digests]

    def scrub(self, token: str, chosen: str | None, epoch: float, request: gr.Request) -> tuple[str, str, dict[str, int]]:
        """The curves with an epoch marked, the maps after it, and which one it is, unless it is the newest, which is followed."""
        if not chosen:
            return "", "", {}
        try:
            self._check(token, request)
            folder = self.workshop.folder(chosen)
        except RequestError:
            return "", "", {}
        history = recall_history(folder.path).follow(folder)
        looked = {chosen: int(epoch)} if epoch < max(list_epochs(folder.probes), default=0) else {}
        return show_curves(history, int(epoch)), show_maps(folder.probes, int(epoch)), looked

    def _show(self, job: Job, epoch: int | None) -> dict[str, Any]:
        states = {"stop": ("running",), "cancel": ("queued", "running", "interrupted"), "resume": RESUMABLE, "delete": ENDED}
        # Without asking the queue again: another tab may have deleted the job since it was listed.
        folder = JobFolder(self.workshop.places.jobs / job.id)
        history, epochs = recall_history(folder.path).follow(folder), list_epochs(folder.probes)
        last = epochs[-1] if epochs else 1
        at = last if epoch is None else epoch
        slider = gr.update(maximum=max(last, 2), value=at, visible=len(epochs) > 1)
        return {
            "status": show_status(job, self.workshop.explain_wait(job)),
            # What was asked for already need not be asked for again.
            **{verb: gr.update(visible=job.state in allowed and job.request not in (verb, "cancel")) for verb, allowed in states.items()},
            "curves": show_curves(history, at if epochs else None) if folder.metrics.exists() else "",
            "epoch": slider,
            "probes": show_maps(folder.probes, at),
            "log": show_log(folder.read_log(LOG_BYTES)),
        }

    def _check(self, token: str, request: gr.Request) -> None:
        """The rule of the API's routes: without a token, another site's page may not order jobs through this one's events either."""
        try:
            sent = f"Bearer {token}", request.headers.get("host"), request.headers.get("origin")
            self.access.check_request(*sent, request.client and request.client.host)
        except UnauthorizedError as error:
            raise UnauthorizedError(
                "Jobs need the token that the server printed at its start (or read from L2D_TOKEN): put it into the field Token."
            ) from error


def _list_choices(jobs: Iterable[Job]) -> list[tuple[str, str]]:
    return [(f"{Order.model_construct(**job.spec).name}: {describe_state(job)} ({job.id})", job.id) for job in jobs]


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()
