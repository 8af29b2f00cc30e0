"""Distances within groups of embeddings, over the pairs that exist and no others."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Differences (numbers, not rows) that are in memory at once on a CPU: they stay in its cache.
BLOCK = 2**18


class Pairs(NamedTuple):
    """Every unordered pair of rows that share a group, each row being in one group, and the same pairs once more, row by row.

    Attributes:
        first, second: the rows of each pair, (P,) each.
        group: the group of each pair, named by the row of its first member, (P,).
        size: number of members of that group, (P,).
        row, partner, pair: both ends of every pair in the order of `row`, which meets `partner` in pair number `pair`, (2P,) each.
        start: where each row begins in those lists, (K,).
        leader: the first member of each row's group, (K,).
    """

    first: Tensor
    second: Tensor
    group: Tensor
    size: Tensor
    row: Tensor
    partner: Tensor
    pair: Tensor
    start: Tensor
    leader: Tensor

    def to(self, device: torch.device) -> "Pairs":
        """The same on a device, in one transfer."""
        lists = torch.cat(self).to(device, non_blocking=True)
        return Pairs(*lists.split([len(part) for part in self]))


def find_pairs(membership: Tensor, rows: Tensor | None = None) -> Pairs:
    """List the pairs of a membership matrix (G, M) of zeros and ones with K ones, in time proportional to their number.

    Everything that depends on `membership` alone is done here, on the host: the number of pairs decides shapes, which a GPU would have
    to be waited for, and orders of so short lists take a GPU longer to be asked for than a processor to do.

    Args:
        rows: where the embedding of each of the ones stands, group by group, (K,); in that very order by default.
    """
    group = membership.nonzero()[:, 0]
    rows = torch.arange(len(group)) if rows is None else rows
    sizes = torch.bincount(group)
    starts = (sizes.cumsum(0) - sizes)[group]
    rank = torch.arange(len(group)) - starts
    # The member of rank r is the second one of r pairs, with the members of rank 0 .. r - 1 as the first ones.
    second = torch.repeat_interleave(rank)
    first = starts[second] + torch.arange(len(second)) - (rank.cumsum(0) - rank)[second]
    leaders = rows[starts]
    ends, order = rows[torch.cat([first, second])].sort(stable=True)
    counts = torch.bincount(ends, minlength=len(rows))
    return Pairs(
        first=rows[first],
        second=rows[second],
        group=leaders[second],
        size=sizes[group[second]],
        row=ends,
        partner=rows[torch.cat([second, first])[order]],
        pair=order % len(first),
        start=counts.cumsum(0) - counts,
        leader=torch.empty_like(rows).scatter_(0, rows, leaders),
    )


def relation_loss(student: Tensor, teacher: Tensor, pairs: Pairs) -> Tensor:
    """Huber loss between the relative distances of student and teacher embeddings.

    Args:
        student, teacher: embeddings of the groups' members, (K, E_s) and (K, E_t); widths may differ.
        pairs: the pairs of their rows to compare.

    Returns:
        Sum over ordered pairs of Huber(D^S - D^T) (beta 1), divided by the size of the pair's group, summed over groups.
        Without any pair: exactly zero, with a zero gradient.
    """
    if not len(pairs.first):
        return student[:0].float().sum()
    pairs = pairs.to(student.device)
    mine, theirs = relate(torch.stack([measure(rows.float(), pairs) for rows in (student, teacher.detach())]), pairs)
    huber = F.smooth_l1_loss(mine, theirs.detach(), reduction="none")
    return 2 * (huber / pairs.size).sum()


def measure(rows: Tensor, pairs: Pairs) -> Tensor:
    """Euclidean distances (P,) within pairs of rows (K, E).

    A distance of exactly zero has a zero gradient instead of the square root's infinite one.
    """
    return _Distances.apply(rows, pairs)


def relate(distances: Tensor, pairs: Pairs) -> Tensor:
    """Distances (..., P) divided by the mean non-zero distance of their group; zero stays zero."""
    none = distances.new_zeros(*distances.shape[:-1], len(pairs.leader))
    total, count = (none.index_add(-1, pairs.group, part) for part in (distances, distances.detach().sign()))
    # Where all distances are zero, they are divided by something else.
    mean = total / count.clamp_(min=1.0) + torch.finfo(distances.dtype).tiny
    return distances / mean.index_select(-1, pairs.group)


class _Distances(torch.autograd.Function):
    """Distances (P,) within pairs of rows (K, E), with a gradient of its own: nothing of size P x E is kept or added up.

    With w the gradient of a distance, divided by the distance, row i's gradient is  sum_j w_ij (x_i - x_j), j its partners:
    x_i times a sum of weights, less a weighted sum of rows.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, pairs: Pairs) -> Tensor:
        size = max(BLOCK // rows.shape[1], 1) if rows.device.type == "cpu" else len(pairs.first)
        blocks = zip(pairs.first.split(size), pairs.second.split(size), strict=True)
        differences = (rows.index_select(0, first).sub_(rows.index_select(0, second)) for first, second in blocks)
        distance = torch.cat([torch.linalg.vector_norm(difference, dim=1) for difference in differences])
        ctx.save_for_backward(rows, distance, *pairs)
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        rows, distance, *lists = ctx.saved_tensors
        pairs = Pairs(*lists)
        weight = (gradient / distance).masked_fill_(distance == 0, 0.0).index_select(0, pairs.pair)
        # Seen from the first member of each group: numbers as small as the distances lose little in a difference.
        rows = rows - rows.index_select(0, pairs.leader)
        sums = weight.new_zeros(len(rows)).index_add_(0, pairs.row, weight)
        pulled = F.embedding_bag(pairs.partner, rows, pairs.start, mode="sum", per_sample_weights=weight)
        return rows * sums[:, None] - pulled, None
