"""The paper's tables and figure: what is planned, run, resumed and written, tried with tiny networks on drawn pictures."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from l2d import published, reproduce
from l2d.checkpoint import ModelCard, load_checkpoint, read_card, write_card
from l2d.cli import app
from l2d.data import READERS, read_index
from l2d.distill import METHODS
from l2d.model import BACKBONES
from l2d.published import TABLES, choose_rows, name_pair, read_recipes, read_rows
from l2d.report import plot_sweep, plot_table, table_as_markdown, write_table
from l2d.reproduce import (
    Settings,
    collect_row,
    collect_table,
    describe_deviations,
    plan_figure1,
    plan_rows,
    plan_students,
    plan_teacher,
    read_scores,
)
from l2d.runs import STATE
from l2d.series import Training, check_trainings, count_pictures, describe_pictures, run_training, score_training
from l2d.sweep import collect_sweep, plan_sweep

PUBLISHED = {"epochs": 80, "batch_size": 64, "lr": 1e-4, "weight_decay": 1e-4, "warmup": 0.2, "train_size": 224}
PUBLISHED |= {"augmentation": "randaugment", "cutout": 0.5}


def make_recipes() -> dict[str, Any]:
    """All networks are tiny ones."""
    recipes = read_recipes()
    recipes["backbones"] = dict.fromkeys(recipes["backbones"], "test_resnet") | {"MobileNet v2": "test_efficientnet"}
    for recipe in recipes["recipes"].values():
        recipe["network"] = {"image_size": 32, "width": 16, "feedforward": 24}
    recipes["drawn"] = {"image_size": 32, "pretrained": False}
    recipes["figure1"]["factors"] = [1]
    return recipes


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All networks are tiny ones, and 24 pictures are drawn at most."""
    recipes = make_recipes()
    for module in (published, reproduce):
        monkeypatch.setattr(module, "read_recipes", lambda: recipes)
    monkeypatch.setenv("L2D_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def make_settings(out: Path = Path("out"), data: str = "shapes:24", **changes: Any) -> Settings:
    return Settings(data, out, **{"methods": ("vanilla", "l2d"), **changes})


def run(*words: str) -> tuple[int, str]:
    """Exit code, and all that the program said, on one line."""
    result = CliRunner().invoke(app, words)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


def reproduce_table4(*words: str) -> tuple[int, str]:
    return run("reproduce", "table4", "--data", "shapes:24", "--rows", "3", "--device", "cpu", "--out", "out", *words)


@pytest.mark.parametrize("table", TABLES)
def test_every_row_is_planned_as_published(table: str):
    for row in read_rows(table):
        assert set(name_pair(row)) <= set(BACKBONES)
        assert set(row.scores) == {"teacher", *read_recipes()["methods"]}
        settings = make_settings(data=f"{read_recipes()['data'][row.data]}:ROOT", methods=("l2d",))
        student = plan_students(row, settings)["l2d", 0].plan
        recipe = student.recipe.as_dict()
        assert {name: recipe[name] for name in PUBLISHED} == PUBLISHED
        assert recipe["weights"] == METHODS["l2d"]
        assert (student.image_size, student.width, student.feedforward, student.pretrained) == (224, 768, 2048, True)
        assert student.unit_pixels


def test_the_supplements_recipe_weighs_mld_beside_a_summed_loss_and_is_the_papers_otherwise():
    recipes = read_recipes()["recipes"]
    paper, supplement = (recipes[name] for name in ("paper", "supplement"))
    assert {name for name in supplement if supplement[name] != paper.get(name)} == {"weights", "weights_from"}
    assert supplement["weights"] == {"mld": METHODS["mld"]["mld"] * supplement["recipe"]["batch_size"]}


def test_initial_weights_are_those_of_the_published_code_unless_they_are_given(tmp_path: Path):
    (row,) = choose_rows(read_rows("table3"), ["3"])
    teachers = [plan_teacher(name_pair(row)[0], make_settings(data="voc:ROOT", **changes)).plan for changes in ({}, {"init": tmp_path})]
    assert [plan.backbone for plan in teachers] == ["wide_resnet101_2.tv_in1k", "wide_resnet101_2"]
    assert (teachers[0].out.name, teachers[1].init) == ("teacher-wide_resnet101_2", tmp_path / "wide_resnet101_2.safetensors")
    for backbone, tag in read_recipes()["pretrained"].items():
        assert f"{backbone}.{tag}" in timm.list_pretrained(f"{backbone}.*")


def test_recipes_name_readers_and_methods_that_exist():
    recipes = read_recipes()
    assert set(recipes["data"].values()) <= set(READERS)
    assert set(recipes["methods"]) <= set(METHODS)
    assert sorted(recipes["backbones"].values()) == sorted(BACKBONES)


def test_unknown_tables_rows_methods_and_seeds_are_refused():
    with pytest.raises(ValueError, match=r"Unknown table 'table5'; the known ones are table1, .*table4"):
        read_rows("table5")
    with pytest.raises(ValueError, match=r"No row '7' in the table; it has 1 \(resnet50:repvgg_a0\), 2 \(swin_tiny.*:resnet18\)"):
        choose_rows(read_rows("table4"), ["7"])
    with pytest.raises(ValueError, match=r"Unknown method 'kd'; the known ones are vanilla, "):
        make_settings(methods=("kd",))
    with pytest.raises(ValueError, match=r"Unknown recipe 'long'; the known ones are paper, supplement, short, shipped"):
        make_settings(recipe="long")
    with pytest.raises(ValueError, match=r"none twice; got 1, 1"):
        make_settings(seeds=(1, 1))


@pytest.mark.parametrize(
    ("names", "numbers"), [([], [1, 2, 3, 4]), (["4", "1"], [1, 4]), (["resnet50:mobile"], [3]), (["swin:mobile", "swin:resnet18"], [2, 4])]
)
def test_rows_by_number_or_by_the_beginning_of_their_names(names: list[str], numbers: list[int]):
    assert [row.number for row in choose_rows(read_rows("table4"), names)] == numbers


def test_what_rows_share_is_trained_once_and_teachers_first():
    settings = make_settings(methods=tuple(read_recipes()["methods"]))
    trainings = plan_rows(read_rows("table4"), settings)
    outs = [training.plan.out for training in trainings]
    assert len(set(outs)) == len(outs) == 2 + 3 + 4 * 7  # teachers, vanilla students, seven methods for each pair
    taught = [training for training in trainings if training.plan.teacher is not None]
    assert all(outs.index(training.plan.teacher) < outs.index(training.plan.out) for training in taught)


@pytest.mark.parametrize(("epochs", "stop"), [(None, 30), (8, 3), (1, 1)])
def test_the_teacher_stops_at_the_same_share_of_its_schedule(epochs: int | None, stop: int):
    training = plan_teacher("resnet18", make_settings(epochs=epochs))
    assert (training.epochs, training.plan.recipe.epochs) == (stop, epochs or 80)


def test_where_networks_start_from():
    assert plan_teacher("resnet18", make_settings(data="voc:ROOT")).plan.pretrained
    assert not plan_teacher("resnet18", make_settings(data="shapes")).plan.pretrained
    from_files = plan_teacher("resnet18", make_settings(data="voc:ROOT", init=Path("weights"))).plan
    assert (from_files.init, from_files.pretrained) == (Path("weights/resnet18.safetensors"), False)


@pytest.mark.usefixtures("tiny")
def test_a_table_from_the_command_line_to_its_files():
    code, said = reproduce_table4("--epochs", "1", "--methods", "vanilla,mld")
    assert code == 0, said
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
    assert "\n\nStudents trained on 24 pictures, scored on 6.\n\n" in text
    assert Path("out/table4.png").stat().st_size > 5000

    # Again: nothing is trained. After a student is gone: that one alone.
    before = {path: path.stat().st_mtime_ns for path in Path("out").glob("*/model.safetensors")}
    gone = Path(row["methods"]["mld"]["runs"][0])
    for path in gone.iterdir():
        path.unlink()
    assert reproduce_table4("--epochs", "1", "--methods", "vanilla,mld")[0] == 0
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
    with pytest.raises(ValueError, match=r"otherwise than asked for now \(number of pictures\)"):
        check_trainings(trainings[:1], index.select(range(8)))
    with pytest.raises(ValueError, match=r"otherwise than asked for now \(set of pictures or labels\)"):
        check_trainings(trainings[:1], index._replace(targets=index.targets.flip(0)))


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


@pytest.mark.usefixtures("tiny")
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


def finish(training: Training, score: float) -> None:
    """Leave a card as if the training had been run and scored."""
    training.plan.out.mkdir(parents=True)
    scores = {"mAP": score, "oracle_k": {"OF1": score + 1, "CF1": score + 2}, "held_out": {"images": 2, "mAP": score}}
    card = ModelCard("a", "A", "student", "l2d", training.plan.backbone, ("x",), 32, recipe=training.plan.recipe.as_dict(), scores=scores)
    write_card(training.plan.out, card)


def test_seeds_give_mean_and_spread(tmp_path: Path):
    row = read_rows("table3")[1]
    settings = make_settings(tmp_path, data="voc:ROOT", seeds=(0, 1, 2), methods=("vanilla", "l2d", "led"))
    students = plan_students(row, settings)
    for seed, score in enumerate((80.0, 82.0, 87.0)):
        finish(students["vanilla", seed], 70.0)
        finish(students["l2d", seed], score)
    entries = collect_row(row, settings)
    assert entries["l2d"]["ours"] == {"mAP": 83.0, "OF1": 84.0, "CF1": 85.0}
    assert entries["l2d"]["spread"]["mAP"] == pytest.approx(13**0.5)
    assert entries["l2d"]["gain"] == 13.0
    assert entries["l2d"]["difference"]["mAP"] == pytest.approx(83.0 - 85.71)
    # Neither measured nor in the paper.
    assert entries["led"] == {"ours": {}, "spread": {}, "paper": {}, "difference": {}, "runs": [], "pictures": {}}
    text = table_as_markdown(collect_table("table3", [row], settings))
    assert "| L2D | 83.00 ± 3.61 | 85.71 | 84.00 ± 3.61 | 85.70 | 85.00 ± 3.61 | 82.11 | -2.71 | +13.00 | +1.70 |" in text
    assert "| LED (CD + ID) | – | – |" in text


def test_a_given_teachers_scores_on_other_pictures_are_not_laid_beside_its_students(tmp_path: Path):
    row, teacher = read_rows("table3")[1], tmp_path / "teacher"
    settings = make_settings(tmp_path, data="voc:ROOT", teacher=teacher, methods=("vanilla",))
    scores = {"mAP": 90.0, "oracle_k": {"OF1": 91.0, "CF1": 92.0}, "images": 50}
    card = ModelCard("a", "A", "teacher", "vanilla", "test_resnet", ("x",), 32, scores=scores)
    teacher.mkdir()
    write_card(teacher, card)
    student = plan_students(row, settings)["vanilla", 0]
    finish(student, 70.0)
    own = read_card(student.plan.out)
    for images, checksum, shown in ((50, 1, True), (40, 1, False), (50, 2, False)):
        write_card(student.plan.out, dataclasses.replace(own, scores=own.scores | {"images": images, "checksum": checksum}))
        assert bool(collect_row(row, settings)["teacher"]["ours"]) == shown
        # Cards that were written before it was kept tell no checksum.
        write_card(teacher, dataclasses.replace(card, scores=scores | {"checksum": 1}))


def test_counts_of_pictures_that_are_unknown_or_differ_are_left_out():
    card = ModelCard("a", "A", "student", "l2d", "test_resnet", ("x",), 32, data={"images": 1200}, recipe={"holdout": 0.25, "share": 0.5})
    scored, more = (dataclasses.replace(card, scores={"images": count}) for count in (40, 50))
    assert count_pictures([scored, scored]) == {"trained": 450, "scored": 40}
    assert count_pictures([scored, more]) == count_pictures([card]) == {"trained": 450}
    assert count_pictures([dataclasses.replace(scored, data={}), scored]) == {"scored": 40}
    assert count_pictures([]) == {}
    told = [describe_pictures(counts) for counts in ({"scored": 2500, "trained": 12000}, {"scored": 40}, {})]
    assert told == ["Students trained on 12,000 pictures, scored on 2,500.", "Students scored on 40 pictures.", ""]


@pytest.mark.usefixtures("tiny")
def test_a_training_is_scored_anew_on_more_test_pictures_or_with_other_labels_for_them():
    training = plan_teacher("test_resnet", make_settings(epochs=1))
    list(run_training(training))
    index = read_index("shapes:24", "test")
    told: list[tuple[int, int]] = []
    for count in (4, 6):
        scores = score_training(training, index.select(range(count)), progress=lambda done, total: told.append((done, total)))
        assert scores["images"] == count
    assert told == [(1, 1), (1, 1)]
    corrected = index.select(range(6))._replace(targets=index.targets[:6].flip(1))
    assert score_training(training, corrected)["mAP"] != scores["mAP"]
    assert score_training(training, index.select(range(6)))["mAP"] == scores["mAP"]
    assert read_card(training.plan.out).scores["images"] == 6


def test_nothing_measured_yet_is_a_table_too(tmp_path: Path):
    settings = make_settings(tmp_path / "none", data="coco:ROOT")
    files = write_table(tmp_path, collect_table("table2", read_rows("table2"), settings))
    assert [file.name for file in files] == ["table2.json", "table2.md", "table2.png"]


def test_a_table_keeps_the_rows_that_are_in_its_folder(tmp_path: Path):
    rows, settings = read_rows("table4"), make_settings(tmp_path, data="voc:ROOT")
    for number in (3, 1, 3):
        files = write_table(tmp_path, collect_table("table4", [rows[number - 1]], settings))
        # The row that is asked for again is written anew.
        settings = dataclasses.replace(settings, methods=("vanilla", "mld"))
    whole = json.loads(files[0].read_text())["rows"]
    assert [(row["number"], list(row["methods"])[1:]) for row in whole] == [(1, ["vanilla", "mld"]), (3, ["vanilla", "mld"])]
    assert files[1].read_text(encoding="utf-8").count("\n## ") == 2
    # Another student of the same row is a row of its own.
    write_table(tmp_path, collect_table("table4", rows[:1], dataclasses.replace(settings, student="test_resnet")))
    assert [row["number"] for row in json.loads(files[0].read_text())["rows"]] == [1, 1, 3]


@pytest.mark.usefixtures("tiny")
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
    write_table(Path("out"), collect_table("table4", read_rows("table4")[:1], make_settings(epochs=1)))
    code, said = reproduce_table4("--epochs", "2", "--dry-run")
    assert (code, "table4.json has other rows, made otherwise than asked for now (notes): choose another --out" in said) == (1, True)
    assert reproduce_table4("--epochs", "1", "--methods", "vanilla", "--dry-run")[0] == 0


def test_the_notes_of_figure1_tell_no_weights_that_it_does_not_use():
    settings = make_settings(recipe="short")
    assert any(note.startswith("Loss weights") for note in describe_deviations("VOC 2007", settings))
    instead = describe_deviations("VOC 2007", settings, weights=False)
    assert not any(note.startswith("Loss weights") for note in instead)
    assert "The curves are around the published weights, not those of the recipe short." in instead
    assert not any("curves" in note for note in describe_deviations("VOC 2007", make_settings(), weights=False))


def test_notes_tell_the_size_that_is_really_trained_at():
    usual, smaller = (
        describe_deviations("VOC 2007", make_settings(data="voc:ROOT", recipe="shipped", image_size=size)) for size in (None, 96)
    )
    assert any("192 pixels" in note for note in usual)
    assert not any("192" in note for note in smaller if "mld" not in note)


def test_notes_tell_which_weights_networks_really_start_from(tmp_path: Path):
    told = {
        name: describe_deviations("VOC 2007", make_settings(data="voc:ROOT", **changes))
        for name, changes in {"timm's": {}, "files": {"init": tmp_path}, "random": {"pretrained": False}}.items()
    }
    for name, notes in told.items():
        (note,) = [note for note in notes if "weights" in note and "start" in note]
        assert name in note


@pytest.mark.parametrize(("data", "told"), [("coco:ROOT", True), ("coco2017:ROOT", True), ("voc:ROOT", False), ("csv:FILE", False)])
def test_notes_tell_of_the_pictures_of_coco_where_there_are_any(data: str, told: bool):
    notes = describe_deviations("VOC 2007", make_settings(data=data, student="test_resnet"))
    assert any("MS-COCO" in note for note in notes) is told


def test_the_legend_of_a_plot_explains_every_line_and_covers_no_score(tmp_path: Path):
    row = read_rows("table3")[1]
    settings = make_settings(tmp_path, data="voc:ROOT")
    for training in plan_rows([row], settings):
        finish(training, 70.0)
    figure = plot_table(collect_table("table3", [row], settings))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["teacher, paper", "teacher, ours", "paper", "ours"]
    assert not any(axes.get_legend() or axes.get_window_extent().overlaps(legend.get_window_extent()) for axes in figure.axes)


def test_a_sweep_draws_all_its_curves_on_one_scale(tmp_path: Path):
    _, student = plan_figure1(make_settings(tmp_path))
    for number, training in enumerate(plan_sweep(student, (0.1,))):
        finish(training, 50.0 + 10.0**number)
    figure = plot_sweep(collect_sweep(student, (0.1,)))
    figure.draw_without_rendering()
    limits = {axes.get_ylim() for axes in figure.axes}
    assert len(limits) == 1 < len(figure.axes)
    assert all(low < score < high for low, high in limits for score in (51.0, 1050.0))


def test_scores_that_are_not_defined_are_not_compared(tmp_path: Path):
    undefined = {"mAP": None, "oracle_k": {"OF1": 0.0, "CF1": None}}
    write_card(tmp_path, ModelCard("a", "A", "student", "vanilla", "test_resnet", ("x",), 32, width=16, feedforward=16, scores=undefined))
    assert read_scores(tmp_path) == {}


def test_figure1_holds_its_pictures_out_from_the_teacher_too():
    teacher, student = plan_figure1(make_settings(data="coco:ROOT"))
    assert (teacher.plan.backbone, student.backbone, student.teacher) == ("resnet101.tv_in1k", "resnet34.tv_in1k", teacher.plan.out)
    assert teacher.plan.recipe.holdout == student.recipe.holdout == 0.1
    assert len(plan_sweep(student, read_recipes()["figure1"]["factors"])) == 3 * 5 - 2


def test_sweep_varies_one_weight_and_keeps_the_others():
    _, student = plan_figure1(make_settings())
    weights = [training.plan.recipe.weights for training in plan_sweep(student, (0.1, 10))]
    published = METHODS["l2d"]
    assert weights.count(published) == 1
    others = [{name for name in published if chosen[name] != published[name]} for chosen in weights if chosen != published]
    assert sorted(map(list, others)) == [["cd"], ["cd"], ["id"], ["id"], ["mld"], ["mld"]]
    assert sorted(chosen["cd"] for chosen in weights if chosen["cd"] != 100) == [10, 1000]


def test_sweep_names_the_best_weight_of_each_curve(tmp_path: Path):
    _, student = plan_figure1(make_settings(tmp_path))
    for training in plan_sweep(student, (0.1,)):
        # Best at a tenth of mld, and at the published weights of the other two.
        weights = training.plan.recipe.weights
        finish(training, 50 - weights["mld"] + (weights["cd"] + weights["id"]) / 100)
    curves = collect_sweep(student, (0.1,))["curves"]
    assert {loss: (curve["published"], curve["best"]) for loss, curve in curves.items()} == {
        "mld": (10, 1),
        "cd": (100, 100),
        "id": (1000, 1000),
    }
    assert [point["mAP"] for point in curves["mld"]["points"]] == [60.0, 51.0]


@pytest.mark.parametrize(
    ("changes", "factors", "sentence"),
    [
        ({"method": "vanilla"}, (1.0,), "Method vanilla has no weights to vary; choose one of rkd, "),
        ({"holdout": 0.0}, (1.0,), "give a holdout above 0"),
        ({}, (0.0, 1.0), "Expected factors above 0, none twice; got 0, 1"),
    ],
)
def test_sweeps_that_make_no_sense_are_refused(changes: dict[str, Any], factors: tuple[float, ...], sentence: str):
    _, student = plan_figure1(make_settings())
    with pytest.raises(ValueError, match=sentence):
        plan_sweep(dataclasses.replace(student, recipe=dataclasses.replace(student.recipe, **changes)), factors)


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
    assert "the test pictures took no part. Students trained on 18 pictures, scored on 6.\n" in Path("curves/sweep.md").read_text()
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
