"""Label-wise embedding distillation (LED): keep the teacher's distances between label-wise embeddings.

Source: L2D (arXiv 2308.06453), equations of section 3.3; the sums are those of the published code. Several processes compare the
embeddings of all of them, so that their shares of a batch count as one batch.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from torch import Tensor

from l2d import processes
from l2d.losses.relations import Pairs, find_pairs, relation_loss
from l2d.outputs import Outputs, check_targets

# The rows taken out of embeddings so far, while several losses of one batch are computed.
_taken: ContextVar[dict[Tensor, Tensor] | None] = ContextVar("taken", default=None)


@contextlib.contextmanager
def one_batch() -> Iterator[None]:
    """Let the losses of one batch share what they take out of the embeddings, and its gradient cross that large tensor once for all."""
    token = _taken.set({})
    try:
        yield
    finally:
        _taken.reset(token)


def cd(student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
    """Class-aware distillation: for every label, the distances between its embeddings in the images that show it.

    Labels with fewer than two positive images take no part. Positives come from `targets` (N, C), while the published code takes
    the rows of the masked embeddings that are not all zero: the same but for an embedding that is exactly zero.
    """
    check_targets(targets, student.embeddings, teacher.embeddings)
    all_targets = processes.gather(targets)
    # The pairs go label by label, the positives image by image.
    rows = all_targets.nonzero()[:, 1].argsort(stable=True)
    return _compare(student, teacher, targets, all_targets, find_pairs(all_targets.T, rows))


def id(student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
    """Instance-aware distillation: for every image, the distances between the embeddings of the labels that it shows.

    Images with fewer than two labels take no part.
    """
    check_targets(targets, student.embeddings, teacher.embeddings)
    all_targets = processes.gather(targets)
    return _compare(student, teacher, targets, all_targets, find_pairs(all_targets))


def _compare(student: Outputs, teacher: Outputs, targets: Tensor, all_targets: Tensor, pairs: Pairs) -> Tensor:
    mine, theirs = (_take_positives(one.embeddings, targets, all_targets) for one in (student, teacher))
    return relation_loss(mine, theirs, pairs)


def _take_positives(embeddings: Tensor, targets: Tensor, all_targets: Tensor) -> Tensor:
    """The embeddings of all processes' positive labels, image by image, (K, E), out of (N, C, E); no process sends more to others."""
    taken = _taken.get()
    if taken is not None and embeddings in taken:
        return taken[embeddings]
    places = targets.flatten().nonzero()[:, 0].to(embeddings.device, non_blocking=True)
    lengths = all_targets.reshape(processes.count(), -1).count_nonzero(1)
    rows = processes.gather_rows(embeddings.flatten(0, 1).index_select(0, places), lengths)
    if taken is not None:
        taken[embeddings] = rows
    return rows
