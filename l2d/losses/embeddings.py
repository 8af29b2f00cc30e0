"""Label-wise embedding distillation (LED): keep the teacher's distances between label-wise embeddings.

Source: L2D (arXiv 2308.06453), equations of section 3.3; the sums are those of the published code.
"""

from torch import Tensor

from l2d.losses.relations import find_pairs, relation_loss
from l2d.outputs import Outputs


def cd(student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
    """Class-aware distillation: for every label, the distances between its embeddings in the images that show it.

    Labels with fewer than two positive images take no part. Positives come from `targets` (N, C), while the published code takes
    the rows of the masked embeddings that are not all zero: the same but for an embedding that is exactly zero.
    """
    return relation_loss(student.embeddings.transpose(0, 1), teacher.embeddings.transpose(0, 1), find_pairs(targets.T))


def id(student: Outputs, teacher: Outputs, targets: Tensor) -> Tensor:
    """Instance-aware distillation: for every image, the distances between the embeddings of the labels that it shows.

    Images with fewer than two labels take no part.
    """
    return relation_loss(student.embeddings, teacher.embeddings, find_pairs(targets))
