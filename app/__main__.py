"""`python -m app`: start the server and print its address."""

import logging
import socket
import sys
from functools import partial

import uvicorn
from pydantic import SecretStr, ValidationError

from app.access import choose_token
from app.commands import run_command
from app.places import Places
from app.settings import Settings

# Seconds that running requests get after SIGTERM.
GRACE_SECONDS = 8


def main() -> None:
    """Start the app, or a command of it, with the settings of the environment; a wrong one, or a port that is taken, is a sentence."""
    settings = _read_settings()
    if sys.argv[1:]:
        raise SystemExit(run_command(sys.argv[1:], settings, Places(settings.state, settings.data, settings.checkpoints)))
    settings = _settle_token(settings)
    listener = _listen(settings)
    # Here, not above: a wrong setting is told at once, not after torch and gradio are loaded.
    from app.server import create_app

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    host, port = listener.getsockname()[:2]
    # A factory, because the app must be made inside the server's event loop.
    config = uvicorn.Config(
        partial(create_app, settings), factory=True, log_config=None, access_log=False, timeout_graceful_shutdown=GRACE_SECONDS
    )
    _Server(config, f"http://{_to_address(host)}:{port}").run(sockets=[listener])


class _Server(uvicorn.Server):
    """Says where it can be reached, as soon as it can be."""

    def __init__(self, config: uvicorn.Config, url: str):
        super().__init__(config)
        self.url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(f"L2D is at {self.url}  (API: {self.url}/docs)", flush=True)


def _read_settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            name = "_".join(map(str, problem["loc"]))
            variable = "L2D_PORT or PORT" if name == "L2D_PORT" else f"L2D_{name.upper()}"
            print(f"The environment's {variable}: {problem['msg']}; got {problem['input']!r}.", file=sys.stderr)
        raise SystemExit(2) from None


def _settle_token(settings: Settings) -> Settings:
    token, made = choose_token(settings.host, settings.token)
    if made and token is not None:
        print(f"Others can reach this address, so jobs need a token (set L2D_TOKEN to choose it): {token}", flush=True)
        return settings.model_copy(update={"token": SecretStr(token)})
    return settings


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        print(f"Cannot listen on {settings.host} port {settings.port}: {error.strerror}. Choose another with PORT=...", file=sys.stderr)
        raise SystemExit(1) from None


def _to_address(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


if __name__ == "__main__":
    main()
