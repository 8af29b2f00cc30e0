"""Several models' view of one picture: the one function that the page and the API both call."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from app.engine import Engine
from app.entries import Entry
from app.errors import ParameterError, PictureError, PictureFormatError, TooLargeError, UnknownLabelError, describe_unknown
from app.schemas import CompareAnswer, ImageFacts, MapKind, ModelAnswer, Prediction, Timings
from app.sights import Sight, Stages, View
from app.ticket import Ticket
from l2d.labels import choose_labels, split_labels

S = TypeVar("S")
T = TypeVar("T")


def compare(
    engine: Engine,
    data: bytes,
    models: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    threshold: float = 0.5,
    kind: MapKind = "layercam",
    ticket: Ticket | None = None,
) -> CompareAnswer:
    """Let models predict all their labels in one picture and map the evidence for some of them.

    Blocks until the answer is there: call it from a thread, not from an event loop.

    Args:
        data: the encoded picture, as uploaded.
        models: names in the catalogue, in the order of the answer; the catalogue's default ones by default.
        labels: to map, as `l2d.labels.split_labels` reads them; by default what any model predicts, by best score, at most 8, and if
            there is none, the 3 most probable.
        threshold: probability from which a label counts as predicted.
        kind: of the maps, one of `l2d.cam.OWN_KINDS`.
        ticket: how long to wait; as the settings say by default.

    Raises:
        RequestError: in words, for a picture that cannot be read, an unknown model or label, a full queue, or too slow an answer.
    """
    entries = engine.catalog.choose(models, engine.settings.max_models)
    wanted = _choose_wanted(labels, threshold, entries, engine.settings.max_labels)
    with engine.place(ticket) as ticket:
        return _compare(engine, data, entries, wanted, threshold, kind, ticket)


def explain(
    engine: Engine,
    pictures: Sequence[bytes],
    model: str,
    labels: Sequence[str] | None = None,
    threshold: float = 0.5,
    kind: MapKind = "layercam",
    ticket: Ticket | None = None,
) -> list[CompareAnswer]:
    """One model's view of several pictures, in one place of the queue; otherwise as `compare`."""
    entries = [engine.catalog.find(model)]
    wanted = _choose_wanted(labels, threshold, entries, engine.settings.max_labels)
    with engine.place(ticket) as ticket:
        return read_each(pictures, lambda data: _compare(engine, data, entries, wanted, threshold, kind, ticket))


def predict(engine: Engine, pictures: Sequence[bytes], model: str, ticket: Ticket | None = None) -> list[list[Prediction]]:
    """One model's predictions for several pictures, all its labels, most probable first; no maps are made. Raises as `compare`."""
    entry = engine.catalog.find(model)
    with engine.place(ticket) as ticket:
        return read_each(pictures, lambda data: rank_predictions(next(engine.look(data, [entry], ticket)).sight))


def read_each(pictures: Sequence[S], read: Callable[[S], T]) -> list[T]:
    """Do the same with every picture of a request; of several, the sentence about a bad one begins with its place, as a field's does.

    Raises:
        PictureError, PictureFormatError, TooLargeError: as `read` does.
    """
    answers = []
    for row, picture in enumerate(pictures):
        try:
            answers.append(read(picture))
        except (PictureError, PictureFormatError, TooLargeError) as error:
            if len(pictures) == 1:
                raise
            # A new one: others who sent the same picture, elsewhere in their request, may be told the old one.
            raise type(error)(f"instances.{row}.image: {error.message}") from error
    return answers


def _compare(
    engine: Engine, data: bytes, entries: Sequence[Entry], wanted: list[str], threshold: float, kind: MapKind, ticket: Ticket
) -> CompareAnswer:
    views: Iterable[View] = engine.look(data, entries, ticket)
    if not wanted:
        # Which labels to show is known only when every model has looked.
        views = list(views)
        wanted = choose_labels([_read_scores(view.sight) for view in views], threshold)
    explained = engine.explain(views, wanted, ticket, kind)
    answers = [_describe_view(view, wanted, kind, spent) for view, spent in explained]
    sight = explained[0][0].sight
    image = ImageFacts(width=sight.width, height=sight.height, sha256=sight.sha256)
    return CompareAnswer(image=image, labels=wanted, threshold=threshold, kind=kind, models=answers)


def rank_predictions(sight: Sight) -> list[Prediction]:
    """All labels of the sight's model, most probable first."""
    scores = _read_scores(sight)
    return [Prediction(label=label, score=scores[label]) for label in sorted(scores, key=lambda label: -scores[label])]


def _read_scores(sight: Sight) -> dict[str, float]:
    return dict(zip(sight.entry.card.labels, round_floats(sight.scores), strict=True))


def round_floats(numbers: NDArray[np.float32]) -> list[Any]:
    """Nested lists of the shortest decimals that are these single-precision numbers: 0.1, not 0.10000000149011612."""
    rows: list[Any] = orjson.loads(orjson.dumps(np.ascontiguousarray(numbers), option=orjson.OPT_SERIALIZE_NUMPY))
    return rows


def _describe_view(view: View, labels: Sequence[str], kind: str, map_seconds: float) -> ModelAnswer:
    sight, detail, known = view.sight, view.entry.detail, view.entry.card.labels
    return ModelAnswer(
        name=detail.name,
        title=detail.title,
        role=detail.role,
        method=detail.method,
        mAP=detail.mAP,
        image_size=detail.image_size,
        map_size=sight.map_size,
        predictions=rank_predictions(sight),
        maps={label: round_floats(sight.maps[kind, known.index(label)]) for label in labels if label in known},
        timings_ms=_describe_timings(view.stages, map_seconds),
        cached=view.cached,
    )


def _describe_timings(stages: Stages, map_seconds: float) -> Timings:
    decode, network, maps = (round(1000 * seconds, 3) for seconds in (*stages, map_seconds))
    return Timings(decode=decode, network=network, maps=maps, total=round(decode + network + maps, 3))


def _choose_wanted(labels: Sequence[str] | None, threshold: float, entries: Sequence[Entry], limit: int) -> list[str]:
    """The labels to map that are asked for; refuses those that no model knows, too many, and a threshold that is no probability."""
    if not 0 <= threshold <= 1:
        raise ParameterError(f"The threshold is a probability from 0 to 1; got {threshold}.")
    known = dict.fromkeys(label for entry in entries for label in entry.card.labels)
    wanted = split_labels(labels or [], known)
    if len(wanted) > limit:
        raise ParameterError(f"At most {limit} label{'s' * (limit > 1)} can be mapped at once; got {len(wanted)}.")
    for label in wanted:
        if label not in known:
            raise UnknownLabelError(describe_unknown("label", label, known))
    return wanted
