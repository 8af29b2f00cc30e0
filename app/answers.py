"""What all routes answer alike: every refusal and failure in one shape, which the document tells of, and HEAD."""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from app.bodies import describe_validation
from app.errors import LeftError, ParameterError, RequestError
from app.schemas import ErrorAnswer, ErrorDetail

Responses = dict[int | str, dict[str, Any]]

# Not with every 503: where only somebody else can help, waiting does not.
RETRY_AFTER = {"Retry-After": {"description": "seconds to wait before asking again", "schema": {"type": "integer"}}}

logger = logging.getLogger(__name__)


def describe_errors(sentences: Mapping[int, str], retry: Collection[int] = (HTTPStatus.TOO_MANY_REQUESTS,)) -> Responses:
    """The part of the OpenAPI document about refusals: why each status may come, and with which of them Retry-After does."""
    return {
        status: {"model": ErrorAnswer, "description": sentence} | ({"headers": RETRY_AFTER} if status in retry else {})
        for status, sentence in sentences.items()
    }


def answer_head(router: APIRouter) -> APIRouter:
    """What answers HEAD wherever a router answers GET, as whatever watches a server asks; the server sends no body then."""
    heads = APIRouter(include_in_schema=False)
    for route in router.routes:
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):
            heads.add_api_route(
                route.path,
                route.endpoint,
                methods=["HEAD"],
                dependencies=route.dependencies,
                response_class=route.response_class,
                # What routes of a class ask first is asked here, too.
                route_class_override=type(route),
            )
    return heads


def refuse(error: RequestError) -> Response:
    """The answer to a request that cannot be answered."""
    return _answer(error.status, error.code, error.message, error.details, error.headers)


def fail(method: str, path: str, error: Exception) -> Response:
    """The answer when something failed here; the log says what, the answer does not."""
    logger.error("%s %s failed", method, path, exc_info=error)
    return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "Something failed here, not in your request. The server's log says more.")


async def _answer_request_error(request: Request, error: RequestError) -> Response:
    return refuse(error)


async def _answer_validation_error(request: Request, error: RequestValidationError) -> Response:
    details = describe_validation(error.errors())
    return refuse(ParameterError(" ".join(details[:3]), details))


async def _answer_http_error(request: Request, error: HTTPException) -> Response:
    if error.status_code == HTTPStatus.BAD_REQUEST and error.__cause__ is not None:  # FastAPI could not read it, and does not say why
        return refuse(
            RequestError("Expected JSON as text in UTF-8; this is no such text, is nested too deeply, or has a number of too many digits.")
        )
    return _answer(HTTPStatus(error.status_code), "http_error", str(error.detail), headers=dict(error.headers or {}))


async def _answer_disconnect(request: Request, error: ClientDisconnect) -> Response:
    return refuse(LeftError("The client went away before the whole body had come."))


HANDLERS: dict[type[Exception], Callable[..., Awaitable[Response]]] = {
    RequestError: _answer_request_error,
    RequestValidationError: _answer_validation_error,
    HTTPException: _answer_http_error,
    ClientDisconnect: _answer_disconnect,
}


def _answer(
    status: HTTPStatus, code: str, message: str, details: list[str] | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    answer = ErrorAnswer(error=ErrorDetail(status=status, code=code, message=message, details=details or []))
    # A plain number: lines of the log show the status that goes out, and an enum by its name.
    return JSONResponse(answer.model_dump(), status_code=int(status), headers=headers)
