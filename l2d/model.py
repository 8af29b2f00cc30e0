"""LabelNet: any timm backbone with spatial feature maps, under a label-wise head."""

import contextlib
import copy
import difflib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import httpx
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from l2d.head import LabelHead
from l2d.hub import check_pretrained, find_config
from l2d.outputs import Outputs

# The backbones of the paper, by timm name.
BACKBONES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "repvgg_a0",
    "repvgg_a2",
    "mobilenetv2_100",
    "swin_tiny_patch4_window7_224",
    "swin_small_patch4_window7_224",
)
STRIDES = (8, 16, 32)
SMALLEST_IMAGE = 32
# How to save anew what torch.save wrote, which may run code when it is loaded.
CONVERSION = (
    'weights = torch.load(FILE), or its entry "state_dict" or "model", then '
    "safetensors.torch.save_file({n: t.clone().contiguous() for n, t in weights.items()}, NEW)"
)
# Backbones that give maps, with the size and stride that they were built for: to look takes longer than to build one.
_SEEN: set[tuple[str, int, int]] = set()


class LabelNet(nn.Module):
    """Backbone -> last map -> LabelHead.

    `last_map` is an identity between backbone and head, so that class activation maps hook one name for every architecture.
    """

    # A timm network: torch's types know of no `forward_intermediates`.
    backbone: Any

    def __init__(self, backbone: nn.Module, head: LabelHead):
        super().__init__()
        self.backbone = backbone
        self.last_map = nn.Identity()
        self.head = head

    def forward(self, images: Tensor) -> Outputs:
        """Run images (N, 3, H, W), already normalised, through the network."""
        last, stages = self.backbone.forward_intermediates(images)
        last = self.last_map(self._to_nchw(last))
        embeddings, logits = self.head(last)
        return Outputs((*stages, last), embeddings, logits)

    @property
    def channels(self) -> list[int]:
        """Channels of `Outputs.features`, shallow to deep."""
        return [*(stage["num_chs"] for stage in self.backbone.feature_info), self.backbone.num_features]

    def features(self, images: Tensor) -> Tensor:
        """The last map alone, (N, D, H, W): the last of `forward`'s features, without keeping the stages."""
        return self.last_map(self._to_nchw(self.backbone.forward_features(images)))

    def _to_nchw(self, last: Tensor) -> Tensor:
        return last.permute(0, 3, 1, 2) if getattr(self.backbone, "output_fmt", "NCHW") == "NHWC" else last


def create_model(
    backbone: str,
    num_labels: int,
    *,
    image_size: int = 224,
    output_stride: int = 32,
    width: int = 768,
    feedforward: int = 2048,
    pretrained: bool = False,
    init: Path | str | None = None,
) -> LabelNet:
    """Build a network for `num_labels` labels.

    Args:
        backbone: timm name; the paper's are in `BACKBONES`, any other with spatial feature maps works too.
        image_size: side of the square input in pixels. Transformers are built for it; Swin takes other sizes afterwards, too.
        output_stride: pixels per cell of the last map: 32, or 16 or 8 where the architecture supports it.
        width, feedforward: E and the hidden width of the head (768 and 2048 as published).
        pretrained: take timm's ImageNet weights from the hub (needs the network once).
        init: take backbone weights from this safetensors file instead.

    Raises:
        ValueError: for an unknown backbone, one without maps, sizes out of range, weights that the hub does not give, or an `init` file
            that does not fit.
    """
    if image_size < SMALLEST_IMAGE:
        raise ValueError(f"The input needs a side of at least {SMALLEST_IMAGE} pixels; got {image_size}.")
    if output_stride not in STRIDES:
        raise ValueError(f"The output stride must be {', '.join(map(str, STRIDES[:-1]))} or {STRIDES[-1]}; got {output_stride}.")
    network = _create_backbone(backbone, image_size, output_stride, pretrained)
    if (built := (backbone, image_size, output_stride)) not in _SEEN:
        check_maps(network, backbone, image_size)
        _SEEN.add(built)
    if init is not None:
        load_backbone(network, init)
    return LabelNet(network, LabelHead(network.num_features, num_labels, width, feedforward))


@contextlib.contextmanager
def evaluating(model: LabelNet) -> Iterator[None]:
    """Have a network in evaluation mode for a while. Each of its modules then goes back to its own: some may be frozen."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def merge_branches(model: LabelNet) -> LabelNet:
    """Make a trained network, in place, the one to predict with: parallel branches that add up to one convolution (RepVGG's) become it.

    Other networks stay as they are. Not to be trained or saved afterwards: the statistics of batch normalisation are part of the weights.
    """
    # Here, not above, as in `_create_backbone`.
    from timm.utils.model import reparameterize_model

    # The new convolutions would have gradients, even of a network that has none.
    model.backbone = reparameterize_model(model.backbone, inplace=True).requires_grad_(False)
    return model


def check_maps(network: Any, name: str, image_size: int) -> None:
    """Refuse a timm network whose features are not maps, or not at this size, by a forward pass that computes shapes only.

    Raises:
        ValueError: naming the network, or the size.
    """
    try:
        # The pass may not touch the network itself: it moves it to a device without memory.
        shapes = copy.deepcopy(network).eval().to("meta").forward_intermediates(torch.empty(1, 3, image_size, image_size, device="meta"))
        spatial = shapes[0].ndim == 4
    except AssertionError as error:
        reason = str(error).strip().removesuffix(".")
        raise ValueError(f"{name} takes no pictures of {image_size} x {image_size} pixels: {reason}.") from error
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        spatial = False
    if not spatial:
        raise ValueError(f"{name} gives no spatial feature maps by timm's forward_intermediates; choose one of {', '.join(BACKBONES)}.")


def load_backbone(network: Any, path: Path | str) -> None:
    """Load a timm network's weights from a safetensors file, every tensor of it or none; its classifier, if there, is left out.

    The network may be a part of what the file holds, its names behind a prefix such as `module.` or `backbone.`: that part is taken. So
    a file may be the weights of a whole `LabelNet`, as a checkpoint holds them. Counters of batches, which nothing is computed
    from, may be missing.

    Raises:
        ValueError: if the file is missing or damaged, belongs to another network, or holds this one several times.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        advice = f" What torch.save wrote becomes one in Python: {CONVERSION}." if zipfile.is_zipfile(path) else ""
        raise ValueError(f"{path} cannot be read as a safetensors file: {error}.{advice}") from error
    own = network.state_dict()
    state = _take_part(state, list(own), path)
    names = network.pretrained_cfg.get("classifier") or ()
    classifiers = tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names))
    counters = {name: tensor for name, tensor in own.items() if name.endswith("num_batches_tracked")}
    load_weights(network, counters | {name: tensor for name, tensor in state.items() if not name.startswith(classifiers)}, path)


def _take_part(state: Mapping[str, Tensor], names: list[str], path: Path | str) -> dict[str, Tensor]:
    """The tensors behind the prefix that most of a network's names have in a file, which may be none, without it."""
    prefixes = sorted({name.removesuffix(names[0]) for name in state if f".{name}".endswith(f".{names[0]}")})
    found = {prefix: sum(prefix + name in state for name in names) for prefix in prefixes}
    best = [prefix for prefix in prefixes if found[prefix] == max(found.values())] or [""]
    if len(best) > 1:
        raise ValueError(f"{path} holds the network {len(best)} times, behind {' and '.join(best)}; keep the one that is to be taken.")
    return {name.removeprefix(best[0]): tensor for name, tensor in state.items() if name.startswith(best[0])}


def load_weights(module: nn.Module, state: Mapping[str, Tensor], source: Path | str) -> None:
    """Copy named tensors into a module that has exactly these, or touch nothing.

    Raises:
        ValueError: naming the first tensors that `source` lacks, has too many, or has in another shape.
    """
    if differences := describe_misfit(module, state):
        raise ValueError(f"{source} does not fit the network: {differences}.")
    module.load_state_dict(dict(state))


def describe_misfit(module: nn.Module, state: Mapping[str, Tensor]) -> str:
    """In words, how named tensors differ from those that a module has; empty if they do not in names and shapes."""
    own = module.state_dict()
    reasons = {
        "it lacks": [name for name in own if name not in state],
        "unknown are": [name for name in state if name not in own],
        "of another shape are": [name for name in own if name in state and own[name].shape != state[name].shape],
    }
    return "; ".join(f"{reason} {_name_some(names)}" for reason, names in reasons.items() if names)


def _create_backbone(name: str, image_size: int, output_stride: int, pretrained: bool) -> Any:
    # Here, not above: with torchvision it takes seconds to import, which a server of networks that were converted before need not wait for.
    import timm

    _check_name(name)
    options: dict[str, Any] = {} if output_stride == 32 else {"output_stride": output_stride}
    if name.startswith("swin"):
        # Trained and used at different sizes, like any other network.
        options["strict_img_size"] = False
    try:
        if pretrained:
            check_pretrained(name)
        if (config := find_config(name)) is not None and config.fixed_input_size:
            options["img_size"] = image_size
        return timm.create_model(name, pretrained=pretrained, num_classes=0, global_pool="", **options)
    except (TypeError, AssertionError, NotImplementedError) as error:
        reason = str(error).removesuffix(".") or "it has no such option"
        raise ValueError(f"{name} cannot be built with {options}: {reason}.") from error
    except (OSError, RuntimeError, httpx.HTTPError) as error:
        if not pretrained:
            raise ValueError(f"{name} cannot be built: {error}") from error
        reason = str(error).strip().partition("\n")[0].removesuffix(".")
        raise ValueError(
            f"No ImageNet weights for {name} from the hub ({reason}); give them by --init, or train without them (--no-pretrained)."
        ) from error


def _check_name(backbone: str) -> None:
    # Here, not above, as in `_create_backbone`.
    import timm

    if not timm.is_model(backbone.split(".")[0]):
        # Of an address at the hub, such as hf_hub:timm/resnet18.a1_in1k, the network's name.
        name = backbone.rpartition("/")[2].partition(".")[0]
        close = ", ".join(difflib.get_close_matches(name, timm.list_models()))
        raise ValueError(f"Unknown backbone {backbone!r}; the paper's are {', '.join(BACKBONES)}; close timm names: {close or 'none'}.")


def _name_some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
