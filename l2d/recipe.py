"""How a network is trained: every number that decides the result, checked before anything starts."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from l2d.data.augmentation import AUGMENTATIONS
from l2d.distill import choose_weights

# Smallest and largest value of every number; whole numbers where the bounds are.
BOUNDS: dict[str, tuple[float, float]] = {
    "epochs": (1, 10_000),
    "batch_size": (2, 65_536),
    "lr": (1e-8, 10.0),
    "weight_decay": (0.0, 1.0),
    "warmup": (0.0, 0.99),
    "train_size": (32, 2048),
    "teacher_size": (32, 2048),
    "min_area": (0.01, 1.0),
    "colour": (0.0, 1.0),
    "cutout": (0.0, 1.0),
    "freeze_stages": (0, 16),
    "averaging": (0.0, 0.99999),
    "holdout": (0.0, 0.5),
    "share": (0.001, 1.0),
    "seed": (0, 2**31),
}

# The smallest group that a relation loss learns from: a pair's only distance is divided by itself, so it is 1 in every network.
SMALLEST_GROUP = 3
# Groups in a batch, on average, below which a loss hardly counts. Not one: of pictures of a single label no batch has more.
FEWEST_GROUPS = 0.5
# What each relation loss compares, in words.
GROUPED = {"cd": "pictures of a batch that show the same label", "id": "labels that a picture shows at once"}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The settings of one training run; the defaults are the paper's where it states one, but for the augmentation, which is ours.

    Attributes:
        method: a name in `l2d.distill.METHODS`.
        weights: replaces some of the method's loss weights.
        epochs: passes over the training pictures.
        batch_size: pictures per step.
        lr: peak learning rate of Adam under a one-cycle schedule that rises over the first `warmup` of the steps.
        weight_decay: not applied to norms, biases and other vectors.
        train_size: side of the student's input while training, in pixels. Smaller than the size it is used at saves time, and
            suits networks that are then used on uncropped pictures (Touvron et al., "Fixing the train-test resolution discrepancy").
        teacher_size: side of the teacher's input while distilling; both see the same view of the picture.
        augmentation: one of `l2d.data.augmentation.AUGMENTATIONS`.
        min_area, colour, cutout: its strength, see `l2d.data.augmentation.augment`.
        freeze_stages: the first stages of the backbone stay as they were initialised, statistics included, which saves their
            backward pass (the usual choice in detection, where it is called FREEZE_AT).
        averaging: decay per step of an exponential average of the weights, which is then the result; 0 for none. Less in the first steps.
        holdout: share of the training pictures set aside to follow the score during training and to choose settings by.
        share: of the training pictures that are not held out, this share is trained on, the same ones for every seed and method.
        seed: of initialisation, order, augmentation and dropout.

    Raises:
        ValueError: naming the setting that is out of its range, the unknown method or augmentation, or the loss that is not the method's.
    """

    method: str = "vanilla"
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    epochs: int = 80
    batch_size: int = 64
    lr: float = 1e-4
    weight_decay: float = 1e-4
    warmup: float = 0.2
    train_size: int = 224
    teacher_size: int = 224
    augmentation: str = "crops"
    min_area: float = 0.4
    colour: float = 0.3
    cutout: float = 0.5
    freeze_stages: int = 0
    averaging: float = 0.0
    holdout: float = 0.0
    share: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        choose_weights(self.method, self.weights)
        if self.augmentation not in AUGMENTATIONS:
            raise ValueError(f"Unknown augmentation {self.augmentation!r}; the known ones are {', '.join(AUGMENTATIONS)}.")
        for name, (low, high) in BOUNDS.items():
            value, whole = getattr(self, name), isinstance(low, int)
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise ValueError(f"{name} must be a {'whole ' if whole else ''}number; got {value!r}.")
            if not low <= value <= high:
                least, most, got = (format(number, "d" if whole else "g") for number in (low, high, value))
                raise ValueError(f"{name} must lie between {least} and {most}; got {got}.")

    def find_changes(self, recorded: Mapping[str, Any]) -> list[str]:
        """Names of the settings that differ in a recipe on record; one that the record does not have yet is taken at its default.

        What a newer revision put on record is a difference: it may have trained in a way that is not known here.
        """
        known = {field.name for field in dataclasses.fields(self)}
        earlier = Recipe(**{name: value for name, value in recorded.items() if name in known}).as_dict()
        unknown = [f"{name}, which only a newer revision knows" for name in recorded if name not in known]
        return [name for name, value in self.as_dict().items() if earlier[name] != value] + unknown

    def as_dict(self) -> dict[str, Any]:
        """Plain values, with the loss weights that are really used."""
        return dataclasses.asdict(self) | {"weights": choose_weights(self.method, self.weights)}

    def find_doubts(self, targets: Tensor) -> list[str]:
        """Sentences on losses of the method that would have hardly anything to compare in a batch of these pictures, (N, C)."""
        count, size = len(targets), min(self.batch_size, len(targets))
        pictures_per_label, labels_per_picture = targets.sum(0), targets.sum(1)
        # A picture brings all its labels along.
        rich = int((labels_per_picture >= SMALLEST_GROUP).sum())
        groups = {"cd": _expect_groups(pictures_per_label, count, size), "id": size / max(count, 1) * rich}
        both = size / max(count, 1) * int(((labels_per_picture > 0) & (labels_per_picture < targets.shape[1])).sum())
        weights = choose_weights(self.method, self.weights)
        doubts = [
            f"The loss {name} compares {things}, and learns where there are at least {SMALLEST_GROUP}: "
            f"of such groups a batch of {size} has {groups[name]:.2g} on average, so it will hardly count."
            for name, things in GROUPED.items()
            if weights.get(name, 0.0) > 0 and groups[name] < FEWEST_GROUPS
        ]
        if weights.get("ps", 0.0) > 0 and both < FEWEST_GROUPS:
            doubts.append(
                f"The loss ps compares labels that a picture shows with labels that it does not: of pictures with both a batch of "
                f"{size} has {both:.2g} on average, so it will hardly count."
            )
        return doubts


def count_held_out(pictures: int, holdout: float) -> int:
    """How many of the pictures a holdout sets aside. One at least, if it is more than 0: whoever asks for scores gets some."""
    return max(round(holdout * pictures), int(holdout > 0))


def count_trained(pictures: int, holdout: float, share: float) -> int:
    """How many of the pictures are trained on."""
    return round(share * (pictures - count_held_out(pictures, holdout)))


def _expect_groups(members: Tensor, count: int, size: int) -> float:
    """How many labels, of which so many pictures (C,) of all `count` show each, find a group that teaches in a batch, on average."""
    total, drawn, shown = torch.tensor(count).double(), torch.tensor(size).double(), members.double()[:, None]
    found = torch.arange(size + 1).double()[SMALLEST_GROUP:]
    # Hypergeometric, summed over all numbers that are enough.
    chances = _log_choose(shown, found) + _log_choose(total - shown, drawn - found) - _log_choose(total, drawn)
    return float(chances.exp().sum())


def _log_choose(things: Tensor, taken: Tensor) -> Tensor:
    """Logarithm of the number of choices; minus infinity for more than there are."""
    return torch.lgamma(things + 1) - torch.lgamma(taken + 1) - torch.lgamma(things - taken + 1)
