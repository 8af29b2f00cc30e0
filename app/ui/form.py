"""The Distil tab's form: its fields, what can be chosen in them, what goes together, and the order that they make."""

import json
from typing import Any, get_args

import gradio as gr
from pydantic import ValidationError

from app.errors import ParameterError
from app.orders import FIRST_FROZEN, OFFERED, Order, choose_first_order
from app.workshop import Workshop
from l2d.distill import METHODS

TRAIN = "train first: "
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
    "augmentation",
    "min_area",
    "colour",
    "cutout",
    "averaging",
    "holdout",
    "processes",
    "seed",
    "pretrained",
    "unit_pixels",
)
STARTS = ("start_from", "teacher_start_from")
# Fields that must fit each other, or what is there at the moment.
FITTED = ("data", "teacher", "student", "start_from", "teacher_start_from", "freeze_stages", "pretrained")
# What they are fitted by: themselves, and whether there is a teacher at all.
BASIS = (*FITTED, "method")
# Those of them that somebody changes to fit the others; a number that is being typed is left alone.
FITTING = ("method", "teacher", "student", "start_from", "teacher_start_from", "pretrained")
# What stands in a number's field that is empty, where that says something.
EMPTY = {"freeze_stages": "none"}
# What is filled in outlives a reload of the page, which Gradio does by itself where the connection to the server was lost for a while.
# By name, because the server that is back may be another revision's. Both scripts are silent in a browser that keeps nothing.
KEEP = f"""(...values) => {{
  const held = Object.fromEntries({json.dumps([*SHOWN, *MORE])}.map((name, place) => [name, values[place]]));
  try {{ sessionStorage.setItem("l2d-form", JSON.stringify(held)); }} catch {{}}
}}"""
# Once: what is filled in later is there.
RECALL = """() => {
  if (window.l2dRecalled) return "";
  window.l2dRecalled = true;
  try { return sessionStorage.getItem("l2d-form") ?? ""; } catch { return ""; }
}"""
# Fields that take a whole line: names of models are long.
LONG = ("title", "teacher", "student", "start_from", "teacher_start_from", "pretrained", "unit_pixels")

CSS = """
.l2d-form .form { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); background: var(--block-background-fill); }
/* Beside a longer sentence a shorter one takes as much room, so that what is filled in stands in line. */
.l2d-form .container { display: flex; flex-direction: column; height: 100%; }
.l2d-form .info-text { flex: 1; }
.l2d-form .l2d-long, .l2d-form .l2d-command { grid-column: 1 / -1; }
.l2d-refused { margin: 0; padding: 10px 14px; border-radius: 6px; background: color-mix(in srgb, #d9534f 14%, transparent); }
@media (max-width: 640px) { .l2d-command textarea { max-height: 12em; } }
"""


class Form:
    """What the fields hold and offer, by a workshop's data sets and models."""

    def __init__(self, workshop: Workshop):
        self.workshop = workshop

    def choose_first(self) -> dict[str, Any]:
        """What the fields hold when the page is opened, in their order."""
        order = choose_first_order((entry.name, entry.card.backbone) for entry in self.workshop.catalog.entries())
        # No stage to freeze is no choice of 0, as in `fit`: once a model that fits is there, the student starts from it with some frozen.
        return fill_fields(order) | ({"freeze_stages": None} if order.start_from is None else {})

    def build_field(self, name: str, held: dict[str, Any]) -> Any:
        """The component of a field."""
        field = Order.model_fields[name]
        offered = self._list_choices(held)
        about: dict[str, Any] = {"label": _label_field(name), "info": _describe_field(name, held), "value": held[name]}
        about["elem_classes"] = ["l2d-long"] if name in LONG else []
        if name in offered:
            # Two quick changes of the student: the second one still sends what the first one has taken off the list.
            return gr.Dropdown(offered[name], allow_custom_value=name in STARTS, **about)
        if isinstance(field.default, bool):
            return gr.Checkbox(**about)
        if isinstance(field.default, str):
            return gr.Textbox(max_length=80, **about)
        # Without its bounds: Gradio would complain about each digit of a number that is being typed. The order's own sentence tells them.
        return gr.Number(precision=0 if isinstance(field.default, int) else None, placeholder=EMPTY.get(name), **about)

    def fit(self, *values: Any) -> list[Any]:
        """Updates of the fields `FITTED`, from what those of `BASIS` hold.

        What is not there any more is not chosen any more. A model to start from that is of another kind than what is to be trained gives
        way to the first one that fits, or to none. Where the student starts from nothing that was trained there is no stage to freeze; once
        it starts from something again, as many are as in the form's first order.
        """
        given = dict(zip(BASIS, values, strict=True))
        held = dict(given)
        offered = self._list_choices(held)
        for name in ("data", "teacher"):
            held[name] = held[name] if held[name] in offered[name] else None
        for name in STARTS:
            # Nothing to choose from is no choice of "": the next student that has a model of its kind starts from it again.
            held[name] = held[name] if held[name] in offered[name] else next(iter(offered[name][1:]), None)
        if not (held["start_from"] or held["pretrained"]):
            held["freeze_stages"] = None
        elif held["freeze_stages"] is None:
            held["freeze_stages"] = FIRST_FROZEN
        lists: dict[str, dict[str, Any]] = {name: {"choices": choices} for name, choices in offered.items()}
        # What stays is not sent back: somebody may have changed it since.
        changes = {name: {"value": held[name]} for name in FITTED if held[name] != given[name]}
        return [gr.update(info=_describe_field(name, held), **lists.get(name, {}), **changes.get(name, {})) for name in FITTED]

    def recall(self, kept: str) -> list[Any]:
        """Updates of all fields, from what `KEEP` kept of them, if anything; what cannot be chosen any more is as on a fresh page."""
        names = (*SHOWN, *MORE)
        try:
            held = json.loads(kept)
        except ValueError:
            held = None
        if not isinstance(held, dict):
            return [gr.skip() for _ in names]
        offered = self._list_choices(self.choose_first() | held)
        updates: dict[str, dict[str, Any]] = {name: {"choices": choices} for name, choices in offered.items()}
        for name in held.keys() & set(names):
            if name not in offered or held[name] in offered[name]:
                updates[name] = updates.get(name, {}) | {"value": held[name]}
        return [gr.update(**updates[name]) if name in updates else gr.skip() for name in names]

    def read(self, values: tuple[Any, ...]) -> Order:
        """The order that the fields make.

        Raises:
            ParameterError: if they make none; it tells the first reason, and names the field as the form does.
        """
        try:
            return Order.model_validate(self._collect(values))
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            reason = problem["msg"].removeprefix("Value error, ")
            raise ParameterError(": ".join([*(_label_field(str(name)) for name in problem["loc"]), reason])) from error

    def _collect(self, values: tuple[Any, ...]) -> dict[str, Any]:
        """An order's values from those of the fields."""
        named = dict(zip((*SHOWN, *MORE), values, strict=True))
        named |= {name: named[name] or None for name in STARTS} | {"freeze_stages": named["freeze_stages"] or 0}
        teacher = named.pop("teacher") or ""
        if METHODS.get(named["method"]) and teacher.startswith(TRAIN):
            return named | {"teacher_backbone": teacher.removeprefix(TRAIN)}
        named["teacher_start_from"] = None
        return named | {"teacher": teacher if METHODS.get(named["method"]) else None}

    def _list_choices(self, held: dict[str, Any]) -> dict[str, list[Any]]:
        """What can be chosen; to start from, only models whose backbone fits."""
        kinds = [(entry.name, entry.card.backbone) for entry in self.workshop.catalog.entries()]
        models = [name for name, _ in kinds]
        # Where no teacher is trained first, nothing says what would fit.
        trained = (held["teacher"] or "").startswith(TRAIN)
        return {
            "data": self.workshop.datasets.names(),
            "method": list(METHODS),
            "teacher": [*models, *(f"{TRAIN}{backbone}" for backbone in OFFERED)],
            "student": list(OFFERED),
            **{name: list(get_args(Order.model_fields[name].annotation)) for name in ("output_stride", "augmentation")},
            "start_from": ["", *(name for name, kind in kinds if kind == held["student"])],
            "teacher_start_from": ["", *(name for name, kind in kinds if not trained or f"{TRAIN}{kind}" == held["teacher"])],
        }


def fill_fields(order: Order) -> dict[str, Any]:
    """What the fields hold for an order."""
    held = order.model_dump()
    held["teacher"] = held["teacher"] or f"{TRAIN}{held['teacher_backbone']}"
    return {name: held[name] for name in (*SHOWN, *MORE)}


def _label_field(name: str) -> str:
    return Order.model_fields[name].title or name.replace("_", " ").capitalize()


def _describe_field(name: str, held: dict[str, Any]) -> str:
    """A field's sentence; those in sight also tell what the ones out of sight begin with."""
    about = Order.model_fields[name].description or ""
    otherwise = "timm's ImageNet weights" if held["pretrained"] else "random weights"
    if name == "student":
        return f"{about} It starts from {held['start_from'] or otherwise}."
    if name == "teacher" and not METHODS.get(held["method"]):
        return f"The method {held['method']} learns without one."
    if name == "teacher" and (held["teacher"] or "").startswith(TRAIN):
        begin = held["teacher_start_from"] or otherwise
        return f"This one is trained first, from {begin}. A model with the data set's labels can be chosen instead."
    return about
