"""Recorded passes: the numbers of the network itself, and the network itself where nothing can be recorded."""

import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from l2d import graphs
from l2d.graphs import record
from l2d.model import LabelNet, create_model

SHAPE = (4, 3, 32, 32)


def make_model() -> LabelNet:
    torch.manual_seed(0)
    model = create_model("test_resnet", 3, image_size=32, width=16, feedforward=24).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def test_on_a_cpu_a_network_is_itself() -> None:
    model = make_model()
    assert record(model, torch.zeros(SHAPE)) is model


def test_a_network_that_cannot_be_recorded_is_itself_and_as_it_was(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(module: nn.Module, arguments: tuple[Any, ...], **_: Any) -> None:
        module(torch.randn(SHAPE))
        raise RuntimeError("an operation waits for the device")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", fail)
    model = make_model()
    before = buffers(model)
    images: Any = types.SimpleNamespace(is_cuda=True, device=torch.device("cpu"))
    assert record(model, images) is model
    torch.testing.assert_close(buffers(model), before, rtol=0, atol=0)
    assert "an operation waits for the device" in caplog.text


def test_in_one_of_several_processes_a_network_is_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda *_, **__: pytest.fail("recorded"))
    monkeypatch.setattr(graphs.processes, "count", lambda: 2)
    model = make_model()
    images: Any = types.SimpleNamespace(is_cuda=True, device=torch.device("cpu"))
    assert record(model, images) is model


@pytest.mark.gpu
def test_replays_give_the_networks_own_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "supports_bfloat16", lambda _: False)
    model, images = make_model().to("cuda"), torch.randn(SHAPE, device="cuda")
    expected = model(images)
    gradients = torch.autograd.grad(expected.logits.sum(), list(model.parameters()), allow_unused=True)
    model = make_model().to("cuda")
    before = buffers(model)
    recorded = record(model, torch.zeros(SHAPE, device="cuda"))
    torch.testing.assert_close(buffers(model), before, rtol=0, atol=0)
    found = recorded(images)
    found.logits.sum().backward()
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-3, atol=1e-3)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        if gradient is not None:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-2, atol=1e-2)
    assert recorded is not model
    assert not torch.equal(buffers(model)["backbone.bn1.running_mean"], before["backbone.bn1.running_mean"])
