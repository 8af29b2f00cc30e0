"""What may be ordered, and what the form begins with."""

from typing import get_args

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
