"""A teacher in every engine: the same outputs, and torch where another engine is missing, fails, or is not worth its conversion."""

import logging

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from l2d import teaching
from l2d.model import LabelNet, create_model
from l2d.outputs import Outputs
from l2d.runtime import import_openvino
from l2d.teaching import Keep, Teacher, keep_in_torch, prepare_teacher

CPU = torch.device("cpu")
BATCH, SIZE = 3, 64


@pytest.fixture
def network() -> LabelNet:
    torch.manual_seed(0)
    model = create_model("test_efficientnet", 5, image_size=SIZE, width=32, feedforward=48)
    torch.nn.init.normal_(model.head.bias)
    return model


@pytest.fixture
def images() -> Tensor:
    return torch.randn(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def keep_all(outputs: Outputs) -> Outputs:
    return outputs


def keep_last(outputs: Outputs) -> Outputs:
    return outputs._replace(features=outputs.features[-1:])


def is_converted(teacher: Teacher) -> bool:
    return isinstance(teacher, teaching._Converted)


def prepare(network: LabelNet, keep: Keep = keep_all, pictures: int = teaching.WORTH_CONVERTING) -> Teacher:
    return prepare_teacher(network, keep, CPU, BATCH, SIZE, pictures)


@pytest.mark.parametrize("keep", [keep_all, keep_last])
def test_openvino_says_what_torch_does(network: LabelNet, images: Tensor, keep: Keep) -> None:
    teacher = prepare(network, keep)
    assert is_converted(teacher)
    got, expected = teacher(images), keep_in_torch(network, keep, CPU)(images)
    assert len(got.features) == len(expected.features) == len(keep(network(images)).features)
    for mine, theirs in zip((*got.features, *got[1:]), (*expected.features, *expected[1:]), strict=True):
        assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_what_it_said_stays_when_it_is_asked_again(network: LabelNet, images: Tensor) -> None:
    teacher = prepare(network)
    said = teacher(images)
    before = said.embeddings.clone()
    teacher(images + 1)
    assert torch.equal(said.embeddings, before)
    assert torch.equal(teacher(images).embeddings, before)


@pytest.mark.parametrize("pictures", [1, teaching.WORTH_CONVERTING])
def test_nothing_that_it_says_has_a_gradient(network: LabelNet, images: Tensor, pictures: int) -> None:
    network.train()
    said = prepare(network, pictures=pictures)(images)
    assert not any(tensor.requires_grad for tensor in (*said.features, said.embeddings, said.logits, *network.parameters()))
    assert not network.training


def test_a_teacher_of_few_pictures_stays_in_torch(network: LabelNet) -> None:
    assert not is_converted(prepare(network, pictures=teaching.WORTH_CONVERTING - 1))


def test_without_the_package_torch_teaches(network: LabelNet, images: Tensor, no_openvino: None) -> None:
    teacher = prepare(network)
    assert not is_converted(teacher)
    assert_close(teacher(images), network(images))


@pytest.mark.parametrize("reason", ["unknown operation", "different embeddings"])
def test_a_teacher_that_openvino_cannot_run_stays_in_torch_and_the_log_says_so(
    network: LabelNet, images: Tensor, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if reason == "unknown operation":
        monkeypatch.setattr(import_openvino(), "convert_model", lambda *_, **__: 1 / 0)
    else:
        monkeypatch.setattr(teaching, "TOLERANCE", -1.0)
    teacher = prepare(network)
    assert_close(teacher(images), network(images))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "The teacher runs in plain torch" in caplog.text
