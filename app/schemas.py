"""What the app answers, as pydantic models: the page reads them, the API sends them and documents them."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

from app.jobs import State

# What a map may hold, by the names of `l2d.cam.OWN_KINDS`.
MapKind = Literal["layercam", "attention"]
THRESHOLD = "probability from which a label counts as predicted"
MAP = "percent on the test photographs of its data set; null where it was not measured"
MAP_KIND = "layercam: evidence for the label; attention: where the head attends for the label, present or not, summing to 1"
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
    title: str = Field(description="what people call it", examples=["MobileNetV2 L2D"])
    role: str = Field(description="teacher or student", examples=["student"])
    method: str = Field(examples=["l2d"])
    mAP: float | None = Field(description=MAP, examples=[51.3])  # noqa: N815
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

    name: str = Field(description="its folder's name, which requests use", examples=["coco-mobilenetv2-l2d"])
    title: str = Field(description="what people call it", examples=["MobileNetV2 L2D"])
    role: str = Field(description="teacher or student", examples=["student"])
    method: str = Field(description="how it was trained; one of GET /v1/methods", examples=["l2d"])
    backbone: str = Field(description="its name in timm", examples=["mobilenetv2_100"])
    num_labels: int = Field(examples=[80])
    image_size: int = Field(description="side of the square that the network reads, pixels", examples=[224])
    parameters: int = Field(description="number of weights", examples=[5024592])
    mAP: float | None = Field(description=MAP, examples=[51.3])  # noqa: N815
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

    image_size: int = Field(ge=16, le=2048, description="side of the square that the network reads, pixels", examples=[224])
    output_stride: int = Field(description="pixels of the input per cell of the last map", examples=[32])
    width: int = Field(ge=1, le=8192, description="of the label-wise embeddings")
    feedforward: int = Field(ge=1, le=32768, description="hidden width of the head's feed-forward part")
    mean: tuple[float, float, float] = Field(description="subtracted from the channels of pixels in [0, 1]")
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(description="divides them then")
    resize: Literal["squash"] = Field(description="how a picture becomes a square: both sides are resized, nothing is cut off")
    labels: list[str] = Field(min_length=1)
    recipe: dict[str, Any] = Field(description="every number that decided its training")
    data: dict[str, Any] = Field(description="what it was trained on")
    teacher: dict[str, str] | None = Field(description="name and hash of its teacher; null if it had none")
    lineage: dict[str, Any] = Field(description="where its initial weights come from")
    scores: dict[str, Any] = Field(description="percent, and tuned `thresholds`, as `l2d evaluate` and `l2d localize` find them")
    seconds: float = Field(description="training time")
    sha256: str = Field(description="of the weights file")
    created: str


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


class JobAnswer(BaseModel):
    """One job."""

    id: str = Field(examples=["3f9a2c41b0d7"])
    title: str = Field(examples=["resnet18, l2d, on shapes"])
    state: State
    reason: str = Field(
        description="why it ended as it did, or that no worker is seen that would begin it",
        examples=["Trained to the end; the student of the last epoch is kept. The best epoch was 6."],
    )
    request: str | None = Field(description="cancel or stop, while the worker has yet to obey")
    stage: str = Field(description="teacher, student or scores; empty before the first one", examples=["student"])
    epoch: int = Field(description="of the stage, from 1", examples=[3])
    progress: float = Field(description="0 to 1", examples=[0.4])
    seconds_left: float | None = Field(description="an estimate; null where none can be given")
    best_score: float | None = Field(description="highest mAP on the pictures held out, percent")
    best_epoch: int | None = Field(description="the epoch of that score")
    attempts: int = Field(description="how often a worker took it")
    created: datetime
    started: datetime | None
    finished: datetime | None
    heartbeat: datetime | None = Field(description="its worker's last sign of life")
    order: dict[str, Any] = Field(description="what was ordered, with the defaults of what was left out")
    commands: list[str] = Field(
        description="command lines that do the same by hand, in the repository's folder; elsewhere set L2D_CHECKPOINTS, L2D_DATA, L2D_STATE"
    )
    versions: dict[str, str] = Field(description="of the libraries that it was last trained with")
    models: list[str] = Field(description="what it put into the catalogue")


class JobPage(BaseModel):
    """Some jobs, newest first."""

    jobs: list[JobAnswer]
    next: int | None = Field(description="the `before` of the next page; null on the last one")


class Method(BaseModel):
    """A way to distil."""

    name: str = Field(examples=["l2d"])
    weights: dict[str, float] = Field(
        description="of its losses, beside the labels' own of 1", examples=[{"mld": 10, "cd": 100, "id": 1000}]
    )
    needs_teacher: bool


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
