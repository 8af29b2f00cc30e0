"""Puts engine, API and page together."""

import asyncio
import inspect
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from typing import Any

import anyio.to_thread
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.routing import Mount

from app.access import Access, choose_token
from app.answers import answer_head
from app.api import add_api, refuse_rest
from app.catalog import Catalog
from app.engine import Engine
from app.errors import UnavailableError
from app.export import MEDIA_TYPES, prepare_figures
from app.job_routes import add_jobs
from app.limits import LimitBody, LimitRate
from app.middleware import CloseRoutes, Observe, ProtectAnswers
from app.seats import list_seats
from app.settings import Settings
from app.supervisor import Supervisor
from app.uploads import FORMATS, MIN_SIDE
from app.workshop import Workshop

logger = logging.getLogger(__name__)

LOWEST_PRIORITY = 19
# How often somebody looks whether workers that were asked to end a job still live.
WATCH_SECONDS = 2.0
EVENTS = "text/event-stream"
PACKED = (*DEFAULT_EXCLUDED_CONTENT_TYPES, MEDIA_TYPES["npz"], MEDIA_TYPES["pdf"])

DESCRIPTION = """Where do a teacher and its students look? Probabilities and class activation maps of multi-label networks.

    curl -F image=@photo.jpg http://127.0.0.1:7860/v1/compare
    curl -F image=@photo.jpg -F labels=cat,couch -F format=png http://127.0.0.1:7860/v1/compare -o figure.png

Every error of these routes is `{"error": {"status", "code", "message", "details"}}`: `message` says what was expected, what came and what
to do.
"""


def create_app(settings: Settings) -> FastAPI:
    """Assemble one app: the API, and the page at `/`. No work starts before the app is started, and none goes on after it has stopped.

    Call it inside a running event loop: without one, Gradio makes loops of its own and never closes them.
    """
    return _mount_page(create_api(settings))


def create_api(settings: Settings) -> FastAPI:
    """The API alone, with an engine of its own."""
    places = settings.places
    cache = settings.cache or places.cache
    catalog = Catalog(settings.checkpoints, settings.default_models, made=places.models, cache=cache, streams=settings.threads)
    engine = Engine(catalog, settings)
    app = FastAPIOffline(
        title="L2D",
        version=version("l2d"),
        description=DESCRIPTION + _describe_limits(settings),
        redoc_url=None,
        lifespan=_live,
        servers=[{"url": "/"}],
        # Clients that are made from the document name their functions and classes by it.
        generate_unique_id_function=lambda route: route.name,
    )
    app.include_router(answer_head(app.router))
    app.state.engine = engine
    app.state.workshop = workshop = Workshop(places, engine.catalog)
    # Asked anew each time: the queue is opened when first needed.
    engine.metrics.watch_jobs(lambda: workshop.queue.count())
    app.state.access = Access(choose_token(settings))
    app.state.leaving = threading.Event()
    app.state.supervisor = Supervisor(places, list_seats(settings) if settings.workers else [])
    add_api(app)
    add_jobs(app)
    refuse_rest(app)
    _describe_streams(app.openapi())
    _add_middleware(app, settings)
    return app


def _describe_streams(document: dict[str, Any]) -> None:
    """By their type alone: FastAPI describes events by a word of OpenAPI 3.2, for which strict readers refuse a document of 3.1."""
    answers = [answer for routes in document["paths"].values() for route in routes.values() for answer in route["responses"].values()]
    for answer in answers:
        if EVENTS in answer.get("content", {}):
            answer["content"][EVENTS] = {}


def _describe_limits(settings: Settings) -> str:
    """What a request may hold, as this server is set."""
    return f"""
Limits of this server: a body of {settings.max_upload_bytes / 2**20:g} MiB; a picture of {settings.max_pixels:,} pixels, at least {MIN_SIDE}
on each side, still, as one of {", ".join(FORMATS)}; models in a request: {settings.max_models}, labels: {settings.max_labels};
pictures in one of JSON: {settings.max_instances}; seconds for a body to come, and again for its answer: {settings.request_seconds:g}.
"""


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """The last one added is the first that a request meets."""
    # Events and what is packed already go as they are. The page takes 2 ms of one core and an answer of 80 labels 3; at higher levels it
    # would be up to twenty times as much for a tenth less.
    app.add_middleware(GZipMiddleware, compresslevel=1, exclude_content_types=PACKED)
    app.add_middleware(LimitBody, max_bytes=settings.max_upload_bytes, seconds=settings.request_seconds)
    app.add_middleware(LimitRate, per_minute=settings.requests_per_minute)
    app.add_middleware(CloseRoutes)
    app.add_middleware(Observe, metrics=app.state.engine.metrics, routes=app.openapi()["paths"])
    app.add_middleware(ProtectAnswers)


@asynccontextmanager
async def _live(app: FastAPI) -> AsyncIterator[None]:
    """What runs beside the requests, from the server's start to its end: the engine, the workers, and whoever watches these."""
    engine: Engine = app.state.engine
    warming = threading.Thread(target=_warm_up, args=(engine,), name="warm-up", daemon=True)
    warming.start()
    supervisor: Supervisor = app.state.supervisor
    supervisor.start()
    watch = asyncio.create_task(_watch_workers(app.state.workshop))
    try:
        yield
    finally:
        watch.cancel()
        await anyio.to_thread.run_sync(supervisor.close)
        engine.close()
        warming.join()


async def _watch_workers(workshop: Workshop) -> None:
    """End the jobs that were cancelled or stopped where no worker is left to do it."""
    told = ""
    while True:
        try:
            await anyio.to_thread.run_sync(lambda: workshop.queue.give_up_unheard(), abandon_on_cancel=True)
            told = ""
        except Exception as error:
            # Said to whoever asks for a job; where nobody does, from the start on, to whoever reads the log. Whatever else it is, as where
            # the system has no thread for this, may have passed the next time.
            if str(error) != told:
                told = str(error)
                logger.warning("%s", error, exc_info=not isinstance(error, UnavailableError))
        await asyncio.sleep(WATCH_SECONDS)


def _warm_up(engine: Engine) -> None:
    engine.warm_up()
    if not engine.ready:  # the server was told to stop meanwhile, and waits for this thread
        return
    # Only the first figure would have to wait for this.
    prepare_figures()
    # Nobody waits for the rest. On Linux a thread can be nice alone.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
    engine.check_others()


def _mount_page(app: FastAPI) -> FastAPI:
    engine: Engine = app.state.engine
    # Nothing is sent anywhere: neither counts of use nor questions for newer versions.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # Here, not above: the page's library takes longest to import, and the API's tests do not need it.
    with _skip_stubs():
        import gradio

    from app.ui.bounds import bound_page, bound_routes
    from app.ui.page import build_page, look

    page = build_page(engine, app.state.workshop, app.state.access)
    bound_page(page)
    mounted: FastAPI = gradio.mount_gradio_app(app, page, path="/", max_file_size=engine.settings.max_upload_bytes, **look())
    inner = next(route.app for route in mounted.routes if isinstance(route, Mount) and isinstance(route.app, gradio.routes.App))
    bound_routes(inner)
    # To be set when the server stops: it ends the streams by which Gradio notices that somebody leaves the page.
    # Gradio does not document it; where it is missing, the server waits until its patience is over.
    app.state.page_over = getattr(inner, "stop_event", asyncio.Event())
    return mounted


@contextmanager
def _skip_stubs() -> Iterator[None]:
    """Keep Gradio, while it is imported, from comparing every component with a .pyi file beside it, which takes most of that time.

    It leaves out classes that come from no file.
    """
    find = inspect.getfile

    def find_others(thing: Any) -> str:
        if isinstance(thing, type) and thing.__module__.startswith("gradio."):
            raise OSError("not looked for")
        return find(thing)

    inspect.getfile = find_others  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getfile = find
