"""One line per event on standard error: for people, or as JSON for machines. Never a picture, a body or a token."""

import logging
import os
import select
import sys
import warnings
from typing import Literal, TextIO

import structlog
from structlog.contextvars import merge_contextvars
from structlog.processors import JSONRenderer, TimeStamper, format_exc_info
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name
from structlog.typing import EventDict, Processor

Format = Literal["text", "json"]

# How long a line is waited for that nobody takes.
PATIENCE_SECONDS = 1.0
# Whose lines are told; of other libraries what they warn of. One that writes fonts into a PDF has a hundred lines for each.
TOLD = ("app", "l2d", "uvicorn")


class LogHandler(logging.StreamHandler[TextIO]):
    """Writes lines on standard error, and leaves out what nobody takes there: it would hold up all requests with it.

    So does a terminal that somebody stopped with Ctrl-S, or whose connection hangs, and a pipe that is not read.
    """

    def __init__(self) -> None:
        super().__init__(_open_terminal() or sys.stderr)
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, and how many were left out before; the first one of these is waited for, since a reader may just be slow."""
        if not _has_room(self.stream, 0 if self._left_out else PATIENCE_SECONDS):
            self._left_out += 1
            return
        if self._left_out:
            told = "Lines left out here, because nobody read them: %d"
            super().emit(logging.LogRecord(__name__, logging.WARNING, __file__, 0, told, (self._left_out,), None))
            self._left_out = 0
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Nothing, where the line cannot be written: there is no other place to tell it."""
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


def _open_terminal() -> TextIO | None:
    """The terminal that standard error leads to, opened once more: writing to this one does not wait, and others' writing still does."""
    try:
        place = os.open(os.ttyname(sys.stderr.fileno()), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        return open(place, "w", encoding=sys.stderr.encoding, errors=sys.stderr.errors)
    except OSError:  # no terminal, or one of another user
        return None


def _has_room(stream: TextIO, seconds: float) -> bool:
    try:
        return bool(select.select([], [stream], [], seconds)[1])
    except (OSError, ValueError):  # no file of the system's, as in tests, or closed by now
        return True


def configure_logs(format: Format) -> None:
    """Let every logger of the process write in this format; what `extra` and the request's context hold become fields."""
    fields: list[Processor] = [merge_contextvars, add_log_level, add_logger_name, ExtraAdder(), _clean_uvicorns, TimeStamper(fmt="iso")]
    colours = sys.stderr.isatty()
    end: list[Processor] = (
        [format_exc_info, JSONRenderer()]
        if format == "json"
        else [structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)]
    )
    handler = LogHandler()
    # uvicorn wants it installed whenever a client offers another protocol, HTTP/2 too; nothing here would use it.
    handler.addFilter(lambda record: not str(record.msg).startswith("No supported WebSocket library"))
    handler.setFormatter(ProcessorFormatter(foreign_pre_chain=fields, processors=[ProcessorFormatter.remove_processors_meta, *end]))
    logging.basicConfig(handlers=[handler], force=True)
    choose_lines()


def choose_lines() -> None:
    """Let the loggers of this program tell what they do, and Python's warnings be lines of the log, too."""
    for name in TOLD:
        logging.getLogger(name).setLevel(logging.INFO)
    logging.captureWarnings(True)
    # The sentence alone, as commands print it, not where in the program it stands.
    warnings.formatwarning = lambda message, *_, **__: str(message)


def _clean_uvicorns(logger: object, method: str, event: EventDict) -> EventDict:
    """Without the second copy of its sentence that uvicorn adds for terminals, and by a name that does not look like a failure's."""
    event.pop("color_message", None)
    # All that is no request goes by it, a good start as well.
    if event["logger"] == "uvicorn.error":
        event["logger"] = "uvicorn"
    return event
