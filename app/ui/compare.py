"""The Compare tab: the functions that its script calls on the server, and nothing else of its own."""

import base64
import io
import re
from collections.abc import Callable, Collection, Sequence
from functools import cache, partial
from typing import Any, Literal

import gradio as gr
from PIL import Image
from pydantic import ConfigDict, ValidationError

from app.clients import run_while_wanted
from app.compare import compare as compare_models
from app.engine import Engine
from app.export import MEDIA_TYPES, export
from app.parameters import FigureLook
from app.schemas import CompareAnswer, MapKind
from app.ticket import Ticket
from app.ui.examples import Example, list_examples, read_example
from app.ui.grid import create_grid
from app.ui.photographs import PREVIEW_SIDE, THUMBNAIL_SIDE, Photographs, draw_preview
from app.uploads import read_picture

# Photographs remembered for the next label or model, in units of the largest upload.
REMEMBERED_UPLOADS = 4

# Of a file's name: labels that it names, and letters without the suffix.
NAMED_LABELS, LONGEST_NAME = 3, 120

# What the script needs to know of a model before it was asked.
MODEL_FIELDS = {"name", "title", "role", "method", "backbone", "image_size", "mAP", "default", "labels"}

FORGOTTEN = "The server no longer remembers the photograph of this address; choose it again."

Json = dict[str, Any]


class Request(FigureLook):
    """What the page's script asks about one photograph, which it names by example or hash, or sends along.

    Attributes:
        preview: send back a small copy of the photograph, as the models saw it.
        file: what to save; a figure looks as the page does.
    """

    model_config = ConfigDict(extra="forbid")

    example: str | None = None
    sha256: str | None = None
    models: list[str] | None = None
    labels: list[str] | None = None
    threshold: float = 0.5
    kind: MapKind = "layercam"
    preview: bool = False
    file: Literal["png", "pdf", "npz", "json"] = "png"


def build_compare(engine: Engine) -> None:
    """Put the Compare tab into the page that is being built."""
    desk = Desk(engine)

    # Gradio finds the functions by name and passes whatever the browser sent, so these take anything. What it passes where `gr.Request` is
    # asked for is Starlette's own, which tells when the browser's tab is closed.
    async def opening(sent: Any, request: gr.Request) -> Json:
        return await run_while_wanted(request.receive, engine, partial(desk.open, sent))

    def listing(sent: Any) -> Json:
        return desk.list_models()

    async def compare(sent: Any, request: gr.Request) -> Json:
        return await run_while_wanted(request.receive, engine, partial(desk.answer, desk.compare, sent))

    async def save(sent: Any, request: gr.Request) -> Json:
        return await run_while_wanted(request.receive, engine, partial(desk.answer, desk.save, sent))

    create_grid([opening, listing, compare, save])


class Desk:
    """What the page's script may ask for. All answers are JSON; a refusal is {"error": a sentence}."""

    def __init__(self, engine: Engine):
        self.engine, self.catalog, self.settings = engine, engine.catalog, engine.settings
        self.photographs = Photographs(REMEMBERED_UPLOADS * self.settings.max_upload_bytes)

    def open(self, link: Any, ticket: Ticket | None = None) -> Json:
        """What a fresh page shows: models, examples, and a photograph already compared.

        Args:
            link: a request for what the page's address names. Models and labels that are not there are left out of it, the first example
                stands in for a photograph that is forgotten, and both are told. Of more labels than a request may name the first ones are
                mapped; the page asks for the others.
            ticket: how long to wait; for each photograph as the settings say by default.
        """
        examples = [_describe_example(example) for example in list_examples()]
        limits = {name: getattr(self.settings, name) for name in ("max_upload_bytes", "max_models", "max_labels")}
        usual = {"example": examples[0]["name"], "preview": True}
        asked, told = self._leave_out_unknown(link) if link else (usual, [])
        first = self.answer(self.compare, asked, ticket)
        if "answer" not in first and link:
            told.append(first.get("error", FORGOTTEN))
            asked = asked | usual | {"sha256": None, "labels": None} if "forgotten" in first else usual
            first = self.answer(self.compare, asked, ticket)
        if "answer" not in first:
            told.append(first["error"])
        shown = {"first": first if "answer" in first else None, "example": asked.get("example"), "error": " ".join(dict.fromkeys(told))}
        return self.list_models() | limits | {"examples": examples} | shown

    def _leave_out_unknown(self, link: Any) -> tuple[Any, list[str]]:
        """What of a link there still is, and a sentence for each name of what there is not."""
        try:
            asked = Request.model_validate(link)
        except ValidationError:
            return link, []  # whoever answers it says so
        entries = self.catalog.entries()
        models, gone = _split_known(asked.models, [entry.name for entry in entries])
        chosen = [entry for entry in entries if (entry.name in models if models else entry.detail.default)]
        labels, unknown = _split_known(asked.labels, {label for entry in chosen for label in entry.card.labels})
        told = [f"The model {name!r} of this address is not here." for name in gone]
        told += [f"The models shown here have no label {name!r}." for name in unknown]
        return asked.model_dump() | {"models": models, "labels": labels[: self.settings.max_labels] or None}, told

    def list_models(self) -> Json:
        """The models of this moment, and the names of folders that hold none."""
        entries = self.catalog.entries()
        models = [entry.detail.model_dump(mode="json", include=MODEL_FIELDS) | {"data": entry.data_title} for entry in entries]
        return {"models": models, "refused": sorted(self.catalog.refused())}

    def answer(self, function: Callable[[bytes, Request, Ticket], Json], sent: Any, ticket: Ticket | None = None) -> Json:
        """Call one of the functions below with the photograph and the request of a message; refusals become sentences."""
        try:
            request, data = self._unpack(sent)
            ticket = ticket or Ticket(self.settings.request_seconds)
            return {"forgotten": True} if data is None else function(data, request, ticket)
        except ValidationError:
            return {"error": "The page and the server do not understand each other; reload the page."}
        except ValueError as error:
            return {"error": str(error)}

    def _unpack(self, sent: Any) -> tuple[Request, bytes | None]:
        """The request of a message, and its photograph: sent along, an example, or remembered (None if it no longer is)."""
        files = getattr(sent, "files", None)
        if files:
            return Request.model_validate_json(sent.data["request"]), files[0][1]
        request = Request.model_validate(sent)
        if request.example:
            return request, read_example(request.example)
        return request, self.photographs.find(request.sha256 or "")

    def compare(self, data: bytes, request: Request, ticket: Ticket) -> Json:
        """Compare models on a photograph; with a preview of it if the script asks for one.

        Raises:
            RequestError: as `app.compare.compare`.
        """
        self.photographs.keep(data)
        reply: Json = {"answer": self._ask(data, request, ticket).model_dump(mode="json")}
        if request.preview:
            reply["preview"] = self.engine.run_aside(ticket, self._preview, data)
        return reply

    def _preview(self, data: bytes) -> str:
        return draw_preview(read_picture(data, self.settings.max_pixels), PREVIEW_SIDE)

    def save(self, data: bytes, request: Request, ticket: Ticket) -> Json:
        """What is shown as a file: the figure, or the raw numbers.

        Raises:
            RequestError: as `app.compare.compare`.
        """
        answer = self._ask(data, request, ticket)
        content = self.engine.run_aside(ticket, self._write, answer, data, request)
        return {"name": name_file(answer, request), "type": MEDIA_TYPES[request.file], "base64": base64.b64encode(content).decode()}

    def _write(self, answer: CompareAnswer, data: bytes, request: Request) -> bytes:
        if request.file == "json":
            return answer.model_dump_json(indent=1).encode()
        return export(self.engine, answer, data, request.file, request)

    def _ask(self, data: bytes, request: Request, ticket: Ticket) -> CompareAnswer:
        return compare_models(self.engine, data, request.models, request.labels, request.threshold, request.kind, ticket)


def name_file(answer: CompareAnswer, request: Request) -> str:
    """What the file shows, and how where that is not as on a fresh page; in ASCII, which every file system takes."""
    ignored = set() if request.file in ("png", "pdf") else set(FigureLook.model_fields)
    changed = request.model_dump(exclude_defaults=True, exclude=ignored)
    words = ["l2d", answer.image.sha256[:8], request.kind]
    words += [f"{name} {changed[name]}" for name in ("threshold", "minus", "scale", "colormap") if name in changed]
    words += ["cells"] if "smooth" in changed else []
    words += answer.labels if len(answer.labels) <= NAMED_LABELS else [f"{len(answer.labels)} labels"]
    stem = re.sub(r"[^\w.]+", "-", " ".join(words), flags=re.ASCII)[:LONGEST_NAME].strip("-.")
    return f"{stem}.{request.file}"


def _split_known(names: Sequence[str] | None, known: Collection[str]) -> tuple[list[str], list[str]]:
    """Those of the names that are known, and the others."""
    return [name for name in names or [] if name in known], [name for name in names or [] if name not in known]


@cache
def _describe_example(example: Example) -> Json:
    thumbnail = draw_preview(Image.open(io.BytesIO(read_example(example.name))).convert("RGB"), THUMBNAIL_SIDE)
    return {"name": example.name, "title": example.title, "credit": example.credit, "thumbnail": thumbnail}
