"""`python -m app`: start the server and print its address."""

import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from difflib import get_close_matches
from importlib.util import find_spec
from types import FrameType
from typing import TYPE_CHECKING

# Of what the extra `app` brings, this is what nothing else has installed.
if __name__ == "__main__" and find_spec("fastapi_offline") is None:
    sys.exit("The server needs the extra `app`: pip install -e '.[app]'")

import uvicorn
from pydantic import SecretStr, ValidationError

from app.access import choose_token
from app.commands import run_command
from app.logs import configure_logs
from app.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

# After SIGTERM: so long new requests are still taken while /readyz says 503, so that a balancer can turn away first ...
DRAIN_SECONDS = 1.0
# ... and so long running requests get to their end, while workers end their trainings.
GRACE_SECONDS = 5
# So long after the first signal this process ends, whatever still runs, as the conversion of a network: 10 seconds are promised.
# What is written is renamed into place, so nothing is left half done.
LAST_SECONDS = 9.5


def main() -> None:
    """Start the app, or a command of it, with the settings of the environment; a wrong one, or a port that is taken, is a sentence."""
    if os.getpid() == 1:
        # In a container nothing but a handler lets this process end when it is told to; uvicorn and workers have theirs only later.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    _open_standard_streams()
    settings = _read_settings()
    _tell_unknown_variables()
    _check_temporary_folder()
    if sys.argv[1:]:
        raise SystemExit(run_command(sys.argv[1:], settings))
    listener = listen(settings)
    settings = _settle_token(settings)
    # Here, not above: a wrong setting is told at once, not after torch and gradio are loaded.
    from app.server import create_app

    configure_logs(settings.log)
    host, port = listener.getsockname()[:2]
    # After everything has ended, uvicorn passes the signal on to Python.
    with contextlib.suppress(KeyboardInterrupt):
        _Server(settings, create_app, f"http://{_to_address(host)}:{port}").run(sockets=[listener])


class _Server(uvicorn.Server):
    """Says where it can be reached, as soon as it can be; and when it is told to stop, says so before it does."""

    def __init__(self, settings: Settings, create_app: Callable[[Settings], "FastAPI"], url: str):
        # A factory, because the app must be made inside the server's event loop.
        config = uvicorn.Config(self._create, factory=True, log_config=None, access_log=False, root_path=settings.root_path)
        config.timeout_graceful_shutdown = GRACE_SECONDS
        super().__init__(config)
        self.settings, self.create_app, self.url = settings, create_app, url
        self.app: FastAPI | None = None
        self.told = False

    def _create(self) -> "FastAPI":
        self.app = self.create_app(self.settings)
        return self.app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(f"L2D is at {self.url}  (API: {self.url}/docs)", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.app is not None:
            # Whatever the signal: streams that would never end by themselves need not be waited for, and cut off.
            self.app.state.leaving.set()
            self.app.state.page_over.set()
            # Beside the requests' patience, not after it.
            self.app.state.supervisor.dismiss()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.told:
            self.told = True
            _start_timer(LAST_SECONDS, os._exit, 128 + sig)
        if sig != signal.SIGTERM or self.app is None or self.app.state.leaving.is_set():
            super().handle_exit(sig, frame)
            return
        self.app.state.leaving.set()
        _start_timer(DRAIN_SECONDS, super().handle_exit, sig, frame)


def _start_timer(seconds: float, act: Callable[..., object], *values: object) -> None:
    timer = threading.Timer(seconds, act, values)
    timer.daemon = True
    timer.start()


def _open_standard_streams() -> None:
    """Where they were closed (`>&- 2>&-`), let them lead nowhere: files that are opened later would get their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            place = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(place, True)
            setattr(sys, name, os.fdopen(place, mode))


def _read_settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            name = "_".join(map(str, problem["loc"]))
            variable = "L2D_PORT or PORT" if name == "L2D_PORT" else f"L2D_{name.upper()}"
            # A token that is almost right is almost a secret.
            got = "" if name == "token" else f"; got {problem['input']!r}"
            print(f"The environment's {variable}: {problem['msg'].removeprefix('Value error, ')}{got}.", file=sys.stderr)
        raise SystemExit(2) from None


def _tell_unknown_variables() -> None:
    """Not refused: others may have variables that begin so, as Kubernetes has of a service that is called l2d."""
    known = [f"L2D_{name.upper()}" for name in Settings.model_fields]
    for name in sorted(os.environ):
        if name.startswith("L2D_") and name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            print(f"The environment's {name} is no setting, and is not read.{hint}", file=sys.stderr)


def _check_temporary_folder() -> None:
    # torch asks for it as soon as it is imported, and so do uploads.
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        reason = f"{error.strerror}. Set TMPDIR to one that can be written to (in a container: --tmpfs /tmp)."
        print(f"Cannot keep temporary files: {reason}", file=sys.stderr)
        raise SystemExit(1) from None


def _settle_token(settings: Settings) -> Settings:
    token = choose_token(settings)
    if settings.token is not None or token is None:
        return settings
    print(f"Others can reach this server, so jobs need a token (set L2D_TOKEN to choose it): {token}", flush=True)
    return settings.model_copy(update={"token": SecretStr(token)})


def listen(settings: Settings) -> socket.socket:
    """A socket at the address of the settings; one that cannot be had ends the program with a sentence."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        # What Python adds says the same address again.
        reason = str(error.strerror).partition(" (while")[0]
        print(f"Cannot listen on {settings.host} port {settings.port}: {reason}. Choose others with L2D_HOST, L2D_PORT.", file=sys.stderr)
        raise SystemExit(1) from None
    # Connections inherit it. asyncio leaves it off for sockets that others made, and then every second answer's body waits
    # for the acknowledgement of its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _to_address(host: str) -> str:
    if host == "0.0.0.0":
        return "127.0.0.1"
    if host == "::":
        # Of IPv6 alone.
        return "[::1]"
    return f"[{host}]" if ":" in host else host


if __name__ == "__main__":
    main()
