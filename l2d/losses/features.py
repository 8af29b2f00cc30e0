"""Losses on feature maps."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2d import processes
from l2d.losses.relations import find_pairs, relation_loss
from l2d.outputs import Outputs, check_batch

# Of RKD's distance and angle terms in the published L2D code; the authors of RKD used 25 and 50 beside an averaged cross-entropy.
RKD_DISTANCE, RKD_ANGLE = 10.0, 10.0
# Keeps PKT's logarithm finite; 1e-7 in the published code.
PKT_EPSILON = 1e-7
# Stages that ReviewKD compares, counted from the deepest: strides 4 to 32, as for the ResNets of its paper.
REVIEWED_STAGES = 4


def rkd(student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
    """Relational distillation: keep distances and angles between the images of a batch, on the pooled last maps.

    10 x [1/N sum over ordered pairs of Huber(D^S - D^T), D the distances divided by their mean non-zero one]
    + 10 x [mean over ordered triples, degenerate ones included, of Huber(cosine^S - cosine^T)].
    Two images with the same features have distance 0, and no angle is taken along them; a batch of one image gives exactly 0 (the
    published code: NaN).

    Source: Park et al., "Relational Knowledge Distillation" (CVPR 2019), equations 6 and 9; numbers of the published L2D code.
    """
    mine, theirs = _pool(student), _pool(teacher).detach()
    pairs = find_pairs(torch.ones(1, len(mine)))
    angles = F.smooth_l1_loss(_cosines(mine), _cosines(theirs))
    return RKD_DISTANCE * relation_loss(mine, theirs, pairs) + RKD_ANGLE * angles


def pkt(student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
    """Probabilistic knowledge transfer: keep every image's distribution over its neighbours, on the pooled last maps.

    Cosine similarities shifted to [0, 1], rows normalised to probabilities; mean over the N x N entries of
    t log((t + 1e-7) / (s + 1e-7)). The mean, as published, makes it about 1/N^2 of a sum: its weight is large for that.
    A picture whose features are all zero is equally similar to all; the published code has a NaN gradient there.

    Source: Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer" (ECCV 2018).
    """
    s, t = _neighbours(_pool(student)), _neighbours(_pool(teacher).detach())
    return (t * ((t + PKT_EPSILON) / (s + PKT_EPSILON)).log()).mean()


class ReviewKD(nn.Module):
    """Knowledge review: the student's stages, fused from deep to shallow, imitate the teacher's.

    The teacher's maps are average-pooled to the student's sizes, so the two may see the image at different resolutions. The pooled
    last map takes part as one more, deepest, stage.

    Never below 0, which it is where what the fusions make of the student's stages is the teacher's. That is no student that equals its
    teacher: between the two stand the fusions' own weights, which begin at random and learn with the student.

    Source: Chen et al., "Distilling Knowledge via Knowledge Review" (CVPR 2021); weight 1 in L2D's comparison.

    Args:
        student_channels, teacher_channels: channels of `Outputs.features`, shallow to deep.
        width: channels inside the fusion (256, the authors' choice for MobileNet).
    """

    def __init__(self, student_channels: list[int], teacher_channels: list[int], width: int = 256):
        super().__init__()
        count = min(len(student_channels), len(teacher_channels), REVIEWED_STAGES + 1)
        pairs = list(zip(student_channels[-count:], teacher_channels[-count:], strict=True))[::-1]
        self.fusions = nn.ModuleList(Fusion(s, width, t, fuse=depth > 0) for depth, (s, t) in enumerate(pairs))

    def forward(self, student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
        """Hierarchical context loss, summed over the stages."""
        own, wanted = self._stages(student), self._stages(teacher)
        loss = own[0].new_zeros((), dtype=torch.float32)
        residual = None
        for fusion, mine, theirs in zip(self.fusions, own, wanted, strict=True):
            imitation, residual = fusion(mine, residual)
            loss = loss + hierarchical_context_loss(imitation, theirs.detach())
        return loss

    def _stages(self, outputs: Outputs) -> list[Tensor]:
        check_batch(*outputs.features)
        last = outputs.features[-1].mean((2, 3), keepdim=True)
        return [last, *outputs.features[:-1][::-1]][: len(self.fusions)]


class Fusion(nn.Module):
    """Attention-based fusion of a stage with what came from the deeper ones."""

    def __init__(self, in_channels: int, width: int, out_channels: int, fuse: bool):
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(in_channels, width, 1, bias=False), StageNorm(width))
        self.attend = nn.Sequential(nn.Conv2d(2 * width, 2, 1), nn.Sigmoid()) if fuse else None
        self.leave = nn.Sequential(nn.Conv2d(width, out_channels, 3, padding=1, bias=False), StageNorm(out_channels))

    def forward(self, stage: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the imitation of the teacher's stage and the fused map that goes on to the next, shallower one."""
        x = self.enter(stage)
        if self.attend is not None and residual is not None:
            residual = F.interpolate(residual, x.shape[-2:], mode="nearest")
            gate = self.attend(torch.cat([x, residual], 1))
            x = x * gate[:, :1] + residual * gate[:, 1:]
        return self.leave(x), x


class StageNorm(nn.BatchNorm2d):
    """Batch normalisation that falls back on its running statistics for the pooled stage of a batch of one image.

    That is a single value per channel, which has no variance: torch refuses it.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        if input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


def hierarchical_context_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Weighted mean of squared errors at full size and pooled to 4, 2 and 1 positions a side, with weights 1, 1/2, 1/4, 1/8."""
    height, width = student.shape[-2:]
    student, teacher = student.float(), F.adaptive_avg_pool2d(teacher.float(), (height, width))
    loss, weight, total = F.mse_loss(student, teacher), 1.0, 1.0
    for side in (4, 2, 1):
        if side >= height:
            continue
        weight /= 2
        total += weight
        loss = loss + weight * F.mse_loss(F.adaptive_avg_pool2d(student, side), F.adaptive_avg_pool2d(teacher, side))
    return loss / total


def _pool(outputs: Outputs) -> Tensor:
    """The last map averaged over its positions, (N, D), of the pictures of all processes: these losses compare pictures."""
    check_batch(*outputs.features[-1:])
    return processes.gather(outputs.features[-1].float().mean((2, 3)))


def _unit(vectors: Tensor) -> Tensor:
    """Vectors of length 1 along the last dimension; a zero vector stays zero, with a zero gradient."""
    squared = vectors.square().sum(-1, keepdim=True)
    return vectors * torch.where(squared > 0, torch.where(squared > 0, squared, 1.0).rsqrt(), 0.0)


def _cosines(features: Tensor) -> Tensor:
    """Cosine of the angle at image i between the directions to j and k, (N, N, N); 0 where one of them is i."""
    directions = _unit(features[None] - features[:, None])
    # Autocast would multiply in half precision.
    with torch.autocast(features.device.type, enabled=False):
        return directions @ directions.transpose(1, 2)


def _neighbours(features: Tensor) -> Tensor:
    """Rows of probabilities: how similar every image is to every other one, (N, N)."""
    directions = _unit(features)
    with torch.autocast(features.device.type, enabled=False):
        similarity = (directions @ directions.T + 1).clamp(min=0) / 2
    return similarity / similarity.sum(1, keepdim=True)
