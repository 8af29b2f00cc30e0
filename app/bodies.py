"""Bodies of requests and their parameters, documented, and refused in words. How much of a body is read at all, `limits` decides."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from app.errors import MediaTypeError, ParameterError, PictureError, RequestError

JSON, MULTIPART = "application/json", "multipart/form-data"
IMAGE_FIELD = "image"
# Each label may be one.
MAX_FIELDS = 256

# A still life of 8 x 8 grey pixels, so that "try it out" works.
EXAMPLE = {
    "instances": [
        {"image": {"b64": "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mNsaGhgwAaYGHCAwSkBADAXAZDUexXGAAAAAElFTkSuQmCC"}}
    ]
}

Model = TypeVar("Model", bound=BaseModel)


class Form(NamedTuple):
    """A multipart form: the picture's bytes, and the other fields with all their values."""

    image: bytes
    fields: dict[str, list[str]]


class _MemoryParser(MultiPartParser):
    """Keeps the upload in memory, whose size is limited: nothing of it reaches a disk."""

    spool_max_size = 0


def media_type(request: Request) -> str:
    """What a request says its body is, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def check_json(request: Request) -> None:
    """Let only a request pass that says its body is JSON.

    Raises:
        MediaTypeError: for another type of body, or none.
    """
    if media_type(request) != JSON:
        raise MediaTypeError(f"Expected a body with the header 'Content-Type: {JSON}'; got {media_type(request) or 'no content type'!r}.")


async def refuse_query(request: Request) -> None:
    """Let no request pass whose parameters stand in its address, where nobody would read them.

    Raises:
        ParameterError: naming them.
    """
    if names := list(request.query_params):
        raise ParameterError(f"Nothing after the '?' of the address is read here, such as {', '.join(names)}: send it in the body.")


async def read_form(request: Request) -> Form:
    """Read a multipart form with one file named `image`.

    Raises:
        RequestError: for another type of body, or one without exactly one picture.
    """
    if media_type(request) != MULTIPART:
        raise MediaTypeError(f"Expected {MULTIPART} with a file named {IMAGE_FIELD!r}; got {media_type(request) or 'no content type'!r}.")
    try:
        form = await _MemoryParser(request.headers, request.stream(), max_files=1, max_fields=MAX_FIELDS).parse()
    except MultiPartException as error:
        raise RequestError(f"Expected a multipart form with one file and at most {MAX_FIELDS} fields: {error.message}") from error
    image: bytes | None = None
    fields: dict[str, list[str]] = {}
    for name, value in form.multi_items():
        if not isinstance(value, UploadFile):
            fields.setdefault(name, []).append(value)
        elif name == IMAGE_FIELD:
            image = await value.read()
    await form.close()
    if IMAGE_FIELD in fields:
        raise ParameterError(f"Expected the picture as a file in the field {IMAGE_FIELD!r}; the form has text there.")
    if image is None:
        raise ParameterError(f"Expected the picture as a file in the field {IMAGE_FIELD!r}; the form has no such file.")
    return Form(image, fields)


async def read_json(request: Request, model: type[Model]) -> Model:
    """Read a JSON body as a pydantic model.

    Raises:
        RequestError: for a body that is not JSON, or of another shape.
    """
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        raise _explain_validation(error) from None


def parse_fields(model: type[Model], fields: Mapping[str, Sequence[str]], lists: Sequence[str] = ()) -> Model:
    """Read form fields as a pydantic model; those named in `lists` may be repeated.

    Raises:
        ParameterError: for unknown or repeated fields, and values out of range.
    """
    values: dict[str, Any] = {}
    for name, texts in fields.items():
        if name not in model.model_fields:
            known = ", ".join([IMAGE_FIELD, *model.model_fields])
            raise ParameterError(f"Unknown field {name!r}. Known are: {known}.")
        if name in lists:
            values[name] = texts
        elif len(texts) > 1:
            raise ParameterError(f"The field {name!r} came {len(texts)} times; send it once.")
        elif texts[0].strip():
            values[name] = texts[0].strip()
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _explain_validation(error) from None


def decode_base64(text: str) -> bytes:
    """The bytes of a picture that came inside JSON.

    Raises:
        PictureError: if it is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise PictureError(f"Expected the picture's bytes in base64, without a 'data:' prefix and line breaks; {error}.") from error


def describe_body(form: type[BaseModel], json: type[BaseModel] | None = None) -> dict[str, Any]:
    """The part of the OpenAPI document about a body that the route reads by itself, so that it may stop at the limit."""
    image = {"type": "string", "format": "binary", "description": "the picture's file; its limits are told at the top"}
    properties = {IMAGE_FIELD: image} | {name: _leave_out_null(field) for name, field in form.model_json_schema()["properties"].items()}
    content: dict[str, Any] = {MULTIPART: {"schema": {"type": "object", "required": [IMAGE_FIELD], "properties": properties}}}
    if json is not None:
        content[JSON] = {"schema": _inline(json.model_json_schema()), "example": EXAMPLE}
    return {"requestBody": {"required": True, "content": content}}


def describe_validation(errors: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence per field that pydantic refused."""
    return [_describe_field(error) for error in errors]


def _describe_field(error: Mapping[str, Any]) -> str:
    if error["type"] == "json_invalid":
        # FastAPI gives the position among the letters as if it were a field's; pydantic tells it in its reason.
        position = "".join(f" at character {part}" for part in error["loc"][1:])
        return f"body: Invalid JSON: {error['ctx']['error']}{position}."
    place = ".".join(map(str, error["loc"])) or "body"
    shown = repr(error.get("input"))
    came = f"; got {shown}" if error["type"] != "missing" and len(shown) <= 80 else ""
    # Our own sentences come with pydantic's word before them, and a full stop.
    reason = error["msg"].removeprefix("Value error, ").removesuffix(".")
    return f"{place}: {reason}{came}."


def _explain_validation(error: ValidationError) -> ParameterError:
    details = describe_validation(error.errors(include_url=False))
    return ParameterError(f"The request does not have the shape that is expected here: {' '.join(details[:3])}", details)


def _leave_out_null(field: dict[str, Any]) -> dict[str, Any]:
    """A form's field is there or not: it cannot be null."""
    kinds = [kind for kind in field.get("anyOf", []) if kind != {"type": "null"}]
    if not kinds:
        return field
    return {key: value for key, value in field.items() if key not in ("anyOf", "default")} | kinds[0]


def _inline(schema: dict[str, Any]) -> dict[str, Any]:
    definitions = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, list):
            return [resolve(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return resolve(definitions[node["$ref"].rpartition("/")[2]])
        return {key: resolve(value) for key, value in node.items()}

    resolved: dict[str, Any] = resolve(schema)
    return resolved
