"""The Distil tab: order a student, and watch it learn. The page only looks: closing it changes nothing for any job."""

import hashlib
from collections.abc import Callable
from html import escape
from typing import Any, get_args

import gradio as gr

from app.access import Access
from app.errors import RequestError
from app.jobs import ENDED, RESUMABLE, Job
from app.orders import OFFERED, Order, choose_first_order, parse_order
from app.ui.progress import CSS, find_scales, show_curves, show_log, show_probes, show_status
from app.workshop import Workshop
from l2d.distill import METHODS

POLL_SECONDS = 2.0
LISTED = 50
LOG_BYTES = 16 * 2**10
TRAIN = "train first: "
# Fields whose choices come and go.
LISTS = ("data", "teacher", "start_from", "teacher_start_from")
# What the delete button does first, in the browser: without a yes no job is named, and nothing is done.
CONFIRM = "(token, job) => [token, confirm('Delete this job, its log and every model that it trained, a teacher too?') ? job : null]"
NO_JOB = "<p>No job yet. The form holds a small one that needs no data set: start it.</p>"
# Fields of an order with a component each, in the order of the form; the first ones are always in sight.
SHOWN = ("title", "data", "method", "teacher", "student", "teacher_epochs", "epochs", "image_size")
MORE = (
    "start_from",
    "teacher_start_from",
    "batch_size",
    "lr",
    "freeze_stages",
    "output_stride",
    "width",
    "feedforward",
    "min_area",
    "colour",
    "cutout",
    "averaging",
    "holdout",
    "processes",
    "seed",
    "pretrained",
)


def build_distil_tab(workshop: Workshop, access: Access, tab: gr.Tab) -> None:
    """Fill the Distil tab of the page that is being built."""
    bench = Bench(workshop, access)
    gr.HTML(f"<style>{CSS}</style>", apply_default_css=False)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            fields, token, command, start = _build_form(bench)
        with gr.Column(scale=3, min_width=320):
            chosen, status, buttons, curves, epoch, probes, log = _build_view()
    seen = gr.State({})
    view = [chosen, status, *buttons.values(), curves, epoch, probes, log, seen]
    inputs = list(fields.values())
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

    # What there is to choose from comes and goes.
    gr.on(tab.select, bench.list_choices, None, [fields[name] for name in LISTS], **quiet)
    for component in inputs:
        component.change(bench.preview, inputs, command, **quiet)
    ordered = start.click(bench.start, [token, *inputs], chosen, **quiet)
    ordered.then(bench.refresh, [token, chosen, epoch, seen], view, **quiet)
    for verb, button in buttons.items():
        asked = button.click(bench.ask(verb), [token, chosen], None, js=CONFIRM if verb == "delete" else None, **quiet)
        asked.then(bench.refresh, [token, chosen, epoch, seen], view, **quiet)
    chosen.input(bench.refresh, [token, chosen, epoch, seen], view, **quiet)
    epoch.input(bench.scrub, [token, chosen, epoch], [curves, probes], **quiet)
    gr.Timer(POLL_SECONDS).tick(bench.refresh, [token, chosen, epoch, seen], view, **quiet)


def _build_form(bench: "Bench") -> tuple[dict[str, Any], gr.Textbox, gr.Textbox, gr.Button]:
    first = bench.first_order.model_dump()
    token = gr.Textbox(label="Token", info="The server printed it at its start.", type="password", visible=not bench.access.open)
    fields: dict[str, Any] = {}
    for name in SHOWN:
        fields[name] = _build_field(bench, name, first)
    with gr.Accordion("More settings", open=False):
        for name in MORE:
            fields[name] = _build_field(bench, name, first)
    start = gr.Button("Start", variant="primary")
    values = [bench.as_shown(name, first) for name in fields]
    look: dict[str, Any] = {"interactive": False, "max_lines": 16, "buttons": ["copy"], "elem_classes": "l2d-command"}
    command = gr.Textbox(bench.preview(*values), label="The same by hand", info="In the repository's folder.", **look)
    return fields, token, command, start


def _build_field(bench: "Bench", name: str, first: dict[str, Any]) -> Any:
    field = Order.model_fields[name]
    label, value = name.replace("_", " ").capitalize(), bench.as_shown(name, first)
    about: dict[str, Any] = {"label": label, "info": field.description, "value": value}
    choices: dict[str, Callable[[], list[Any]]] = {
        "data": bench.list_datasets,
        "method": lambda: list(METHODS),
        "teacher": bench.list_teachers,
        "student": lambda: list(OFFERED),
        "output_stride": lambda: list(get_args(field.annotation)),
        "start_from": bench.list_models,
        "teacher_start_from": bench.list_models,
    }
    if name in choices:
        return gr.Dropdown(choices[name](), **about)
    if isinstance(field.default, bool):
        return gr.Checkbox(**about)
    if isinstance(field.default, str):
        return gr.Textbox(max_length=80, **about)
    # Without its bounds: Gradio would complain about each digit of a number that is being typed. The order's own sentence tells them.
    return gr.Number(precision=0 if isinstance(field.default, int) else None, **about)


def _build_view() -> tuple[gr.Dropdown, gr.HTML, dict[str, gr.Button], gr.HTML, gr.Slider, gr.HTML, gr.HTML]:
    chosen: gr.Dropdown = gr.Dropdown([], label="Jobs", info="Newest first.")
    status = gr.HTML(NO_JOB)
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
    """What the tab's components call. A refusal is a message on the page."""

    def __init__(self, workshop: Workshop, access: Access):
        self.workshop, self.access = workshop, access

    @property
    def first_order(self) -> Order:
        """What the form holds when it is opened."""
        return choose_first_order((entry.name, entry.card.backbone) for entry in self.workshop.catalog.entries())

    def list_datasets(self) -> list[str]:
        """Names of the data sets."""
        return self.workshop.datasets.names()

    def list_teachers(self) -> list[str]:
        """Models that are there, and what can be trained first."""
        return [entry.name for entry in self.workshop.catalog.entries()] + [f"{TRAIN}{backbone}" for backbone in OFFERED]

    def list_models(self) -> list[str]:
        """Models that are there, and none of them."""
        return ["", *(entry.name for entry in self.workshop.catalog.entries())]

    def list_choices(self) -> list[Any]:
        """The data sets and models of this moment, for the lists `LISTS`."""
        models = gr.update(choices=self.list_models())
        return [gr.update(choices=self.list_datasets()), gr.update(choices=self.list_teachers()), models, models]

    @staticmethod
    def as_shown(name: str, order: dict[str, Any]) -> Any:
        """The value of a form's field."""
        if name == "teacher":
            return order["teacher"] or f"{TRAIN}{order['teacher_backbone']}"
        return "" if order[name] is None else order[name]

    def preview(self, *values: Any) -> str:
        """The commands of what the form says, or why it cannot be ordered."""
        try:
            order = self._read(values)
        except RequestError as error:
            return f"# {error.message}"
        return "\n".join(self.workshop.describe_command(order.model_dump()))

    def start(self, token: str, request: gr.Request, *values: Any) -> Any:
        """Order what the form says, and look at it."""
        job = self._try(token, request, lambda: self.workshop.submit(self._read(values))[0])
        return gr.update(choices=self._list_jobs(), value=job.id)

    def ask(self, verb: str) -> Callable[[str, str | None, gr.Request], None]:
        """The function of a button."""

        def do(token: str, job: str | None, request: gr.Request) -> None:
            def act(job: str) -> None:
                if verb == "delete":
                    self.workshop.delete(job)
                else:
                    getattr(self.workshop.queue, verb)(job)

            if job:
                self._try(token, request, lambda: act(job))

        return do

    def refresh(self, token: str, chosen: str | None, epoch: float, seen: dict[str, str], request: gr.Request) -> list[Any]:
        """Everything in the view that changed since it was shown last: list, status, four buttons, curves, slider, maps, log."""
        try:
            self._check(token, request)
            listed = self.workshop.queue.page(LISTED)
        except RequestError as error:
            # Whatever comes next is shown in place of it.
            return [gr.skip(), f"<p>{escape(error.message)}</p>", *[gr.skip()] * 8, seen | {"status": "", "chosen": ""}]
        job = next((job for job in listed if job.id == chosen), listed[0] if listed else None)
        choices = [(_describe_choice(job), job.id) for job in listed]
        shown: dict[str, Any] = {"chosen": gr.update(choices=choices, value=job.id if job else None)}
        keys = {"chosen": f"{choices} {job and job.id}"}
        if job is None:
            if seen.get("chosen") == keys["chosen"]:
                return [*[gr.skip()] * 10, keys]
            return [shown["chosen"], NO_JOB, *[gr.update(visible=False)] * 4, "", gr.update(visible=False), "", "", keys]
        shown |= self._show(job, int(epoch), new=seen.get("job") != job.id)
        keys |= {name: _digest(value) for name, value in shown.items() if name != "chosen"} | {"job": job.id}
        values = [value if seen.get(name) != keys[name] else gr.skip() for name, value in shown.items()]
        return [*values, keys]

    def scrub(self, token: str, chosen: str | None, epoch: float, request: gr.Request) -> tuple[str, str]:
        """The curves with an epoch marked, and the maps after it."""
        if not chosen or self._is_shut(token, request):
            return "", ""
        return show_curves(self.workshop.folder(chosen).read_all(), int(epoch)), self._show_probes(chosen, int(epoch))

    def _show(self, job: Job, epoch: int, new: bool) -> dict[str, Any]:
        states = {"stop": ("running",), "cancel": ("queued", "running", "interrupted"), "resume": RESUMABLE, "delete": ENDED}
        folder = self.workshop.folder(job.id)
        epochs = self.workshop.list_probes(job.id)["epochs"]
        last = int(epochs[-1]) if epochs else 1
        # Follows the newest epoch, unless somebody looks at an earlier one of the same job.
        at = last if new or epoch >= last - 1 else epoch
        slider = gr.update(maximum=max(last, 2), value=at, visible=len(epochs) > 1)
        return {
            "status": show_status(job),
            **{verb: gr.update(visible=job.state in allowed) for verb, allowed in states.items()},
            "curves": show_curves(folder.read_all(), at if epochs else None) if folder.metrics.exists() else "",
            "epoch": slider,
            "probes": self._show_probes(job.id, at),
            "log": show_log(folder.read_log(LOG_BYTES)),
        }

    def _show_probes(self, job: str, epoch: int) -> str:
        listed = self.workshop.list_probes(job)
        kept = {name: self.workshop.read_probe(job, name) for name in listed["names"]}
        scales = find_scales(maps for name, maps in kept.items() if maps and name != "teacher")
        folder = self.workshop.folder(job).probes
        return show_probes(folder, listed["pictures"], kept.get(f"{epoch:04}"), kept.get("teacher"), scales)

    def _list_jobs(self) -> list[tuple[str, str]]:
        return [(_describe_choice(job), job.id) for job in self.workshop.queue.page(LISTED)]

    def _read(self, values: tuple[Any, ...]) -> Order:
        named = dict(zip((*SHOWN, *MORE), values, strict=True))
        named |= {name: named[name] or None for name in ("start_from", "teacher_start_from")}
        teacher = named.pop("teacher") or ""
        if METHODS.get(named["method"]) and teacher.startswith(TRAIN):
            return parse_order(named | {"teacher_backbone": teacher.removeprefix(TRAIN)})
        named["teacher_start_from"] = None
        return parse_order(named | {"teacher": teacher if METHODS.get(named["method"]) else None})

    def _check(self, token: str, request: gr.Request) -> None:
        """The rule of the API's routes: without a token, another site's page may not order jobs through this one's events either."""
        self.access.check_request(f"Bearer {token}", request.headers.get("host"), request.headers.get("origin"))

    def _is_shut(self, token: str, request: gr.Request) -> bool:
        try:
            self._check(token, request)
        except RequestError:
            return True
        return False

    def _try(self, token: str, request: gr.Request, act: Callable[[], Any]) -> Any:
        try:
            self._check(token, request)
            return act()
        except RequestError as error:
            raise gr.Error(error.message, print_exception=False) from error


def _describe_choice(job: Job) -> str:
    return f"{Order.model_construct(**job.spec).name}: {job.state} ({job.id})"


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()
