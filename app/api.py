"""The REST API: thin routes over the same functions that the page calls."""

from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Path, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse
from starlette.routing import compile_path

from app.answers import HANDLERS, answer_head, describe_errors
from app.bodies import JSON, MULTIPART, decode_base64, describe_body, media_type, parse_fields, read_form, read_json, refuse_query
from app.clients import run_while_wanted
from app.compare import compare, explain, predict, read_each
from app.engine import Engine
from app.errors import MediaTypeError, MethodError, ParameterError, UnavailableError, UnknownRouteError, describe_unknown
from app.export import MEDIA_TYPES, export, find_reference
from app.middleware import find_route
from app.parameters import CompareForm, ExplainParameters, ExplainRequest, PredictParameters, PredictRequest
from app.schemas import (
    CompareAnswer,
    ExplainAnswer,
    Explanation,
    Health,
    ModelDetail,
    ModelList,
    ModelSummary,
    PredictAnswer,
    Prediction,
    RefusedModel,
)
from app.ticket import Ticket

Parameters = TypeVar("Parameters", PredictParameters, ExplainParameters)

# For whoever waits for the models: loading takes seconds.
RETRY_SECONDS = 3
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"]
OTHERS = [method for method in METHODS if method != "POST"]
VERBS = (":predict", ":explain")

ERRORS = describe_errors(
    {
        400: "the picture is empty, damaged or too small, or the body cannot be read",
        404: "no model of that name",
        408: "the body did not come in time",
        413: "too many bytes or pixels",
        415: "not a still picture in a known format, or an unknown type of body",
        422: "an unknown label, or a parameter out of range",
        429: "every place is taken, or too many requests in a minute, where a rate is set",
        503: "shutting down, no model at all, or one that cannot be loaded",
        504: "not ready in time; a server that starts is waited for until its models are loaded",
    }
)
NOT_READY = describe_errors({503: "starting or shutting down"}, retry=[503])
UNKNOWN_MODEL = describe_errors({404: "no model of that name", 422: "a name that is no text"})


async def get_engine(request: Request) -> Engine:
    """The engine of the app that got the request."""
    engine: Engine = request.app.state.engine
    return engine


EngineOfApp = Annotated[Engine, Depends(get_engine)]
ModelName = Annotated[str, Path(description="a model's name, from GET /v1/models", examples=["coco-mobilenetv2-l2d"])]

router = APIRouter()
# What answers where no other does.
rest = APIRouter()


@router.get("/healthz", tags=["process"])
async def check_health() -> Health:
    """Whether the process answers at all."""
    return Health(status="ok")


@router.get("/readyz", tags=["process"], responses=NOT_READY)
async def check_readiness(request: Request, engine: EngineOfApp) -> Health:
    """Whether models are loaded and requests are welcome."""
    if not engine.ready or request.app.state.leaving.is_set():
        raise UnavailableError("Loading the models, or shutting down. Ask again in a few seconds.", RETRY_SECONDS)
    return Health(status="ready")


@router.get("/metrics", tags=["process"], response_class=PlainTextResponse)
def show_metrics(engine: EngineOfApp) -> Response:
    """What the server counted and timed since its start, in Prometheus' text format."""
    return Response(engine.metrics.export(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/models", tags=["models"])
def list_models(engine: EngineOfApp) -> ModelList:
    """The models that can be asked, and the folders that could not be read, each with the reason."""
    models = [ModelSummary.model_validate(entry.detail.model_dump()) for entry in engine.catalog.entries()]
    refused = [RefusedModel(name=name, reason=reason) for name, reason in engine.catalog.refused().items()]
    return ModelList(models=models, refused=refused)


@router.post(
    "/v1/models/{model}:predict",
    tags=["models"],
    dependencies=[Depends(refuse_query)],
    responses=ERRORS,
    openapi_extra=describe_body(PredictParameters, PredictRequest),
)
async def predict_pictures(request: Request, model: ModelName, engine: EngineOfApp) -> PredictAnswer:
    """Probabilities of a model's labels, most probable first: one multipart picture, or several in KServe's JSON."""
    pictures, parameters = await _read_pictures(request, engine, PredictRequest, PredictParameters)
    predictions = await run_while_wanted(request.receive, engine, lambda ticket: predict(engine, pictures, model, ticket))
    return PredictAnswer(predictions=[_select(ranked, parameters) for ranked in predictions])


@router.post(
    "/v1/models/{model}:explain",
    tags=["models"],
    dependencies=[Depends(refuse_query)],
    responses=ERRORS,
    openapi_extra=describe_body(ExplainParameters, ExplainRequest),
)
async def explain_pictures(request: Request, model: ModelName, engine: EngineOfApp) -> ExplainAnswer:
    """Probabilities and maps of one model: one multipart picture, or several in KServe's JSON."""
    pictures, parameters = await _read_pictures(request, engine, ExplainRequest, ExplainParameters)
    asked = parameters.labels, parameters.threshold, parameters.kind
    answers = await run_while_wanted(request.receive, engine, lambda ticket: explain(engine, pictures, model, *asked, ticket))
    return ExplainAnswer(explanations=[_to_explanation(answer) for answer in answers])


@router.api_route("/v1/models/{model}:predict", methods=OTHERS, include_in_schema=False)
@router.api_route("/v1/models/{model}:explain", methods=OTHERS, include_in_schema=False)
async def refuse_method(request: Request) -> Response:
    """Say that these answer to POST; the routes of a model would take the verb for a part of its name."""
    return await refuse_unknown(request)


@router.api_route("/v1/models/{model}:{verb}", methods=METHODS, include_in_schema=False)
async def refuse_verb(verb: str) -> Response:
    """Name the verbs that there are; no model's name holds a colon."""
    raise UnknownRouteError(describe_unknown("verb of a model", f":{verb}", VERBS))


@router.get("/v1/models/{model}", tags=["models"], responses=UNKNOWN_MODEL)
def show_model(model: ModelName, engine: EngineOfApp) -> ModelDetail:
    """Everything that a model's card says: labels, sizes, scores, recipe, hashes."""
    return engine.catalog.find(model).detail


@router.post(
    "/v1/compare",
    tags=["compare"],
    dependencies=[Depends(refuse_query)],
    response_model=CompareAnswer,
    responses=ERRORS
    | {200: {"content": {media: {"schema": {"type": "string", "format": "binary"}} for media in MEDIA_TYPES.values() if media != JSON}}},
    openapi_extra=describe_body(CompareForm),
)
async def compare_models(request: Request, engine: EngineOfApp) -> Response:
    """Several models on one picture: probabilities of all labels, maps of some, geometry and timings.

    As `npz`, for `numpy.load` without pickles: `labels` (the L shown ones), `models`, `threshold`, `kind` (of the maps), `json` (the whole
    answer as text), and for each model `NAME/labels` (C), `NAME/scores` (C) in the same order, and `NAME/maps` (L, h, w): NaN for labels
    that the model does not know. Maps are raw in both: before maps of different sizes are compared, each is to be multiplied by the number
    of its cells.
    """
    image, fields = await read_form(request)
    form = parse_fields(CompareForm, fields, lists=("models", "labels"))

    def work(ticket: Ticket) -> tuple[CompareAnswer, bytes | None]:
        answer = compare(engine, image, form.models, form.labels, form.threshold, form.kind, ticket)
        # Whatever the format: a name that is not there is a mistake.
        find_reference(answer, form.minus)
        return answer, None if form.format == "json" else engine.run_aside(ticket, export, engine, answer, image, form.format, form)

    answer, content = await run_while_wanted(request.receive, engine, work)
    if content is None:
        return Response(answer.model_dump_json(), media_type=JSON)
    name = f"compare-{answer.image.sha256[:12]}.{form.format}"
    return Response(content, media_type=MEDIA_TYPES[form.format], headers={"Content-Disposition": f'attachment; filename="{name}"'})


@rest.api_route("/healthz", methods=METHODS, include_in_schema=False)
@rest.api_route("/readyz", methods=METHODS, include_in_schema=False)
@rest.api_route("/metrics", methods=METHODS, include_in_schema=False)
@rest.api_route("/v1", methods=METHODS, include_in_schema=False)
@rest.api_route("/v1/{rest:path}", methods=METHODS, include_in_schema=False)
async def refuse_unknown(request: Request) -> Response:
    """Answer in the API's own shape where no route fits; without this the page, mounted behind, would answer."""
    path, known = find_route(request.scope), request.app.openapi()["paths"]
    # The most literal one: a model's name may hold any letter, so that "{model}" fits "{model}:predict" too.
    fitting = max((route for route in known if compile_path(route)[0].match(path)), key=len, default=None)
    if fitting is not None:
        methods = {method.upper() for method in known[fitting]}
        allowed = sorted(methods | {"HEAD"} if "GET" in methods else methods)
        raise MethodError(f"{path} answers to {', '.join(allowed)}; got {request.method}.", allowed)
    raise UnknownRouteError(f"There is nothing at {path}. Known are: {', '.join(sorted(known))}; /docs describes them.")


def add_api(app: FastAPI) -> None:
    """Register the routes, and give every error the one shape.

    `app.state` holds `engine` and `leaving` (an event, set once the server is to stop).
    """
    for routes in (router, answer_head(router)):
        app.include_router(routes)
    for kind, answer in HANDLERS.items():
        app.add_exception_handler(kind, answer)


def refuse_rest(app: FastAPI) -> None:
    """Answer for every address of the API that is unknown, after all its routes were registered."""
    app.include_router(rest)


async def _read_pictures(
    request: Request, engine: Engine, body: type[PredictRequest] | type[ExplainRequest], parameters: type[Parameters]
) -> tuple[list[bytes], Parameters]:
    if media_type(request) == MULTIPART:
        form = await read_form(request)
        return [form.image], parse_fields(parameters, form.fields, lists=("labels",))
    if media_type(request) != JSON:
        raise MediaTypeError(f"Expected {JSON} or {MULTIPART}; got {media_type(request) or 'no content type'!r}.")
    sent = await read_json(request, body)
    limit = engine.settings.max_instances
    if len(sent.instances) > limit:
        raise ParameterError(f"At most {limit} instance{'s' * (limit > 1)} can be sent at once; got {len(sent.instances)}.")
    pictures = read_each([instance.image.b64 for instance in sent.instances], decode_base64)
    return pictures, parameters.model_validate(sent.parameters.model_dump())


def _select(ranked: list[Prediction], parameters: PredictParameters) -> list[Prediction]:
    least = parameters.threshold or 0.0
    return [prediction for prediction in ranked if prediction.score >= least][: parameters.top_k]


def _to_explanation(answer: CompareAnswer) -> Explanation:
    fields = answer.models[0].model_dump()
    return Explanation(**fields, image=answer.image, labels=answer.labels, threshold=answer.threshold, kind=answer.kind)
