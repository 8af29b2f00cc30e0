"""CD and ID against the definitions in double precision, one pair at a time."""

import contextlib
import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from l2d.losses.embeddings import cd, id, one_batch
from l2d.outputs import Outputs


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def distances(members: list[Tensor]) -> dict[tuple[int, int], float]:
    """Euclidean distances of ordered pairs, over the mean of those that are not zero."""
    found = {(j, k): float((a - b).norm()) for j, a in enumerate(members) for k, b in enumerate(members) if j != k}
    apart = [distance for distance in found.values() if distance > 0]
    return {pair: distance / (sum(apart) / len(apart)) if apart else 0.0 for pair, distance in found.items()}


def loop_group(student: list[Tensor], teacher: list[Tensor]) -> float:
    mine, theirs = distances(student), distances(teacher)
    return sum(huber(mine[pair] - theirs[pair]) for pair in mine) / len(student)


def loop_cd(student: Tensor, teacher: Tensor, targets: Tensor) -> float:
    total = 0.0
    for label in range(targets.shape[1]):
        images = [image for image in range(len(targets)) if targets[image, label] == 1]
        if len(images) >= 2:
            total += loop_group([student[image, label] for image in images], [teacher[image, label] for image in images])
    return total


def loop_id(student: Tensor, teacher: Tensor, targets: Tensor) -> float:
    return loop_cd(student.transpose(0, 1), teacher.transpose(0, 1), targets.T)


LOOPS = {cd: loop_cd, id: loop_id}
LOSSES = pytest.mark.parametrize("loss", LOOPS)


def random_batch(seed: int, rate: float = 0.4, images: int = 9, labels: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of a student and of a wider teacher, with lengths that differ, and targets."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(images, labels, width, generator=generator) for width in (5, 8))
    lengths = 3 * torch.rand(images, labels, 1, generator=generator)
    return student * lengths, teacher, (torch.rand(images, labels, generator=generator) < rate).float()


def only_embeddings(embeddings: Tensor) -> Outputs:
    return Outputs((), embeddings, torch.empty(embeddings.shape[:2]))


@pytest.mark.parametrize("rate", [0.1, 0.4, 1.0])
@pytest.mark.parametrize("seed", range(4))
@LOSSES
def test_equal_to_a_loop(loss: Callable[..., Tensor], seed: int, rate: float):
    student, teacher, targets = random_batch(seed, rate)
    expected = LOOPS[loss](student.double(), teacher.double(), targets)
    assert float(loss(only_embeddings(student), only_embeddings(teacher), targets)) == pytest.approx(expected, rel=1e-5)


@LOSSES
def test_scale_and_place_of_the_embeddings_do_not_matter(loss: Callable[..., Tensor]):
    student, _, targets = random_batch(0)
    moved = only_embeddings(3 * student + 2)
    assert float(loss(moved, only_embeddings(student), targets)) == pytest.approx(0.0, abs=1e-9)


@LOSSES
def test_gradient_reaches_only_members_of_pairs(loss: Callable[..., Tensor]):
    student, teacher, targets = random_batch(3, rate=0.3)
    student.requires_grad_()
    loss(only_embeddings(student), only_embeddings(teacher), targets).backward()
    sizes = targets.sum(0, keepdim=True) if loss is cd else targets.sum(1, keepdim=True)
    # Two members have one distance, which is always its own mean: nothing to learn from, so from three members on.
    taught = (targets == 1) & (sizes > 2).expand_as(targets)
    assert torch.equal(student.grad.abs().sum(-1) > 1e-7, taught)


@LOSSES
def test_a_pair_alone_is_at_distance_one(loss: Callable[..., Tensor]):
    student, teacher, _ = random_batch(0)
    targets = torch.zeros(9, 7)
    targets[:2, 0] = 1
    targets[5, 3:5] = 1
    assert float(loss(only_embeddings(student), only_embeddings(teacher), targets)) == pytest.approx(0.0, abs=1e-12)


@LOSSES
def test_equal_embeddings_are_not_in_the_mean(loss: Callable[..., Tensor]):
    student, teacher, _ = random_batch(1)
    targets = torch.ones(9, 7)
    student[0], student[1:3, :2] = student[1], 0.25
    expected = LOOPS[loss](student.double(), teacher.double(), targets)
    student.requires_grad_()
    value = loss(only_embeddings(student), only_embeddings(teacher), targets)
    assert float(value.detach()) == pytest.approx(expected, rel=1e-5)
    value.backward()
    assert student.grad.isfinite().all()


@LOSSES
def test_an_embedding_of_zeros_is_one_like_any_other(loss: Callable[..., Tensor]):
    # The published code takes rows of zeros for absent labels.
    student, teacher, _ = random_batch(2)
    student[4], targets = 0.0, torch.ones(9, 7)
    expected = LOOPS[loss](student.double(), teacher.double(), targets)
    assert float(loss(only_embeddings(student), only_embeddings(teacher), targets)) == pytest.approx(expected, rel=1e-5)


def test_losses_of_one_batch_share_the_rows_and_change_no_number():
    student, teacher, targets = random_batch(seed=3)
    results = []
    for scope in (contextlib.nullcontext, one_batch):
        embeddings = student.clone().requires_grad_()
        with scope():
            parts = [loss(only_embeddings(embeddings), only_embeddings(teacher), targets) for loss in (cd, id)]
        (cd_from, id_from) = (_find_rows(part) for part in parts)
        assert (cd_from is id_from) == (scope is one_batch)
        sum(parts).backward()
        results.append((*(part.detach() for part in parts), embeddings.grad))
    for alone, shared in zip(*results, strict=True):
        torch.testing.assert_close(alone, shared)


def _find_rows(loss: Tensor) -> object:
    """The node of a loss's graph that takes rows out of the embeddings: the one before the embeddings themselves."""
    node = loss.grad_fn
    while "View" not in (below := node.next_functions[0][0]).name() and "Accumulate" not in below.name():
        node = next(function for function, _ in node.next_functions if function is not None)
    return node


def test_nothing_of_a_batch_is_left_behind():
    student, teacher, targets = random_batch(seed=3)
    rows = weakref.ref(student)
    with one_batch():
        cd(only_embeddings(student), only_embeddings(teacher), targets)
    del student
    gc.collect()
    assert rows() is None
