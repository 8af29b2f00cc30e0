"""LabelNet: any timm backbone with spatial feature maps, under a label-wise head."""

from pathlib import Path

import timm
from safetensors.torch import load_file
from torch import Tensor, nn

from l2d.head import LabelHead
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


class LabelNet(nn.Module):
    """Backbone -> last map -> LabelHead.

    `last_map` is an identity between backbone and head, so that class activation maps hook one name for every architecture.
    """

    def __init__(self, backbone: nn.Module, head: LabelHead):
        super().__init__()
        self.backbone = backbone
        self.last_map = nn.Identity()
        self.head = head

    def forward(self, images: Tensor) -> Outputs:
        """Run images (N, 3, H, W), already normalised, through the network."""
        last, stages = self._features(images)
        last = self.last_map(last)
        embeddings, logits = self.head(last)
        return Outputs((*stages, last), embeddings, logits)

    @property
    def channels(self) -> list[int]:
        """Channels of `Outputs.features`, shallow to deep."""
        return [*(stage["num_chs"] for stage in self.backbone.feature_info), self.backbone.num_features]

    def features(self, images: Tensor) -> Tensor:
        """The last map alone, (N, D, H, W)."""
        return self.last_map(self._to_nchw(self.backbone(images)))

    def _features(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        last, stages = self.backbone.forward_intermediates(images)
        return self._to_nchw(last), stages

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
    init: Path | None = None,
) -> LabelNet:
    """Build a network for `num_labels` labels.

    Args:
        backbone: timm name; the paper's are in `BACKBONES`, any other with spatial feature maps works too.
        image_size: side of the square input in pixels; only transformers fix it at construction.
        output_stride: 32, 16 or 8, where the architecture supports it.
        width, feedforward: E and the hidden width of the head (768 and 2048 as published).
        pretrained: take timm's ImageNet weights from the hub (needs the network once).
        init: take backbone weights from this safetensors file instead.

    Raises:
        ValueError: for an unknown backbone, one without maps, or an `init` file that does not fit.
    """
    network = _create_backbone(backbone, image_size, output_stride, pretrained)
    if init is not None:
        load_backbone(network, init)
    return LabelNet(network, LabelHead(network.num_features, num_labels, width, feedforward))


def load_backbone(network: nn.Module, path: Path) -> None:
    """Load backbone weights from a safetensors file, every tensor of it or none."""
    try:
        network.load_state_dict(load_file(path), strict=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold weights for {type(network).__name__}: {_first_line(error)}") from error


def _create_backbone(name: str, image_size: int, output_stride: int, pretrained: bool) -> nn.Module:
    if not timm.is_model(name.split(".")[0]):
        close = ", ".join(timm.list_models(f"*{name[:5]}*")[:5])
        raise ValueError(f"Unknown backbone {name!r}; the paper's are {', '.join(BACKBONES)}; close timm names: {close or 'none'}.")
    options: dict[str, object] = {} if output_stride == 32 else {"output_stride": output_stride}
    if name.startswith(("swin", "vit", "test_vit")):
        options["img_size"] = image_size
    try:
        network = timm.create_model(name, pretrained=pretrained, num_classes=0, global_pool="", **options)
    except TypeError as error:
        raise ValueError(f"{name} cannot be built with {options}: {error}") from error
    if not hasattr(network, "forward_intermediates"):
        raise ValueError(f"{name} gives no spatial feature maps (timm's forward_intermediates); choose one of {', '.join(BACKBONES)}.")
    return network


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
