"""Maps: equal to torchcam's and to plain autograd, without leaving a trace, from any number of threads."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchcam import methods

from l2d import cam
from l2d.cam import MAP_KINDS, OWN_KINDS, TORCHCAM_KINDS, evidence_from_features, label_maps, maps_from_features
from l2d.head import LabelHead
from l2d.model import LabelNet, create_model

LABELS = [3, 0, 4]


def make_model(backbone: str = "test_resnet", size: int = 64, **options: int) -> LabelNet:
    torch.manual_seed(0)
    return create_model(backbone, 5, image_size=size, width=32, feedforward=48, **options).eval()


def draw_image(height: int = 64, width: int = 64) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))


def differentiate(head: LabelHead, last_map: Tensor, label: int) -> tuple[Tensor, Tensor]:
    """LayerCAM by definition, through autograd: the map (h, w) and the logit."""
    leaf = last_map.clone().requires_grad_()
    logit = head(leaf)[1][0, label]
    (gradient,) = torch.autograd.grad(logit, leaf)
    return (gradient.relu() * last_map).sum(1).relu()[0], logit.detach()


def run_torchcam(model: LabelNet, image: Tensor, labels: list[int], kind: str) -> Tensor:
    """torchcam as its own documentation uses it, on the whole network."""
    whole = Logits(model)
    with getattr(methods, kind)(whole, "model.last_map") as extractor:
        maps = [extractor(label, whole(image.clone().requires_grad_()), normalized=False)[0] for label in labels]
    return torch.cat(maps)


class Logits(nn.Module):
    def __init__(self, model: LabelNet):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).logits


@pytest.mark.parametrize(
    ("backbone", "options", "size"),
    [
        ("resnet18", {}, (64, 96)),
        ("mobilenetv2_100", {}, (96, 64)),
        ("mobilenetv2_100", {"output_stride": 16}, (64, 64)),
        ("repvgg_a0", {}, (64, 64)),
        ("swin_tiny_patch4_window7_224", {"size": 64}, (64, 64)),
    ],
)
def test_layercam_is_torchcams(backbone: str, options: dict[str, int], size: tuple[int, int]) -> None:
    model, image = make_model(backbone, **options), draw_image(*size)
    expected = run_torchcam(model, image, LABELS, "LayerCAM")
    stride = options.get("output_stride", 32)
    maps = label_maps(model, image, LABELS)
    assert maps.shape == (3, size[0] // stride, size[1] // stride)
    assert expected.amax() > 0
    assert (maps - expected).abs().amax() <= 1e-4 * expected.amax()


@pytest.mark.parametrize("kind", ["GradCAM", "GradCAMpp", "XGradCAM", "LayerCAM"])
def test_torchcams_methods_are_torchcams(kind: str) -> None:
    model, image = make_model(), draw_image(96, 64)
    torch.testing.assert_close(label_maps(model, image, LABELS, kind), run_torchcam(model, image, LABELS, kind))


def test_smooth_gradcam_is_torchcams_on_the_same_noise() -> None:
    model, image = make_model(), draw_image()
    torch.manual_seed(7)
    expected = torch.cat([run_torchcam(model, image, [label], "SmoothGradCAMpp") for label in LABELS])
    torch.manual_seed(7)
    torch.testing.assert_close(label_maps(model, image, LABELS, "SmoothGradCAMpp"), expected)


@pytest.mark.parametrize("silent", [0.0, 0.7, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(12))
def test_layercam_is_plain_autograds_in_double_precision(seed: int, silent: float) -> None:
    """However many activations are zero: more of them than of the embedding, or fewer, or all."""
    torch.manual_seed(seed)
    heads, channels, labels = 2 ** (seed % 4), 3 + seed, 2 + seed
    head = LabelHead(channels, labels, width=heads * (2 + seed % 3), feedforward=7, heads=heads).double().eval()
    model = LabelNet(nn.Identity(), head).eval()
    # Negative activations too: a transformer's last map has them. Larger ones make the attention sharp.
    last_map = torch.randn(1, channels, 1 + seed % 5, 2 + seed % 3, dtype=torch.float64) * 2 ** (seed % 5)
    last_map = last_map * (torch.rand_like(last_map) >= silent)
    maps, logits = evidence_from_features(model.head, last_map, range(labels))
    for label in range(labels):
        expected, logit = differentiate(head, last_map, label)
        torch.testing.assert_close(maps[label], expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(logits[label], logit, rtol=1e-9, atol=1e-12)


def test_gradients_of_the_head_are_autograds_before_any_rectifier() -> None:
    torch.manual_seed(3)
    head = LabelHead(6, 4, width=16, feedforward=8).double().eval()
    last_map = torch.randn(1, 6, 3, 2, dtype=torch.float64)
    gradients, _ = head.token_gradients(head.memory(last_map), torch.arange(4))
    for label in range(4):
        leaf = last_map.clone().requires_grad_()
        (expected,) = torch.autograd.grad(head(leaf)[1][0, label], leaf)
        torch.testing.assert_close((gradients[label] @ head.embed.weight).T.reshape(6, 3, 2), expected[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [kind for kind in MAP_KINDS if kind != "SmoothGradCAMpp"])
def test_features_give_the_same_maps(kind: str) -> None:
    model, image = make_model(), draw_image()
    with torch.no_grad():
        last_map = model.features(image)
    torch.testing.assert_close(maps_from_features(model.head, last_map, LABELS, kind), label_maps(model, image, LABELS, kind))


def test_labels_do_not_depend_on_their_company() -> None:
    model, image = make_model(), draw_image()
    many = label_maps(model, image, [4, 1, 1, *range(5), *range(5)])
    torch.testing.assert_close(many[1], label_maps(model, image, [1])[0])
    torch.testing.assert_close(many[1], many[2])
    torch.testing.assert_close(many[3:8], many[8:])


@pytest.mark.parametrize("kind", MAP_KINDS)
def test_no_label_gives_no_map(kind: str) -> None:
    assert label_maps(make_model(), draw_image(64, 96), [], kind).shape == (0, 2, 3)


def test_attention_is_a_share_of_the_picture() -> None:
    model, image = make_model(), draw_image(96, 64)
    maps = label_maps(model, image, LABELS, "attention")
    assert maps.shape == (3, 3, 2)
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(3))
    torch.testing.assert_close(maps, model.head.attention(model.features(image))[0, LABELS])


def snapshot(model: LabelNet) -> list[object]:
    hooks = [
        (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks), len(m._backward_pre_hooks), m.training)
        for m in model.modules()
    ]
    return [hooks, [(p.requires_grad, p.grad is None) for p in model.parameters()]]


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("kind", MAP_KINDS)
def test_nothing_is_left_behind(kind: str, frozen: bool) -> None:
    model, image = make_model().requires_grad_(not frozen), draw_image()
    before, state = snapshot(model), {name: value.clone() for name, value in model.state_dict().items()}
    maps = label_maps(model, image, LABELS, kind)
    assert snapshot(model) == before
    assert not maps.requires_grad
    assert not image.requires_grad
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", MAP_KINDS)
def test_nothing_is_left_behind_after_an_exception(kind: str) -> None:
    model, image = make_model(), draw_image()
    before, expected = snapshot(model), label_maps(model, image, LABELS)
    queries, model.head.queries = model.head.queries, torch.zeros(5, 1)
    with pytest.raises(RuntimeError):
        label_maps(model, image, LABELS, kind)
    model.head.queries = queries
    assert snapshot(model) == before
    assert torch.is_grad_enabled()
    torch.testing.assert_close(label_maps(model, image, LABELS), expected)


@pytest.mark.parametrize("guard", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("kind", [kind for kind in MAP_KINDS if kind != "SmoothGradCAMpp"])
def test_maps_come_without_gradients_enabled(kind: str, guard: Callable[[], torch.no_grad]) -> None:
    model, image = make_model(), draw_image()
    expected = label_maps(model, image, LABELS, kind)
    with guard():
        last_map = model.features(image)
        torch.testing.assert_close(label_maps(model, image, LABELS, kind), expected)
        torch.testing.assert_close(maps_from_features(model.head, last_map, LABELS, kind), expected)


@pytest.mark.parametrize("kind", [*OWN_KINDS, "LayerCAM"])
def test_eight_threads_share_one_model(kind: str) -> None:
    model = make_model()
    images = [torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in range(8)]
    orders = [[(seed + step) % 5 for step in range(4)] for seed in range(8)]
    expected = [label_maps(model, image, order, kind) for image, order in zip(images, orders, strict=True)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda turn: label_maps(model, images[turn % 8], orders[turn % 8], kind), range(64)))
    for turn, maps in enumerate(answers):
        torch.testing.assert_close(maps, expected[turn % 8])


def test_a_label_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="0 to 4; got 5, -1"):
        label_maps(make_model(), draw_image(), [0, 5, -1])


@pytest.mark.parametrize("wrong", ["cat", 1.0, True, torch.tensor(True), torch.tensor(0.5), np.bool_(True)], ids=repr)
def test_a_label_that_is_no_index_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"indices.*card\.labels\.index"):
        label_maps(make_model(), draw_image(), [0, wrong])


@pytest.mark.parametrize("labels", [torch.tensor(LABELS), np.array(LABELS), list(torch.tensor(LABELS))], ids=["torch", "numpy", "listed"])
def test_indices_may_come_from_torch_and_numpy(labels: Sequence[int]) -> None:
    model, image = make_model(), draw_image()
    assert torch.equal(label_maps(model, image, labels), label_maps(model, image, LABELS))


@pytest.mark.parametrize("kind", OWN_KINDS)
def test_labels_that_can_be_read_but_once_are_read_once(kind: str) -> None:
    model, image = make_model(), draw_image()
    assert torch.equal(label_maps(model, image, iter(LABELS), kind), label_maps(model, image, LABELS, kind))
    last_map = model.features(image).detach()
    assert len(maps_from_features(model.head, last_map, iter(LABELS), kind)) == len(LABELS)


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'gradcam'.*layercam, attention, GradCAM, "):
        label_maps(make_model(), draw_image(), [0], "gradcam")


@pytest.mark.parametrize("part", ["head.dropout", "backbone"])
def test_a_model_in_training_mode_is_refused(part: str) -> None:
    model = make_model()
    model.get_submodule(part).train()
    with pytest.raises(ValueError, match="training mode"):
        label_maps(model, draw_image(), [0])


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda image: image.expand(2, -1, -1, -1), r"\(2, 3, 64, 64\), torch.float32"),
        (torch.Tensor.byte, r"\(1, 3, 64, 64\), torch.uint8"),
        (torch.Tensor.numpy, "ndarray"),
    ],
)
def test_what_is_no_image_is_refused(change: Callable[[Tensor], object], got: str) -> None:
    with pytest.raises(ValueError, match=f"one image at a time.*.*to_input makes it; got {got}"):
        label_maps(make_model(), change(draw_image()), [0])


@pytest.mark.parametrize("wrap", [nn.DataParallel, Logits])
def test_what_wraps_a_network_is_refused(wrap: Callable[[LabelNet], nn.Module]) -> None:
    with pytest.raises(ValueError, match=f"the network itself, a LabelNet; got {wrap.__name__}"):
        label_maps(wrap(make_model()), draw_image(), [0])


@pytest.mark.parametrize("kind", ["layercam", "attention", "GradCAM"])
def test_of_a_last_map_the_same_is_refused(kind: str) -> None:
    model = make_model()
    last_map = model.features(draw_image()).detach()
    with pytest.raises(ValueError, match="0 to 4; got -1"):
        maps_from_features(model.head, last_map, [-1], kind)
    with pytest.raises(ValueError, match="one image's last map"):
        maps_from_features(model.head, last_map.expand(2, -1, -1, -1), [0], kind)
    model.head.train()
    with pytest.raises(ValueError, match="training mode"):
        maps_from_features(model.head, last_map, [0], kind)


def test_smooth_gradcam_needs_the_image() -> None:
    with pytest.raises(ValueError, match="SmoothGradCAMpp adds noise"):
        maps_from_features(make_model().head, torch.zeros(1, 1, 1, 1), [0], "SmoothGradCAMpp")


def test_own_kinds_need_no_torchcam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcam", None)
    spec = importlib.util.spec_from_file_location("cam_without_torchcam", cam.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model, image = make_model(), draw_image()
    for kind in OWN_KINDS:
        assert module.label_maps(model, image, [0], kind).isfinite().all()
    for kind in TORCHCAM_KINDS:
        with pytest.raises(ImportError):
            module.label_maps(model, image, [0], kind)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", MAP_KINDS)
def test_maps_of_a_gpu_are_the_cpus(kind: str) -> None:
    model, image = make_model(), draw_image()
    torch.manual_seed(0)
    expected = label_maps(model, image, LABELS, kind)
    torch.manual_seed(0)
    with torch.backends.cudnn.flags(allow_tf32=False):
        found = label_maps(model.to("cuda"), image.to("cuda"), LABELS, kind).cpu()
    if kind != "SmoothGradCAMpp":  # draws its noise on the device
        assert (found - expected).abs().amax() <= 1e-3 * expected.amax()
    assert found.isfinite().all()
