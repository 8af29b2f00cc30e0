"""What a job may be asked to do: every field bounded, and names instead of paths."""

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.config import JsonDict

from l2d.distill import METHODS, choose_weights
from l2d.model import BACKBONES

# The backbones that jobs may name: the paper's, and the shipped teacher's. Not every timm name: some are too large for any machine.
OFFERED = (*BACKBONES, "mobilenet_edgetpu_100")

# Small enough for a laptop, and in need of nothing that is not there already.
EXAMPLE: JsonDict = {
    "data": "shapes",
    "student": "mobilenetv2_100",
    "method": "l2d",
    "teacher_backbone": "mobilenetv2_100",
    "teacher_epochs": 1,
    "epochs": 3,
    "batch_size": 32,
    "lr": 0.001,
    "image_size": 144,
    "width": 128,
    "feedforward": 256,
}

# Side of what a Swin transformer cuts pictures into, in pixels.
SWIN_PATCH = 4


class Order(BaseModel):
    """A student to be trained, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [EXAMPLE]})

    title: str = Field(default="", max_length=80, description="What the student is called in lists; made from the rest if empty.")
    data: str = Field(default="shapes", max_length=80, description="Name of a data set; `shapes` is drawn by the program itself.")
    student: str = Field(
        default="mobilenetv2_100", max_length=80, description="The student's backbone.", json_schema_extra={"enum": [*OFFERED]}
    )
    method: str = Field(
        default="l2d",
        max_length=40,
        description="How it learns; vanilla uses the labels alone, all others a teacher.",
        json_schema_extra={"enum": [*METHODS]},
    )
    teacher: str | None = Field(default=None, max_length=80, description="A model that is there already, with the data set's labels.")
    teacher_backbone: str | None = Field(
        default=None,
        max_length=80,
        description="Instead: train a teacher with this backbone first.",
        json_schema_extra={"enum": [*OFFERED, None]},
    )
    teacher_epochs: int = Field(default=30, ge=1, le=1000, description="Passes over the pictures for a teacher that is trained first.")
    start_from: str | None = Field(
        default=None, max_length=80, description="A model with the same backbone; the student's backbone starts from its weights."
    )
    teacher_start_from: str | None = Field(default=None, max_length=80, description="The same for a teacher that is trained first.")
    pretrained: bool = Field(
        default=False, description="Start from timm's ImageNet weights, fetched from the hub, where no model is named."
    )
    epochs: int = Field(default=80, ge=1, le=1000, description="Passes over the training pictures.")
    batch_size: int = Field(default=64, ge=2, le=1024, description="Pictures per step.")
    lr: float = Field(default=1e-4, ge=1e-6, le=1.0, title="Learning rate", description="The highest one; it rises, then falls.")
    image_size: int = Field(default=224, ge=32, le=640, description="Side of the input in pixels.")
    output_stride: Literal[8, 16, 32] = Field(default=32, description="Pixels per cell of the maps; fewer show more, and cost more.")
    freeze_stages: int = Field(
        default=0,
        ge=0,
        le=4,
        description="First stages of a backbone that keep the trained weights they start from; saves time.",
    )
    width: int = Field(default=768, ge=16, le=2048, multiple_of=8, description="Width of the label-wise embeddings.")
    feedforward: int = Field(default=2048, ge=16, le=8192, description="Hidden width of the head's feed-forward part.")
    weights: dict[str, float] = Field(default_factory=dict, description="Replaces some of the method's loss weights.")
    augmentation: Literal["crops", "randaugment"] = Field(
        default="crops",
        description="Views of the pictures: crops with flips, colours and holes, or the paper's RandAugment with holes.",
    )
    min_area: float = Field(default=0.4, ge=0.01, le=1, description="Smallest share of the picture that a crop keeps.")
    colour: float = Field(default=0.3, ge=0, le=1, description="Strength of brightness, contrast and saturation of crops.")
    cutout: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Side of the hole cut into every second picture (randaugment: every one), as a share of the side.",
    )
    unit_pixels: bool = Field(
        default=False, description="Leave pixels in [0, 1], as the paper does; else they are scaled as the weights at the start know them."
    )
    averaging: float = Field(default=0.0, ge=0, le=0.99999, description="Decay of an exponential average of the weights; 0 for none.")
    holdout: float = Field(default=0.1, ge=0, le=0.5, description="Share of the training pictures set aside to follow the score by.")
    processes: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes that train together, each on its share of every batch: on a GPU each, or on processors where there is none.",
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="The same seed gives the same student.")

    @field_validator("student", "teacher_backbone")
    @classmethod
    def _check_backbone(cls, name: str | None) -> str | None:
        if name is not None and name not in OFFERED:
            raise ValueError(f"Unknown backbone {name!r}; the known ones are {', '.join(OFFERED)}.")
        return name

    @field_validator("title")
    @classmethod
    def _check_title(cls, title: str) -> str:
        title = " ".join(title.split())
        if not title.isprintable():
            raise ValueError("A title has letters, digits and signs that can be shown; leave control characters out.")
        return title

    @field_validator("weights")
    @classmethod
    def _check_weights(cls, weights: dict[str, float]) -> dict[str, float]:
        if not all(0 <= weight <= 1e6 for weight in weights.values()):
            raise ValueError("Every loss weight must lie between 0 and 1000000.")
        return weights

    @model_validator(mode="after")
    def _check_processes(self) -> "Order":
        if self.batch_size % self.processes:
            raise ValueError(f"{self.processes} processes share every batch evenly: give a batch_size that {self.processes} divides.")
        return self

    @model_validator(mode="after")
    def _check_swin(self) -> "Order":
        if any(name.startswith("swin") for name in (self.student, self.teacher_backbone or "")):
            if self.output_stride != 32:
                raise ValueError("Swin transformers have an output_stride of 32 alone.")
            if self.image_size % SWIN_PATCH:
                raise ValueError(f"Swin transformers need an image_size that {SWIN_PATCH} divides.")
        return self

    @model_validator(mode="after")
    def _check_method(self) -> "Order":
        choose_weights(self.method, self.weights)
        teachers = [name for name in (self.teacher, self.teacher_backbone) if name]
        if METHODS[self.method] and len(teachers) != 1:
            raise ValueError(f"The method {self.method} needs a teacher: give either teacher or teacher_backbone.")
        if not METHODS[self.method] and teachers:
            raise ValueError(f"The method {self.method} learns from the labels alone: leave teacher and teacher_backbone out.")
        if self.freeze_stages and not (self.start_from or self.pretrained):
            raise ValueError(
                "freeze_stages keeps weights as they start, so it needs ones that were trained: give start_from or pretrained."
            )
        if self.teacher_start_from and not self.teacher_backbone:
            raise ValueError("teacher_start_from is for a teacher that is trained first: give its teacher_backbone.")
        return self

    @property
    def name(self) -> str:
        """What the job is called in lists."""
        return self.title or f"{self.student}, {self.method}, on {self.data}"


FIRST_BACKBONE = "mobilenetv2_100"
# Of a backbone that starts from trained weights, unless somebody says otherwise.
FIRST_FROZEN = 3


def choose_first_order(models: Iterable[tuple[str, str]]) -> Order:
    """A small job that needs no data set: the form on a fresh install.

    So few steps suffice only from weights that know something of pictures: those of a model that is there, if it fits. Its early stages
    stay as they are, which saves most of the time; the maps have 5 x 5 cells, so that one sees them move.

    Args:
        models: name and backbone of those that are there.
    """
    fitting = [name for name, backbone in models if backbone == FIRST_BACKBONE]
    start = fitting[0] if fitting else None
    return Order(
        title="First student",
        student=FIRST_BACKBONE,
        start_from=start,
        teacher_backbone=FIRST_BACKBONE,
        teacher_start_from=start,
        teacher_epochs=1,
        epochs=3,
        batch_size=32,
        lr=1e-3,
        image_size=144,
        freeze_stages=FIRST_FROZEN if start else 0,
        width=128,
        feedforward=256,
        min_area=0.6,
        colour=0.2,
        cutout=0.0,
    )
