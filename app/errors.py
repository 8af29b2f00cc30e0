"""What the app refuses, as a status and a sentence: what was expected, what came, what to do."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from http import HTTPStatus

# Of longer names only the beginning is looked at: to liken one of megabytes to others would cost seconds, and many times its memory.
MAX_NAME = 100


class RequestError(ValueError):
    """A request that cannot be answered. The page shows the sentence, the API adds status and code.

    Args:
        message: the sentence.
        details: what is wrong with each single field, where several may be.

    Attributes:
        headers: of HTTP, that belong to the answer.
    """

    status = HTTPStatus.BAD_REQUEST
    code = "bad_request"
    headers: Mapping[str, str] = {}

    def __init__(self, message: str, details: list[str] | None = None):
        super().__init__(message)
        self.message = message
        self.details = details or []


class PictureError(RequestError):
    """The bytes do not decode to a picture."""

    code = "bad_picture"


class PictureFormatError(RequestError):
    """Not a picture, or one of a kind that is not read here."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "unsupported_picture"


class MediaTypeError(RequestError):
    """A body of a type that is not read here."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "unsupported_media_type"


class TooLargeError(RequestError):
    """More bytes or more pixels than allowed."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "too_large"


class LargeBodyError(TooLargeError):
    """A body of more bytes than allowed, which is not read to its end."""

    # What is still on its way will not be read.
    headers: Mapping[str, str] = {"Connection": "close"}


class ParameterError(RequestError):
    """A parameter outside its range, or of the wrong kind."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "bad_parameter"


class UnknownModelError(RequestError):
    """No checkpoint of that name."""

    status = HTTPStatus.NOT_FOUND
    code = "unknown_model"


class UnknownRouteError(RequestError):
    """No such address in the API."""

    status = HTTPStatus.NOT_FOUND
    code = "unknown_route"


class MethodError(RequestError):
    """An address that answers to other methods."""

    status = HTTPStatus.METHOD_NOT_ALLOWED
    code = "method_not_allowed"

    def __init__(self, message: str, allowed: list[str]):
        super().__init__(message)
        self.headers = {"Allow": ", ".join(allowed)}


class UnknownLabelError(RequestError):
    """A label that none of the chosen models knows."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "unknown_label"


class BusyError(RequestError):
    """Every place in the queue is taken, or a client asks too often."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "busy"

    def __init__(self, message: str, retry_seconds: int):
        super().__init__(message)
        self.headers = {"Retry-After": str(retry_seconds)}


class CrowdedBodyError(BusyError):
    """A body for which there is no memory now, and which is not read to its end."""

    def __init__(self, message: str, retry_seconds: int):
        super().__init__(message, retry_seconds)
        self.headers = {**self.headers, "Connection": "close"}


class SlowBodyError(RequestError):
    """The request itself did not come in time."""

    status = HTTPStatus.REQUEST_TIMEOUT
    code = "slow_request"
    headers: Mapping[str, str] = {"Connection": "close"}


class LeftError(RequestError):
    """The client went away: nobody will read this."""

    code = "disconnected"


class DeadlineError(RequestError):
    """The answer was not ready in time."""

    status = HTTPStatus.GATEWAY_TIMEOUT
    code = "too_slow"


class UnavailableError(RequestError):
    """The app is starting, stopping, or has no model.

    Args:
        retry_seconds: when to ask again, where time alone helps.
    """

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "unavailable"

    def __init__(self, message: str, retry_seconds: int | None = None):
        super().__init__(message)
        if retry_seconds is not None:
            self.headers = {"Retry-After": str(retry_seconds)}


def describe_unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that a name is unknown, which one was probably meant, and which are known."""
    names = list(known)
    name = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}..."
    close = get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Unknown {kind} {name!r}.{hint} Known are: {', '.join(names) or 'none'}."
