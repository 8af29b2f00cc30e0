"""The form of an order without a browser: what goes together in it, and what it tells."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from app.catalog import Catalog
from app.errors import ParameterError
from app.orders import Order, choose_first_order
from app.places import Places
from app.ui.form import BASIS, FITTED, LONG, MORE, SHOWN, STARTS, TRAIN, Form, fill_fields
from app.workshop import Workshop
from l2d.checkpoint import read_card, write_card

# The form as it opens where models are there.
HELD = fill_fields(choose_first_order([("mine", "mobilenetv2_100")])) | {"student": "test_efficientnet", "start_from": "student-l2d"}


@pytest.fixture
def form(made_checkpoints: Path, tmp_path: Path) -> Form:
    places = Places(tmp_path / "state", tmp_path / "data", made_checkpoints)
    return Form(Workshop(places, Catalog(made_checkpoints, made=places.models)))


def fit(form: Form, **changes: object) -> dict[str, dict[str, Any]]:
    """What the fitted fields are after an update: a value that it does not name stays."""
    held = HELD | changes
    updates = dict(zip(FITTED, form.fit(*(held[name] for name in BASIS)), strict=True))
    return {name: {"value": held[name]} | update for name, update in updates.items()}


def test_every_field_is_asked_for_as_what_it_is(form: Form):
    held = form.choose_first()
    fields = {name: form.build_field(name, held) for name in held}

    def list_names(kind: type, **properties: object) -> set[str]:
        alike = {name: field for name, field in fields.items() if type(field) is kind}
        return {name for name, field in alike.items() if all(getattr(field, key) == value for key, value in properties.items())}

    assert list_names(gr.Checkbox) == {"pretrained", "unit_pixels"}
    assert list_names(gr.Textbox, max_length=80) == {"title"}
    assert list_names(gr.Number, precision=None) == {"lr", "min_area", "colour", "cutout", "averaging", "holdout"}
    assert list_names(gr.Number, precision=0) >= {"epochs", "batch_size", "seed"}
    assert list_names(gr.Number, placeholder="none") == {"freeze_stages"}, "what an empty field says there"
    assert list_names(gr.Dropdown, allow_custom_value=True) == {"start_from", "teacher_start_from"}
    assert list_names(gr.Dropdown, allow_custom_value=False) == {"data", "method", "teacher", "student", "output_stride", "augmentation"}


def test_every_field_holds_its_value_beside_its_name_and_its_sentence(form: Form):
    held = form.choose_first()
    for name, value in held.items():
        field = form.build_field(name, held)
        assert (field.value, field.label.lower()) == (value, "learning rate" if name == "lr" else name.replace("_", " "))
        assert ("l2d-long" in field.elem_classes) == (name in LONG)
        assert field.info.startswith(Order.model_fields[name].description or "" if name != "teacher" else "This one is trained first")


def test_what_was_filled_in_is_there_again_but_for_what_is_gone(form: Form):
    held = HELD | dict.fromkeys(STARTS, "") | {"title": "mine", "lr": 0.5, "student": "resnet18", "teacher": "the-teacher", "data": "gone"}
    updates = dict(zip(held, form.recall(json.dumps(held | {"gone": 1})), strict=True))
    kept = {name: update["value"] for name, update in updates.items() if "value" in update}
    assert held.items() - kept.items() == {("data", "gone")}
    # It could not be chosen before the list had it.
    assert "the-teacher" in updates["teacher"]["choices"]
    # As a revision without the other fields kept it.
    assert [update["value"] for update in form.recall('{"title": "mine"}') if "value" in update] == ["mine"]
    assert all(update == gr.skip() for kept in ("", "[1, 2]", "{") for update in form.recall(kept))
    assert len(form.recall("")) == len((*SHOWN, *MORE))


@pytest.mark.parametrize(
    "order",
    [
        choose_first_order([("mine", "mobilenetv2_100")]),
        Order(method="mld", teacher="mine", student="resnet18", start_from="theirs", freeze_stages=1, augmentation="randaugment"),
        Order(method="vanilla", pretrained=True, output_stride=16, processes=2, seed=7),
    ],
    ids=["a teacher trained first", "a teacher that is there", "no teacher"],
)
def test_an_order_that_fills_the_form_is_read_from_it_again(form: Form, order: Order):
    assert form.read(tuple(fill_fields(order).values())) == order


def test_where_no_teacher_is_chosen_any_more_the_form_asks_for_one(form: Form):
    held = form.choose_first() | {"teacher": None}
    with pytest.raises(ParameterError, match="l2d needs a teacher"):
        form.read(tuple(held.values()))
    assert form.read(tuple((held | {"method": "vanilla"}).values())).teacher is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"lr": 7}, "Learning rate: Input should be less than or equal to 1"),
        ({"batch_size": None}, "Batch size: Input should be a valid integer"),
        ({"title": "bell\x07"}, "Title: A title has letters, digits and signs that can be shown; leave control characters out."),
        ({"batch_size": 3, "processes": 2}, "2 processes share every batch evenly: give a batch_size that 2 divides."),
    ],
)
def test_what_is_wrong_is_told_by_the_name_that_the_field_has_here(form: Form, changes: dict[str, object], sentence: str):
    with pytest.raises(ParameterError, match=f"^{re.escape(sentence)}$"):
        form.read(tuple((form.choose_first() | changes).values()))


def test_what_fits_is_left_as_it_is(form: Form):
    fitted = fit(form)
    assert (fitted["start_from"]["value"], fitted["freeze_stages"]["value"]) == ("student-l2d", 3)
    assert fitted["start_from"]["choices"] == ["", "student-l2d", "student-vanilla"]


def test_only_values_that_change_are_sent_back(form: Form):
    held = HELD | {"student": "test_byobnet"}
    updates = dict(zip(FITTED, form.fit(*(held[name] for name in BASIS)), strict=True))
    assert [name for name, update in updates.items() if "value" in update] == ["start_from", "teacher_start_from"]


def test_another_student_starts_from_a_model_of_its_kind(form: Form):
    fitted = fit(form, student="test_byobnet")
    assert (fitted["start_from"]["value"], fitted["freeze_stages"]["value"]) == ("alien", 3)
    assert fitted["student"]["info"].endswith("It starts from alien.")


def test_where_no_model_is_of_its_kind_it_starts_from_none_and_freezes_nothing(form: Form):
    fitted = fit(form, student="resnet18")
    assert (fitted["start_from"]["value"], fitted["start_from"]["choices"], fitted["freeze_stages"]["value"]) == (None, [""], None)
    assert fitted["student"]["info"].endswith("It starts from random weights.")
    held = HELD | {"student": "resnet18"} | {name: update["value"] for name, update in fitted.items()}
    assert "--freeze-stages 0" in form.workshop.preview(form.read(tuple(held.values())))[-1]


def test_the_student_before_is_chosen_again_with_a_model_to_start_from(form: Form):
    nowhere = fit(form, student="resnet18", teacher=f"{TRAIN}resnet18", teacher_start_from="gone")
    held = {name: update["value"] for name, update in nowhere.items()}
    assert (held["start_from"], held["teacher_start_from"]) == (None, None)
    again = fit(form, **held | {"student": "test_efficientnet"})
    assert (again["start_from"]["value"], again["freeze_stages"]["value"]) == ("student-l2d", HELD["freeze_stages"])


def test_a_form_that_opened_where_no_model_fits_starts_from_the_first_that_does(form: Form, made_checkpoints: Path):
    opened = form.choose_first()
    order = form.read(tuple(opened.values()))
    assert (order.start_from, order.teacher_start_from, order.freeze_stages) == (None, None, 0)
    folder = shutil.copytree(made_checkpoints / "student-l2d", form.workshop.places.models / "new")
    # The form looks at cards alone.
    write_card(folder, dataclasses.replace(read_card(folder), name="new", backbone="mobilenetv2_100"))
    fitted = fit(form, **opened)
    assert [fitted[name]["value"] for name in ("start_from", "teacher_start_from", "freeze_stages")] == ["new", "new", 3]
    assert [form.choose_first()[name] for name in ("start_from", "teacher_start_from", "freeze_stages")] == ["new", "new", 3]


def test_no_frozen_stage_that_somebody_chose_stays_none(form: Form):
    assert fit(form, student="test_byobnet", freeze_stages=0)["freeze_stages"]["value"] == 0


def test_imagenet_weights_can_be_frozen_too(form: Form):
    fitted = fit(form, student="resnet18", pretrained=True)
    assert fitted["freeze_stages"]["value"] == 3
    assert fitted["student"]["info"].endswith("It starts from timm's ImageNet weights.")


def test_none_stays_none(form: Form):
    assert fit(form, student="test_byobnet", start_from="")["start_from"]["value"] == ""
    alone = choose_first_order([])
    assert form.read(tuple((fill_fields(alone) | dict.fromkeys(STARTS, "")).values())) == alone


def test_a_teacher_that_is_trained_first_starts_from_its_kind_as_well(form: Form, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.ui.form.OFFERED", ("test_resnet",))
    fitted = fit(form, teacher=f"{TRAIN}test_resnet", teacher_start_from="alien")
    assert fitted["teacher_start_from"]["value"] == "the-teacher"
    assert fitted["teacher"]["info"].startswith("This one is trained first, from the-teacher.")
    assert fit(form, teacher="the-teacher", teacher_start_from="alien")["teacher_start_from"]["value"] == "alien", "there is none to train"


@pytest.mark.parametrize(("pretrained", "begin"), [(False, "random weights"), (True, "timm's ImageNet weights")])
def test_a_teacher_whose_kind_nobody_trained_starts_from_other_weights(form: Form, pretrained: bool, begin: str):
    told = fit(form, teacher=f"{TRAIN}resnet18", pretrained=pretrained)["teacher"]["info"]
    assert told.startswith(f"This one is trained first, from {begin}.")


def test_a_method_without_a_teacher_says_so(form: Form):
    alone = {name: update["info"] for name, update in fit(form, method="vanilla").items()}
    assert [name for name, told in alone.items() if told == "The method vanilla learns without one."] == ["teacher"]
    assert fit(form)["teacher"]["info"] == fit(form, method="mld")["teacher"]["info"] != fit(form, method="vanilla")["teacher"]["info"]


def test_a_teacher_that_is_there_is_told_as_what_it_is(form: Form):
    assert fit(form, teacher="the-teacher")["teacher"]["info"] == Order.model_fields["teacher"].description


def test_what_is_gone_is_not_chosen_any_more(form: Form):
    fitted = fit(form, data="gone", teacher="gone", start_from="gone")
    assert (fitted["data"]["value"], fitted["teacher"]["value"], fitted["start_from"]["value"]) == (None, None, "student-l2d")
    again = fit(form, data=None, teacher=None)
    assert (again["data"]["value"], again["teacher"]["value"]) == (None, None), "nor is anything in its place"
