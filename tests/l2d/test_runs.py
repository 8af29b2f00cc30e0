"""From a plan to a checkpoint folder, also when the way there is interrupted."""

import dataclasses
import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from l2d import runs
from l2d.checkpoint import CARD, WEIGHTS, ModelCard, Network, add_scores, hash_file, load_checkpoint, read_card, save_checkpoint
from l2d.data import read_index
from l2d.environment import describe_environment
from l2d.epochs import EPOCHS, read_epochs
from l2d.model import create_model
from l2d.recipe import Recipe
from l2d.runs import (
    STATE,
    UNIT_PIXELS,
    Plan,
    check_network,
    check_start,
    choose_device,
    choose_scaling,
    create_network,
    describe_lineage,
    execute,
    load_network,
    load_network_weights,
)
from l2d.series import Training, check_trainings


def make_plan(coco: Path, out: Path, *, recipe: dict[str, Any] | None = None, **changes: Any) -> Plan:
    numbers = {"epochs": 2, "batch_size": 4, "lr": 1e-3, "train_size": 32, "teacher_size": 32, **(recipe or {})}
    fields = {"backbone": "test_resnet", "image_size": 48, "width": 16, "feedforward": 24, **changes}
    return Plan(data=f"coco:{coco}", out=out, recipe=Recipe(**numbers), **fields)


@pytest.fixture(scope="module")
def teacher(coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "teacher"
    list(execute(make_plan(coco, out, recipe={"epochs": 1}), device="cpu"))
    return out


@pytest.fixture(scope="module")
def undisturbed(coco: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the weights that a run ends with which nothing stopped."""
    plan = make_plan(coco, tmp_path_factory.mktemp("runs") / "whole")
    list(execute(plan, device="cpu"))
    return hash_file(plan.out / WEIGHTS)


def test_a_run_leaves_card_weights_and_its_epochs_and_nothing_else(coco: Path, tmp_path: Path) -> None:
    plan = make_plan(coco, tmp_path / "one", recipe={"averaging": 0.9, "holdout": 0.25})
    reports = list(execute(plan, device="cpu"))
    assert sorted(path.name for path in plan.out.iterdir()) == [CARD, EPOCHS, WEIGHTS]
    model, card = load_checkpoint(plan.out)
    assert (card.name, card.role, card.method, card.backbone, card.teacher) == ("one", "teacher", "vanilla", "test_resnet", None)
    assert card.labels == ("red", "green", "blue")
    assert (card.image_size, card.width, card.feedforward, card.mean) == (48, 16, 24, (0.5, 0.5, 0.5))
    assert card.recipe == plan.recipe.as_dict()
    assert card.data == {"source": "coco", "images": 12, "labels": 3, "checksum": read_index(plan.data, "train").checksum}
    environment = {"from_epoch": 1, **describe_environment(torch.device("cpu"))}
    assert card.lineage == {"init": "random", "environments": [environment]}
    assert environment["torch"] == torch.__version__
    assert card.scores["held_out"]["images"] == 3
    assert datetime.date.fromisoformat(card.created) <= datetime.date.today()
    assert card.seconds == pytest.approx(reports[-1].total_seconds, abs=0.1)
    for name, tensor in reports[-1].model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor.contiguous(), rtol=2**-11, atol=2**-24)
    # Nothing of the place where it was made goes with it.
    assert str(coco) not in (plan.out / CARD).read_text()


def test_a_network_is_called_as_its_folder_wherever_that_is_named_from(coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = make_plan(coco, Path())
    card = create_network(plan, read_index(plan.data, "train"), None).card
    assert card.name == card.title == tmp_path.name


def test_the_pictures_of_a_table_are_called_as_it_or_as_its_folder(coco: Path, tmp_path: Path) -> None:
    plan = make_plan(coco, tmp_path)
    index = read_index(plan.data, "train")
    cards = [create_network(dataclasses.replace(plan, data=f"csv:{path}"), index, None).card for path in ("own.csv", "beach/labels.csv")]
    assert [card.data["name"] for card in cards] == ["own", "beach"]


@pytest.mark.parametrize(("pretrained", "told"), [(True, "timm, pretrained test_resnet"), (False, "random")])
def test_where_initial_weights_come_from_is_told(coco: Path, tmp_path: Path, pretrained: bool, told: str) -> None:
    weights = {"source": "timm/test_resnet.r160_in1k", "licence": "apache-2.0"} if pretrained else {}
    assert describe_lineage(make_plan(coco, tmp_path, pretrained=pretrained)) == {"init": told} | weights


def test_paths_may_be_given_as_text(coco: Path, tmp_path: Path) -> None:
    named = make_plan(coco, str(tmp_path / "one"), teacher="runs/teacher", init="first.safetensors")
    assert named == make_plan(coco, tmp_path / "one", teacher=Path("runs/teacher"), init=Path("first.safetensors"))


def test_two_runs_do_not_share_a_folder(coco: Path, tmp_path: Path) -> None:
    first = execute(make_plan(coco, tmp_path / "one", recipe={"epochs": 3}), device="cpu")
    next(first)
    with pytest.raises(ValueError, match=r"Another process trains in .*one just now.* a run left open .* run\.close\(\)"):
        next(execute(make_plan(coco, tmp_path / "one", recipe={"epochs": 3}), device="cpu", resume=True))
    first.close()
    assert list(execute(make_plan(coco, tmp_path / "one", recipe={"epochs": 3}), device="cpu", resume=True))[-1].epoch == 3


def test_pixels_are_left_alone_where_the_plan_or_the_network_to_go_on_from_says_so(coco: Path, tmp_path: Path) -> None:
    plan = dataclasses.replace(make_plan(coco, tmp_path / "unit", recipe={"epochs": 1}), unit_pixels=True)
    list(execute(plan, device="cpu"))
    assert (read_card(plan.out).mean, read_card(plan.out).std) == UNIT_PIXELS
    # From the whole of it, and from its backbone alone.
    for name, init in (("later", plan.out), ("elsewhere", plan.out / WEIGHTS)):
        later = dataclasses.replace(plan, out=tmp_path / name, init=init, unit_pixels=False)
        list(execute(later, device="cpu"))
        assert (read_card(later.out).mean, read_card(later.out).std) == UNIT_PIXELS
        check_trainings([Training(later)], read_index(plan.data, "train"))
    with pytest.raises(ValueError, match=r"unit was trained otherwise than asked for now \(scaling of pixels\)"):
        check_trainings([Training(dataclasses.replace(plan, unit_pixels=False))], read_index(plan.data, "train"))


def test_a_distilled_student_names_its_teacher(coco: Path, tmp_path: Path, teacher: Path) -> None:
    list(execute(make_plan(coco, tmp_path / "l2d", recipe={"method": "l2d", "epochs": 1}, teacher=teacher), device="cpu"))
    card = read_card(tmp_path / "l2d")
    assert (card.role, card.method) == ("student", "l2d")
    assert card.teacher == {"name": "teacher", "sha256": hash_file(teacher / WEIGHTS)}
    assert card.recipe["weights"] == {"mld": 10.0, "cd": 100.0, "id": 1000.0}


def test_a_student_to_compare_with_has_no_teacher(coco: Path, tmp_path: Path, teacher: Path) -> None:
    list(execute(make_plan(coco, tmp_path / "plain", recipe={"epochs": 1}, teacher=teacher), device="cpu"))
    card = read_card(tmp_path / "plain")
    assert (card.role, card.method, card.teacher) == ("student", "vanilla", None)


def test_a_loss_that_will_hardly_count_is_told_at_the_start(coco: Path, tmp_path: Path, teacher: Path) -> None:
    run = execute(
        make_plan(coco, tmp_path / "few", recipe={"method": "l2d", "batch_size": 2, "weights": {"id": 0.0}}, teacher=teacher), device="cpu"
    )
    with pytest.warns(UserWarning, match="The loss cd .* of such groups a batch of 2 has 0 on average, so it will hardly count"):
        next(run)
    run.close()


def test_students_of_all_methods_start_from_the_same_weights(coco: Path, tmp_path: Path, teacher: Path) -> None:
    zeros = {"vanilla": {}, "l2d": {"mld": 0.0, "cd": 0.0, "id": 0.0}, "reviewkd": {"reviewkd": 0.0}}
    plans = [
        make_plan(coco, tmp_path / name, recipe={"epochs": 1, "seed": 3, "method": name, "weights": weights}, teacher=teacher)
        for name, weights in zeros.items()
    ]
    for plan in plans:
        list(execute(plan, device="cpu"))
    assert len({hash_file(plan.out / WEIGHTS) for plan in plans}) == 1


def test_initial_weights_and_their_lineage(coco: Path, tmp_path: Path) -> None:
    init = tmp_path / "init.safetensors"
    torch.manual_seed(11)
    save_file(timm.create_model("test_resnet").state_dict(), init)
    plan = make_plan(coco, tmp_path / "one", recipe={"epochs": 1, "freeze_stages": 5}, init=init)
    (report,) = execute(plan, device="cpu")
    assert read_card(plan.out).lineage.items() >= {"init": "init.safetensors", "sha256": hash_file(init)}.items()
    torch.manual_seed(11)
    assert torch.equal(report.model.backbone.conv1[0].weight, timm.create_model("test_resnet").conv1[0].weight)


def test_a_run_goes_on_though_the_network_that_it_started_from_was_scored_meanwhile(coco: Path, tmp_path: Path, teacher: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(teacher, base)
    plan = make_plan(coco, tmp_path / "one", init=base)
    stopped = execute(plan, device="cpu")
    next(stopped)
    stopped.close()
    add_scores(base, {"mAP": 12.0})
    assert [report.epoch for report in execute(plan, device="cpu", resume=True)] == [1, 2]


def test_a_network_that_knows_unit_pixels_anyway_is_taken_for_what_it_is() -> None:
    plan = make_plan(Path("coco"), Path("out"), backbone="mobilevit_xxs")
    assert choose_scaling(plan) == choose_scaling(dataclasses.replace(plan, unit_pixels=True)) == UNIT_PIXELS


def test_an_interrupted_run_goes_on_to_the_same_result(
    coco: Path, tmp_path: Path, undisturbed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(coco, tmp_path / "stopped")
    next(execute(plan, device="cpu"))
    assert (plan.out / STATE).exists()
    with pytest.raises(ValueError, match=r"stopped holds an unfinished run: add --resume \(.* resume=True\) .* or remove the folder to"):
        next(execute(plan, device="cpu"))
    (here,) = read_card(plan.out).lineage["environments"]
    monkeypatch.setattr(runs, "describe_environment", lambda device: {"device": "another"})
    list(execute(plan, device="cpu", resume=True))
    assert hash_file(plan.out / WEIGHTS) == undisturbed
    assert not (plan.out / STATE).exists()
    # Its card tells both places, and its table every epoch once.
    assert read_card(plan.out).lineage["environments"] == [here, {"from_epoch": 2, "device": "another"}]
    assert [row["epoch"] for row in read_epochs(plan.out)] == ["1", "2"]


def test_a_run_killed_before_its_last_checkpoint_was_written(
    coco: Path, tmp_path: Path, undisturbed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(coco, tmp_path / "killed")

    def die(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        run = execute(plan, device="cpu")
        next(run)
        patch.setattr(runs, "save_checkpoint", die)
        with pytest.raises(KeyboardInterrupt):
            next(run)
    list(execute(plan, device="cpu", resume=True))
    assert hash_file(plan.out / WEIGHTS) == undisturbed
    assert not (plan.out / STATE).exists()


def test_what_somebody_else_finished_meanwhile_is_not_trained_over(
    coco: Path, tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(coco, tmp_path / "late")
    build = runs.create_network

    def build_late(*given: Any) -> Network:
        shutil.copytree(teacher, plan.out)
        return build(*given)

    monkeypatch.setattr(runs, "create_network", build_late)
    with pytest.raises(ValueError, match="late holds a finished checkpoint already"):
        next(execute(plan, device="cpu", resume=True))
    assert sorted(path.name for path in plan.out.iterdir()) == [CARD, EPOCHS, WEIGHTS]


@pytest.mark.parametrize("resume", [False, True])
def test_a_finished_checkpoint_is_not_trained_over(coco: Path, teacher: Path, resume: bool) -> None:
    before = (teacher / CARD).read_bytes()
    with pytest.raises(ValueError, match="teacher holds a finished checkpoint already"):
        next(execute(make_plan(coco, teacher), device="cpu", resume=resume))
    assert (teacher / CARD).read_bytes() == before


def test_a_teacher_of_other_labels_is_refused_before_anything_is_written(coco: Path, tmp_path: Path, teacher: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / WEIGHTS).write_bytes((teacher / WEIGHTS).read_bytes())
    card = json.loads((teacher / CARD).read_text())
    (other / CARD).write_text(json.dumps(card | {"labels": ["blue", "green", "red"]}))
    with pytest.raises(ValueError, match="the same labels in another order"):
        next(execute(make_plan(coco, tmp_path / "one", recipe={"method": "l2d"}, teacher=other), device="cpu"))
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        # Not every command has an option to freeze none.
        ({"recipe": {"freeze_stages": 1}}, r"needs ones that were trained: give --init or --pretrained\.$"),
        ({"init": Path("weights.safetensors"), "pretrained": True}, "given twice"),
    ],
)
def test_a_start_that_makes_no_sense_is_refused(coco: Path, tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        next(execute(make_plan(coco, tmp_path / "one", **changes), device="cpu"))
    assert not (tmp_path / "one").exists()


def test_stages_may_be_frozen_that_start_from_weights_of_the_hub(coco: Path, tmp_path: Path) -> None:
    check_start(make_plan(coco, tmp_path / "one", pretrained=True, recipe={"freeze_stages": 1}))


@pytest.mark.parametrize("changes", [{"backbone": "resnet19"}, {"width": 12}, {"output_stride": 5}, {"init": Path("nowhere")}])
def test_a_plan_that_cannot_be_built_leaves_nothing(coco: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"backbone|multiple|stride|nowhere"):
        next(execute(make_plan(coco, tmp_path / "one", **changes), device="cpu"))
    assert not (tmp_path / "one").exists()


@pytest.mark.usefixtures("no_hub")
def test_that_the_weights_of_a_plan_cannot_be_had_is_told_long_before_its_turn(coco: Path, tmp_path: Path) -> None:
    labels = read_index(f"coco:{coco}", "train").labels
    with pytest.raises(ValueError, match="No ImageNet weights for test_resnet: none are kept on this machine"):
        check_network(make_plan(coco, tmp_path / "one", pretrained=True), labels)
    check_network(make_plan(coco, tmp_path / "one"), labels)


def copy_coco(coco: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A data set that may be changed, and its test annotations."""
    root = tmp_path / "coco"
    shutil.copytree(coco, root)
    return root, root / "annotations" / "instances_val2014.json"


def test_test_pictures_of_other_labels_are_refused_before_anything_is_trained(coco: Path, tmp_path: Path) -> None:
    root, path = copy_coco(coco, tmp_path)
    path.write_text(path.read_text().replace('"blue"', '"pink"'))
    with pytest.raises(ValueError, match=r"1 unknown \(pink\), 1 missing \(blue\)"):
        next(execute(make_plan(root, tmp_path / "one"), device="cpu"))
    assert not (tmp_path / "one").exists()


def test_a_data_set_without_test_pictures_trains(coco: Path, tmp_path: Path) -> None:
    root, path = copy_coco(coco, tmp_path)
    path.unlink()
    shutil.rmtree(root / "val2014")
    list(execute(make_plan(root, tmp_path / "one", recipe={"epochs": 1}), device="cpu"))
    assert (tmp_path / "one" / CARD).exists()


SWIN = "swin_tiny_patch4_window7_224"


def test_sizes_that_a_network_does_not_take_in_training_are_refused(coco: Path, tmp_path: Path) -> None:
    sentence = f"{SWIN} takes no pictures of 66 x 66 pixels: .*divisible by patch size"
    with pytest.raises(ValueError, match=sentence):
        next(execute(make_plan(coco, tmp_path / "one", backbone=SWIN, image_size=64, recipe={"train_size": 66}), device="cpu"))
    model = create_model(SWIN, 3, image_size=64, width=16, feedforward=24)
    card = ModelCard("swin", "Swin", "teacher", "vanilla", SWIN, ("red", "green", "blue"), 64, width=16, feedforward=24)
    save_checkpoint(tmp_path / "swin", model, card)
    plan = make_plan(coco, tmp_path / "one", teacher=tmp_path / "swin", recipe={"method": "mld", "teacher_size": 66})
    with pytest.raises(ValueError, match=sentence):
        next(execute(plan, device="cpu"))
    assert not (tmp_path / "one").exists()


def test_a_network_that_predicts_or_teaches_has_its_branches_merged(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("repvgg_a0", 3, image_size=32, width=16, feedforward=24)
    card = ModelCard("one", "One", "student", "vanilla", "repvgg_a0", ("red", "green", "blue"), 32, width=16, feedforward=24)
    save_checkpoint(tmp_path / "one", model, card)
    saved, images = load_checkpoint(tmp_path / "one")[0], torch.rand(2, 3, 32, 32)
    merged = load_network(tmp_path / "one", torch.device("cpu")).model
    assert any(isinstance(module, nn.BatchNorm2d) for module in saved.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in merged.modules())
    with torch.no_grad():
        torch.testing.assert_close(merged(images).logits, saved(images).logits, rtol=1e-4, atol=1e-4)


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for other in ("gpu", "mps", "meta"):
        with pytest.raises(ValueError, match=f"Unknown device '{other}'; use auto, cpu, cuda or cuda:NUMBER"):
            choose_device(other)


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, there in ((2, "2 CUDA devices "), (1, "1 CUDA device "), (0, "no CUDA device ")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        with pytest.raises(ValueError, match=f"cuda:{count} was asked for, but torch sees {there}here"):
            choose_device(f"cuda:{count}")
        assert [choose_device(f"cuda:{number}").index for number in range(count)] == [*range(count)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")


def test_a_run_goes_on_from_a_whole_checkpoint(coco: Path, tmp_path: Path, teacher: Path) -> None:
    # A learning rate that moves no weight by more than half precision can tell: what comes out is what went in, head included.
    plan = make_plan(coco, tmp_path / "longer", recipe={"epochs": 1, "lr": 1e-8, "weight_decay": 0.0, "freeze_stages": 5}, init=teacher)
    (report,) = execute(plan, device="cpu")
    before, card = load_checkpoint(teacher)
    torch.testing.assert_close(report.model.head.classifier.detach(), before.head.classifier, rtol=0, atol=1e-5)
    torch.testing.assert_close(report.model.head.queries, before.head.queries, rtol=0, atol=0)
    told = read_card(plan.out).lineage
    assert told.keys() == {"init", "sha256", "before", "environments"}
    assert (told["init"], told["sha256"]) == ("all weights of teacher", card.sha256)
    assert told["before"] == {"recipe": card.recipe, "data": card.data, "mAP": card.scores.get("mAP"), "lineage": card.lineage}


def test_a_run_does_not_go_on_with_other_labels(coco: Path, tmp_path: Path, teacher: Path) -> None:
    with pytest.raises(ValueError, match=r"teacher knows other labels.*take the backbone alone\.$"):
        next(execute(dataclasses.replace(make_plan(coco, tmp_path / "other", init=teacher), data="shapes"), device="cpu"))
    model, card = load_checkpoint(teacher)
    with pytest.raises(ValueError, match=r"or what l2d\.checkpoint\.select_labels makes of it"):
        load_network_weights(model, teacher, card.labels[1:])
