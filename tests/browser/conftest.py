"""A real server process, and Debian's Chromium looking at it. Any error in its console fails the test."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
PATIENCE_MS = 120_000
START_SECONDS = 240


@pytest.fixture(scope="package")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps its jobs."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="package")
def url(state: Path) -> Iterator[str]:
    """Address of a server that is a process of its own, as after an installation: the models that come with it, and no jobs yet."""
    # Networks that were converted once need not be again.
    places = {"CHECKPOINTS": ROOT / "checkpoints", "STATE": state, "DATA": state / "data", "CACHE": ROOT / "runs" / "cache"}
    with _serve({f"L2D_{name}": str(folder) for name, folder in places.items()}) as address:
        yield address


@contextlib.contextmanager
def _serve(places: dict[str, str]) -> Iterator[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("L2D_")} | places | {"PORT": "0"}
    command = [sys.executable, "-m", "app"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            address = _read_address(server)
            _wait_until_ready(address)
            yield address
        finally:
            server.terminate()


def _read_address(server: "subprocess.Popen[str]") -> str:
    assert server.stdout is not None
    for line in server.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return found[0]
    raise AssertionError(f"The server ended with status {server.wait()} before it printed its address.")


def _wait_until_ready(address: str) -> None:
    """Models are loaded in the background; a busy machine takes its time."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{address}/readyz"):
                return
        except urllib.error.HTTPError as error:
            error.close()
            if time.monotonic() > until:
                raise AssertionError(f"The server is not ready after {START_SECONDS} seconds.") from error
        time.sleep(0.2)


# Not of the session: its loop in this thread would keep other tests from having one.
@pytest.fixture(scope="package")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    """One profile, on disk: what the page loads is fetched and compiled once, not for every test."""
    if not Path(CHROMIUM).exists():
        pytest.skip("needs chromium: apt-get install chromium")
    profile, size = tmp_path_factory.mktemp("profile"), {"width": 1280, "height": 900}
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, headless=True, args=list(FLAGS), viewport=size, accept_downloads=True
        )
        yield context
        context.close()


@pytest.fixture
def problems() -> list[str]:
    """What went wrong in the pages of this test: errors in the console, and requests to other hosts."""
    return []


@pytest.fixture
def visit(context: BrowserContext, url: str, problems: list[str]) -> Iterator[Callable[..., Page]]:
    """Open the page and wait for its first comparison; afterwards nothing may have gone wrong in it."""
    pages = []

    def open_page(width: int = 1280, height: int = 900, scheme: str = "light") -> Page:
        pages.append(context.new_page())
        pages[-1].set_viewport_size({"width": width, "height": height})
        pages[-1].emulate_media(color_scheme=scheme)
        _open(pages[-1], url, problems)
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()
    assert problems == []


def _open(page: Page, url: str, problems: list[str]) -> None:
    page.set_default_timeout(PATIENCE_MS)
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith((url, "data:", "blob:")) else problems.append(request.url))
    page.goto(url)
    page.wait_for_selector(".grid .row")
    page.wait_for_selector(".desk[data-busy=false]")


@pytest.fixture(scope="package")
def opened(context: BrowserContext, url: str) -> Iterator[Page]:
    """As `page`, opened once for all tests that only look at what it opens with, and leave it so."""
    page, problems = context.new_page(), []
    _open(page, url, problems)
    yield page
    page.close()
    assert problems == []


@pytest.fixture
def page(visit: Callable[..., Page]) -> Page:
    return visit()


@pytest.fixture
def reload(page: Page, problems: list[str]) -> Callable[[], None]:
    """Load the page again. That streams are cut off, as the document which goes away says at times, is no problem."""

    def reload_page() -> None:
        told = len(problems)
        page.reload(wait_until="commit")
        del problems[told:]
        page.wait_for_selector(".grid .row")
        page.wait_for_selector(".desk[data-busy=false]")

    return reload_page
