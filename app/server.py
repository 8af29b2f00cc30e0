"""Puts engine, API and page together."""

import os
import threading
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import job_routes
from app.access import Access, choose_token
from app.api import add_api
from app.catalog import Catalog
from app.engine import Engine
from app.places import Places
from app.seats import list_seats
from app.settings import Settings
from app.supervisor import Supervisor
from app.workshop import Workshop

# Beyond the places, so that a full gate can still refuse.
SPARE_THREADS = 8

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Content-Security-Policy": "frame-ancestors 'self'; object-src 'none'; base-uri 'self'; form-action 'self'",
}
DESCRIPTION = """Where do a teacher and its students look? Probabilities and class activation maps of multi-label networks.

    curl -F image=@photo.jpg http://127.0.0.1:7860/v1/compare
    curl -F image=@photo.jpg -F labels=cat,couch -F format=png http://127.0.0.1:7860/v1/compare -o figure.png

Every error is `{"error": {"status", "code", "message", "details"}}`: `message` says what was expected, what came and what to do.
"""


def create_app(settings: Settings) -> FastAPI:
    """Assemble one app: the API, and the page at `/`. No work starts before the app is started, and none goes on after it has stopped.

    Call it inside a running event loop: without one, Gradio makes loops of its own and never closes them.
    """
    return _mount_page(create_api(settings), settings)


def create_api(settings: Settings) -> FastAPI:
    """The API alone, with an engine of its own."""
    places = Places(settings.state, settings.data, settings.checkpoints)
    cache = settings.cache or places.cache
    catalog = Catalog(settings.checkpoints, settings.default_models, made=places.models, cache=cache, streams=settings.threads)
    engine = Engine(catalog, settings)
    app = FastAPIOffline(
        title="L2D", version=version("l2d"), description=DESCRIPTION, redoc_url=None, lifespan=_run_engine, servers=[{"url": "/"}]
    )
    app.state.engine = engine
    app.state.threads = CapacityLimiter(settings.max_requests + SPARE_THREADS)
    app.state.workshop = Workshop(places, engine.catalog)
    app.state.access = Access(choose_token(settings.host, settings.token)[0])
    app.state.supervisor = Supervisor(places, list_seats(settings) if settings.workers else [])
    # Before the API's own routes, whose last one answers for everything that is unknown.
    app.include_router(job_routes.public)
    app.include_router(job_routes.router)
    add_api(app)
    app.add_middleware(SecurityHeaders)
    return app


@asynccontextmanager
async def _run_engine(app: FastAPI) -> AsyncIterator[None]:
    engine: Engine = app.state.engine
    warming = threading.Thread(target=engine.warm_up, name="warm-up", daemon=True)
    warming.start()
    supervisor: Supervisor = app.state.supervisor
    supervisor.start()
    try:
        yield
    finally:
        await anyio.to_thread.run_sync(supervisor.close)
        engine.close()
        warming.join()


def _mount_page(app: FastAPI, settings: Settings) -> FastAPI:
    engine: Engine = app.state.engine
    # Nothing is sent anywhere: neither counts of use nor questions for newer versions.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # Here, not above: the page's library takes longest to import, and the API's tests do not need it.
    import gradio

    from app.ui.distil import build_distil_tab
    from app.ui.page import build_page, look

    distil = partial(build_distil_tab, app.state.workshop, app.state.access)
    page = build_page(catalog=engine.catalog, engine=engine, settings=settings, more=[("Distil", distil)])
    mounted: FastAPI = gradio.mount_gradio_app(app, page, path="/", max_file_size=settings.max_upload_bytes, **look())
    return mounted


class SecurityHeaders:
    """Adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything through, and add to the headers on the way back."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(message)
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def _add_headers(message: MutableMapping[str, Any]) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
