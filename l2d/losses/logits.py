"""Losses on logits: the labels' own, and what the teacher's probabilities add."""

import torch
from torch import Tensor
from torch.nn import functional as F

from l2d import processes
from l2d.outputs import Outputs, check_batch, check_logits, check_targets

# Stands for a label that takes no part in a softmax. Finite, so that a row of nothing else has a gradient of 0 instead of NaN.
ABSENT = -1e30


def bce(student: Outputs, teacher: Outputs | None, targets: Tensor) -> Tensor:
    """Binary cross-entropy with the labels, **summed** over images and labels as published: the methods' weights assume that scale.

    Several processes sum over the images of all: the mean over the processes, which is what they take of every loss and gradient, is
    the sum over the whole batch.
    """
    check_batch(student.logits, targets)
    targets = targets.to(student.logits, non_blocking=True)
    return processes.count() * F.binary_cross_entropy_with_logits(student.logits.float(), targets.float(), reduction="sum")


def mld(student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
    """Multi-label logits distillation: every label is a binary problem of its own.

    (1/N) sum_i sum_c KL(Bernoulli(p^T_ic) || Bernoulli(p^S_ic)), from log-sigmoids: finite for any logit, where the published code
    clamps probabilities and returns infinity at a student logit of 20.

    Source: L2D, equation 3.
    """
    check_logits(student.logits, teacher.logits)
    s, t = student.logits.float(), teacher.logits.float().detach()
    return _binary_divergence(s, t).sum() / len(s)


def ps(student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
    """Partial softmax: every positive label competes with the negative labels of its image, never with the other positives.

    For every positive label of an image, p is the softmax over that label and all negatives: KL(p^T || p^S), summed over the
    positives, mean over the N images. By the chain rule of the divergence that is, with u = the positive's logit minus the
    log-sum-exp of the negatives', one binary divergence of u plus (1 - sigmoid(u^T)) times the divergence among the negatives:
    work in proportion to N x C, while the published code repeats the negatives for every positive and takes the logarithm of a
    softmax that may be 0. An image with only positives, or with none, adds exactly 0.

    Source: L2D's supplement (arXiv 2308.06453), baseline "PS".
    """
    check_targets(targets, student.logits, teacher.logits)
    s, t = student.logits.float(), teacher.logits.float().detach()
    positive = targets.to(s.device, non_blocking=True) > 0
    s_rest, t_rest = (logits.masked_fill(positive, ABSENT) for logits in (s, t))
    s_margin, t_margin = s - s_rest.logsumexp(1, keepdim=True), t - t_rest.logsumexp(1, keepdim=True)
    t_log, s_log = t_rest.log_softmax(1), s_rest.log_softmax(1)
    among_rest = (t_log.exp() * (t_log - s_log)).sum(1, keepdim=True)
    divergence = _binary_divergence(s_margin, t_margin) + (-t_margin).sigmoid() * among_rest
    return divergence.masked_fill(~positive, 0.0).sum() / len(s)


def mse(student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
    """Mean squared error between the probabilities, over images and labels.

    L2D's supplement names the baseline "MSE" without a formula; comparing probabilities (not logits) with a mean is our reading.
    """
    check_logits(student.logits, teacher.logits)
    return F.mse_loss(student.logits.float().sigmoid(), teacher.logits.float().detach().sigmoid())


def _binary_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(Bernoulli(sigmoid(teacher)) || Bernoulli(sigmoid(student))) of every entry."""
    mine, theirs = (F.logsigmoid(torch.stack([logits, -logits])) for logits in (student, teacher))
    return F.kl_div(mine, theirs, reduction="none", log_target=True).sum(0)
