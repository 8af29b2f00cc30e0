"""Lines of the log: for people, for machines."""

import json
import logging
import os
import re
import select
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest
from structlog.contextvars import bound_contextvars

from app import logs
from app.logs import TOLD, configure_logs


@pytest.fixture(autouse=True)
def _quiet_again() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("", *TOLD)]
    handlers, levels, written = loggers[0].handlers[:], [logger.level for logger in loggers], warnings.formatwarning
    yield
    logging.captureWarnings(False)
    warnings.formatwarning = written
    loggers[0].handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def test_json_has_fields_and_one_line_per_event(capsys: pytest.CaptureFixture[str]):
    configure_logs("json")
    with bound_contextvars(request_id="abc"):
        logging.getLogger("app.x").info("asked for %s", "a\nb", extra={"status": 200, "color_message": "c"})
    try:
        raise OSError("no\nroom")
    except OSError:
        logging.getLogger("app.y").exception("failed")
    asked, failed = map(json.loads, capsys.readouterr().err.splitlines())
    assert (asked["event"], asked["status"], asked["request_id"], asked["level"]) == ("asked for a\nb", 200, "abc", "info")
    assert asked["logger"] == "app.x"
    assert asked["timestamp"].endswith("Z")
    assert "color_message" not in asked
    assert "request_id" not in failed
    assert "OSError: no\nroom" in failed["exception"]


def test_uvicorns_lines_do_not_look_like_failures(capsys: pytest.CaptureFixture[str]):
    configure_logs("text")
    logging.getLogger("uvicorn.error").info("Started server process [7]")
    line = capsys.readouterr().err
    assert "[uvicorn]" in line
    assert "error" not in line


def test_nobody_is_told_to_install_what_is_not_used(capsys: pytest.CaptureFixture[str]):
    configure_logs("text")
    logging.getLogger("uvicorn.error").warning("Unsupported upgrade request.")
    logging.getLogger("uvicorn.error").warning("No supported WebSocket library detected. Please use \"pip install 'uvicorn[standard]'\".")
    assert capsys.readouterr().err.count("\n") == 1


def test_text_is_for_people(capsys: pytest.CaptureFixture[str]):
    configure_logs("text")
    logging.getLogger("app.x").warning("slow", extra={"seconds": 3})
    logging.getLogger("app.x").debug("unseen")
    line = capsys.readouterr().err
    assert "slow" in line
    assert "seconds=3" in line
    assert "\x1b" not in line
    assert line.count("\n") == 1


def test_what_is_warned_of_is_a_line_of_the_log(capsys: pytest.CaptureFixture[str]):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure_logs("json")
        # As Pillow does of a stranger's picture.
        warnings.warn("Corrupt EXIF data.", stacklevel=1)
        # As of a panorama.
        warnings.warn("Image size (9 pixels) exceeds limit of 8 pixels, could be decompression bomb DOS attack.", stacklevel=1)
        logging.captureWarnings(False)
    told = json.loads(capsys.readouterr().err)
    assert (told["event"], told["level"]) == ("Corrupt EXIF data.", "warning")


def test_of_libraries_warnings_alone_are_told(capsys: pytest.CaptureFixture[str]):
    configure_logs("text")
    logging.getLogger("fontTools.subset").info("maxp pruned")
    logging.getLogger("fontTools.subset").warning("a font is damaged")
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("open_ends", [os.pipe, os.openpty])
def test_a_reader_that_stands_still_holds_nobody_up(open_ends: Callable[[], tuple[int, int]], monkeypatch: pytest.MonkeyPatch):
    reading, writing = open_ends()
    monkeypatch.setattr(logs, "PATIENCE_SECONDS", 0.01)
    with open(writing, "w") as written, open(reading, "rb", buffering=0) as reader:
        monkeypatch.setattr("sys.stderr", written)
        configure_logs("text")
        logging.getLogger().setLevel(logging.INFO)
        # Long as a traceback: there is room for the beginning of one.
        text = "line " + 9000 * "x"
        asking = threading.Thread(target=lambda: [logging.info(text) for _ in range(800)], daemon=True)
        asking.start()
        asking.join(10)
        assert not asking.is_alive()
        told = b""
        while b"read again" not in told:
            # All that is there: only then it is read again.
            while select.select([reader], [], [], 0.05)[0]:
                told += reader.read(2**16)
            logging.warning("read again")
        logging.getLogger().handlers[0].stream.close()
        # As at the end of a process: no failure of whoever logs.
        monkeypatch.setattr(logging, "raiseExceptions", False)
        logging.warning("too late")
    assert set(re.findall(rb"line x*", told)) == {text.encode()}
    assert int(re.search(rb"nobody read them: (\d+).*\n.*read again", told)[1]) > 0
