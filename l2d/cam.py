"""Where a network looks: one map of raw evidence per label of one image."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2d.head import LabelHead, Memory
from l2d.model import LabelNet

# LayerCAM by our closed form, and the head's own attention.
OWN_KINDS = ("layercam", "attention")
# torchcam's methods under torchcam's names; its LayerCAM is there to compare with ours.
TORCHCAM_KINDS = ("GradCAM", "GradCAMpp", "XGradCAM", "SmoothGradCAMpp", "LayerCAM")
MAP_KINDS = OWN_KINDS + TORCHCAM_KINDS

# Rows (pairs of a label and a position) of one matrix product: enough to keep a processor busy. Few labels take many positions at once;
# the fewer positions, the more is zero at all of them.
ROWS_AT_ONCE = 400
# Channels are few where a smaller part of them than this times the embedding's is active.
SPARSE = 0.5
# To pick the active channels out of an embedding's weights costs as much as it saves where more of them than this are active.
WORTH_PICKING = 0.75


class Evidence(NamedTuple):
    """What the head says about some labels of one image.

    Attributes:
        maps: raw evidence, never negative, (L, h, w).
        logits: before the sigmoid, (L,).
    """

    maps: Tensor
    logits: Tensor


def label_maps(model: LabelNet, image: Tensor, labels: Iterable[int], kind: str = "layercam") -> Tensor:
    """Map the evidence for any number of labels of one image: raw, not normalised, (L, h, w) at the size of the last map.

    The backbone runs once and without a graph. No hook, mode or gradient touches the model, so any number of threads may share it.

    Args:
        model: a network in evaluation mode.
        image: one image as the network expects it, (1, 3, H, W); need not be square where the backbone does not ask for it.
        labels: label indices, in the order of the maps; may be empty or hold one label twice.
        kind: one of `MAP_KINDS`:
            layercam: relu(sum over channels of relu(gradient) x activation) at the backbone's last map (Jiang et al., TIP 2021).
            attention: the head's own cross-attention, averaged over its heads; every map sums to 1, whether the label is there or not.
            GradCAM, GradCAMpp, XGradCAM, SmoothGradCAMpp, LayerCAM: torchcam's, label by label and slower. SmoothGradCAMpp runs the
                backbone five times per label, and draws its noise from torch's global generator.

    Raises:
        ValueError: for an unknown kind, a label that is no index or out of range, another shape or kind of image, what only holds a
            network, or a model in training mode, whose dropout would make the maps random.
    """
    labels = list(labels)
    _check(model, labels, kind)
    _check_image(image)
    if kind == "SmoothGradCAMpp":
        return _torchcam_maps(kind, model.features, model.head, image, labels)
    with torch.no_grad():
        last_map = model.features(image)
    return maps_from_features(model.head, last_map, labels, kind)


def maps_from_features(
    head: LabelHead, last_map: Tensor, labels: Iterable[int], kind: str = "layercam", memory: Memory | None = None
) -> Tensor:
    """The same maps for a caller that holds the last map (1, D, h, w) already and need not pay for the backbone again.

    Args:
        memory: what the head made of this last map already, if the caller kept it; layercam alone uses it.

    Raises:
        ValueError: as `label_maps`, and for SmoothGradCAMpp, which needs the image itself.
    """
    if kind == "layercam":
        return evidence_from_features(head, last_map, labels, memory).maps
    labels = list(labels)
    _check(head, labels, kind)
    _check_last_map(last_map)
    if kind == "SmoothGradCAMpp":
        raise ValueError("SmoothGradCAMpp adds noise to the image, so it cannot start from the last map; call label_maps instead.")
    if kind == "attention":
        with torch.no_grad():
            return head.attention(last_map, _as_tensor(labels, last_map))[0]
    return _torchcam_maps(kind, torch.clone, head, last_map, labels)


def evidence_from_features(head: LabelHead, last_map: Tensor, labels: Iterable[int], memory: Memory | None = None) -> Evidence:
    """LayerCAM maps of the last map (1, D, h, w), and the logits that fall out on the way.

    The head gives every label's gradient at its embedding of the positions (`LabelHead.token_gradients`); the one product left is
    with the weights of that embedding, L x h*w x E x D multiplications in all. Rectifiers leave most of E and D zero at any position,
    and zeros are left out of it.

    Args:
        memory: what the head made of this last map already, if the caller kept it.
    """
    labels = list(labels)
    _check(head, labels, "layercam")
    _check_last_map(last_map)
    with torch.no_grad():
        memory = memory or head.memory(last_map)
        gradients, logits = head.token_gradients(memory, _as_tensor(labels, last_map))
        gradients, activations, weight = gradients.transpose(0, 1), last_map[0].flatten(1).T, head.embed.weight
        # A GPU multiplies by zeros in less time than it takes to hear how many there are.
        weigh = partial(_weigh, gradients) if last_map.is_cuda else partial(_weigh_in_blocks, gradients, memory.tokens[0])
        maps = F.relu(weigh(activations, weight))
        return Evidence(maps.T.unflatten(-1, last_map.shape[-2:]), logits)


def _weigh(gradients: Tensor, activations: Tensor, weight: Tensor) -> Tensor:
    """Sum over channels of relu(gradient) x activation, (T, L), at some positions.

    Args:
        gradients: at the embedding before its ReLU, (T, L, E); zero where the embedding is.
        activations: (T, D); where they are zero, so is their product with any gradient.
        weight: of the embedding, (E, D).
    """
    return ((gradients @ weight).clamp_(min=0) @ activations.unsqueeze(-1)).squeeze(-1)


def _weigh_in_blocks(gradients: Tensor, tokens: Tensor, activations: Tensor, weight: Tensor) -> Tensor:
    """The same without most of the zeros, some positions at a time; where the embedding, `tokens` (T, E), is zero, so are the gradients."""
    embedded, active = _find_active(tokens), _find_active(activations)
    few = _measure_share(active) < SPARSE * _measure_share(embedded)
    positions = max(1, ROWS_AT_ONCE // max(1, gradients.shape[1]))
    blocks = zip(*(part.split(positions) for part in (gradients, embedded, activations, active)), strict=True)
    return torch.cat([_weigh_active(weight, few, *block) for block in blocks])


def _find_active(values: Tensor) -> Tensor:
    """1 where a value is not zero, else 0, in bytes: torch reduces truth values many times more slowly."""
    return values.bool().view(torch.uint8)


def _measure_share(active: Tensor) -> float:
    return float(active.sum() / active.numel())


def _weigh_active(weight: Tensor, few: bool, gradients: Tensor, embedded: Tensor, activations: Tensor, active: Tensor) -> Tensor:
    """The same without what is zero at all of these positions.

    Args:
        few: so few channels are active that to pick the active part of the embedding, too, would cost more than it saves.
        embedded, active: where the embedding, (T, E), and the activations, (T, D), are not zero.
    """
    columns = active.amax(0).nonzero().flatten()
    if not few:
        rows = embedded.amax(0).nonzero().flatten()
        gradients, weight = gradients.index_select(-1, rows), weight.index_select(0, rows)
    if len(columns) < WORTH_PICKING * activations.shape[1]:
        weight, activations = weight.index_select(1, columns), activations.index_select(1, columns)
    return _weigh(gradients, activations, weight)


class _Probe(nn.Module):
    """One label's logit, behind an identity of its own.

    torchcam hooks that identity and this module, which live for one call, so nothing is ever attached to the model that others share.
    torchcam also needs a graph at the hooked map and fails on a frozen model: the map is made a leaf here.
    """

    def __init__(self, features: Callable[[Tensor], Tensor], head: LabelHead, label: int):
        super().__init__()
        self.features = features
        self.last_map = nn.Identity()
        self.head = head
        self.label = label

    def forward(self, source: Tensor) -> Tensor:
        with torch.no_grad():
            last_map = self.features(source)
        return self.head(self.last_map(last_map.requires_grad_()), _as_tensor([self.label], last_map))[1]


def _torchcam_maps(kind: str, features: Callable[[Tensor], Tensor], head: LabelHead, source: Tensor, labels: Sequence[int]) -> Tensor:
    # Here, not above: programs that only train run without torchcam.
    from torchcam import methods

    maps = []
    with torch.inference_mode(False), torch.enable_grad():
        for label in labels:
            probe = _Probe(features, head, label)
            # A fresh extractor per label: SmoothGradCAMpp leaves its last noisy map behind as the activation.
            with getattr(methods, kind)(probe, "last_map") as extractor:
                maps.append(extractor(0, probe(source), normalized=False)[0].detach())
        return torch.cat(maps) if maps else source.new_zeros((0, *features(source).shape[-2:]))


def _check(used: LabelNet | LabelHead, labels: Sequence[int], kind: str) -> None:
    """Refuse what no map can be made of; of a network whose last map is there already, the head alone is used."""
    if kind not in MAP_KINDS:
        raise ValueError(f"Unknown kind of map {kind!r}; known are {', '.join(MAP_KINDS)}.")
    # Not by its class: torch.compile gives a class of its own, which has all that the network has.
    head: Any = getattr(used, "head", used)
    if not hasattr(head, "token_gradients"):
        raise ValueError(f"Expected the network itself, a LabelNet; got {type(used).__name__}, which may hold one as its model or module.")
    if any(module.training for module in used.modules()):
        raise ValueError("The model is in training mode, in which dropout would make its maps random; call model.eval() first.")
    known = head.bias.shape[0]
    if wrong := [label for label in labels if not _is_index(label)]:
        raise ValueError(f"Labels are given by their indices, whole numbers; card.labels.index(NAME) finds them. Got {wrong[0]!r}.")
    unknown = [label for label in labels if not 0 <= label < known]
    if unknown:
        raise ValueError(f"The model's labels have the indices 0 to {known - 1}; got {', '.join(map(str, unknown))}.")


def _is_index(label: object) -> bool:
    """Whether it is a whole number of Python, NumPy or torch; a truth value is none, as a row of them would pass for the labels 0 and 1."""
    value = label.tolist() if isinstance(label, Tensor) else label
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check_image(image: Tensor) -> None:
    if isinstance(image, Tensor) and image.ndim == 4 and image.shape[0] == 1 and image.is_floating_point():
        return
    got = f"{tuple(image.shape)}, {image.dtype}" if isinstance(image, Tensor) else type(image).__name__
    raise ValueError(f"Maps are made of one image at a time, a tensor (1, 3, H, W) as l2d.data.images.to_input makes it; got {got}.")


def _check_last_map(last_map: Tensor) -> None:
    if last_map.ndim != 4 or last_map.shape[0] != 1:
        raise ValueError(f"Maps are made of one image's last map, (1, D, h, w); got a tensor of shape {tuple(last_map.shape)}.")


def _as_tensor(labels: Sequence[int], like: Tensor) -> Tensor:
    return torch.as_tensor([int(label) for label in labels], dtype=torch.long, device=like.device)
