"""Losses on logits: the labels' own, and what the teacher's probabilities add."""

from torch import Tensor
from torch.nn import functional as F

from l2d.outputs import Outputs


def bce(student: Outputs, teacher: Outputs | None, targets: Tensor) -> Tensor:
    """Binary cross-entropy with the labels, **summed** over images and labels as published: the methods' weights assume that scale."""
    targets = targets.to(student.logits, non_blocking=True)
    return F.binary_cross_entropy_with_logits(student.logits.float(), targets.float(), reduction="sum")


def mld(student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
    """Multi-label logits distillation: every label is a binary problem of its own.

    (1/N) sum_i sum_c KL(Bernoulli(p^T_ic) || Bernoulli(p^S_ic)), from log-sigmoids: finite for any logit, where the published code
    clamps probabilities and returns infinity at a student logit of 20.

    Source: L2D, equation 3.
    """
    s, t = student.logits.float(), teacher.logits.float().detach()
    present = t.sigmoid() * (F.logsigmoid(t) - F.logsigmoid(s))
    absent = (-t).sigmoid() * (F.logsigmoid(-t) - F.logsigmoid(-s))
    return (present + absent).sum() / len(s)
