"""Commands that train many networks: reproduce, sweep."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from l2d.arguments import KNOWN_PATH, PATH
from l2d.terminal import (
    Data,
    Device,
    describe_epoch,
    follow_steps,
    joined,
    print_table,
    progress,
    say,
    sentences,
    split_names,
)

if TYPE_CHECKING:  # the commands import torch themselves, so that --help answers at once
    from l2d.data.images import Index
    from l2d.published import Row
    from l2d.reproduce import Settings
    from l2d.series import Training

FIGURE = "figure1"

Rows = Annotated[str | None, typer.Option(help="rows of the table by number or teacher:student, separated by commas; all if not given")]
Methods = Annotated[str | None, typer.Option(help="methods, separated by commas; the paper's eight if not given")]
SeriesOut = Annotated[Path | None, typer.Option(**PATH, help="folder of all trainings and results; runs/reproduce-DATA if not given")]
Seeds = Annotated[str, typer.Option(help="seeds, separated by commas; each student is trained with every one, teachers with 0")]
Epochs = Annotated[int | None, typer.Option(help="passes over the training pictures, instead of the recipe's")]
ImageSize = Annotated[int | None, typer.Option(help="side of the input in pixels, instead of the recipe's")]
RecipeName = Annotated[
    str,
    typer.Option(
        "--recipe",
        help="paper; supplement: the paper's, with MLD weighed as its text argues; short: 4 epochs; shipped: 11, as for checkpoints/",
    ),
]
Share = Annotated[float, typer.Option(help="share of the training pictures that is trained on")]
Teacher = Annotated[Path | None, typer.Option(**KNOWN_PATH, help="checkpoint folder that teaches instead of the rows' teachers")]
Student = Annotated[str | None, typer.Option(help="timm name of the network that learns instead of the rows' students")]
InitFolder = Annotated[Path | None, typer.Option(**KNOWN_PATH, help="folder with initial weights, TIMM_NAME.safetensors")]
Pretrained = Annotated[bool | None, typer.Option(help="start from timm's ImageNet weights; the default for photographs")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="print what would be trained, with an estimate of its time, and stop")]


def reproduce(
    what: Annotated[str, typer.Argument(help="table1, table2, table3, table4 or figure1, as the paper's supplement numbers them")],
    data: Data,
    rows: Rows = None,
    methods: Methods = None,
    out: SeriesOut = None,
    seeds: Seeds = "0",
    epochs: Epochs = None,
    image_size: ImageSize = None,
    recipe: RecipeName = "paper",
    share: Share = 1.0,
    teacher: Teacher = None,
    student: Student = None,
    init: InitFolder = None,
    pretrained: Pretrained = None,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Train what a table or figure of the paper needs, and lay our numbers beside the paper's; goes on where it was stopped."""
    from l2d.published import choose_rows, read_recipes, read_rows
    from l2d.reproduce import Settings

    with sentences(), joined():
        place = out or Path("runs") / f"reproduce-{data.partition(':')[0]}"
        chosen = tuple(_split_given(methods, "--methods") or read_recipes()["methods"])
        settings = Settings(
            data,
            place,
            chosen,
            _parse_numbers(seeds),
            epochs=epochs,
            image_size=image_size,
            recipe=recipe,
            share=share,
            teacher=teacher,
            student=student,
            init=init,
            pretrained=pretrained,
        )
        if what == FIGURE and (rows or methods or len(settings.seeds) > 1):
            raise ValueError("figure1 has one pair, one method and one seed: leave --rows, --methods and further --seeds out.")
        if what == FIGURE:
            _reproduce_figure(settings, device, dry_run)
        else:
            _reproduce_table(what, choose_rows(read_rows(what), _split_given(rows, "--rows")), settings, device, dry_run)


def _reproduce_table(table: str, rows: "Sequence[Row]", settings: "Settings", device: str, dry_run: bool) -> None:
    from l2d.comparison import collect_table
    from l2d.data import read_index
    from l2d.report import keep_rows, write_table
    from l2d.reproduce import plan_rows

    index = read_index(settings.data, "train")
    # Refused before hours of training, not after.
    keep_rows(settings.out, collect_table(table, rows, settings, index))

    def write() -> list[Path]:
        return write_table(settings.out, collect_table(table, rows, settings, index))

    _work_through(plan_rows(rows, settings), index, write, device, dry_run, scored=True)


def _reproduce_figure(settings: "Settings", device: str, dry_run: bool) -> None:
    from l2d.comparison import describe_deviations
    from l2d.data import read_index
    from l2d.published import read_recipes
    from l2d.report import write_sweep
    from l2d.reproduce import plan_figure1
    from l2d.sweep import collect_sweep, plan_sweep

    if settings.teacher is not None or settings.student is not None:
        raise ValueError("figure1 has its own teacher and student; the curves of others are drawn by l2d sweep.")
    figure = read_recipes()[FIGURE]
    teacher, student = plan_figure1(settings)
    index = read_index(settings.data, "train")
    notes = [*describe_deviations(figure["data"], settings, index), "The paper shows these curves without numbers."]

    def write() -> list[Path]:
        return write_sweep(student.out, collect_sweep(student, figure["factors"]) | {"recipe": settings.recipe, "notes": notes})

    _work_through([teacher, *plan_sweep(student, figure["factors"])], index, write, device, dry_run)


def sweep(
    teacher: Annotated[Path, typer.Option(**PATH, help="the teacher's checkpoint folder; better not one trained on the pictures held out")],
    student: Annotated[str, typer.Option(help="timm name of the student's backbone")],
    data: Data,
    out: Annotated[Path, typer.Option(**PATH, help="folder of all trainings and results")],
    method: Annotated[str, typer.Option(help="the method whose weights are varied")] = "l2d",
    factors: Annotated[str, typer.Option(help="multiples of each of the recipe's weights, separated by commas")] = "0.1,0.3,1,3,10",
    holdout: Annotated[float, typer.Option(help="share of the training pictures that the scores are taken on")] = 0.1,
    epochs: Epochs = None,
    image_size: ImageSize = None,
    recipe: RecipeName = "paper",
    share: Share = 1.0,
    init: InitFolder = None,
    pretrained: Pretrained = None,
    seed: Annotated[int, typer.Option(help="of initialisation, order, augmentation and dropout")] = 0,
    device: Device = "auto",
    dry_run: DryRun = False,
) -> None:
    """Vary each loss weight, the others as in the recipe, and draw the scores on pictures held out as curves."""
    from l2d.data import read_index
    from l2d.report import write_sweep
    from l2d.reproduce import Settings, plan_sweep_student
    from l2d.sweep import collect_sweep, plan_sweep

    with sentences(), joined():
        settings = Settings(data, out, (method,), (seed,), epochs, image_size, recipe, share, init=init, pretrained=pretrained)
        plan = plan_sweep_student(student, teacher, method, settings, holdout=holdout)
        multiples = _parse_numbers(factors, float)
        trainings, index = plan_sweep(plan, multiples), read_index(data, "train")

        def write() -> list[Path]:
            return write_sweep(out, collect_sweep(plan, multiples) | {"recipe": recipe})

        _work_through(trainings, index, write, device, dry_run)


def _split_given(names: str | None, option: str) -> list[str]:
    if names is not None and not split_names(names):
        raise ValueError(f"{option} names none; leave it out to take all.")
    return split_names(names or "")


def _parse_numbers(text: str, kind: Callable[[str], Any] = int) -> tuple[Any, ...]:
    try:
        return tuple(kind(number) for number in split_names(text))
    except ValueError:
        raise ValueError(f"Expected {'whole ' * (kind is int)}numbers separated by commas; got {text!r}.") from None


def _work_through(
    trainings: "Sequence[Training]", index: "Index", write: Callable[[], list[Path]], device: str, dry_run: bool, scored: bool = False
) -> None:
    """Train what is missing, one after the other, and write the results anew after each; or only say what there is to do.

    Several processes train and score together; the main one writes.

    Args:
        index: the training pictures of all.
        scored: measure every finished network on the test pictures.
    """
    from l2d import processes
    from l2d.data import check_splits, read_index
    from l2d.device import name_device
    from l2d.runs import choose_device
    from l2d.series import FINISHED, check_trainings, score_training

    data = trainings[0].plan.data
    check_splits(data, index)
    test = read_index(data, "test") if scored else None
    check_trainings(trainings, index)
    if dry_run:
        _print_plan(trainings, index, device)
        return
    files: list[Path] = []
    left = [training for training in trainings if training.state != FINISHED]
    # Else the log of a job tells only after hours that it found no GPU.
    say(f"{len(left)} of {len(trainings)} trainings left, on {name_device(choose_device(device))}")
    for number, training in enumerate(trainings, 1):
        title = f"{number}/{len(trainings)} {training.plan.out.name}"
        if training.state != FINISHED:
            _train(training, title, device)
        else:
            # Its teacher may have been trained only now.
            check_trainings([training], index)
        if test is not None:
            with progress(f"{title}  score") as advance:
                mean = score_training(training, test, device=device, progress=advance)["mAP"]
            say(f"{title}  test mAP {'not defined' if mean is None else f'{mean:.2f}'}")
        if processes.is_main():
            files = write()
    say(f"Wrote {', '.join(map(str, files))}")


def _train(training: "Training", title: str, device: str) -> None:
    from l2d.series import run_training

    with follow_steps(training.epochs, f"{title}  ") as on_step:
        for report in run_training(training, device=device, on_step=on_step):
            say(f"{title}  {describe_epoch(report, training.epochs)}")


def _print_plan(trainings: "Sequence[Training]", index: "Index", device: str) -> None:
    from l2d.series import FINISHED, Estimate, find_teacher

    estimate, total = Estimate(index, device), 0.0
    table = Table("training", "state", "epochs", "estimate", box=None)
    with progress("estimate", still=True) as advance:
        for number, training in enumerate(trainings):
            advance(number, len(trainings))
            seconds = 0.0 if training.state == FINISHED else estimate.seconds(training, find_teacher(training, trainings))
            total += seconds
            table.add_row(str(training.plan.out), training.state, str(training.epochs), _format_time(seconds))
    table.add_row("", "", "", _format_time(total))
    print_table(table)
    say("Estimated from one timed step for every pair of networks; leaves out scoring, and what is done of an interrupted training.")


def _format_time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes else f"{seconds:.0f} s"
