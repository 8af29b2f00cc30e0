"""Methods by name, and the sum of losses that each of them stands for."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from l2d.distill import METHODS, TITLES, Distiller, choose_weights
from l2d.losses import LOSSES, bce
from l2d.model import LabelNet, create_model
from l2d.outputs import Outputs


def make_model(seed: int, backbone: str = "test_resnet", width: int = 16) -> LabelNet:
    torch.manual_seed(seed)
    return create_model(backbone, 4, image_size=64, width=width, feedforward=24).eval()


@pytest.fixture
def student() -> LabelNet:
    return make_model(0)


@pytest.fixture
def teacher() -> LabelNet:
    return make_model(1, "test_efficientnet", width=24).requires_grad_(False)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(2))


# Three images show label 0: the only distance of a pair is its own mean, so two would give no loss.
TARGETS = torch.tensor([[1.0, 1, 0, 0], [1, 0, 1, 1], [1, 1, 1, 0], [0, 0, 0, 0]])


# Beside a summed binary cross-entropy: those of the published code's configuration, and those of pkt, mse and ps, for which it has none.
PUBLISHED = {
    "vanilla": {},
    "rkd": {"rkd": 1},
    "reviewkd": {"reviewkd": 1},
    "mld": {"mld": 10},
    "led": {"cd": 100, "id": 1000},
    "mld+cd": {"mld": 10, "cd": 100},
    "mld+id": {"mld": 10, "id": 1000},
    "l2d": {"mld": 10, "cd": 100, "id": 1000},
}
CHOSEN = {"pkt": {"pkt": 30_000}, "mse": {"mse": 1000}, "ps": {"ps": 10}}


def test_methods_have_their_weights_and_every_loss_belongs_to_one() -> None:
    assert METHODS == PUBLISHED | CHOSEN
    assert {loss for losses in METHODS.values() for loss in losses} == LOSSES.keys()


def test_every_method_has_a_title() -> None:
    assert TITLES.keys() == {"teacher", *METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_reaches_the_students_weights_and_leaves_the_teachers(
    method: str, student: LabelNet, teacher: LabelNet, images: Tensor
) -> None:
    distiller = Distiller(choose_weights(method), student, teacher)
    with torch.no_grad():
        taught = teacher(images)
    parts = distiller(student(images), taught, TARGETS)
    assert list(parts) == ["bce", *METHODS[method]]
    for name, part in parts.items():
        assert part.shape == ()
        assert part > 0
        student.zero_grad()
        part.backward(retain_graph=True)
        gradients = [parameter.grad for parameter in student.parameters() if parameter.grad is not None]
        assert gradients, name
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.any() for gradient in gradients)


def test_parts_are_the_losses_times_their_weights(student: LabelNet, teacher: LabelNet, images: Tensor) -> None:
    weights = choose_weights("l2d", {"cd": 7.0})
    mine, theirs = student(images), teacher(images)
    parts = Distiller(weights, student, teacher)(mine, theirs, TARGETS)
    assert weights == {"mld": 10.0, "cd": 7.0, "id": 1000.0}
    torch.testing.assert_close(parts["bce"], bce(mine, theirs, TARGETS))
    for name, weight in weights.items():
        loss: Any = LOSSES[name]
        torch.testing.assert_close(parts[name], weight * loss(mine, theirs, TARGETS))


@pytest.mark.parametrize(
    ("found", "said"),
    [(torch.zeros(4), r"a tensor of shape \(4,\)"), (torch.zeros(1), r"a tensor of shape \(1,\)"), (0.5, "float"), (None, "NoneType")],
)
def test_a_loss_that_is_no_scalar_is_named(
    student: LabelNet, images: Tensor, monkeypatch: pytest.MonkeyPatch, found: object, said: str
) -> None:
    monkeypatch.setitem(LOSSES, "mld", lambda *_: found)
    outputs = student(images)
    with pytest.raises(ValueError, match=f"The mld loss must return one number, as a tensor without dimensions; it returned {said}"):
        Distiller(METHODS["mld"], student, student)(outputs, outputs, TARGETS)


def test_losses_that_own_weights_train_them_with_the_student(student: LabelNet, teacher: LabelNet) -> None:
    assert list(Distiller(choose_weights("l2d"), student, teacher).parameters()) == []
    owned = Distiller(choose_weights("reviewkd"), student, teacher)
    names = [name for name, _ in owned.named_parameters()]
    assert names
    assert all(name.startswith("owned.reviewkd.") for name in names)
    assert owned.state_dict().keys() >= set(names)


def test_a_teacher_that_gives_logits_alone(student: LabelNet, teacher: LabelNet, images: Tensor) -> None:
    mine, logits = student(images), teacher(images).logits
    alone = Outputs((), torch.empty(0), logits)
    for method in ("mld", "mse", "ps"):
        whole = Distiller(METHODS[method], student, teacher)(mine, teacher(images), TARGETS)
        assert Distiller(METHODS[method], student, nn.Identity())(mine, alone, TARGETS)[method] == whole[method]
    for name in ("cd", "id", "rkd", "pkt"):
        with pytest.raises(ValueError, match="mld, mse and ps make do with logits"):
            LOSSES[name](mine, alone, TARGETS)
    distiller = Distiller(METHODS["mld"], student, nn.Identity())
    for call in (lambda: distiller(mine, logits, TARGETS), lambda: distiller(logits, alone, TARGETS), lambda: distiller.keep(logits)):
        with pytest.raises(ValueError, match=r"Expected Outputs, .*; got a tensor. Wrap logits: Outputs\("):
            call()
    with pytest.raises(ValueError, match=r"Unknown loss 'mdl'; those in l2d\.losses\.LOSSES are .*mld"):
        Distiller({"mdl": 1.0}, student, teacher)
    with pytest.raises(ValueError, match="reviewkd compares stages"):
        Distiller(METHODS["reviewkd"], student, nn.Identity())
    for name in ("mld", "mse"):
        with pytest.raises(ValueError, match=r"same pictures and labels, \(N, C\); they are of "):
            LOSSES[name](mine, alone._replace(logits=logits[:, :1]), TARGETS)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_kept_of_the_teacher_is_enough_and_no_more(student: LabelNet, teacher: LabelNet, images: Tensor, method: str) -> None:
    distiller = Distiller(METHODS[method], student, teacher).eval()
    learnt, taught = student.eval()(images), teacher(images)
    kept = distiller.keep(taught)
    compares_stages = any(isinstance(LOSSES[name], type) for name in METHODS[method])
    assert len(kept.features) == (len(taught.features) if compares_stages else 1)
    whole, lean = distiller(learnt, taught, TARGETS), distiller(learnt, kept, TARGETS)
    assert all(torch.equal(whole[name], lean[name]) for name in whole)


def test_without_a_teacher_only_the_labels_are_learned(student: LabelNet, images: Tensor) -> None:
    outputs: Outputs = student(images)
    assert re.fullmatch(r"<Outputs of shapes: features \[\(\d.*\)\], embeddings \(\d.*\), logits \(\d+, \d+\)>", repr(outputs))
    assert list(Distiller({}, student, None)(outputs, None, TARGETS)) == ["bce"]
    with pytest.raises(ValueError, match="The losses mld, cd need a teacher"):
        Distiller({"mld": 1.0, "cd": 1.0}, student, None)


@pytest.mark.parametrize(
    ("method", "weights", "sentence"),
    [
        ("l3d", {}, "Unknown method 'l3d'; the known ones are vanilla, "),
        ("vanilla", {"mld": 1.0}, "Method vanilla has no loss 'mld'; it has none but the labels"),
        ("l2d", {"mld": -0.5}, "The weight of mld must be a number from 0 on; got -0.5"),
        ("l2d", {"mld": math.nan}, "got nan"),
        ("l2d", {"mld": "5"}, "got '5'"),
        ("l2d", {"mld": torch.tensor(5.0)}, r"got tensor\(5\.\)"),
        ("l2d", {"mld": math.inf}, "got inf"),
    ],
)
def test_unknown_names_and_impossible_weights_are_refused(method: str, weights: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        choose_weights(method, weights)


def test_choosing_weights_leaves_the_method_as_it_is() -> None:
    choose_weights("mld", {"mld": 3.0})["mld"] = 4.0
    assert METHODS["mld"] == {"mld": 10.0}
