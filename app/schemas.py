"""What the app answers, as pydantic models: the page reads them, the API sends them and documents them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, field_validator

# What a map may hold, by the names of `l2d.cam.OWN_KINDS`.
MapKind = Literal["layercam", "attention"]
LABELS = "labels to map, repeated or between commas; a value that is a label as a whole is that one, any other is split at its commas"
THRESHOLD = "probability from which a label counts as predicted"
MAP_KIND = "layercam: evidence for the label; attention: where the head attends for the label, present or not, summing to 1"
# Of the shipped models.
EXAMPLE_MODELS = ["coco-mobilenetv2-vanilla", "coco-mobilenetv2-l2d"]
EXAMPLE_LABELS = ["cat", "dog"]
RAW = (
    "raw evidence, cell by cell, never negative; every cell covers an equal share of the picture. More cells share the same evidence: to "
    "compare maps of different sizes, multiply each by the number of its cells, as the page and figures do."
)


class ImageFacts(BaseModel):
    """The picture that was looked at, upright."""

    width: int = Field(description="pixels, after EXIF orientation", examples=[640])
    height: int = Field(description="pixels, after EXIF orientation", examples=[427])
    sha256: str = Field(description="of the bytes as they were sent", examples=["9f86d081884c7d65..."])


class Prediction(BaseModel):
    """One label's probability."""

    label: str = Field(examples=["cat"])
    score: float = Field(description="sigmoid of the logit, in [0, 1]", examples=[0.97])


class Timings(BaseModel):
    """Milliseconds that this request paid for one model; a stage that came from the cache cost 0.

    `decode` is shared by all models of the request. Waiting in the queue is not part of any stage.
    """

    decode: float = Field(description="bytes to the networks' inputs")
    network: float = Field(description="backbone, and the probabilities of all labels")
    maps: float = Field(description="maps of the shown labels")
    total: float = Field(description="sum of the stages")


class ModelAnswer(BaseModel):
    """What one model sees in the picture, and where."""

    model_config = ConfigDict(protected_namespaces=())

    name: str = Field(description="the checkpoint's name", examples=["coco-mobilenetv2-l2d"])
    title: str = Field(examples=["L2D"])
    role: str = Field(description="teacher or student", examples=["student"])
    method: str = Field(examples=["l2d"])
    mAP: float | None = Field(description="percent on the test photographs, where it was measured", examples=[52.3])  # noqa: N815
    image_size: int = Field(description="side of the square that the network reads, pixels", examples=[224])
    map_size: tuple[int, int] = Field(description="rows and columns of every map", examples=[(7, 7)])
    predictions: list[Prediction] = Field(description="all labels of the model, most probable first")
    maps: dict[str, list[list[float]]] = Field(
        description=f"label -> rows of {RAW} A shown label that this model does not know is missing.",
        examples=[{"cat": [[0.0, 1.5], [0.25, 3.0]]}],
    )
    timings_ms: Timings
    cached: bool = Field(description="whether the network had seen this picture before")


class CompareAnswer(BaseModel):
    """Several models' view of one picture."""

    image: ImageFacts
    labels: list[str] = Field(description="the shown labels, in the order of the rows", examples=[["cat", "couch"]])
    threshold: float = Field(description=THRESHOLD, examples=[0.5])
    kind: MapKind = Field(description=MAP_KIND, examples=["layercam"])
    models: list[ModelAnswer]


class ModelSummary(BaseModel):
    """A model in one line."""

    name: str = Field(examples=["coco-mobilenetv2-l2d"])
    title: str
    role: str
    method: str
    backbone: str = Field(examples=["mobilenetv2_100"])
    num_labels: int = Field(examples=[80])
    image_size: int = Field(examples=[224])
    parameters: int
    mAP: float | None  # noqa: N815
    default: bool = Field(description="compared when a request names no model")
    job: str | None = Field(default=None, description="the job that made it; null for a shipped one", examples=[None])


class RefusedModel(BaseModel):
    """A checkpoint folder that could not be used, and why."""

    name: str
    reason: str


class ModelList(BaseModel):
    """The models that can be asked, and the folders that could not be read."""

    models: list[ModelSummary]
    refused: list[RefusedModel]


class ModelDetail(ModelSummary):
    """Everything a model's card says; a card outside these bounds is refused."""

    image_size: int = Field(ge=16, le=2048, examples=[224])
    output_stride: int
    width: int = Field(ge=1, le=8192, description="of the label-wise embeddings")
    feedforward: int = Field(ge=1, le=32768)
    mean: tuple[float, float, float]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    resize: Literal["squash"]
    labels: list[str] = Field(min_length=1)
    recipe: dict[str, Any]
    data: dict[str, Any]
    teacher: dict[str, str] | None
    lineage: dict[str, Any]
    scores: dict[str, Any]
    seconds: float = Field(description="training time")
    sha256: str = Field(description="of the weights file")
    created: str


class Base64(BaseModel):
    """Bytes inside JSON."""

    model_config = ConfigDict(extra="forbid")

    b64: str = Field(description="the picture's bytes in base64")


class Instance(BaseModel):
    """One picture."""

    model_config = ConfigDict(extra="forbid")

    image: Base64


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


class PredictParameters(BaseModel):
    """How much of the prediction to send."""

    model_config = ConfigDict(extra="forbid")

    top_k: Annotated[int, Field(ge=1)] | None = Field(default=None, description="only so many of the most probable labels", examples=[5])
    threshold: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="only labels at least this probable", examples=[0.5]
    )


class ExplainParameters(BaseModel):
    """Which labels to map."""

    model_config = ConfigDict(extra="forbid")

    labels: list[str] | None = Field(
        default=None,
        description=f"{LABELS}; without them those above the threshold, at most 8, else the 3 most probable",
        examples=[EXAMPLE_LABELS],
    )
    threshold: float = Field(default=0.5, ge=0, le=1, description=THRESHOLD, examples=[0.5])
    kind: MapKind = Field(default="layercam", description=MAP_KIND, examples=["layercam"])


class PredictRequest(BaseModel):
    """KServe V1: one or more pictures."""

    model_config = ConfigDict(extra="forbid")

    instances: list[Instance] = Field(min_length=1, description="the pictures; how many at most is told at the top")
    parameters: PredictParameters = PredictParameters()


class ExplainRequest(BaseModel):
    """KServe V1: one or more pictures."""

    model_config = ConfigDict(extra="forbid")

    instances: list[Instance] = Field(min_length=1, description="the pictures; how many at most is told at the top")
    parameters: ExplainParameters = ExplainParameters()


class PredictAnswer(BaseModel):
    """One list of predictions per picture."""

    predictions: list[list[Prediction]]


class Explanation(ModelAnswer):
    """One picture's predictions and maps."""

    image: ImageFacts
    labels: list[str]
    threshold: float
    kind: MapKind


class ExplainAnswer(BaseModel):
    """One explanation per picture."""

    explanations: list[Explanation]


class ProbePicture(BaseModel):
    """A picture that a job maps after every epoch."""

    width: int = Field(description="pixels of the small copy that is kept", examples=[192])
    height: int = Field(examples=[144])
    labels: list[str] = Field(description="those that are mapped on it", examples=[["circle", "ring"]])


class ProbeMap(BaseModel):
    """One label on one probe picture."""

    label: str = Field(examples=["circle"])
    score: float = Field(description="its probability, in [0, 1]", examples=[0.97])
    rows: list[list[float]] = Field(description=f"of {RAW}", examples=[[[0.0, 1.5]]])


class Probes(BaseModel):
    """The probe pictures of a job, or their maps."""

    pictures: list[ProbePicture] | list[list[ProbeMap]] = Field(
        description="for the name `pictures` what each shows, otherwise the maps of each, in the same order"
    )


class ErrorDetail(BaseModel):
    """Why a request was refused."""

    status: int = Field(examples=[422])
    code: str = Field(description="stable, for programs", examples=["unknown_label"])
    message: str = Field(description="what was expected, what came, what to do", examples=["Unknown label 'cta'. Did you mean 'cat'?"])
    details: list[str] = Field(description="one sentence per field, where several are wrong", examples=[[]])


class ErrorAnswer(BaseModel):
    """The one shape of every error."""

    error: ErrorDetail


class Health(BaseModel):
    """The state of the process."""

    status: str = Field(examples=["ok"])
