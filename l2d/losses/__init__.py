"""Every distillation loss by name; each is called as loss(student, teacher, targets) and returns a scalar.

`targets` (N, C) are 0 or 1, of any type; `cd`, `id` and `ps` refuse others. All refuse arrays of NumPy's and an empty batch. Whatever the
precision of the outputs, the losses are computed in single precision.

None is negative but for rounding: where student and teacher nearly agree, mld, ps and pkt may come out a little below 0.
"""

from collections.abc import Callable

from torch import Tensor, nn

from l2d.losses.embeddings import cd, id
from l2d.losses.features import ReviewKD, pkt, rkd
from l2d.losses.logits import bce, mld, mse, ps
from l2d.outputs import Outputs

Loss = Callable[[Outputs, Outputs, Tensor], Tensor]

# Functions, or modules with the same signature that own weights and are built from the channels of student and teacher. Only the latter
# are given all stages of the teacher's features; functions are given the last map alone.
LOSSES: dict[str, Loss | type[nn.Module]] = {
    "mld": mld,
    "cd": cd,
    "id": id,
    "ps": ps,
    "mse": mse,
    "rkd": rkd,
    "pkt": pkt,
    "reviewkd": ReviewKD,
}

__all__ = ["LOSSES", "Loss", "ReviewKD", "bce", "cd", "id", "mld", "mse", "pkt", "ps", "rkd"]
