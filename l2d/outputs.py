"""What every network of this project returns."""

from typing import NamedTuple

from torch import Tensor


class Outputs(NamedTuple):
    """One forward pass over a batch, for teacher and student alike.

    A NamedTuple, because DistributedDataParallel and torch's pytrees know how to walk it.

    Attributes:
        features: the backbone's stages, shallow to deep, each (N, D_i, H_i, W_i); the last one is the map that the head reads.
        embeddings: one embedding per label, (N, C, E).
        logits: before the sigmoid, (N, C).

    Of a teacher that gives logits alone: `Outputs((), torch.empty(0), logits)`, for the losses mld, mse and ps.
    """

    features: tuple[Tensor, ...]
    embeddings: Tensor
    logits: Tensor

    def __repr__(self) -> str:
        """Their shapes, as a notebook shows it: the numbers fill pages."""
        stages = [tuple(stage.shape) for stage in self.features]
        return f"<Outputs of shapes: features {stages}, embeddings {tuple(self.embeddings.shape)}, logits {tuple(self.logits.shape)}>"


def check_outputs(given: object) -> None:
    """Refuse logits alone, as most networks return them.

    Raises:
        ValueError: for a tensor.
    """
    if isinstance(given, Tensor):
        raise ValueError("Expected Outputs, as a LabelNet returns them; got a tensor. Wrap logits: Outputs((), torch.empty(0), logits).")


def check_tensors(*values: Tensor) -> None:
    """Refuse what is no tensor of torch's.

    Raises:
        ValueError: for arrays of NumPy's, say.
    """
    if others := [type(value).__name__ for value in values if not isinstance(value, Tensor)]:
        raise ValueError(f"Expected tensors of torch's; got {others[0]}. torch.as_tensor makes one of an array or a list.")


def check_batch(*values: Tensor) -> None:
    """Refuse what is no batch of pictures, (N, ...) each: the mean over none is no number.

    Raises:
        ValueError: for a batch without a picture or label, no tensor at all, or anything else than tensors.
    """
    check_tensors(*values)
    if not values or not all(value.numel() for value in values):
        raise ValueError(
            "Expected a batch of at least one picture and label; got an empty one, or outputs without what the loss compares (mld, mse and "
            "ps make do with logits)."
        )


def check_logits(student: Tensor, teacher: Tensor) -> None:
    """Refuse logits of other pictures or labels than each other's: a column alone would silently be compared with all.

    Raises:
        ValueError: for other shapes, or as `check_batch`.
    """
    check_batch(student, teacher)
    if student.shape != teacher.shape:
        shapes = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        raise ValueError(f"Logits of student and teacher must be of the same pictures and labels, (N, C); they are of {shapes}.")


def check_targets(targets: Tensor, student: Tensor, teacher: Tensor) -> None:
    """Refuse targets that are not the 0 or 1 of every label in these outputs, (N, C, ...) each: a loss would read wrong ones as right.

    Raises:
        ValueError: for other pictures or labels, for other values, such as -1 for a label that is absent, or as `check_batch`.
    """
    check_batch(targets, student, teacher)
    shapes = [tuple(one.shape[:2]) for one in (student, teacher)]
    if any(shape != targets.shape for shape in shapes):
        raise ValueError(
            "Targets, student and teacher must be of the same pictures and labels, (N, C); they are of "
            f"{tuple(targets.shape)}, {shapes[0]} and {shapes[1]}."
        )
    # Of the many zeros nothing is compared.
    if not (targets[targets.nonzero(as_tuple=True)] == 1).all():
        raise ValueError("Targets must be 0 or 1 in a loss that compares positive labels; decide on soft and unknown ones first.")
