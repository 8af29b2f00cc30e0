"""One line per event on standard error: for people, or as JSON for machines. Never a picture, a body or a token."""

import logging
import os
import select
import sys
import warnings
from typing import BinaryIO, Literal, TextIO

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


class LogHandler(logging.Handler):
    """Writes lines on standard error, and leaves out what nobody takes there: it would hold up all requests with it.

    So does a terminal that somebody stopped with Ctrl-S, or whose connection hangs, and a pipe that is not read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stream = _open_terminal() or _unbuffer(sys.stderr)
        self._coding = sys.stderr.encoding
        # Bytes of a line that is not whole yet, and lines left out since.
        self._begun, self._left_out = b"", 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, and how many were left out before; the first one of these is waited for, since a reader may just be slow."""
        try:
            if not self._write(0 if self._begun or self._left_out else PATIENCE_SECONDS):
                self._left_out += 1
                return
            if self._left_out:
                told = "Lines left out here, because nobody read them: %d"
                self._begin(logging.LogRecord(__name__, logging.WARNING, __file__, 0, told, (self._left_out,), None))
                self._left_out = 0
            self._begin(record)
            self._write(PATIENCE_SECONDS)
        except Exception:
            self.handleError(record)

    def _begin(self, record: logging.LogRecord) -> None:
        self._begun += f"{self.format(record)}\n".encode(self._coding, "backslashreplace")

    def _write(self, seconds: float) -> bool:
        """Write what is begun, each piece as soon as there is room for it; returns whether there is room for more."""
        while (room := _has_room(self.stream, seconds)) and self._begun:
            # A pipe that has room takes so many bytes without waiting, and a traceback has more.
            written = self.stream.write(self._begun[: select.PIPE_BUF]) or 0
            self._begun = self._begun[written:]
        return room

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Nothing, where the line cannot be written: there is no other place to tell it."""
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


def _open_terminal() -> BinaryIO | None:
    """The terminal that standard error leads to, opened once more: writing to this one does not wait, and others' writing still does."""
    try:
        place = os.open(os.ttyname(sys.stderr.fileno()), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        return open(place, "wb", buffering=0)
    except OSError:  # no terminal, or one of another user
        return None


def _unbuffer(stream: TextIO) -> BinaryIO:
    """Where a stream leads, without its buffer, which writes all that it holds at once."""
    try:
        return open(stream.fileno(), "wb", buffering=0, closefd=False)
    except OSError:  # no file of the system's, as in tests
        return stream.buffer


def _has_room(stream: BinaryIO, seconds: float) -> bool:
    try:
        return bool(select.select([], [stream], [], seconds)[1])
    except (OSError, ValueError):  # no file of the system's, or closed by now
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
    # As commands leave it out: a data set's panorama is no attack, and pictures of strangers have a limit of their own.
    warnings.filterwarnings("ignore", "Image size .* could be decompression bomb")
    # The sentence alone, as commands print it, not where in the program it stands.
    warnings.formatwarning = lambda message, *_, **__: str(message)


def _clean_uvicorns(logger: object, method: str, event: EventDict) -> EventDict:
    """Without the second copy of its sentence that uvicorn adds for terminals, and by a name that does not look like a failure's."""
    event.pop("color_message", None)
    # All that is no request goes by it, a good start as well.
    if event["logger"] == "uvicorn.error":
        event["logger"] = "uvicorn"
    return event
