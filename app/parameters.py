"""What may be asked about pictures, as pydantic models: the page and the API read them, and the API documents them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.schemas import MAP_KIND, THRESHOLD, MapKind

LABELS = "labels to map, repeated or between commas; a value that is a label as a whole is that one, any other is split at its commas"
# Of the shipped models.
EXAMPLE_MODELS = ["coco-mobilenetv2-vanilla", "coco-mobilenetv2-l2d"]
EXAMPLE_LABELS = ["cat", "dog"]


class Strict(BaseModel):
    """Fields, and nothing beside them."""

    model_config = ConfigDict(extra="forbid")


class Base64(Strict):
    """Bytes inside JSON."""

    b64: str = Field(description="the picture's bytes in base64")


class Instance(Strict):
    """One picture."""

    image: Base64


class PictureRequest(Strict):
    """One or more pictures."""

    instances: list[Instance] = Field(min_length=1, description="the pictures; how many at most is told at the top")


class FigureLook(BaseModel):
    """How a figure is drawn: what the page shows, as a file."""

    scale: Literal["row", "map", "grid"] = Field(
        default="row",
        description="of a figure: what shares one scale of colours; a row's models, each map alone, or everything",
        examples=["row"],
    )
    colormap: Literal["inferno", "magma", "plasma", "viridis", "cividis", "turbo", "jet"] = Field(
        default="inferno", description="of a figure", examples=["inferno"]
    )
    smooth: bool = Field(default=True, description="of a figure: interpolate between the cells of a map, or show them", examples=[True])
    opacity: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="of a figure: how much of the photograph the colours cover at most, less for improbable labels, as on the page; "
        "without it all maps are covered alike",
        examples=[0.65],
    )
    minus: str = Field(
        default="",
        description="of a figure: the model whose maps are subtracted from the others', if any",
        examples=EXAMPLE_MODELS[:1],
    )


class CompareForm(FigureLook):
    """What a form may say besides the picture."""

    models: list[str] = Field(
        default=[], description="names, repeated or between commas; without them the default ones", examples=[EXAMPLE_MODELS]
    )
    labels: list[str] = Field(
        default=[],
        description=f"{LABELS}; without them what any model predicts, at most 8, else the 3 most probable",
        examples=[EXAMPLE_LABELS],
    )
    threshold: float = Field(default=0.5, ge=0, le=1, description=THRESHOLD, examples=[0.5])
    kind: MapKind = Field(default="layercam", description=MAP_KIND, examples=["layercam"])
    format: Literal["json", "npz", "png", "pdf"] = Field(
        default="json", description="numbers (json, npz) or the figure (png, pdf)", examples=["json"]
    )

    @field_validator("models")
    @classmethod
    def _split_names(cls, texts: list[str]) -> list[str]:
        return [name.strip() for text in texts for name in text.split(",") if name.strip()]


class PredictParameters(Strict):
    """How much of the prediction to send."""

    top_k: int | None = Field(default=None, ge=1, description="only so many of the most probable labels", examples=[5])
    threshold: float | None = Field(default=None, ge=0, le=1, description="only labels at least this probable", examples=[0.5])


class ExplainParameters(Strict):
    """Which labels to map."""

    labels: list[str] | None = Field(
        default=None,
        description=f"{LABELS}; without them those above the threshold, at most 8, else the 3 most probable",
        examples=[EXAMPLE_LABELS],
    )
    threshold: float = Field(default=0.5, ge=0, le=1, description=THRESHOLD, examples=[0.5])
    kind: MapKind = Field(default="layercam", description=MAP_KIND, examples=["layercam"])


class PredictRequest(PictureRequest):
    """KServe V1: one or more pictures."""

    parameters: PredictParameters = PredictParameters()


class ExplainRequest(PictureRequest):
    """KServe V1: one or more pictures."""

    parameters: ExplainParameters = ExplainParameters()
