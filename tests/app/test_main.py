"""`python -m app`: how it starts, what it refuses to start with, and how it ends."""

import errno
import os
import re
import runpy
import shutil
import signal
import socket
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest

import app
from app.__main__ import _to_address, listen, main
from app.settings import Settings
from tests.app.conftest import check_quiet, encode_flat, open_streams, start_server, wait_until_ready


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"PORT": "many", "L2D_MAX_PIXELS": "0"}, "L2D_PORT or PORT: .*; got 'many'.*L2D_MAX_PIXELS: .*; got '0'"),
        ({"L2D_MAX_PIXELS": "200000000", "L2D_TOKEN": "my-secret"}, "L2D_MAX_PIXELS: .* 178956970.*L2D_TOKEN: .* at least 16"),
        ({"L2D_HOST": ""}, "L2D_HOST: .* at least 1 character"),
        ({"L2D_CHECKPOINTS": str(Path(__file__) / "x")}, "L2D_CHECKPOINTS: cannot be read: Not a directory; got '.*/x'"),
        ({"L2D_STATE": __file__}, "L2D_STATE: cannot be read: Not a directory; got "),
        ({"L2D_DATA": __file__}, "L2D_DATA: cannot be read: Not a directory; got "),
        ({"L2D_CACHE": __file__}, "L2D_CACHE: cannot be read: Not a directory; got "),
        ({"L2D_ROOT_PATH": "/l2d/"}, "L2D_ROOT_PATH: expected a path as /l2d, without a slash at its end, .*; got '/l2d/'"),
        ({"L2D_ROOT_PATH": "/é"}, "L2D_ROOT_PATH: expected a path as /l2d, .* of ASCII letters, .*; got '/é'"),
        ({"L2D_ENGINE": "http://head:8265"}, "L2D_ENGINE: expected ray://HOST:PORT; got 'http://head:8265'"),
        ({"L2D_THREADS": "100000"}, "L2D_THREADS: Input should be less than or equal to 1024; got '100000'"),
        (
            {"L2D_STATE": "", "L2D_CACHE": "", "L2D_DATA": "", "L2D_CHECKPOINTS": ""},
            "CHECKPOINTS.*STATE.*DATA.*CACHE: expected a folder; got ''",
        ),
        ({"L2D_REQUEST_SECONDS": "inf"}, "L2D_REQUEST_SECONDS: .* 86400; got 'inf'"),
        ({"L2D_HOST": "no.invalid", "L2D_PORT": "1"}, r"^Cannot listen on no.invalid port 1: [^(]*\. Choose others with L2D_HOST, "),
    ],
)
def test_wrong_setting_ends_it_with_a_sentence(
    environment: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name in [*(name for name in os.environ if name.startswith("L2D_")), "PORT"]:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["app"])
    with pytest.raises(SystemExit, match=r"[12]"):
        main()
    told, log = capsys.readouterr()
    assert re.search(sentence, log, re.DOTALL)
    assert told == ""
    assert "my-secret" not in log


def test_without_its_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "fastapi_offline", None)
    with pytest.raises(SystemExit, match=r"needs the extra `app`: pip install"):
        runpy.run_path(str(Path(app.__file__).with_name("__main__.py")), run_name="__main__")


def test_no_place_for_temporary_files_ends_it_with_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["app"])
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(os, "write", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(SystemExit, match="1"):
        main()
    assert re.fullmatch(r"Cannot keep temporary files: No usable .*'/tmp'.*\. Set TMPDIR to one that [^\n]*\n", capsys.readouterr().err)


def test_standard_streams_that_were_closed_lead_nowhere(monkeypatch: pytest.MonkeyPatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    monkeypatch.setenv("L2D_PORT", "none")
    with pytest.raises(SystemExit):
        main()
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        # As logs ask, and a worker that gets them.
        assert not stream.isatty()
        assert os.get_inheritable(stream.fileno())
        stream.close()


def test_taken_port_ends_it_with_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        _, log = start_server(L2D_PORT=port).communicate(timeout=60)
    assert f"Cannot listen on 127.0.0.1 port {port}" in log
    assert "Traceback" not in log


def test_in_a_container_it_ends_when_told_to_while_it_starts():
    # The system keeps a signal from process 1 that it does not handle; any other process would end by the signal.
    first = "import os, signal, app.__main__ as told\nos.getpid = lambda: 1"
    process = start_server(code=f"{first}\ntold._read_settings = lambda: signal.raise_signal(signal.SIGTERM)")
    _, log = process.communicate(timeout=60)
    assert (process.returncode, log) == (0, "")


def test_answers_are_sent_at_once():
    with listen(Settings(port=0)) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(("host", "below"), [("127.0.0.1", ""), ("127.0.0.1", "/l2d"), ("0.0.0.0", "")])
def test_a_server_that_others_can_reach_tells_the_token_that_it_wants_and_an_address_of_this_machine(
    host: str, below: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    served: list[Any] = []

    def serve(server: Any, sockets: list[socket.socket]) -> None:
        sockets[0].close()
        served.append(server)

    monkeypatch.setattr("app.__main__._Server.run", serve)
    monkeypatch.setattr("app.__main__.configure_logs", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["app"])
    monkeypatch.setenv("PORT", "0")
    monkeypatch.setenv("L2D_HOST", host)
    monkeypatch.setenv("L2D_ROOT_PATH", below)
    monkeypatch.setenv("L2D_REQUEST_PER_MINUTE", "60")
    main()
    (server,), (told, log) = served, capsys.readouterr()
    assert "L2D_REQUEST_PER_MINUTE is no setting, and is not read. Did you mean L2D_REQUESTS_PER_MINUTE?\n" in log
    assert server.config.root_path == below
    assert server.url.startswith("http://127.0.0.1:")
    token = server.settings.token
    assert told == "" if token is None else told.endswith(f": {token.get_secret_value()}\n")
    assert (token is None) == (host == "127.0.0.1" and not below)


def test_an_address_that_is_told_is_one_that_answers():
    told = {host: _to_address(host) for host in ("0.0.0.0", "::", "::1", "192.0.2.1")}
    assert told == {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]", "192.0.2.1": "192.0.2.1"}


# Decoding that takes its time, but not the processor's: others may need it, and a server that is told to end waits for five seconds.
SLOW = "import time; from app import engine; read = engine.read_inputs; engine.read_inputs = lambda *sent: (time.sleep(2), read(*sent))[1]"


def test_terminate_ends_streams_at_once_lets_a_running_request_end_and_tells_of_no_error(made_checkpoints: Path, tmp_path: Path):
    # One model, which is all that the server reads before it is ready.
    shutil.copytree(made_checkpoints / "alien", tmp_path / "checkpoints" / "alien")
    process = start_server(code=SLOW, PORT="0", L2D_CHECKPOINTS=str(tmp_path / "checkpoints"), L2D_STATE=str(tmp_path / "state"))
    assert process.stdout is not None
    url = process.stdout.readline().split()[3]
    with httpx.Client(base_url=url, timeout=60) as client, ThreadPoolExecutor(1) as other:
        wait_until_ready(client)
        # Reads the network, which alone may take as long on a busy machine.
        ask(url, value=0)
        with open_streams(client) as streams:
            running = other.submit(ask, url, value=1)
            while "l2d_queue_depth 1.0" not in client.get("/metrics").text:
                assert not running.done()
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
            ready, alive = client.get("/readyz"), client.get("/healthz")
            assert not running.done()
            assert (ready.status_code, ready.json()["error"]["code"], alive.status_code) == (503, "unavailable", 200)
            # Raises where one is cut off in the middle; a server that waited for one, until its patience ended, says so in its log.
            assert [list(stream) for stream in streams] == [[], []]
        assert running.result(60)["predictions"]
        _, log = process.communicate(timeout=30)
        assert time.monotonic() - began < 10
    check_quiet(log)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")


def ask(url: str, value: int) -> dict[str, Any]:
    answer = httpx.post(f"{url}/v1/models/alien:predict", files={"image": encode_flat(value, 8)}, timeout=60)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


# A worker that does not leave, which tells its number.
STUBBORN = """
import signal, subprocess, sys
from app import supervisor
code = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('worker', os.getpid(), flush=True); time.sleep(60)"
supervisor.start_process = lambda *_: subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
"""
# An engine that does not come to its end.
ENDLESS = "import time; from app.engine import Engine; Engine.close = lambda _: time.sleep(60)"


@pytest.mark.slow
@pytest.mark.parametrize(("code", "whole"), [(STUBBORN, True), (ENDLESS, False)], ids=["worker", "engine"])
def test_terminate_takes_less_than_ten_seconds_whatever_does_not_end(made_checkpoints: Path, tmp_path: Path, code: str, whole: bool):
    settings = {"L2D_WORKERS": "true", "L2D_CHECKPOINTS": str(made_checkpoints), "L2D_STATE": str(tmp_path)}
    process = start_server(code=code, PORT="0", **(settings if whole else settings | {"L2D_WORKERS": "false"}))
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(1 + whole)]
    port = re.search(r":(\d+)  ", "".join(told))
    assert port
    with socket.create_connection(("127.0.0.1", int(port[1]))) as slow:
        slow.sendall(b"POST /v1/compare HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n")
        time.sleep(0.5)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
        assert time.monotonic() - began < 10
    assert ("Application shutdown complete" in log) == whole
    assert process.returncode == (-signal.SIGTERM if whole else 128 + signal.SIGTERM)
    for worker in re.findall(r"worker (\d+)", "".join(told)):
        assert not Path(f"/proc/{worker}").exists()


@pytest.mark.slow
def test_terminate_ends_it_cleanly(made_checkpoints: Path):
    process = start_server(PORT="0", L2D_CHECKPOINTS=str(made_checkpoints))
    assert process.stdout is not None
    assert "L2D is at" in process.stdout.readline()
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert process.returncode in (0, -signal.SIGTERM)
    assert "Traceback" not in log
    assert "Application shutdown complete" in log
