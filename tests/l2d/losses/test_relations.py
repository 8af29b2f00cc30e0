"""Pairs within groups: all of them, once, and nothing else."""

from itertools import combinations

import pytest
import torch

from l2d.losses.relations import Pairs, find_pairs, measure, relate, relation_loss


def list_pairs(pairs: Pairs) -> list[tuple[int, ...]]:
    """Every pair with its group and the group's size."""
    return list(zip(*(part.tolist() for part in pairs[:4]), strict=True))


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.4, 1.0])
@pytest.mark.parametrize("shape", [(7, 9), (1, 12), (12, 1), (0, 4), (4, 0)])
def test_every_unordered_pair_of_a_group_once(shape: tuple[int, int], rate: float):
    membership = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < rate).float()
    rows = torch.randperm(int(membership.sum()), generator=torch.Generator().manual_seed(1))
    pairs = find_pairs(membership, rows)
    groups = [part.tolist() for part in rows.split(membership.sum(1).int().tolist())]
    expected = [(*pair, members[0], len(members)) for members in groups for pair in combinations(members, 2)]
    assert sorted(list_pairs(pairs)) == sorted(expected)
    assert pairs.leader.tolist() == [members[0] for row in range(len(rows)) for members in groups if row in members]


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_the_same_pairs_row_by_row(rate: float):
    pairs = find_pairs((torch.rand(6, 9, generator=torch.Generator().manual_seed(0)) < rate).float())
    found = [(int(pairs.first[pair]), int(pairs.second[pair])) for pair in pairs.pair]
    assert [set(ends) for ends in found] == [set(ends) for ends in zip(pairs.row.tolist(), pairs.partner.tolist(), strict=True)]
    assert sorted(pairs.pair.tolist()) == sorted(2 * list(range(len(pairs.first))))
    assert [row for row, part in enumerate(pairs.row.tensor_split(pairs.start[1:])) for _ in part] == pairs.row.tolist()


def test_number_of_pairs_not_of_places_decides_the_work():
    membership = torch.zeros(500, 500)
    membership[3, [7, 400]] = 1
    pairs = find_pairs(membership)
    assert max(len(part) for part in pairs) == 2


def test_distances_are_relative_to_their_groups_mean():
    embeddings = torch.tensor([[0.0], [1.0], [1.0], [5.0], [5.0], [9.0]])
    pairs = find_pairs(torch.tensor([[1, 1, 1, 0], [0, 0, 1, 0], [1, 1, 0, 0]]))
    distances = relate(measure(embeddings, pairs), pairs)
    # A group of three with two equal ones, one of a single member, one of two.
    assert distances.tolist() == pytest.approx([1.0, 1.0, 0.0, 1.0])


def test_huge_and_tiny_embeddings_keep_their_relations():
    generator = torch.Generator().manual_seed(0)
    members = torch.randn(6, 4, generator=generator)
    pairs = find_pairs(torch.ones(1, 6))
    for scale in (1e-12, 1e12):
        assert float(relation_loss(scale * members, members, pairs)) == pytest.approx(0.0, abs=1e-9)


def test_gradients_are_those_of_small_steps():
    rows = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    pairs = find_pairs(torch.tensor([[1, 1, 1, 1], [0, 1, 0, 0], [1, 0, 1, 0]]))
    assert torch.autograd.gradcheck(lambda rows: measure(rows, pairs), rows)
    assert torch.autograd.gradcheck(lambda rows: relate(measure(rows, pairs), pairs), rows)


def test_gradients_of_neighbours_far_from_zero_are_as_exact_as_others():
    generator = torch.Generator().manual_seed(0)
    members, wanted = (torch.randn(8, 5, generator=generator) for _ in range(2))
    # Eighths: moved by a power of two, they keep their differences to the bit.
    members, pairs, gradients = (8 * members).round() / 8, find_pairs(torch.ones(1, 8)), []
    for rows in (members, members + 2.0**12):
        rows.requires_grad_()
        relation_loss(rows, wanted, pairs).backward()
        gradients.append(rows.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-6)


def test_the_teacher_takes_no_gradient():
    members = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    student, teacher = members.clone().requires_grad_(), (members**2).requires_grad_()
    relation_loss(student, teacher, find_pairs(torch.ones(2, 5))).backward()
    assert student.grad.any()
    assert teacher.grad is None
