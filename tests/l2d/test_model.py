"""One contract for every backbone: stages, last map, embeddings, logits."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from l2d.model import BACKBONES, LabelNet, check_maps, create_model, load_backbone, merge_branches

TINY = ("test_resnet", "test_efficientnet", "test_byobnet", "test_convnext", "mobilenetv3_small_050")


def make_model(backbone: str = "test_resnet", **options: int) -> LabelNet:
    torch.manual_seed(0)
    return create_model(backbone, 5, **{"image_size": 64, "width": 16, "feedforward": 24, **options}).eval()


def make_images(side: int = 64, images: int = 2) -> Tensor:
    return torch.randn(images, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("backbone", [*TINY, *BACKBONES])
def test_every_backbone_keeps_the_contract(backbone: str) -> None:
    # On the meta device only shapes are computed: the largest network of the paper builds at once.
    with torch.device("meta"):
        model = make_model(backbone)
        outputs = model(torch.empty(2, 3, 64, 64))
    assert outputs.logits.shape == (2, 5)
    assert outputs.embeddings.shape == (2, 5, 16)
    assert [stage.shape[1] for stage in outputs.features] == model.channels
    sides = [stage.shape[-1] for stage in outputs.features]
    assert sides == sorted(sides, reverse=True)
    assert outputs.features[-1].shape == (2, model.channels[-1], 2, 2)


@pytest.mark.parametrize("backbone", [*TINY, "swin_tiny_patch4_window7_224"])
def test_maps_are_made_of_what_the_head_was_trained_on(backbone: str) -> None:
    model, seen = make_model(backbone), []
    # One name hooks the last map in every architecture.
    model.get_submodule("last_map").register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        outputs = model(make_images())
        last = model.features(make_images())
    torch.testing.assert_close(seen, [outputs.features[-1], last])
    torch.testing.assert_close(last, outputs.features[-1])
    torch.testing.assert_close(model.head(last)[1], outputs.logits)


@pytest.mark.parametrize("backbone", ["repvgg_a0", "test_resnet"])
def test_merged_branches_predict_the_same(backbone: str) -> None:
    model, images = make_model(backbone), make_images(images=8)
    for module in model.train().modules():
        # As after a training: statistics and scales that differ from branch to branch.
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
    with torch.no_grad():
        model(images)
        expected, layers = model.eval()(images), len(list(model.modules()))
        merged = merge_branches(model)(images)
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-4)
    assert (len(list(model.modules())) < layers / 2) == (backbone == "repvgg_a0")


def test_swin_has_its_channels_first_and_is_used_at_other_sizes_than_it_was_built_for() -> None:
    model = make_model("swin_tiny_patch4_window7_224", image_size=224)
    assert model.backbone.output_fmt == "NHWC"
    with torch.no_grad():
        assert model.features(make_images(96, images=1)).shape == (1, 768, 3, 3)


@pytest.mark.parametrize(
    ("backbone", "options", "sentence"),
    [
        ("resnet19", {}, "Unknown backbone 'resnet19'; the paper's are resnet18, .* close timm names: .*resnet18"),
        ("hf_hub:timm/resnet18.a1_in1k", {}, "Unknown backbone 'hf_hub:.* close timm names: .*resnet18"),
        ("test_vit", {}, "test_vit gives no spatial feature maps"),
        ("swin_tiny_patch4_window7_224", {"output_stride": 16}, "cannot be built with .*output_stride"),
        ("resnet18.bogus", {}, "resnet18.bogus cannot be built"),
        ("vgg11", {"output_stride": 16}, "vgg11 cannot be built with .*output_stride"),
        ("coat_tiny", {}, r"coat_tiny cannot be built with .* pooling is supported\.$"),
        ("swin_tiny_patch4_window7_224", {"image_size": 226}, r"no pictures of 226 x 226 pixels: .*divisible by patch size \(4\)"),
        ("test_resnet", {"output_stride": 7}, "must be 8, 16 or 32; got 7"),
        ("test_resnet", {"image_size": 16}, "at least 32 pixels; got 16"),
    ],
)
def test_what_cannot_be_built_is_refused(backbone: str, options: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_model(backbone, **options)


def test_a_network_that_timm_gives_no_features_of_is_refused() -> None:
    with pytest.raises(ValueError, match="plain gives no spatial feature maps"):
        check_maps(nn.Conv2d(3, 8, 1), "plain", 64)


def test_the_smallest_input_is_taken() -> None:
    with torch.device("meta"):
        assert make_model(image_size=32)(torch.empty(1, 3, 32, 32)).features[-1].shape[-2:] == (1, 1)


def make_weights(path: Path, **changes: Tensor) -> dict[str, Tensor]:
    """A file as timm's hub has them: with the classifier."""
    torch.manual_seed(7)
    state = timm.create_model("test_resnet").state_dict() | changes
    save_file(state, path)
    return state


def test_initial_weights_from_a_file(tmp_path: Path) -> None:
    state = make_weights(tmp_path / "weights.safetensors")
    assert "fc.weight" in state
    loaded = create_model("test_resnet", 5, width=16, feedforward=24, init=tmp_path / "weights.safetensors").backbone.state_dict()
    assert loaded.keys() == {name for name in state if not name.startswith("fc.")}
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.items())


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "model.encoder."])
def test_a_part_of_a_file_is_taken_behind_whatever_prefix(tmp_path: Path, prefix: str) -> None:
    network, path = timm.create_model("test_resnet", num_classes=0, global_pool=""), tmp_path / "weights.safetensors"
    state = make_weights(path)
    kept = {prefix + name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    save_file(kept | {"head.query": torch.zeros(2)}, path)
    load_backbone(network, path)
    loaded = network.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in state.items() if name in loaded)
    save_file(kept | {f"ema.{name.removeprefix(prefix)}": tensor.clone() for name, tensor in kept.items()}, path)
    with pytest.raises(ValueError, match="holds the network 2 times, behind "):
        load_backbone(network, path)


@pytest.mark.parametrize("classifiers", ["head", ("head", "head_dist"), None])
def test_every_classifier_of_a_file_is_left_out(tmp_path: Path, classifiers: str | tuple[str, ...] | None) -> None:
    network, other = nn.Linear(3, 2), nn.Linear(3, 2)
    network.pretrained_cfg = {"classifier": classifiers}
    named = [classifiers] if isinstance(classifiers, str) else classifiers or []
    save_file(other.state_dict() | {f"{name}.weight": torch.zeros(4) for name in named}, tmp_path / "weights.safetensors")
    load_backbone(network, tmp_path / "weights.safetensors")
    assert torch.equal(network.weight, other.weight)


def test_weights_that_do_not_fit_are_named_and_change_nothing(tmp_path: Path) -> None:
    network = timm.create_model("test_resnet", num_classes=0, global_pool="")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    path = tmp_path / "weights.safetensors"
    make_weights(path, stray=torch.zeros(2), **{"conv1.0.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"unknown are stray; of another shape are conv1\.0\.weight"):
        load_backbone(network, path)
    save_file({"bn1.weight": before["bn1.weight"]}, path)
    with pytest.raises(ValueError, match=r"does not fit the network: it lacks conv1\.0\.weight, .* and \d+ more"):
        load_backbone(network, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    network = nn.Identity()
    with pytest.raises(ValueError, match=r"none\.safetensors cannot be read"):
        load_backbone(network, tmp_path / "none.safetensors")
    torch.save({}, tmp_path / "pickle.pth")
    with pytest.raises(
        ValueError, match=r"pickle\.pth cannot be read .*in Python: weights = torch\.load.* safetensors\.torch\.save_file\("
    ):
        load_backbone(network, tmp_path / "pickle.pth")
