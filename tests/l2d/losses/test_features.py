"""RKD, PKT and ReviewKD against their definitions in double precision; ReviewKD at any size."""

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from l2d.losses.features import Fusion, ReviewKD, hierarchical_context_loss, pkt, rkd
from l2d.model import create_model
from l2d.outputs import Outputs

Wave = Callable[..., Tensor]


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def unit(vector: Tensor) -> Tensor:
    length = vector.norm()
    return vector / length if length > 0 else vector


def loop_rkd(student: Tensor, teacher: Tensor) -> float:
    count = len(student)
    sides = []
    for pooled in (student, teacher):
        lengths = {(i, j): float((pooled[i] - pooled[j]).norm()) for i, j in product(range(count), repeat=2)}
        apart = [length for length in lengths.values() if length > 0]
        mean = sum(apart) / len(apart) if apart else 1.0
        angles = {
            (i, j, k): float(unit(pooled[j] - pooled[i]) @ unit(pooled[k] - pooled[i])) for i, j, k in product(range(count), repeat=3)
        }
        sides.append(({pair: length / mean for pair, length in lengths.items()}, angles))
    (mine, corners), (theirs, wanted) = sides
    distance = sum(huber(mine[pair] - theirs[pair]) for pair in mine) / count
    return 10 * distance + 10 * sum(huber(corners[place] - wanted[place]) for place in corners) / count**3


def loop_pkt(student: Tensor, teacher: Tensor) -> float:
    count = len(student)
    rows = []
    for pooled in (student, teacher):
        similar = [[(float(unit(a) @ unit(b)) + 1) / 2 for b in pooled] for a in pooled]
        rows.append([[one / sum(row) for one in row] for row in similar])
    return sum(rows[1][i][j] * math.log(rows[1][i][j] / rows[0][i][j]) for i, j in product(range(count), repeat=2)) / count**2


LOOPS = {rkd: loop_rkd, pkt: loop_pkt}
LOSSES = pytest.mark.parametrize("loss", LOOPS)


def random_maps(seed: int, images: int = 5) -> tuple[Tensor, Tensor]:
    """Last maps of a student, and of a teacher with more channels and positions."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, 6, 2, 3, generator=generator), torch.randn(images, 9, 4, 4, generator=generator)


def only_last(last_map: Tensor) -> Outputs:
    return Outputs((last_map,), torch.empty(len(last_map), 0, 0), torch.empty(len(last_map), 0))


@pytest.mark.parametrize("seed", range(4))
@LOSSES
def test_equal_to_a_loop(loss: Callable[..., Tensor], seed: int):
    student, teacher = random_maps(seed)
    expected = LOOPS[loss](student.double().mean((2, 3)), teacher.double().mean((2, 3)))
    # PKT's epsilon of 1e-7 in the logarithm is no part of the definition.
    assert float(loss(only_last(student), only_last(teacher), torch.empty(5, 0))) == pytest.approx(expected, rel=2e-5)


@LOSSES
def test_twins_and_dark_pictures_have_finite_gradients(loss: Callable[..., Tensor]):
    student, teacher = random_maps(7)
    student[1], student[2] = student[0], 0.0
    student.requires_grad_()
    value = loss(only_last(student), only_last(teacher), torch.empty(5, 0))
    value.backward()
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 1e3
    assert float(value.detach()) == pytest.approx(
        LOOPS[loss](student.detach().double().mean((2, 3)), teacher.double().mean((2, 3))), rel=2e-5
    )


@LOSSES
def test_only_the_pooled_map_counts(loss: Callable[..., Tensor]):
    student, teacher = random_maps(8)
    turned = only_last(student.flip(2, 3))
    assert float(loss(turned, only_last(teacher), torch.empty(5, 0))) == pytest.approx(
        float(loss(only_last(student), only_last(teacher), torch.empty(5, 0))), rel=1e-5
    )


# The published code's loop over levels (criterion/ of the authors' repository), run in float64 on conftest's waves of (2, 3, H, W).
@pytest.mark.parametrize(
    ("height", "width", "golden"),
    [(7, 7, 3.727903962220393), (5, 5, 3.6487428990524635), (1, 1, 5.630219591604103), (2, 3, 4.200285442075297)],
)
def test_hierarchical_context_loss_has_golden_values(wave: Wave, height: int, width: int, golden: float):
    student, teacher = wave(2, 3, height, width), wave(2, 3, height, width, start=4.0)
    assert float(hierarchical_context_loss(student, teacher)) == pytest.approx(golden, rel=1e-6)


def test_equal_maps_lose_nothing_and_a_larger_teacher_is_pooled(wave: Wave):
    teacher = wave(2, 3, 8, 6)
    assert hierarchical_context_loss(teacher, teacher) == 0
    assert float(hierarchical_context_loss(F.avg_pool2d(teacher, 2), teacher)) == pytest.approx(0.0, abs=1e-12)


def review(weights: list[Tensor], student: list[Tensor], teacher: list[Tensor]) -> float:
    """ReviewKD in double precision: attention-based fusion and hierarchical context loss of its paper, from deep to shallow.

    `weights` as they are met: 1x1 convolution and norm, two gates but for the deepest stage, 3x3 convolution and norm.
    """

    def normalise(x: Tensor) -> Tensor:
        scale, shift = next(left), next(left)
        x = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        return x * scale[:, None, None] + shift[:, None, None]

    left, fused, loss = iter(weights), None, 0.0
    for own, wanted in zip(student, teacher, strict=True):
        x = normalise(F.conv2d(own, next(left)))
        if fused is not None:
            deeper = fused.repeat_interleave(x.shape[2] // fused.shape[2], 2).repeat_interleave(x.shape[3] // fused.shape[3], 3)
            gates = F.conv2d(torch.cat([x, deeper], 1), next(left), next(left)).sigmoid()
            x = x * gates[:, 0, None] + deeper * gates[:, 1, None]
        fused = x
        difference = normalise(F.conv2d(x, next(left), padding=1)) - wanted
        # Pooling is linear, so the difference of what is pooled is the pooled difference.
        levels = [difference] + [F.adaptive_avg_pool2d(difference, side) for side in (4, 2, 1) if side < x.shape[2]]
        shares = [0.5**level for level in range(len(levels))]
        loss += sum(share * float(level.square().mean()) for share, level in zip(shares, levels, strict=True)) / sum(shares)
    assert next(left, None) is None
    return loss


def test_reviewkd_is_its_definition(wave: Wave):
    channels, sides = {"student": [4, 6, 8, 10], "teacher": [5, 7, 9, 11]}, (12, 6, 3, 3)
    features = [
        tuple(wave(3, count, side, side, start=place + 7 * who) for place, (count, side) in enumerate(zip(counts, sides, strict=True)))
        for who, counts in enumerate(channels.values())
    ]
    loss = ReviewKD(*channels.values(), width=16).double()
    with torch.no_grad():
        for place, weight in enumerate(loss.parameters()):
            weight.copy_(wave(*weight.shape, start=place, scale=0.7))
    student, teacher = (Outputs(maps, torch.empty(3, 0, 0), torch.empty(3, 0)) for maps in features)
    # The pooled last map first, then the stages from deep to shallow.
    stages = [[maps[3].mean((2, 3), keepdim=True), maps[2], maps[1], maps[0]] for maps in features]
    expected = review([weight.detach() for weight in loss.parameters()], *stages)
    assert float(loss(student, teacher, torch.empty(3, 0)).detach()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_byobnet"])
@pytest.mark.parametrize(("side", "teacher_side"), [(96, 96), (77, 101), (130, 64)])
def test_reviewkd_at_odd_sizes(name: str, side: int, teacher_side: int):
    torch.manual_seed(0)
    student, teacher = create_model(name, 3, width=16, feedforward=16), create_model("test_resnet", 3, width=8, feedforward=8)
    loss = ReviewKD(student.channels, teacher.channels)
    with torch.no_grad():
        wanted = teacher(torch.rand(2, 3, teacher_side, teacher_side))
    value = loss(student(torch.rand(2, 3, side, side)), wanted, torch.ones(2, 3))
    value.backward()
    assert value.isfinite()
    assert value > 0
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in loss.parameters())


def test_reviewkd_compares_the_stages_of_strides_4_to_32():
    """And the pooled last map; the stage of stride 2 counts in no network."""
    torch.manual_seed(0)
    network = create_model("test_resnet", 3, width=16, feedforward=16).eval()
    with torch.no_grad():
        outputs = network(torch.rand(2, 3, 64, 64))
    *features, last = outputs.features
    assert [64 // stage.shape[-1] for stage in features] == [2, 4, 8, 16, 32]
    loss = ReviewKD(network.channels, network.channels, width=8).eval()
    expected = loss(outputs, outputs, torch.ones(2, 3))
    for number in range(len(features)):
        changed = [stage + (place == number) for place, stage in enumerate(features)]
        value = loss(outputs._replace(features=(*changed, last)), outputs, torch.ones(2, 3))
        assert torch.equal(value, expected) == (number == 0)


def test_reviewkd_takes_pictures_that_are_not_square(wave: Wave):
    sizes = ((11, 6), (6, 3), (3, 2))
    features = [tuple(wave(2, 4, h, w, start=start).float() for h, w in sizes) for start in (0.0, 5.0)]
    student, teacher = (Outputs(maps, torch.empty(2, 0, 0), torch.empty(2, 0)) for maps in features)
    assert ReviewKD([4, 4, 4], [4, 4, 4], width=8)(student, teacher, torch.empty(2, 0)).isfinite()


def test_reviewkd_can_be_learnt(wave: Wave):
    """Its minimum is not at a student like the teacher, as with the other losses, but where the fused maps imitate the teacher's."""
    torch.manual_seed(0)
    features = (wave(4, 3, 6, 6).float(), wave(4, 5, 3, 3, start=1.0).float())
    batch = Outputs(features, torch.empty(4, 0, 0), torch.empty(4, 0))
    loss = ReviewKD([3, 5], [3, 5], width=32)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.02)
    values = []
    for _ in range(60):
        value = loss(batch, batch, torch.empty(4, 0))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[0] > 0.5
    assert 0 <= values[-1] < values[0] / 4


def test_reviewkd_is_as_wide_as_its_authors_have_it_for_mobilenet():
    assert [fusion.enter[0].out_channels for fusion in ReviewKD([3, 6], [4, 8]).fusions] == [256, 256]


def test_a_single_value_per_channel_is_normalised_by_running_statistics(wave: Wave):
    torch.manual_seed(0)
    fusion = Fusion(3, 8, 5, fuse=False)
    pooled = wave(1, 3, 1, 1).float()
    trained = fusion(pooled, None)[0]
    assert torch.equal(trained, fusion.eval()(pooled, None)[0])
