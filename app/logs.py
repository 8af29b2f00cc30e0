"""One line per event on standard error: for people, or as JSON for machines. Never a picture, a body or a token."""

import logging
import sys
import warnings
from typing import Literal

import structlog
from structlog.contextvars import merge_contextvars
from structlog.processors import JSONRenderer, TimeStamper, format_exc_info
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name
from structlog.typing import EventDict, Processor

Format = Literal["text", "json"]

# Whose lines are told; of other libraries what they warn of. One that writes fonts into a PDF has a hundred lines for each.
TOLD = ("app", "l2d", "uvicorn")


def configure_logs(format: Format) -> None:
    """Let every logger of the process write in this format; what `extra` and the request's context hold become fields."""
    fields: list[Processor] = [merge_contextvars, add_log_level, add_logger_name, ExtraAdder(), _clean_uvicorns, TimeStamper(fmt="iso")]
    colours = sys.stderr.isatty()
    end: list[Processor] = (
        [format_exc_info, JSONRenderer()]
        if format == "json"
        else [structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)]
    )
    handler = logging.StreamHandler(sys.stderr)
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
