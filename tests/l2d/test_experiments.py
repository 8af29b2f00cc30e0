"""The commands for series of trainings, tried with tiny networks on drawn pictures."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
from safetensors.torch import save_file
from typer.testing import CliRunner

from l2d.checkpoint import load_checkpoint, read_card, write_card
from l2d.cli import app
from l2d.comparison import collect_table
from l2d.published import read_rows
from l2d.report import write_table
from l2d.reproduce import plan_rows, plan_teacher
from l2d.series import run_training
from tests.l2d.conftest import make_index, make_settings


def run(*words: str) -> tuple[int, str]:
    """Exit code, and all that the program said, on one line."""
    result = CliRunner().invoke(app, words)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


def reproduce_table4(*words: str) -> tuple[int, str]:
    return run("reproduce", "table4", "--data", "shapes:24", "--rows", "3", "--device", "cpu", "--out", "out", *words)


@pytest.mark.usefixtures("tiny")
def test_a_table_from_the_command_line_to_its_files():
    code, said = reproduce_table4("--epochs", "1", "--methods", "vanilla,mld")
    assert code == 0, said
    assert said.startswith("3 of 3 trainings left, on 1 CPU thread 1/3 teacher-test_resnet epoch 1/1 ")
    report = json.loads(Path("out/table4.json").read_text())
    (row,) = report["rows"]
    assert list(row["methods"]) == ["teacher", "vanilla", "mld"]
    for method, entry in row["methods"].items():
        scores = read_card(Path(entry["runs"][0])).scores
        published = read_rows("table4")[2].scores[method]
        assert entry["ours"] == {"mAP": scores["mAP"], "OF1": scores["oracle_k"]["OF1"], "CF1": scores["oracle_k"]["CF1"]}
        assert entry["difference"]["OF1"] == pytest.approx(scores["oracle_k"]["OF1"] - published["OF1"])
    ours = {method: entry["ours"]["mAP"] for method, entry in row["methods"].items()}
    assert row["methods"]["mld"]["gain"] == pytest.approx(ours["mld"] - ours["vanilla"])
    assert row["methods"]["mld"]["paper_gain"] == pytest.approx(86.38 - 86.12)
    text = Path("out/table4.md").read_text()
    assert f"| MLD | {ours['mld']:.2f} | 86.38 |" in text
    assert "The data set is shapes, the paper's is VOC 2007" in text
    assert all(entry["pictures"] == {"trained": 24, "scored": 6} for entry in row["methods"].values())
    assert "\n\nOne training a method. Students trained on 24 pictures, scored on 6. Epochs: teacher 1, students 1.\n\n" in text
    assert Path("out/table4.png").stat().st_size > 5000

    # Again: nothing is trained. After a student is gone: that one alone.
    before = {path: path.stat().st_mtime_ns for path in Path("out").glob("*/model.safetensors")}
    gone = Path(row["methods"]["mld"]["runs"][0])
    for path in gone.iterdir():
        path.unlink()
    assert "1 of 3 trainings left" in reproduce_table4("--epochs", "1", "--methods", "vanilla,mld")[1]
    changed = [path for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert changed == [gone / "model.safetensors"]
    assert json.loads(Path("out/table4.json").read_text())["rows"][0]["methods"]["mld"]["ours"]["mAP"] == ours["mld"]

    # What was trained in another way is not passed off as this.
    code, said = reproduce_table4("--epochs", "2", "--methods", "vanilla,mld")
    assert code == 1
    assert "teacher-test_resnet was trained otherwise than asked for now (epochs)" in said


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("option", ["--rows", "--methods"])
def test_an_empty_choice_is_not_taken_for_all(option: str):
    code, said = run("reproduce", "table4", "--data", "shapes:24", "--out", "out", "--dry-run", option, " ,")
    assert (code, said) == (1, f"Error: {option} names none; leave it out to take all.")


@pytest.mark.usefixtures("tiny")
def test_dry_run_plans_and_estimates_and_trains_nothing():
    code, said = reproduce_table4("--dry-run", "--epochs", "40", "--methods", "vanilla,l2d")
    assert code == 0
    assert "teacher-test_resnet missing 15" in said
    assert "test_efficientnet-l2d-by-test_resnet-seed0 missing 40" in said
    assert not Path("out").exists()


@pytest.mark.usefixtures("tiny", "no_hub")
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--student", "test_vit"], "test_vit gives no spatial feature maps"),
        (["--init", "init"], "init/test_efficientnet.safetensors cannot be read as a safetensors file"),
        (["--pretrained", "--init", "cache", "--student", "resnet19"], "Unknown backbone 'resnet19'"),
        (["--pretrained"], "No ImageNet weights for test_resnet: none are kept on this machine"),
        (["--image-size", "0"], "train_size must lie between 32 and 2048; got 0"),
    ],
)
def test_networks_that_cannot_be_trained_are_refused_before_their_teachers_are(words: list[str], sentence: str, dry: list[str]):
    for folder in ("init", "cache"):
        Path(folder).mkdir(exist_ok=True)
        save_file(timm.create_model("test_resnet").state_dict(), f"{folder}/test_resnet.safetensors")
    code, said = reproduce_table4("--epochs", "1", "--methods", "vanilla,mld", *words, *dry)
    assert (code, sentence in said) == (1, True), said
    assert not Path("out").exists()


@pytest.mark.usefixtures("tiny")
def test_a_training_that_was_interrupted_and_planned_otherwise_is_refused_before_others_are_trained():
    teacher = plan_teacher("test_resnet", make_settings(Path("runs"), epochs=1))
    list(run_training(teacher))
    (student,) = plan_rows(read_rows("table4")[2:3], make_settings(epochs=4, methods=("mld",), teacher=teacher.plan.out))
    epochs = run_training(student)
    next(epochs)
    epochs.close()
    code, said = reproduce_table4("--epochs", "3", "--methods", "vanilla,mld", "--teacher", str(teacher.plan.out))
    assert (code, "mld-by-test_resnet-seed0 was trained otherwise than asked for now (epochs)" in said) == (1, True), said
    assert list(Path("out").iterdir()) == [student.plan.out]


@pytest.mark.usefixtures("tiny", "no_plots")
def test_students_of_a_teacher_that_is_gone_are_not_passed_off_as_the_next_ones():
    assert reproduce_table4("--epochs", "1", "--methods", "mld")[0] == 0
    shutil.rmtree("out/teacher-test_resnet")
    (student,) = Path("out").glob("*-mld-*")
    card = read_card(student)
    write_card(student, dataclasses.replace(card, teacher=card.teacher | {"sha256": "of one that was trained on a GPU"}))
    code, said = reproduce_table4("--epochs", "1", "--methods", "mld")
    assert (code, "mld-by-test_resnet-seed0 was trained otherwise than asked for now (teacher)" in said) == (1, True), said


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_test_pictures_of_other_labels_are_refused_before_a_plan_is_printed(coco: Path, dry: list[str]):
    shutil.copytree(coco, "coco")
    path = Path("coco/annotations/instances_val2014.json")
    path.write_text(path.read_text().replace('"blue"', '"pink"'))
    words = ["--rows", "3", "--data", "coco:coco", "--no-pretrained", "--epochs", "1", "--device", "cpu", "--out", "out"]
    code, said = run("reproduce", "table4", *words, *dry)
    assert (code, "1 unknown (pink), 1 missing (blue)" in said) == (1, True), said
    assert not Path("out").exists()


@pytest.mark.usefixtures("tiny", "no_plots")
def test_a_row_keeps_the_methods_that_were_trained_in_the_same_way_before():
    def read_methods() -> dict[str, Any]:
        (row,) = json.loads(Path("out/table4.json").read_text())["rows"]
        return {method: entry for method, entry in row["methods"].items() if method != "teacher"}

    assert reproduce_table4("--epochs", "1", "--methods", "vanilla,l2d")[0] == 0
    before = read_methods()
    assert reproduce_table4("--epochs", "1", "--methods", "mld")[0] == 0
    after = read_methods()
    assert list(after) == ["mld", "vanilla", "l2d"]
    assert {method: after[method] for method in before} == before
    assert after["mld"]["gain"] == pytest.approx(after["mld"]["ours"]["mAP"] - before["vanilla"]["ours"]["mAP"])

    # Not those of other seeds, nor a student of another recipe, of other pictures, or scored on others.
    assert reproduce_table4("--epochs", "1", "--methods", "mld", "--seeds", "0,1")[0] == 0
    assert list(read_methods()) == ["mld"]
    vanilla = Path(before["vanilla"]["runs"][0])
    card = read_card(vanilla)
    foreign = {"checksum": 1}
    for other in ({"recipe": card.recipe | {"epochs": 2}}, {"data": card.data | foreign}, {"scores": card.scores | foreign}):
        write_card(vanilla, dataclasses.replace(card, **other))
        assert reproduce_table4("--epochs", "1", "--methods", "mld")[0] == 0
        assert list(read_methods()) == ["mld", "l2d"]


@pytest.mark.usefixtures("tiny")
def test_rows_made_in_different_ways_do_not_stand_in_one_table():
    write_table(Path("out"), collect_table("table4", read_rows("table4")[:1], make_settings(epochs=1), make_index()))
    code, said = reproduce_table4("--epochs", "2", "--dry-run")
    assert (code, "table4.json has other rows, made otherwise than asked for now (notes): choose another --out" in said) == (1, True)
    assert reproduce_table4("--epochs", "1", "--methods", "vanilla", "--dry-run")[0] == 0


@pytest.mark.usefixtures("tiny")
def test_a_given_teacher_teaches_another_student_by_the_short_recipe():
    taught = plan_teacher("test_resnet", make_settings(Path("runs"), epochs=1))
    list(run_training(taught))
    words = ["--teacher", "runs/teacher-test_resnet", "--student", "test_byobnet", "--recipe", "short", "--share", "0.5"]
    # It freezes stages, which must be trained ones.
    code, said = reproduce_table4("--epochs", "1", "--image-size", "48", "--methods", "vanilla,l2d", "--dry-run", *words)
    assert (code, "needs ones that were trained" in said) == (1, True)
    Path("init").mkdir()
    save_file(timm.create_model("test_byobnet").state_dict(), "init/test_byobnet.safetensors")
    code, said = reproduce_table4("--epochs", "1", "--image-size", "48", "--methods", "vanilla,l2d", "--init", "init", *words)
    assert code == 0, said
    assert not list(Path("out").glob("teacher-*"))
    report = json.loads(Path("out/table4.json").read_text())
    (row,) = report["rows"]
    assert row["networks"] == ["teacher-test_resnet", "test_byobnet"]
    # The teacher's scores would be those in its card, and nobody measured them.
    assert row["methods"]["teacher"]["ours"] == {}
    card = read_card(Path(row["methods"]["l2d"]["runs"][0]))
    assert (card.backbone, card.image_size, card.teacher["name"]) == ("test_byobnet", 48, "teacher-test_resnet")
    assert {name: card.recipe[name] for name in ("train_size", "teacher_size", "share", "lr")} == {
        "train_size": 48, "teacher_size": 32, "share": 0.5, "lr": 4e-4,
    }  # fmt: skip
    assert card.recipe["weights"] == {"mld": 64, "cd": 3, "id": 100}
    pictures = {method: entry["pictures"] for method, entry in row["methods"].items()}
    counts = {"trained": 12, "scored": 6}
    assert pictures == {"teacher": {}, "vanilla": counts, "l2d": counts}
    text = Path("out/table4.md").read_text()
    assert "## teacher-test_resnet → test_byobnet (paper: ResNet-50 → MobileNet v2 on VOC 2007)" in text
    for note in (
        "50% of the training pictures",
        "Recipe short: lr 0.0004, ",
        "augmentation crops",
        "Loss weights ",
        "The teacher was trained before",
    ):
        assert note in text
    code, said = run("reproduce", "figure1", "--data", "shapes:24", "--out", "out", *words[:2])
    assert (code, "drawn by l2d sweep" in said) == (1, True)
    for more in (("--methods", "mld"), ("--rows", "3"), ("--seeds", "0,1")):
        code, said = run("reproduce", "figure1", "--data", "shapes:24", "--out", "out", *more)
        assert (code, "figure1 has one pair, one method and one seed" in said) == (1, True)
    code, said = run("reproduce", "figure1", "--data", "shapes:24", "--out", "out", "--seeds", "1.5")
    assert (code, "Expected whole numbers separated by commas; got '1.5'" in said) == (1, True)


@pytest.mark.usefixtures("tiny")
def test_sweep_from_the_command_line_to_its_files():
    teacher = plan_teacher("test_resnet", make_settings(epochs=1))
    list(run_training(teacher))
    words = ["sweep", "--teacher", str(teacher.plan.out), "--student", "test_efficientnet", "--data", "shapes:24", "--out", "curves"]
    words += ["--method", "mld", "--factors", "0.5", "--holdout", "0.25", "--epochs", "1", "--image-size", "32", "--device", "cpu"]
    code, said = run(*words, "--dry-run")
    assert (code, "mld=5 missing 1" in said) == (0, True)
    assert run(*words)[0] == 0
    report = json.loads(Path("curves/sweep.json").read_text())
    assert [point["weight"] for point in report["curves"]["mld"]["points"]] == [5, 10]
    for point in report["curves"]["mld"]["points"]:
        assert read_card(Path(point["run"])).scores["held_out"] == {"images": 6, "mAP": point["mAP"]}
    assert report["pictures"] == {"trained": 18, "scored": 6}
    assert (
        "the test pictures took no part. One training a point, of seed 0. Students trained on 18 pictures, scored on 6.\n"
        in Path("curves/sweep.md").read_text()
    )
    assert Path("curves/sweep.png").stat().st_size > 5000
    # The points are checkpoints like any other.
    assert load_checkpoint(Path("curves/mld=5"))[1].recipe["weights"] == {"mld": 5.0}


@pytest.mark.usefixtures("tiny")
def test_figure1_from_the_command_line():
    code, said = run("reproduce", "figure1", "--data", "shapes:24", "--epochs", "1", "--device", "cpu", "--out", "out")
    assert code == 0, said
    report = json.loads(Path("out/figure1/sweep.json").read_text())
    assert list(report["curves"]) == ["mld", "cd", "id"]
    assert all(point["mAP"] is not None for curve in report["curves"].values() for point in curve["points"])
    assert "The paper shows these curves without numbers." in report["notes"]
