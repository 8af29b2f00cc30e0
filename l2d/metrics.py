"""How good multi-label scores are, in percent, in every protocol that the literature uses.

The same network gets very different F1s by protocol, so each is named in the report and none is called just "F1":

- `oracle_k`: per image as many labels as the ground truth has, the best-scored ones. The published L2D code does this, so the paper's
  OF1 and CF1 are of this kind. It knows the number of labels, which nobody knows in use.
- `threshold`: a label is predicted where its probability is at least 0.5; `threshold_tuned`: at least a threshold of its own, found on
  training pictures with `tune_thresholds` (`l2d evaluate --tune`). Networks are surer of pictures that they were trained on.
- `top3`: the three best-scored labels of every image, whatever their probability, as in Gong et al., "Deep Convolutional Ranking for
  Multilabel Image Annotation" (2013); `top3_threshold`: those of the three whose probability is at least 0.5, as in the published code
  of ML-GCN (Chen et al., CVPR 2019, `overall_topk`) and of the papers that took it over. It never predicts more than `top3`, so its
  recall is at most that one's, while its precision is mostly higher.

Ties: average precision treats equal scores as one step (as scikit-learn does); `oracle_k` and both top-3 protocols take the
label that comes first.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from l2d.outputs import check_tensors

Report = dict[str, Any]

THRESHOLD = 0.5
TOP = 3
UNKNOWN = "Targets must be 0 or 1; decide on unknown labels before scoring."


def score_report(scores: Tensor, targets: Tensor, labels: Sequence[str], thresholds: Tensor | None = None) -> Report:
    """Everything that `l2d evaluate --json` prints, ready for JSON: percent, and None where a number is not defined.

    Args:
        scores: probabilities, (N, C), in [0, 1].
        targets: ground truth, (N, C), 0 or 1.
        labels: the C names, in the order of the columns.
        thresholds: per-label thresholds, (C,), from `tune_thresholds`; with them the report also holds `threshold_tuned`, and
            themselves as `thresholds`, by label.

    Returns:
        `images`, `mAP` (mean over the labels that have positives), `labels_without_positives` (how many were left out),
        one dict as `f1_scores` returns it per protocol, and `per_label` with each label's average precision (None without positives).

    Raises:
        ValueError: for shapes that do not fit each other, no image or label at all, targets other than 0 and 1, or scores outside [0, 1].
    """
    _check(scores, targets)
    if not len(labels) == len(set(labels)) == scores.shape[1]:
        raise ValueError(f"Expected one label per column of the scores, {scores.shape[1]}, none twice; got {len(labels)}.")
    precisions = average_precisions(scores, targets)
    report: Report = {
        "images": len(scores),
        "mAP": _number(precisions.nanmean()),
        "labels_without_positives": int(precisions.isnan().sum()),
        "oracle_k": f1_scores(predict_oracle_k(scores, targets), targets),
        "threshold": f1_scores(predict_above(scores, THRESHOLD), targets),
        "top3": f1_scores(predict_top(scores, TOP), targets),
        "top3_threshold": f1_scores(predict_top(scores, TOP) & predict_above(scores, THRESHOLD), targets),
    }
    if thresholds is not None:
        check_tensors(thresholds)
        if thresholds.shape != (len(labels),):
            raise ValueError(f"Expected one threshold per label, ({len(labels)},); got {tuple(thresholds.shape)}.")
        report["threshold_tuned"] = f1_scores(predict_above(scores, thresholds), targets)
        report["thresholds"] = dict(zip(labels, thresholds.tolist(), strict=True))
    return report | {"per_label": {label: _number(precision) for label, precision in zip(labels, precisions, strict=True)}}


def average_precisions(scores: Tensor, targets: Tensor) -> Tensor:
    """Step-wise average precision of every label, (C,), in percent; NaN for labels without a positive.

    sum over thresholds n of (R_n - R_(n-1)) P_n, as in scikit-learn's `average_precision_score`, without interpolation and without
    VOC's eleven points. Equal scores share one threshold, so the order of the images never matters. Only the order of the scores
    does: logits may be given as well.
    """
    return weighted_precisions(scores, targets)(torch.ones(len(scores)))


def weighted_precisions(scores: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
    """`average_precisions` as a function of how often each image counts, (N,): sorted once, for the many draws of a bootstrap."""
    _check(scores, targets, probabilities=False)
    ordered, order = scores.detach().cpu().sort(dim=0, descending=True)
    # Label by label the few images that show it, where the steps of equal scores that they are in end, and the last of them in each.
    column, place = targets.detach().cpu().gather(0, order).T.nonzero(as_tuple=True)
    images, end = order[place, column], column * len(order) + _last_of_step(ordered)[place, column]
    latest = torch.searchsorted(end, end, right=True) - 1
    order, zeros = order.T.contiguous(), torch.zeros(order.shape[1], dtype=torch.double)

    def measure(counts: Tensor) -> Tensor:
        counts = counts.double()
        hits = counts[images]
        total = zeros.index_add(0, column, hits)
        found = hits.cumsum(0)[latest] - (total.cumsum(0) - total)[column]
        # Before the first image that counts there is nothing to divide by, and nothing to find.
        precision = found / counts[order].cumsum(1).flatten()[end].clamp(min=1)
        return 100 * zeros.index_add(0, column, precision * hits) / total

    return measure


def f1_scores(predicted: Tensor, targets: Tensor) -> dict[str, float | None]:
    """Overall and per-label precision, recall and F1 of yes/no predictions (N, C), in percent.

    - `OP`, `OR`, `OF1`: over all (image, label) decisions together (micro).
    - `CP`, `CR`: precision and recall of each label, averaged.
    - `CF1`: the mean of the labels' own F1s (macro), as in the published L2D code.
    - `CF1_of_means`: 2 CP CR / (CP + CR), as in older multi-label papers; it is usually the larger of the two.

    0 / 0 counts as 0, as scikit-learn's `zero_division=0`. Labels without a positive are left out of the four per-label means,
    as they are of mAP (nothing predicted can be right there), but false alarms on them count in `OP` and `OF1`. Without any
    positive at all the per-label means are None.

    Raises:
        ValueError: for shapes that do not fit each other, no image or label at all, or anything else than yes or no, such as probabilities.
    """
    _check_shapes(predicted, targets)
    _check_binary(predicted, "Predictions must be yes or no; predict_above makes them of probabilities.")
    _check_binary(targets, UNKNOWN)
    predicted, positive = predicted.cpu().bool(), targets.cpu().bool()
    hits, predictions, positives = (decisions.sum(0).double() for decisions in (predicted & positive, predicted, positive))
    present = positives > 0
    cp, cr = _ratio(hits, predictions)[present].mean(), _ratio(hits, positives)[present].mean()
    numbers = {
        "OP": _ratio(hits.sum(), predictions.sum()),
        "OR": _ratio(hits.sum(), positives.sum()),
        "OF1": _ratio(2 * hits.sum(), predictions.sum() + positives.sum()),
        "CP": cp,
        "CR": cr,
        "CF1": _ratio(2 * hits, predictions + positives)[present].mean(),
        "CF1_of_means": _ratio(2 * cp * cr, cp + cr),
    }
    return {name: _number(100 * value) for name, value in numbers.items()}


def predict_oracle_k(scores: Tensor, targets: Tensor) -> Tensor:
    """Per image the k best-scored labels, k being its number of true labels: (N, C) of booleans. Nothing for an image without labels.

    Raises:
        ValueError: for shapes that do not fit each other, or targets other than 0 and 1.
    """
    _check_shapes(scores, targets)
    _check_binary(targets, UNKNOWN)
    return _ranks(scores) < targets.cpu().sum(1, keepdim=True)


def predict_top(scores: Tensor, count: int) -> Tensor:
    """Per image the `count` best-scored labels (all, where there are fewer): (N, C) of booleans."""
    return _ranks(scores) < count


def predict_above(scores: Tensor, threshold: float | Sequence[float] | Tensor) -> Tensor:
    """The labels whose probability reaches the threshold, one for all or (C,) one for each: (N, C) of booleans."""
    check_tensors(scores)
    return scores.detach().cpu().double() >= torch.as_tensor(threshold, dtype=torch.double, device="cpu")


def tune_thresholds(scores: Tensor, targets: Tensor) -> Tensor:
    """The threshold of each label that gives it the best F1 on these (training) probabilities (N, C): (C,), float64.

    It lies halfway between two neighbouring scores, or at 0 where predicting the label always is best. Equally good ones: the
    highest. A label without positives keeps 0.5. Never tune on the pictures that are then measured.
    """
    _check(scores, targets)
    ordered, order = scores.detach().double().cpu().sort(dim=0, descending=True)
    hits = targets.detach().double().cpu().gather(0, order)
    ranks = torch.arange(1, len(hits) + 1, dtype=torch.float64)[:, None]
    f1 = (2 * hits.cumsum(0) / (ranks + hits.sum(0))).gather(0, _last_of_step(ordered))
    best = torch.where(f1 == f1.amax(0), _last_of_step(ordered), len(ordered)).amin(0)
    return torch.where(hits.sum(0) > 0, _below(ordered, best), THRESHOLD)


def _below(ordered: Tensor, places: Tensor) -> Tensor:
    """Thresholds (C,) that let in descending scores (N, C) up to each label's place (C,), and nothing after it."""
    padded = torch.cat([ordered, ordered.new_zeros(1, ordered.shape[1])])
    lowest, rest = padded.gather(0, places[None])[0], padded.gather(0, places[None] + 1)[0]
    middle = (lowest + rest) / 2
    # Two neighbouring floats have no number between them; their rounded mean may be the one that is to stay out.
    middle = torch.where(middle > rest, middle, lowest)
    return torch.where(places == len(ordered) - 1, 0.0, middle)


def _last_of_step(ordered: Tensor) -> Tensor:
    """For every place in columns of descending scores (N, C), the index of the last place with the same score."""
    places = torch.arange(len(ordered))[:, None].expand_as(ordered)
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[:-1] != ordered[1:]
    return torch.where(last, places, len(ordered)).flip(0).cummin(0).values.flip(0)


def _ranks(scores: Tensor) -> Tensor:
    """Place of every label in its image's order of scores, 0 for the best: (N, C)."""
    check_tensors(scores)
    return scores.detach().cpu().double().argsort(dim=1, descending=True, stable=True).argsort(dim=1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole == 0, 0.0, part / whole)


def _number(value: Tensor) -> float | None:
    return None if value.isnan() else float(value)


def _check(scores: Tensor, targets: Tensor, probabilities: bool = True) -> None:
    _check_shapes(scores, targets)
    scores = scores.detach()
    if not scores.isfinite().all():
        raise ValueError("Scores must be finite; some are NaN or infinite. Did the training diverge?")
    low, high = float(scores.min()), float(scores.max())
    if probabilities and (low < 0 or high > 1):
        raise ValueError(f"Expected probabilities in [0, 1]; got {low:g} to {high:g}. Apply the sigmoid first.")
    _check_binary(targets, UNKNOWN)


def _check_shapes(scores: Tensor, targets: Tensor) -> None:
    check_tensors(scores, targets)
    if scores.ndim != 2 or scores.shape != targets.shape or not scores.numel():
        shapes = f"{tuple(scores.shape)} and {tuple(targets.shape)}"
        raise ValueError(f"Expected scores and targets of one shape (images, labels), neither of them empty; got {shapes}.")


def _check_binary(values: Tensor, sentence: str) -> None:
    if not ((values == 0) | (values == 1)).all():
        raise ValueError(sentence)
