"""The REST routes of jobs, data sets and methods: thin, over the same workshop that the page uses."""

import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine
from http import HTTPStatus
from typing import Annotated, Any

import anyio
import anyio.to_thread
from fastapi import APIRouter, Depends, FastAPI, Header, Path, Query, Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import ValidationError
from starlette.responses import PlainTextResponse

from app.access import Access
from app.answers import Responses, answer_head, describe_errors
from app.bodies import check_json
from app.datasets import DatasetFacts
from app.errors import RequestError, describe_unknown
from app.jobs import ENDED, Job, UnknownProbeError
from app.orders import Order
from app.records import JobFolder
from app.schemas import JobAnswer, JobPage, Method, Probes
from app.workshop import Workshop
from l2d.distill import METHODS

PAGE = 50
MAX_PAGE = 200
LOG_BYTES = 64 * 2**10
MAX_LOG_BYTES = 4 * 2**20
POLL_SECONDS = 0.5
# What the queue can count to.
LARGEST = 2**62
# In an event's id behind the place: this one told that the job had ended.
TOLD = "-ended"

DENIED = describe_errors({401: "this server wants its token", 403: "a wrong token, or a request from another site"})
QUEUE = describe_errors({503: "the queue cannot be used now"})
RATE = describe_errors({429: "too many requests in a minute, where a rate is set"})
PAGED = QUEUE | describe_errors({422: "a number out of range"})
FOUND = QUEUE | describe_errors({404: "no job of that id", 422: "an id that is too long, or a parameter out of range"})
NO_PROBE = describe_errors({404: "no job of that id, or no probe of that name yet, or a damaged one"})
CHANGED = FOUND | RATE | describe_errors({409: "the job's state does not allow it"})
MODEL_DELETED = RATE | describe_errors(
    {
        403: "a model that came with the app, a wrong token, or a request from another site",
        404: "no model of that name",
        422: "a name that is too long",
    }
)

# What can be asked about a job that was just ordered, for clients that are made from the document.
LINKS = {
    name: {"operationId": f"{name}_job", "parameters": {"job": "$response.body#/id"}}
    for name in ("show", "cancel", "stop", "resume", "delete")
}
LOCATION = {"Location": {"description": "the job's address", "schema": {"type": "string"}}}
ORDERED: Responses = {
    202: {"links": LINKS, "headers": LOCATION},
    **QUEUE,
    **describe_errors(
        {
            400: "the body is no text, is nested too deeply, or has a number of too many digits",
            408: "the body did not come in time",
            409: "the idempotency key came with another order",
            413: "too many bytes",
            415: "the body is not said to be JSON",
            422: "a field out of range, an unknown name, or a broken data set",
            429: "too many orders wait for data sets to be looked through, or too many requests in a minute, where a rate is set",
        }
    ),
}
# Where the answer itself is no JSON: FastAPI would document errors of the answer's type.
ERROR_CONTENT = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
FOUND_BESIDE_TEXT: Responses = {
    status: {"description": error["description"], "content": ERROR_CONTENT} for status, error in (DENIED | FOUND).items()
}
TOLD_ALL: Responses = {204: {"description": "the stream has told all, to its end"}}


async def get_workshop(request: Request) -> Workshop:
    """The workshop of the app that got the request."""
    workshop: Workshop = request.app.state.workshop
    return workshop


def check_access(request: Request) -> None:
    """Let only those pass who may order jobs.

    Raises:
        UnauthorizedError, ForbiddenError: for others.
    """
    access: Access = request.app.state.access
    headers, client = request.headers, request.client
    access.check_request(headers.get("authorization"), headers.get("host"), headers.get("origin"), client and client.host)


WorkshopOfApp = Annotated[Workshop, Depends(get_workshop)]
JobId = Annotated[str, Path(description="a job's id, from GET /v1/jobs", examples=["3f9a2c41b0d7"], max_length=40)]
EventId = Annotated[str, Header(description="where to go on; everything since the start without it", pattern=rf"^\d{{1,18}}({TOLD})?$")]


def find_place(job: JobId, response: Response, workshop: WorkshopOfApp, last_event_id: EventId = "0") -> int:
    """Where a stream of events goes on, in bytes. One that told its job's end gets 204, on which a browser asks no more."""
    found, place = workshop.queue.find(job), int(last_event_id.removesuffix(TOLD))
    if last_event_id.endswith(TOLD) and found.state in ENDED and not workshop.read(job, place):
        response.status_code = HTTPStatus.NO_CONTENT
    return place


# Only told here, for clients and for the page's Authorize button; `JobRoute` judges.
BEARER = HTTPBearer(auto_error=False, description="the token that the server printed at its start, or read from L2D_TOKEN")


class JobRoute(APIRoute):
    """A route for those alone who may order jobs.

    A server for this machine alone has no token: in the document nothing is the other way to pass, for which FastAPI has no word.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options | {"openapi_extra": {"security": [{}]}})

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Judges before anything of a body is read; FastAPI would read all of it before any dependency."""
        answer = super().get_route_handler()

        async def answer_allowed(request: Request) -> Response:
            check_access(request)
            return await answer(request)

        return answer_allowed


router = APIRouter(tags=["jobs"], dependencies=[Security(BEARER)], responses=DENIED, route_class=JobRoute)
public = APIRouter(tags=["jobs"])


def add_jobs(app: FastAPI) -> None:
    """Register the routes. `app.state` holds what the API's need, `workshop` and `access`."""
    for routes in (public, router):
        app.include_router(routes)
        app.include_router(answer_head(routes))


@public.get("/v1/methods")
def list_methods() -> list[Method]:
    """The ways to distil, with the weights of their losses."""
    return [Method(name=name, weights=weights, needs_teacher=bool(weights)) for name, weights in METHODS.items()]


@router.get("/v1/datasets")
def list_datasets(workshop: WorkshopOfApp) -> list[DatasetFacts]:
    """The data sets that a job may name, and what is known of them."""
    return [workshop.datasets.describe(name) for name in workshop.datasets.names()]


@router.post("/v1/jobs", status_code=202, dependencies=[Depends(check_json)], responses=ORDERED)
def submit_job(
    order: Order,
    request: Request,
    response: Response,
    workshop: WorkshopOfApp,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200, description="the same key gives the same job")] = None,
) -> JobAnswer:
    """Order a student. The data set is looked through first, which takes a while the first time; then the job waits for its turn."""
    job = workshop.submit(order, idempotency_key)
    response.headers["Location"] = f"{request.scope.get('root_path', '')}/v1/jobs/{job.id}"
    return describe_job(workshop, job)


@router.get("/v1/jobs", responses=PAGED)
def list_jobs(
    workshop: WorkshopOfApp,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="jobs on a page")] = PAGE,
    before: Annotated[int | None, Query(ge=0, le=LARGEST, description="`next` of the page before")] = None,
) -> JobPage:
    """The jobs, newest first."""
    found = workshop.queue.page(limit + 1, before)
    more = found[limit - 1].number if len(found) > limit else None
    return JobPage(jobs=[describe_job(workshop, job) for job in found[:limit]], next=more)


@router.get("/v1/jobs/{job}", responses=FOUND)
def show_job(job: JobId, workshop: WorkshopOfApp) -> JobAnswer:
    """One job."""
    return describe_job(workshop, workshop.queue.find(job))


@router.post("/v1/jobs/{job}/cancel", status_code=202, responses=CHANGED)
def cancel_job(job: JobId, workshop: WorkshopOfApp) -> JobAnswer:
    """Cancel a job; one that runs ends within five seconds (30 where its worker died). What it finished is kept until it is deleted."""
    return describe_job(workshop, workshop.queue.cancel(job))


@router.post("/v1/jobs/{job}/stop", status_code=202, responses=CHANGED)
def stop_job(job: JobId, workshop: WorkshopOfApp) -> JobAnswer:
    """Stop training and keep the best student so far; before the student's first epoch has ended, that is waited for.

    Where its worker died, the job is interrupted instead, within 30 seconds.
    """
    return describe_job(workshop, workshop.queue.stop(job))


@router.post("/v1/jobs/{job}/resume", status_code=202, responses=CHANGED)
def resume_job(job: JobId, workshop: WorkshopOfApp) -> JobAnswer:
    """Queue an interrupted, failed or cancelled job again; it goes on after its last finished epoch."""
    return describe_job(workshop, workshop.queue.resume(job))


@router.delete("/v1/jobs/{job}", status_code=204, responses=CHANGED)
def delete_job(job: JobId, workshop: WorkshopOfApp) -> None:
    """Delete a job that has ended, with its models."""
    workshop.delete(job)


@router.delete("/v1/models/{model}", status_code=204, responses=MODEL_DELETED)
def delete_model(
    model: Annotated[str, Path(max_length=200, description="a model's name, from GET /v1/models")], workshop: WorkshopOfApp
) -> None:
    """Delete a model that a job made; the shipped ones stay."""
    workshop.delete_model(model)


@router.get("/v1/jobs/{job}/log", response_class=PlainTextResponse, responses=FOUND_BESIDE_TEXT)
def show_log(
    job: JobId, workshop: WorkshopOfApp, limit: Annotated[int, Query(ge=1, le=MAX_LOG_BYTES, description="bytes, from its end")] = LOG_BYTES
) -> PlainTextResponse:
    """The end of a job's log, as plain text."""
    return PlainTextResponse(workshop.folder(job).read_log(limit))


@router.get("/v1/jobs/{job}/probes/{name}", responses=FOUND | NO_PROBE)
def show_probe(
    job: JobId,
    name: Annotated[str, Path(pattern=r"^(\d{4,6}|teacher|pictures)$", description="pictures, teacher or an epoch of four digits or more")],
    workshop: WorkshopOfApp,
) -> Probes:
    """Maps of the probe pictures: `pictures` lists them, `teacher` and the epochs (`0001`, ...) hold the maps."""
    folder = workshop.folder(job)
    try:
        return Probes.model_validate_json((folder.probes / f"{name}.json").read_bytes())
    except FileNotFoundError as error:
        raise UnknownProbeError(describe_unknown("probe", name, _list_probes(folder))) from error
    except ValidationError as error:
        raise UnknownProbeError(f"The probe {name!r} of this job is damaged and cannot be read; others of it may be whole.") from error


@router.get("/v1/jobs/{job}/events", response_class=EventSourceResponse, responses=FOUND_BESIDE_TEXT | TOLD_ALL)
async def follow_job(
    request: Request, response: Response, job: JobId, workshop: WorkshopOfApp, place: Annotated[int, Depends(find_place)]
) -> AsyncIterator[ServerSentEvent]:
    """Everything that the training reported since its start (`attempt`, `stage`, `step`, `epoch`, `scored`, `failed`), then what follows.

    `state` tells every change of the job itself; the stream ends when the job has ended and all is told, or when the server stops.
    Its last `state` is then `succeeded`, `failed`, `cancelled` or `interrupted`; whoever asks again with that event's id gets 204.
    """
    if request.method == "HEAD" or response.status_code == HTTPStatus.NO_CONTENT:
        return
    told: tuple[Any, ...] = ()
    while True:
        # The job first: what it reported before it ended is then read for certain.
        try:
            found = await anyio.to_thread.run_sync(workshop.queue.find, job)
            lines = await anyio.to_thread.run_sync(workshop.read, job, place)
        except RequestError:  # deleted by now, or the queue cannot be read: whoever still wants it asks again, and is told
            return
        for record, place in lines:
            yield ServerSentEvent(event=record["event"], id=str(place), data=record)
        if lines:
            continue
        if told != (now := (found.state, found.attempts, found.request, found.reason)):
            told = now
            answer = await anyio.to_thread.run_sync(describe_job, workshop, found)
            name = f"{place}{TOLD}" if found.state in ENDED else str(place)
            yield ServerSentEvent(event="state", id=name, raw_data=answer.model_dump_json())
        if found.state in ENDED or request.app.state.leaving.is_set():
            return
        await anyio.sleep(POLL_SECONDS)


def describe_job(workshop: Workshop, job: Job) -> JobAnswer:
    """A job as the API shows it."""
    order = Order.model_construct(**job.spec)
    told = {"reason": job.reason or workshop.explain_wait(job), "commands": workshop.describe_command(job.spec)}
    return JobAnswer.model_validate(dataclasses.asdict(job) | {"order": job.spec, "title": order.name} | told)


def _list_probes(folder: JobFolder) -> list[str]:
    """The names of a job's probes, many epochs as one: "0001 to 0300"."""
    names = sorted(path.stem for path in folder.probes.glob("*.json"))
    epochs = [name for name in names if name.isdecimal()]
    shown = epochs if len(epochs) < 3 else [f"{epochs[0]} to {epochs[-1]}"]
    return shown + [name for name in names if name not in epochs]
