"""Distances within groups of embeddings, over the pairs that exist and no others."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Differences (numbers, not rows) that are in memory at once on a CPU: they stay in its cache.
BLOCK = 2**18


class Pairs(NamedTuple):
    """Every unordered pair of members that share a group.

    Attributes:
        group, member: the groups' members, (K,) each: entry k is `member[k]` of `group[k]`.
        first, second: the two entries of each pair, indices into those lists, (P,) each.
        sizes: number of members of each group, (G,).
    """

    group: Tensor
    member: Tensor
    first: Tensor
    second: Tensor
    sizes: Tensor


def find_pairs(membership: Tensor) -> Pairs:
    """List the pairs of a membership matrix (G, M) of zeros and ones, in time proportional to their number.

    Keep `membership` on the host: the number of pairs decides shapes, so on a GPU this would wait for the device.
    """
    group, member = membership.nonzero(as_tuple=True)
    sizes = torch.bincount(group, minlength=len(membership))
    rank = torch.arange(len(group), device=group.device) - (sizes.cumsum(0) - sizes)[group]
    # The member of rank r is the second one of r pairs, with the members of rank 0 .. r - 1 as the first ones.
    second = torch.repeat_interleave(rank)
    within = torch.arange(len(second), device=group.device) - (rank.cumsum(0) - rank)[second]
    return Pairs(group, member, second - rank[second] + within, second, sizes)


def relation_loss(student: Tensor, teacher: Tensor, pairs: Pairs) -> Tensor:
    """Huber loss between the relative distances of student and teacher embeddings.

    Args:
        student, teacher: embeddings of the groups' members, one for each entry of `pairs`, (K, E_s) and (K, E_t); widths may differ.
        pairs: the pairs to compare.

    Returns:
        Sum over ordered pairs of Huber(D^S - D^T) (beta 1), divided by the size of the pair's group, summed over groups.
        Without any pair: exactly zero, with a zero gradient.
    """
    if not len(pairs.first):
        return student[:0].float().sum()
    pairs = Pairs(*(index.to(student.device, non_blocking=True) for index in pairs))
    with torch.no_grad():
        target = relative_distances(teacher, pairs)
    huber = F.smooth_l1_loss(relative_distances(student, pairs), target, reduction="none")
    return 2 * (huber / pairs.sizes[pairs.group[pairs.first]]).sum()


def relative_distances(embeddings: Tensor, pairs: Pairs) -> Tensor:
    """Euclidean distances (P,) within pairs of embeddings (K, E), divided by the mean non-zero distance of their group.

    A distance of exactly zero stays zero, with a zero gradient instead of the square root's infinite one.
    """
    distance: Tensor = _Distances.apply(embeddings.float(), pairs)
    group = pairs.group[pairs.first]
    total = distance.new_zeros(len(pairs.sizes)).index_add(0, group, distance)
    count = distance.new_zeros(len(pairs.sizes)).index_add(0, group, (distance > 0).to(distance.dtype))
    return distance / (total / count.clamp(min=1.0)).clamp(min=torch.finfo(distance.dtype).tiny)[group]


class _Distances(torch.autograd.Function):
    """Distances (P,) within pairs of rows (K, E), with a gradient of its own: nothing of size P x E is kept or added up.

    With w the gradient of a distance, divided by the distance, row i's gradient is  sum_j w_ij (x_i - x_j), j its partners:
    x_i times a sum of weights, less a weighted sum of rows.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, pairs: Pairs) -> Tensor:
        size = max(BLOCK // rows.shape[1], 1) if rows.device.type == "cpu" else len(pairs.first)
        ends = torch.stack([pairs.first, pairs.second], 1)
        signs = rows.new_tensor([1.0, -1.0]).repeat(len(ends), 1)
        # A bag of both ends with opposite signs is their difference, in one pass over the rows.
        blocks = (
            F.embedding_bag(part, rows, mode="sum", per_sample_weights=sign)
            for part, sign in zip(ends.split(size), signs.split(size), strict=True)
        )
        distance = torch.cat([torch.linalg.vector_norm(difference, dim=1) for difference in blocks])
        ctx.save_for_backward(rows, distance, *pairs)
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        rows, distance, *indices = ctx.saved_tensors
        pairs = Pairs(*indices)
        weight = torch.where(distance > 0, gradient / distance, 0.0)
        # Every pair stands twice, once for either end; sorted by that end, the partners of a row lie together.
        ends, order = torch.cat([pairs.first, pairs.second]).sort()
        partners, weights = (torch.cat(two)[order] for two in ((pairs.second, pairs.first), (weight, weight)))
        count = pairs.sizes[pairs.group] - 1
        # Seen from the first member of each group: numbers as small as the distances lose little in a difference.
        starts = pairs.sizes.cumsum(0) - pairs.sizes
        rows = rows - rows.index_select(0, starts[pairs.group])
        sums = weight.new_zeros(len(rows)).index_add_(0, ends, weights)
        pulled = F.embedding_bag(partners, rows, count.cumsum(0) - count, mode="sum", per_sample_weights=weights)
        return rows * sums[:, None] - pulled, None
