"""Distances within groups of embeddings, over the pairs that exist and no others."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


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


def relative_distances(first: Tensor, second: Tensor, group: Tensor, groups: int) -> Tensor:
    """Euclidean distances (P,) of two lists of embeddings (P, E), divided by the mean non-zero distance of their group.

    A distance of exactly zero stays zero, with a zero gradient instead of the square root's infinite one.
    """
    squared = (first - second).float().square().sum(-1)
    apart = squared > 0
    distance = torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)
    total = distance.new_zeros(groups).index_add(0, group, distance)
    count = distance.new_zeros(groups).index_add(0, group, apart.to(distance.dtype))
    return distance / (total / count.clamp(min=1.0)).clamp(min=torch.finfo(distance.dtype).tiny)[group]


def relation_loss(student: Tensor, teacher: Tensor, pairs: Pairs) -> Tensor:
    """Huber loss between the relative distances of student and teacher embeddings.

    Args:
        student, teacher: embeddings by group and member, (G, M, E_s) and (G, M, E_t); widths may differ.
        pairs: the pairs to compare.

    Returns:
        Sum over ordered pairs of Huber(D^S - D^T) (beta 1), divided by the size of the pair's group, summed over groups.
        Without any pair: exactly zero, with a zero gradient.
    """
    group, member, first, second, sizes = (index.to(student.device, non_blocking=True) for index in pairs)
    # The members' rows are taken out once: the gradient then crosses all embeddings once, and not once for either end of the pairs.
    of_pair = group[first]
    with torch.no_grad():
        target = _distances_of_pairs(teacher[group, member], first, second, of_pair, len(sizes))
    distance = _distances_of_pairs(student[group, member], first, second, of_pair, len(sizes))
    huber = F.smooth_l1_loss(distance, target, reduction="none")
    return 2 * (huber / sizes[of_pair]).sum()


def _distances_of_pairs(rows: Tensor, first: Tensor, second: Tensor, group: Tensor, groups: int) -> Tensor:
    # index_select and not [...]: on CPUs its gradient is added up several times faster.
    return relative_distances(rows.index_select(0, first), rows.index_select(0, second), group, groups)
