"""What may be ordered, and what the form begins with."""

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from app.orders import Order, choose_first_order
from l2d.data.augmentation import AUGMENTATIONS


def test_an_order_offers_every_augmentation():
    assert get_args(Order.model_fields["augmentation"].annotation) == AUGMENTATIONS


def test_the_first_order_starts_from_what_is_there():
    order = choose_first_order([("other", "resnet18"), ("mine", "mobilenetv2_100")])
    assert (order.start_from, order.teacher_start_from) == ("mine", "mine")
    assert order.freeze_stages > 0
    alone = choose_first_order([])
    assert (alone.start_from, alone.freeze_stages) == (None, 0), "nothing is kept as it is where nothing was learned"


def test_every_number_and_every_text_of_an_order_is_bounded():
    """Whatever is ordered, a training has to start with, and the queue to hold."""
    for name, field in Order.model_json_schema()["properties"].items():
        for kind in field.get("anyOf", [field]):
            if kind["type"] in ("integer", "number") and "enum" not in kind:
                assert {"minimum", "maximum"} <= kind.keys(), name
            elif kind["type"] == "string" and "enum" not in kind:
                assert "maxLength" in kind, name


@pytest.mark.parametrize("name", ["student", "method", "teacher_backbone"])
def test_of_an_endless_name_nothing_is_read(name: str):
    with pytest.raises(ValidationError, match=f"{name}\n  String should have at most"):
        Order.model_validate({name: "x" * 1000})


TAUGHT = {"method": "mld", "teacher": "mine"}
SWIN = {"method": "l2d", "teacher_backbone": "swin_tiny_patch4_window7_224"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (TAUGHT | {"weights": {"mld": -0.5}}, "between 0 and 1000000"),
        (TAUGHT | {"weights": {"mld": 1000001}}, "between 0 and 1000000"),
        (TAUGHT | {"weights": {"mld": float("nan")}}, "between 0 and 1000000"),
        (TAUGHT | {"teacher_start_from": "mine"}, "give its teacher_backbone"),
        (SWIN | {"output_stride": 16}, "output_stride of 32 alone"),
        (SWIN | {"image_size": 226}, "image_size that 4 divides"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], sentence: str):
    with pytest.raises(ValidationError, match=sentence):
        Order.model_validate(changes)


@pytest.mark.parametrize(
    "changes",
    [
        TAUGHT | {"weights": {"mld": 0}},
        TAUGHT | {"weights": {"mld": 1000000}},
        TAUGHT | {"pretrained": True, "freeze_stages": 4},
        TAUGHT | {"start_from": "mine", "freeze_stages": 4},
        SWIN | {"image_size": 228, "teacher_start_from": "mine"},
        {"method": "vanilla", "output_stride": 16, "image_size": 225, "batch_size": 6, "processes": 3},
    ],
)
def test_what_just_goes_together_is_an_order(changes: dict[str, Any]):
    order = Order.model_validate(changes)
    assert {name: getattr(order, name) for name in changes} == changes
