"""The command line: one command per verb."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from l2d import experiments, scoring, timing
from l2d.arguments import KNOWN_PATH, PATH
from l2d.terminal import AsJson, Data, Device, describe_epoch, follow_steps, joined, print_report, progress, say, sentences, split_names

# Commands import torch themselves, so that --help answers at once.
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Multi-label knowledge distillation.")

Out = Annotated[Path, typer.Option(**PATH, help="folder of the checkpoint; also keeps what --resume needs")]
Init = Annotated[
    Path | None,
    typer.Option(**KNOWN_PATH, help="safetensors file with the backbone's initial weights, or a checkpoint folder to go on from"),
]
Pretrained = Annotated[bool, typer.Option(help="start from timm's ImageNet weights (downloads them)")]
ImageSize = Annotated[int, typer.Option(help="side of the input in pixels")]
TrainSize = Annotated[int | None, typer.Option(help="side of the input while training; --image-size if not given")]
OutputStride = Annotated[int, typer.Option(help="32, 16 or 8: pixels per cell of the last map")]
Width = Annotated[int, typer.Option(help="width of the label-wise embeddings")]
Feedforward = Annotated[int, typer.Option(help="hidden width of the head's feed-forward part")]
Epochs = Annotated[int, typer.Option(help="passes over the training pictures")]
BatchSize = Annotated[int, typer.Option(help="pictures per step")]
LearningRate = Annotated[float, typer.Option(help="peak learning rate")]
Warmup = Annotated[float, typer.Option(help="share of the steps in which the learning rate rises")]
UnitPixels = Annotated[
    bool, typer.Option("--unit-pixels", help="leave pixels in [0, 1], as the paper, not as the initial weights know them")
]
Augmentation = Annotated[str, typer.Option(help="crops (with flips, colours and holes), or randaugment as the paper")]
MinArea = Annotated[float, typer.Option(help="smallest share of the picture that a crop keeps")]
Colour = Annotated[float, typer.Option(help="strength of random brightness, contrast and saturation")]
Cutout = Annotated[
    float, typer.Option(help="side of the hole cut into every second picture, of randaugment every one, as a share of the side")
]
FreezeStages = Annotated[int, typer.Option(help="number of backbone stages that stay as initialised")]
Averaging = Annotated[float, typer.Option(help="decay of an exponential average of the weights; 0 for none")]
Holdout = Annotated[float, typer.Option(help="share of the training pictures set aside to follow the score by")]
Share = Annotated[float, typer.Option(help="share of the training pictures, those held out aside, that is trained on")]
Seed = Annotated[int, typer.Option(help="of initialisation, order, augmentation and dropout")]
Resume = Annotated[bool, typer.Option(help="go on where an interrupted run stopped")]


@app.command()
def train(
    backbone: Annotated[str, typer.Option(help="timm name")],
    data: Data,
    out: Out,
    init: Init = None,
    pretrained: Pretrained = False,
    image_size: ImageSize = 224,
    train_size: TrainSize = None,
    output_stride: OutputStride = 32,
    width: Width = 768,
    feedforward: Feedforward = 2048,
    unit_pixels: UnitPixels = False,
    epochs: Epochs = 80,
    batch_size: BatchSize = 64,
    lr: LearningRate = 1e-4,
    warmup: Warmup = 0.2,
    augmentation: Augmentation = "crops",
    min_area: MinArea = 0.4,
    colour: Colour = 0.3,
    cutout: Cutout = 0.5,
    freeze_stages: FreezeStages = 0,
    averaging: Averaging = 0.0,
    holdout: Holdout = 0.0,
    share: Share = 1.0,
    device: Device = "auto",
    seed: Seed = 0,
    resume: Resume = False,
) -> None:
    """Train a network on the labels alone, to teach or for itself. A student to compare others with is one of distill --method vanilla."""
    _run(locals() | {"method": "vanilla", "teacher": None})


@app.command()
def distill(
    teacher: Annotated[Path, typer.Option(**PATH, help="the teacher's checkpoint folder")],
    student: Annotated[str, typer.Option(help="timm name of the student's backbone")],
    method: Annotated[str, typer.Option(help="vanilla, rkd, pkt, reviewkd, mse, ps, mld, led (cd and id), mld+cd, mld+id or l2d")],
    data: Data,
    out: Out,
    weight: Annotated[list[str] | None, typer.Option(help="replace a loss weight of the method: NAME=NUMBER; may be repeated")] = None,
    teacher_size: Annotated[int | None, typer.Option(help="side of the teacher's input while distilling; its own if not given")] = None,
    init: Init = None,
    pretrained: Pretrained = False,
    image_size: ImageSize = 224,
    train_size: TrainSize = None,
    output_stride: OutputStride = 32,
    width: Width = 768,
    feedforward: Feedforward = 2048,
    unit_pixels: UnitPixels = False,
    epochs: Epochs = 80,
    batch_size: BatchSize = 64,
    lr: LearningRate = 1e-4,
    warmup: Warmup = 0.2,
    augmentation: Augmentation = "crops",
    min_area: MinArea = 0.4,
    colour: Colour = 0.3,
    cutout: Cutout = 0.5,
    freeze_stages: FreezeStages = 0,
    averaging: Averaging = 0.0,
    holdout: Holdout = 0.0,
    share: Share = 1.0,
    device: Device = "auto",
    seed: Seed = 0,
    resume: Resume = False,
) -> None:
    """Train a student under a teacher."""
    _run(locals() | {"backbone": student, "weights": weight or []})


evaluate, localize = (app.command()(command) for command in (scoring.evaluate, scoring.localize))


@app.command()
def explain(
    image: Annotated[Path, typer.Argument(**PATH, help="picture file")],
    models: Annotated[str, typer.Option(help="checkpoint folders, separated by commas")],
    out: Annotated[Path, typer.Option(**PATH, help="figure to write: .png or .pdf")],
    labels: Annotated[
        list[str] | None,
        typer.Option(help="labels to show, separated by commas or in several such options; what the models predict if not given"),
    ] = None,
    device: Device = "auto",
) -> None:
    """Draw the paper's figure: a row per label, the picture and a column per network, with its map and its probability."""
    from l2d.explain import explain_image

    with sentences():
        explain_image(image, [Path(folder) for folder in split_names(models)], out, labels, device)
        say(f"Wrote {out}")


@app.command()
def data(
    what: Annotated[str, typer.Argument(help="check")],
    root: Annotated[str, typer.Argument(help="folder of a data set, or what the other commands take as --data")],
    split: Annotated[str | None, typer.Option(help="train or test; both if not given")] = None,
    as_json: AsJson = False,
) -> None:
    """Look at a data set: decode every picture and count every label; exit status 1 if a picture is missing or broken, naming it.

    Pictures of NUS-WIDE that have vanished from Flickr are counted, and leave the exit status 0.
    """
    from l2d.data import LAYOUTS, SPLITS, find_spec
    from l2d.data.check import check_both, check_data

    with sentences():
        if what != "check":
            raise ValueError(f"Unknown task {what!r}; what can be done with a data set is check.")
        spec = find_spec(Path(root)) if root and Path(root).exists() else root
        if spec is None:
            raise ValueError(f"{root} is laid out in none of the known ways; a data set has {LAYOUTS}.")
        reports = {}
        try:
            for name in [split] if split else SPLITS:
                with progress(f"check {name}") as advance:
                    reports[name] = check_data(spec, name, progress=advance)
            if split is None:
                check_both(spec)
        finally:
            # Also if the test annotations are not there: looking through the others may have taken minutes.
            _print_findings(reports, as_json)
    if any(report["broken"] for report in reports.values()):
        raise typer.Exit(1)


def _run(options: dict[str, Any]) -> None:
    """Train with the options of `train` or `distill`, showing how it goes."""
    from l2d.checkpoint import read_card
    from l2d.recipe import Recipe
    from l2d.runs import Plan, execute

    with sentences(), _tell_of_resuming(options["out"]), joined():
        options["weights"] = _parse_weights(options.get("weights", []))
        if options["train_size"] is None:
            options["train_size"] = options["image_size"]
        if options["teacher"] and options["teacher_size"] is None:
            options["teacher_size"] = read_card(options["teacher"]).image_size
        recipe = Recipe(**_pick(Recipe, options))
        plan = Plan(**_pick(Plan, options), recipe=recipe)
        with follow_steps(recipe.epochs) as on_step:
            for report in execute(plan, device=options["device"], resume=options["resume"], on_step=on_step):
                say(describe_epoch(report, recipe.epochs))
        say(f"Wrote {plan.out}")


@contextlib.contextmanager
def _tell_of_resuming(out: Path) -> Iterator[None]:
    """Of a training that ends hours later by a single picture."""
    from l2d.data.images import PictureError
    from l2d.runs import STATE

    try:
        yield
    except PictureError as error:
        if not (out / STATE).exists():
            raise
        raise ValueError(f"{error} The epochs before are kept: put a sound one there and add --resume to go on after them.") from error


def _pick(kind: type, options: dict[str, Any]) -> dict[str, Any]:
    """Those options that are fields of a dataclass, and given."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in options.items() if name in names and value is not None}


def _parse_weights(pairs: list[str]) -> dict[str, float]:
    weights = {}
    for pair in pairs:
        name, _, number = pair.partition("=")
        try:
            weights[name] = float(number)
        except ValueError:
            raise ValueError(f"--weight takes NAME=NUMBER, for example mld=10; got {pair!r}.") from None
    return weights


def _print_findings(reports: dict[str, dict[str, Any]], as_json: bool) -> None:
    """JSON; or numbers as a table, then a line for every doubt and every broken picture."""
    if as_json or not reports:
        print_report(reports, as_json)
        return
    lists = ("warnings", "broken")
    print_report({name: {key: value for key, value in report.items() if key not in lists} for name, report in reports.items()}, False)
    for name, report in reports.items():
        for sentence in dict.fromkeys(sentence for key in lists for sentence in report[key]):
            typer.echo(f"{name}: {sentence}")


reproduce, sweep, bench = (app.command()(command) for command in (experiments.reproduce, experiments.sweep, timing.bench))
