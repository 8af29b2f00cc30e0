"""An answer as a file: the paper's figure, or its numbers for numpy."""

import io
import time
from functools import cache

import numpy as np
from PIL import Image

from app.engine import Engine
from app.errors import ParameterError
from app.parameters import FigureLook
from app.schemas import CompareAnswer, ModelAnswer
from app.uploads import read_picture

# What an answer may be saved as.
MEDIA_TYPES = {"json": "application/json", "npz": "application/x-npz", "png": "image/png", "pdf": "application/pdf"}


def export(engine: Engine, answer: CompareAnswer, data: bytes, format: str, look: FigureLook) -> bytes:
    """An answer about an encoded picture as "npz", "png" or "pdf".

    Raises:
        RequestError: as `export_figure`, and as `read_picture`.
    """
    if format == "npz":
        return export_numbers(answer)
    start = time.perf_counter()
    figure = export_figure(answer, read_picture(data, engine.settings.max_pixels), format, look)
    engine.metrics.stage_seconds.labels("figure").observe(time.perf_counter() - start)
    return figure


def export_numbers(answer: CompareAnswer) -> bytes:
    """An .npz without pickles; what it holds, the document of `POST /v1/compare` tells."""
    arrays: dict[str, np.ndarray] = {
        "labels": np.array(answer.labels, dtype=np.str_),
        "models": np.array([model.name for model in answer.models], dtype=np.str_),
        "threshold": np.array(answer.threshold),
        "kind": np.array(answer.kind),
        "json": np.array(answer.model_dump_json()),
    }
    for model in answer.models:
        arrays[f"{model.name}/labels"] = np.array([prediction.label for prediction in model.predictions], dtype=np.str_)
        arrays[f"{model.name}/scores"] = np.array([prediction.score for prediction in model.predictions], dtype=np.float32)
        arrays[f"{model.name}/maps"] = _stack_maps(model, answer.labels)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def export_figure(answer: CompareAnswer, image: Image.Image, format: str, look: FigureLook) -> bytes:
    """The figure of an answer, as "png" or "pdf": rows are labels, columns are models.

    Raises:
        ParameterError: if the model to subtract is not one of the answer's.
    """
    # Here, not above: matplotlib would make every start of the app slower, and most never draw a figure.
    from l2d.figure import Column, draw_figure, save_figure

    columns = [
        Column(
            model.title,
            {label: np.array(rows) for label, rows in model.maps.items()},
            {prediction.label: prediction.score for prediction in model.predictions},
        )
        for model in answer.models
    ]
    figure = draw_figure(
        image,
        columns,
        answer.labels,
        kind=answer.kind,
        scale=look.scale,
        colormap=look.colormap,
        smooth=look.smooth,
        threshold=answer.threshold,
        opacity=look.opacity,
        minus=find_reference(answer, look.minus),
    )
    buffer = io.BytesIO()
    save_figure(figure, buffer, format)
    return buffer.getvalue()


def find_reference(answer: CompareAnswer, name: str) -> int | None:
    """The place of the model whose maps are subtracted from the others', by its name; None for no name.

    Raises:
        ParameterError: if it is not one of the answer's.
    """
    names = [model.name for model in answer.models]
    if name and name not in names:
        raise ParameterError(f"The model to subtract must be one of those compared, {', '.join(names)}; got {name!r}.")
    return names.index(name) if name else None


@cache
def prepare_figures() -> None:
    """Draw one for nobody: the first one of a process looks for fonts and loads what writes them, which takes seconds."""
    from l2d.figure import Column, draw_figure, save_figure

    column = Column("", {"": np.ones((2, 2), dtype=np.float32)}, {"": 1.0})
    save_figure(draw_figure(Image.new("RGB", (8, 8)), [column], [""]), io.BytesIO(), "pdf")


def _stack_maps(model: ModelAnswer, labels: list[str]) -> np.ndarray:
    unknown = np.full(model.map_size, np.nan, dtype=np.float32)
    return np.stack([np.array(model.maps[label], dtype=np.float32) if label in model.maps else unknown for label in labels])
