"""The command line: the spellings that scripts count on, and sentences instead of tracebacks."""

import json
import re
import shutil
import warnings
from pathlib import Path
from typing import cast

import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner, Result

from l2d.checkpoint import load_checkpoint, read_card
from l2d.cli import app
from l2d.data import READERS, read_index
from l2d.distill import METHODS
from l2d.evaluate import predict
from l2d.metrics import f1_scores, predict_above, tune_thresholds
from l2d.model import LabelNet
from l2d.terminal import describe_epoch, print_report, sentences
from l2d.train import EpochReport

SMALL = ("--image-size", "48", "--train-size", "32", "--epochs", "1", "--batch-size", "4", "--lr", "1e-3", "--device", "cpu")
HEAD = ("--width", "16", "--feedforward", "24")


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def teacher(coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "teacher"
    result = run("train", "--backbone", "test_resnet", "--data", f"coco:{coco}", "--out", out, *SMALL, *HEAD, "--holdout", "0.25")
    assert result.exit_code == 0, result.stderr
    return out


def fill_disk(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def refuse(*words: str | Path) -> str:
    """Run what must fail; its sentence, on one line."""
    result = run(*words)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("Error: ")
    return " ".join(result.stderr.split())


def test_small_losses_are_told_beside_large_ones() -> None:
    report = EpochReport(1, {"bce": 139.96, "mld": 2.046, "own": 0.03126}, None, cast(LabelNet, None), 4.0, 4.0, 123.4)
    assert describe_epoch(report, 80) == "epoch 1/80  bce 140.0  mld 2.05  own 0.0313  4 s  123 images/s"


def test_train_leaves_a_checkpoint_and_says_how_it_went(teacher: Path, coco: Path, tmp_path: Path) -> None:
    card = read_card(teacher)
    assert (card.name, card.method, card.image_size, card.recipe["train_size"]) == ("teacher", "vanilla", 48, 32)
    result = run("train", "--backbone", "test_resnet", "--data", f"coco:{coco}", "--out", tmp_path / "two", *SMALL, *HEAD, "--seed", "1")
    assert result.stdout == ""
    assert "epoch 1/1 bce" in " ".join(result.stderr.split())
    assert "Wrote" in result.stderr


def test_a_picture_that_is_lost_after_an_epoch_ends_a_training_that_can_be_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        Image.new("RGB", (12, 8)).save(tmp_path / f"{number}.png")
    (tmp_path / "own.csv").write_text("file,labels,split\n" + "".join(f"{number}.png,cat,train\n" for number in range(4)))

    def lose(report: EpochReport, epochs: int) -> str:
        (tmp_path / "1.png").unlink(missing_ok=True)
        return ""

    monkeypatch.setattr("l2d.data.images.MEMORY_LIMIT", 0)
    # Which Pillow warns of.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90)
    monkeypatch.setattr("l2d.cli.describe_epoch", lose)
    words = ("train", "--backbone", "test_resnet", "--data", f"csv:{tmp_path / 'own.csv'}", "--out", tmp_path / "out", *SMALL, *HEAD)
    result = run(*words, "--epochs", "2")
    told = " ".join(result.stderr.split())
    assert (result.exit_code, f"There is no picture {tmp_path / '1.png'}. The epochs before are kept" in told) == (1, True)
    assert ("add --resume" in told, "Warning" in told) == (True, False)
    monkeypatch.undo()
    shutil.copy(tmp_path / "0.png", tmp_path / "1.png")
    assert run(*words, "--epochs", "2", "--resume").exit_code == 0


def test_distill(teacher: Path, coco: Path, tmp_path: Path) -> None:
    words = ("--teacher", teacher, "--student", "test_efficientnet", "--method", "l2d", "--data", f"coco:{coco}", "--out", tmp_path / "s")
    result = run("distill", *words, *SMALL, *HEAD, "--weight", "mld=5", "--weight", "cd=50", "--seed", "2", "--resume")
    assert result.exit_code == 0, result.stderr
    card = read_card(tmp_path / "s")
    assert (card.backbone, card.role, card.teacher["name"] if card.teacher else None) == ("test_efficientnet", "student", "teacher")
    assert card.recipe["weights"] == {"mld": 5.0, "cd": 50.0, "id": 1000.0}
    # The teacher's own size, unless another is asked for.
    assert (card.recipe["teacher_size"], card.recipe["seed"]) == (48, 2)


def test_the_options_of_the_recipe_reach_it(coco: Path, tmp_path: Path, teacher: Path) -> None:
    options = {
        "warmup": 0.5,
        "augmentation": "randaugment",
        "min_area": 0.7,
        "colour": 0.1,
        "cutout": 0.25,
        "freeze_stages": 1,
        "averaging": 0.8,
        "holdout": 0.25,
        "seed": 9,
    }
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    words += ["--init", str(teacher / "model.safetensors")]
    result = run(
        "train", "--backbone", "test_resnet", "--data", f"coco:{coco}", "--out", tmp_path / "one", *SMALL, *HEAD, *words, "--unit-pixels"
    )
    assert result.exit_code == 0, result.stderr
    card = read_card(tmp_path / "one")
    assert card.recipe.items() >= options.items()
    assert (card.mean, card.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_evaluate_as_json(teacher: Path, coco: Path) -> None:
    result = run("evaluate", teacher, "--data", f"coco:{coco}", "--split", "test", "--device", "cpu", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["name"], report["data"], report["split"]) == ("teacher", f"coco:{coco}", "test")
    assert report["images"] == 6
    assert report.keys() >= {"images", "mAP", "labels_without_positives", "oracle_k", "threshold", "top3", "per_label"}
    assert all(report[protocol].keys() >= {"OF1", "CF1"} for protocol in ("oracle_k", "threshold", "top3"))
    assert list(report["per_label"]) == ["red", "green", "blue"]


def test_evaluate_for_people(teacher: Path, coco: Path) -> None:
    result = run("evaluate", teacher, "--data", f"coco:{coco}", "--split", "train", "--device", "cpu")
    assert "mAP" in result.stdout
    assert "oracle_k OF1" in result.stdout


def test_thresholds_are_tuned_on_the_training_pictures(tmp_path: Path) -> None:
    data = ("--data", "shapes:40")
    assert run("train", "--backbone", "test_resnet", *data, "--out", tmp_path / "t", *SMALL, *HEAD).exit_code == 0
    words = ("evaluate", tmp_path / "t", *data, "--device", "cpu")
    plain = json.loads(run(*words, "--json").stdout)
    tuned = json.loads(run(*words, "--json", "--tune").stdout)
    model, card = load_checkpoint(tmp_path / "t")
    training, test = (read_index("shapes:40", split) for split in ("train", "test"))
    thresholds = tune_thresholds(predict(model, card, training), training.targets)
    expected = f1_scores(predict_above(predict(model, card, test), thresholds), test.targets)
    assert tuned.pop("threshold_tuned") == pytest.approx(expected)
    assert list(tuned.pop("thresholds")) == list(card.labels)
    assert tuned == plain
    assert "threshold_tuned OF1" in run(*words, "--tune").stdout
    assert "--tune finds thresholds on the training pictures" in refuse(*words, "--tune", "--split", "train")


def test_localize_as_json(teacher: Path, coco: Path) -> None:
    result = run("localize", teacher, "--data", f"coco:{coco}", "--device", "cpu", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["name"], report["data"], report["split"]) == ("teacher", f"coco:{coco}", "test")
    assert report["pairs"] >= 6
    assert 0 <= report["pointing_game"] <= 100
    assert 0 <= report["energy_in_box"] <= 100


@pytest.mark.parametrize(("command", "measure"), [("evaluate", "mAP"), ("localize", "energy_in_box")])
def test_against_another_network(command: str, measure: str, teacher: Path, coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (command, teacher, "--data", f"coco:{coco}", "--device", "cpu", "--json")
    monkeypatch.chdir(teacher)
    report = json.loads(run(*words, "--against", ".").stdout)
    assert report.pop("against").items() >= {"name": "teacher", measure: {"difference": 0.0, "low": 0.0, "high": 0.0}}.items()
    assert report == json.loads(run(*words).stdout)
    # Before anything is scored.
    monkeypatch.setattr(LabelNet, "forward", lambda *_: pytest.fail("a network was asked"))
    assert "nowhere" in refuse(*words, "--against", "nowhere")


def test_explain(teacher: Path, coco: Path, tmp_path: Path) -> None:
    image, out = coco / "val2014" / "0.png", tmp_path / "figure.pdf"
    result = run("explain", image, "--models", f"{teacher},{teacher}", "--labels", "red, blue", "--out", out, "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert out.read_bytes().startswith(b"%PDF")
    named = ("--labels", "redd", "--labels", "blue")
    assert "close are red" in refuse("explain", image, "--models", teacher, *named, "--out", out, "--device", "cpu")


def test_what_is_wrong_is_said_in_a_sentence(teacher: Path, coco: Path, tmp_path: Path) -> None:
    data, out = ("--data", f"coco:{coco}"), ("--out", tmp_path / "new")
    assert "Unknown backbone 'resnet19'" in refuse("train", "--backbone", "resnet19", *data, *out)
    assert "Expected data as coco:ROOT" in refuse("train", "--backbone", "test_resnet", "--data", "nonsense", *out)
    assert f"Error: There is no file {coco}. Expected a CSV file" in refuse("evaluate", teacher, "--data", f"csv:{coco}")
    assert "nowhere" in refuse("train", "--backbone", "test_resnet", "--data", "coco:nowhere", *out)
    assert "lr must lie between" in refuse("train", "--backbone", "test_resnet", *data, *out, "--lr", "100")
    assert "train_size must lie between 32 and 2048; got 0" in refuse(
        "train", "--backbone", "test_resnet", *data, *out, "--train-size", "0"
    )
    assert "Unknown split 'val'" in refuse("evaluate", teacher, *data, "--split", "val")
    assert "not a checkpoint folder" in refuse("evaluate", coco, *data)
    assert "Unknown device 'tpu9'" in refuse("evaluate", teacher, *data, "--device", "tpu9")
    assert "teacher holds a finished checkpoint" in refuse(
        "train", "--backbone", "test_resnet", *data, "--out", teacher, *SMALL, *HEAD, "--resume"
    )
    distill = ("distill", "--teacher", teacher, "--student", "test_resnet", *data, *out)
    assert "Unknown method 'kd'; the known ones are vanilla" in refuse(*distill, "--method", "kd")
    assert "--weight takes NAME=NUMBER" in refuse(*distill, "--method", "mld", "--weight", "mld")
    assert "teacher_size must lie between 32 and 2048; got 0" in refuse(*distill, "--method", "mld", "--teacher-size", "0")
    assert "Method mld has no loss 'cd'" in refuse(*distill, "--method", "mld", "--weight", "cd=1")
    assert not (tmp_path / "new").exists()


def test_names_with_brackets_are_printed_as_they_are(teacher: Path, coco: Path, tmp_path: Path) -> None:
    assert "[bold]nowhere" in refuse("evaluate", teacher, "--data", "coco:[bold]nowhere")
    out = tmp_path / "[red][/bold]"
    result = run("train", "--backbone", "test_resnet", "--data", f"coco:{coco}", "--out", out, *SMALL, *HEAD)
    assert (result.exit_code, "Wrote" in result.stderr, out.name in result.stderr) == (0, True, True)
    table = tmp_path / "labels.csv"
    table.write_text(f"file,labels,split\n{coco}/val2014/0.png,[/bold] :smile:,train\n")
    assert "[/bold] :smile:" in run("data", "check", table, "--split", "train").stdout
    table.write_text(f"file,labels,split\n{coco}/val2014/0.png,人,train\n", encoding="utf-8")
    ascii_only = CliRunner(charset="ascii").invoke(app, ["data", "check", str(table), "--split", "train"])
    assert (ascii_only.exit_code, "labels \\u4eba" in ascii_only.stdout) == (0, True)


def test_scores_are_saved_of_the_test_pictures_alone_and_shown_whatever_happens(
    teacher: Path, coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "teacher"
    shutil.copytree(teacher, place)
    words = (place, "--data", f"coco:{coco}", "--device", "cpu", "--json", "--save")
    for command in ("evaluate", "localize"):
        assert "--save keeps scores on the test pictures" in refuse(command, *words, "--split", "train")
        assert run(command, *words).exit_code == 0
    assert read_card(place).scores.keys() >= {"mAP", "localization"}
    monkeypatch.setattr(Path, "write_text", fill_disk)
    result = run("evaluate", *words)
    assert (result.exit_code, json.loads(result.stdout)["images"]) == (1, 6)
    assert result.stderr == f"Error: {place / 'card.json'}: No space left on device.\n"


def test_a_folder_that_cannot_be_written_is_told_at_once(coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(LabelNet, "forward", lambda *_: pytest.fail("a network was trained"))
    words = ("train", "--backbone", "test_resnet", "--data", f"coco:{coco}", *SMALL, *HEAD)
    for out in ("file", "file/below"):
        assert f"{out} cannot be written: Not a directory." in refuse(*words, "--out", tmp_path / out)


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--backbone", "test_resnet", "--data", "shapes:4", "--out", ""),
        ("distill", "--teacher", "", "--student", "test_resnet", "--method", "mld", "--data", "shapes:4", "--out", "x"),
        ("train", "--backbone", "test_resnet", "--data", "shapes:4", "--out", "x", "--init", ""),
        ("evaluate", "", "--data", "shapes:4"),
        ("evaluate", "x", "--data", "shapes:4", "--against", ""),
        ("explain", "", "--models", "x", "--out", "x.png"),
        ("explain", "x.png", "--models", "x", "--out", ""),
        ("data", "check", ""),
        ("sweep", "--teacher", "x", "--student", "test_resnet", "--data", "shapes:4", "--out", ""),
        ("reproduce", "table4", "--data", "shapes:4", "--out", ""),
        ("bench", "serve", "--checkpoints", ""),
    ],
    ids=" ".join,
)
def test_an_empty_path_is_not_the_current_folder(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    told = " ".join(result.stderr.split())
    assert result.exit_code != 0
    assert "empty text" in told or "got ''" in told, told
    assert list(tmp_path.iterdir()) == []


def test_a_load_of_no_time_is_refused_before_anything_is_measured() -> None:
    result = run("bench", "serve", "--checkpoints", "x", "--seconds", "0")
    assert (result.exit_code, "--seconds" in result.stderr) == (2, True)


def test_too_little_memory_is_told() -> None:
    assert "The memory did not suffice" in refuse("bench", "loss", "--labels", "80", "--width", 2**40, "--rounds", "1", "--device", "cpu")


def test_a_picture_that_cannot_be_localized_on_is_named(teacher: Path, coco: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(coco, root)
    broken = root / "val2014" / "0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    assert "0.png cannot be read as a picture" in refuse("localize", teacher, "--data", f"coco:{root}", "--device", "cpu")


@pytest.mark.parametrize("command", ["train", "distill", "evaluate", "localize", "explain"])
def test_every_command_and_option_has_help(command: str) -> None:
    import typer

    found = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    assert found.help
    assert [option.name for option in found.params if option.param_type_name == "option" and not option.help] == []


@pytest.mark.parametrize(("option", "names"), [("method", METHODS), ("data", READERS)])
def test_help_names_every_method_and_kind_of_data(option: str, names: dict[str, object]) -> None:
    """As a text of its own: they are read with torch, which help does without."""
    import typer

    options = typer.main.get_command(app).commands["distill"].params  # type: ignore[attr-defined]
    text = next(known.help for known in options if known.name == option)
    assert [name for name in names if name not in re.split(r"[ ,:()]+", text)] == []


@pytest.mark.filterwarnings("default:The loss")
def test_losses_without_groups_are_warned_about_before_the_training(tmp_path: Path) -> None:
    rows = "\n".join(f"{number}.png,{'ab'[number % 2]},{'train' if number < 8 else 'test'}" for number in range(10))
    (tmp_path / "labels.csv").write_text("file,labels,split\n" + rows)
    for number in range(10):
        Image.new("RGB", (40, 40), (25 * number, 0, 0)).save(tmp_path / f"{number}.png")
    data = ("--data", f"csv:{tmp_path / 'labels.csv'}")
    assert "Warning" not in run("train", "--backbone", "test_resnet", *data, "--out", tmp_path / "t", *SMALL, *HEAD).stderr
    words = ("--teacher", tmp_path / "t", "--student", "test_resnet", "--method", "l2d", *data, "--out", tmp_path / "s")
    result = run("distill", *words, *SMALL, *HEAD, "--batch-size", "8")
    assert result.exit_code == 0
    said = " ".join(result.stderr.split())
    assert said.startswith("Warning: The loss id compares labels that a picture shows at once")
    assert "The loss cd" not in said


@pytest.mark.filterwarnings("always:pictures")
def test_what_every_training_of_a_series_warns_of_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with sentences():
        for what in ("pictures of a", "pictures of b", "pictures of a"):
            warnings.warn(what, stacklevel=1)
    assert capsys.readouterr().err == "Warning: pictures of a\nWarning: pictures of b\n"


def test_data_check_counts_and_names(coco: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(coco, root)
    result = run("data", "check", root, "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["train"]["pictures"], report["test"]["pictures"]) == (0, 12, 6)
    assert report["train"]["labels"]["red"] == 12
    told = run("data", "check", f"coco:{root}", "--split", "train")
    assert (told.exit_code, "train: labels in every picture" in told.stdout, "test" in told.stdout) == (0, True, False)

    broken = root / "val2014" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    told = run("data", "check", root)
    assert (told.exit_code, f"test: {broken}: " in told.stdout) == (1, True)
    assert run("data", "check", root, "--split", "train").exit_code == 0
    assert len(json.loads(run("data", "check", root, "--json").stdout)["test"]["broken"]) == 1

    broken.unlink()
    told = run("data", "check", root, "--json")
    report = json.loads(told.stdout)["test"]
    assert (told.exit_code, report["pictures"], report["broken"]) == (1, 6, [f"{broken}: there is no such file."])
    assert report["labels"]["red"] == 6
    annotations = root / "annotations" / "instances_val2014.json"
    annotations.write_text(annotations.read_text().replace('"red"', '"rot"'))
    told = run("data", "check", root)
    assert ("test labels rot" in told.stdout, "1 unknown (rot), 1 missing (red)" in " ".join(told.stderr.split())) == (True, True)
    annotations.unlink()
    told = run("data", "check", root, "--json")
    assert (told.exit_code, list(json.loads(told.stdout)), "There is no" in told.stderr) == (1, ["train"], True)
    assert "laid out in none of the known ways; a data set has annotations/" in refuse("data", "check", tmp_path)
    assert "Expected data as coco:ROOT" in refuse("data", "check", tmp_path / "nowhere")
    assert "what can be done with a data set is check" in refuse("data", "draw", root)


def test_a_table_holds_names_whole(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    name = "a-name-longer-than-a-line-" * 8
    print_report({name: 1}, as_json=False)
    assert capsys.readouterr().out.split() == [name, "1"]
    monkeypatch.setattr("l2d.terminal.output", Console(width=80, force_terminal=True, color_system=None))
    print_report({name: 1}, as_json=False)
    assert "".join(word for word in capsys.readouterr().out.split() if word != "1") == name


def test_a_table_tells_small_numbers_what_is_not_defined_and_several_things(capsys: pytest.CaptureFixture[str]) -> None:
    report = {"share": 0.0026, "maps": 2e-5, "same": 0.0, "less": -0.5, "mAP": None, "sizes": ["8 x 6", "9 x 9"], "pictures": 3}
    print_report(report, as_json=False)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == ["share 0.0026", "maps 2e-05", "same 0.00", "less -0.50", "mAP -", "sizes 8 x 6, 9 x 9", "pictures 3"]
