"""Trainings of a series by what their folders hold: what is refused before anything is trained, and what is told of those that are done."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from l2d import series
from l2d.checkpoint import CARD, ModelCard, add_scores, read_card, write_card
from l2d.data import read_index
from l2d.data.images import Index
from l2d.published import read_rows
from l2d.recipe import Recipe
from l2d.reproduce import plan_rows, plan_teacher
from l2d.runs import STATE, Plan, create_network
from l2d.series import (
    FINISHED,
    INTERRUPTED,
    MISSING,
    Estimate,
    Training,
    check_trainings,
    count_pictures,
    describe_pictures,
    find_teacher,
    run_training,
    score_training,
)
from tests.l2d.conftest import make_settings

INDEX = Index([Path(f"{number}.jpg") for number in range(40)], torch.eye(2).repeat(20, 1), ("cat", "dog"))


def make_plan(out: Path, recipe: dict[str, Any] | None = None, **changes: Any) -> Plan:
    numbers = {"epochs": 4, "train_size": 32, "teacher_size": 32, **(recipe or {})}
    fields = {"backbone": "test_resnet", "image_size": 32, "width": 16, "feedforward": 24, **changes}
    return Plan(data="coco:ROOT", out=out, recipe=Recipe(**numbers), **fields)


def finish(plan: Plan, **changes: Any) -> ModelCard:
    """Leave the card of a run as planned, but for these changes."""
    plan.out.mkdir(parents=True, exist_ok=True)
    card = dataclasses.replace(create_network(plan, INDEX, None).card, **changes)
    write_card(plan.out, card)
    return card


def test_a_folder_says_how_far_its_training_is(tmp_path: Path) -> None:
    training = Training(make_plan(tmp_path / "one"))
    assert training.state == MISSING
    finish(training.plan)
    assert training.state == FINISHED
    (training.plan.out / STATE).touch()
    assert training.state == INTERRUPTED


def test_a_training_may_end_before_its_schedule_does(tmp_path: Path) -> None:
    assert [Training(make_plan(tmp_path), stop).epochs for stop in (None, 3)] == [4, 3]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, None),
        ({"backbone": "test_efficientnet"}, "backbone"),
        ({"image_size": 64}, "image_size"),
        ({"output_stride": 16}, "output_stride"),
        ({"width": 32}, "width"),
        ({"feedforward": 32}, "feedforward"),
        ({"labels": ("dog", "cat")}, "labels"),
        ({"mean": (0.0, 0.0, 0.0)}, "scaling of pixels"),
        ({"std": (0.1, 0.1, 0.1)}, "scaling of pixels"),
        ({"data": {"images": 39, "checksum": INDEX.checksum}}, "number of pictures"),
        ({"data": {"images": 40, "checksum": 1}}, "set of pictures or labels"),
        ({"data": {"images": 40}}, None),
        ({"lineage": {"init": "timm, pretrained test_resnet"}}, "origin of its initial weights"),
        ({"recipe": Recipe(epochs=4, train_size=32, teacher_size=32, seed=1).as_dict()}, "seed"),
        ({"recipe": Recipe(epochs=5, train_size=32, teacher_size=32).as_dict(), "width": 32}, "epochs, width"),
    ],
)
def test_what_was_trained_in_another_way_is_refused_by_what_differs(tmp_path: Path, changes: dict[str, Any], named: str | None) -> None:
    training = Training(make_plan(tmp_path / "one"))
    finish(training.plan, **changes)
    if named is None:
        check_trainings([training], INDEX)
    else:
        with pytest.raises(ValueError, match=rf"one was trained [a-z ]*\(?\b{named}( than asked for now|\)): choose another --out"):
            check_trainings([training], INDEX)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"recipe": {"freeze_stages": 1}}, "needs ones that were trained"),
        ({"init": Path("weights.safetensors"), "pretrained": True}, "given twice"),
        ({"backbone": "test_vit"}, "test_vit gives no spatial feature maps"),
        ({"init": Path("weights.safetensors")}, "No such file"),
    ],
)
def test_a_training_that_is_missing_is_refused_before_others_are_run(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    trainings = [Training(make_plan(tmp_path / "wrong", **changes)), Training(make_plan(tmp_path / "right"))]
    with pytest.raises(ValueError, match=sentence):
        check_trainings(trainings, INDEX)
    # One that is finished needs no weights to start from.
    if "init" in changes and "pretrained" not in changes:
        finish(dataclasses.replace(trainings[0].plan, init=None), lineage={"init": "weights.safetensors", "sha256": "gone"})
        check_trainings(trainings, INDEX)


def test_a_teacher_is_found_among_the_trainings_or_on_disk(tmp_path: Path) -> None:
    teacher, given = make_plan(tmp_path / "teacher", backbone="test_efficientnet"), tmp_path / "given"
    trainings = [Training(teacher), Training(make_plan(tmp_path / "a", {"method": "l2d"}, teacher=teacher.out))]
    assert find_teacher(trainings[1], trainings) is teacher
    finish(dataclasses.replace(teacher, out=given, image_size=64, width=8))
    found = find_teacher(Training(make_plan(tmp_path / "b", {"method": "l2d"}, teacher=given)), trainings)
    assert found is not None
    assert (found.backbone, found.image_size, found.width, found.feedforward, found.out) == ("test_efficientnet", 64, 8, 24, given)
    assert find_teacher(Training(make_plan(tmp_path / "c", {"method": "vanilla"}, teacher=given)), trainings) is None


def make_card(images: int | None, scored: int | None, held_out: int | None = None, **recipe: float) -> ModelCard:
    scores = ({} if scored is None else {"images": scored}) | ({} if held_out is None else {"held_out": {"images": held_out}})
    data = {} if images is None else {"images": images}
    return ModelCard("a", "A", "student", "l2d", "test_resnet", ("x",), 32, recipe=recipe, data=data, scores=scores)


@pytest.mark.parametrize(
    ("cards", "held_out", "sentence"),
    [
        ([], False, ""),
        ([make_card(None, None)], False, ""),
        ([make_card(2000, 50), make_card(2000, 50)], False, "Students trained on 2,000 pictures, scored on 50."),
        ([make_card(2000, 50), make_card(2000, 60)], False, "Students trained on 2,000 pictures."),
        ([make_card(None, 50), make_card(2000, 50)], False, "Students scored on 50 pictures."),
        ([make_card(2000, 50, 200, holdout=0.1, share=0.5)], False, "Students trained on 900 pictures, scored on 50."),
        ([make_card(2000, 50, 200, holdout=0.1)], True, "Students trained on 1,800 pictures, scored on 200."),
        ([make_card(2000, 50)], True, "Students trained on 2,000 pictures."),
    ],
)
def test_what_all_students_saw_is_told_as_far_as_it_is_known(cards: list[ModelCard], held_out: bool, sentence: str) -> None:
    assert describe_pictures(count_pictures(cards, held_out=held_out)) == sentence


def test_time_is_that_of_all_epochs_at_the_speed_of_a_pair_that_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[str, str | None]] = []
    monkeypatch.setattr(
        Estimate, "_measure", lambda self, plan, teacher: measured.append((plan.backbone, teacher and teacher.backbone)) or 5.0
    )
    estimate, teacher = Estimate(INDEX, "cpu"), make_plan(tmp_path, backbone="test_efficientnet")
    assert estimate.seconds(Training(make_plan(tmp_path)), None) == 4 * 40 / 5
    assert estimate.seconds(Training(make_plan(tmp_path, {"holdout": 0.25, "share": 0.5, "seed": 1}), stop=2), None) == 2 * 15 / 5
    estimate.seconds(Training(make_plan(tmp_path)), teacher)
    estimate.seconds(Training(make_plan(tmp_path, image_size=64)), teacher)
    assert measured == [("test_resnet", None), ("test_resnet", "test_efficientnet"), ("test_resnet", "test_efficientnet")]


def test_speed_is_measured_on_few_pictures_by_two_steps_of_what_will_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, Recipe, bool]] = []

    class Report:
        images_per_second = 3.0

    def fit(student: Any, index: Index, recipe: Recipe, *, teacher: Any, device: torch.device) -> list[Report]:
        seen.append((len(index.paths), recipe, teacher is not None))
        return [Report()]

    monkeypatch.setattr(series, "fit", fit)
    plan = make_plan(tmp_path / "a", {"batch_size": 16, "holdout": 0.5, "share": 0.5, "method": "mld", "weights": {"mld": 1.0}})
    estimate = Estimate(INDEX, "cpu")
    for teacher in (None, make_plan(tmp_path / "teacher")):
        estimate.seconds(Training(plan), teacher)
    wanted = dataclasses.replace(plan.recipe, weights={}, epochs=2, batch_size=8, holdout=0.0, share=1.0)
    assert seen == [(8, dataclasses.replace(wanted, method=name), taught) for name, taught in (("vanilla", False), ("l2d", True))]
    assert not (plan.out / CARD).exists()


@pytest.mark.usefixtures("tiny")
def test_an_interrupted_training_ends_as_if_it_had_never_been_stopped():
    whole, parts = (plan_teacher("test_resnet", make_settings(Path(name), epochs=6)) for name in ("whole", "parts"))
    assert len(list(run_training(whole))) == whole.epochs == 2
    first = run_training(parts)
    next(first)
    first.close()
    assert (whole.state, parts.state) == ("finished", "interrupted")
    list(run_training(parts))
    assert parts.state == "finished"
    assert not (parts.plan.out / STATE).exists()
    assert read_card(whole.plan.out).sha256 == read_card(parts.plan.out).sha256


@pytest.mark.usefixtures("tiny")
def test_a_student_of_another_teacher_is_refused():
    settings = make_settings(epochs=1, methods=("l2d",))
    trainings = plan_rows(read_rows("table4")[2:3], settings)
    for training in trainings:
        list(run_training(training))
    index = read_index(settings.data, "train")
    check_trainings(trainings, index)
    teacher = trainings[0].plan.out
    write_card(teacher, dataclasses.replace(read_card(teacher), sha256="of another one"))
    with pytest.raises(ValueError, match=r"l2d-by-test_resnet-seed0 was trained otherwise than asked for now \(teacher\)"):
        check_trainings(trainings, index)


@pytest.mark.usefixtures("tiny")
def test_networks_of_other_initial_weights_are_not_passed_off_as_those_asked_for():
    for seed, folder in enumerate(("one", "other")):
        Path(folder).mkdir()
        torch.manual_seed(seed)
        save_file(timm.create_model("test_resnet").state_dict(), f"{folder}/test_resnet.safetensors")
    one, other, absent = (plan_teacher("test_resnet", make_settings(epochs=1, init=Path(name))) for name in ("one", "other", "gone"))
    list(run_training(one))
    index = read_index(one.plan.data, "train")
    check_trainings([one], index)
    # Who threw them away meanwhile can still have the table written.
    check_trainings([absent], index)
    with pytest.raises(ValueError, match=r"otherwise than asked for now \(origin of its initial weights\)"):
        check_trainings([other], index)


@pytest.mark.usefixtures("tiny")
def test_a_teacher_of_other_labels_is_refused_before_a_plan_is_printed():
    settings = make_settings(epochs=1, methods=("l2d",))
    trainings = plan_rows(read_rows("table4")[2:3], settings)
    list(run_training(trainings[0]))
    index = read_index(settings.data, "train")
    with pytest.raises(ValueError, match=r"was trained for 9 labels; the data set has 9: the same labels in another order"):
        check_trainings(trainings[1:], index._replace(labels=index.labels[::-1]))


@pytest.mark.usefixtures("tiny")
def test_a_training_is_scored_anew_on_more_test_pictures_or_with_other_labels_for_them():
    training = plan_teacher("test_resnet", make_settings(epochs=1))
    list(run_training(training))
    index = read_index("shapes:24", "test")
    told: list[tuple[int, int]] = []

    def look(done: int, total: int) -> None:
        told.append((done, total))
        # As another command may, while this one scores.
        add_scores(training.plan.out, {"localization": {"pairs": len(told)}})

    for count in (4, 6):
        scores = score_training(training, index.select(range(count)), progress=look)
        assert (scores["images"], scores["localization"]) == (count, {"pairs": len(told)})
    assert told == [(1, 1), (1, 1)]
    corrected = index.select(range(6))._replace(targets=index.targets[:6].flip(1))
    assert score_training(training, corrected)["mAP"] != scores["mAP"]
    assert score_training(training, index.select(range(6)))["mAP"] == scores["mAP"]
    assert read_card(training.plan.out).scores["images"] == 6


def test_a_student_that_had_no_teacher_is_refused_where_it_shall_have_one(tmp_path: Path) -> None:
    teacher = make_plan(tmp_path / "teacher")
    finish(teacher)
    finish(make_plan(tmp_path / "one"))
    with pytest.raises(ValueError, match=r"one was trained otherwise than asked for now \(method, weights, teacher\)"):
        check_trainings([Training(make_plan(tmp_path / "one", {"method": "mld"}, teacher=teacher.out))], INDEX)
