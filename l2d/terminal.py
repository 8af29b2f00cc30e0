"""What commands have in common: where they print, how progress looks, and how they say what is wrong."""

import contextlib
import functools
import io
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # torch would be imported with it, and --help should answer at once
    from l2d.train import EpochReport, StepCallback, StepReport

# Progress and messages; results alone go to standard output, so that they can be piped.
# What is printed holds names of labels and files, and is never markup: [red] may be one of them.
console = Console(stderr=True, markup=False, emoji=False)
output = Console(markup=False, emoji=False)

# Columns of a table that goes to no terminal; it takes no more than it needs.
WIDEST = 1000

Data = Annotated[
    str,
    typer.Option(
        help="coco:ROOT, coco2017:ROOT, voc:ROOT, voc-easy:ROOT, nuswide:ROOT, csv:FILE, shapes (drawn by the program) or shapes:COUNT"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON and nothing else")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]


@contextlib.contextmanager
def sentences() -> Iterator[None]:
    """Say what is wrong with the input in a sentence, without a traceback; warnings too. What is printed is printed in any coding."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Else one letter of a label that a file or pipe of another coding lacks would lose all scores.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            # Once, though every training of a series finds the same in its data set.
            tell = functools.cache(_warn)
            warnings.showwarning = lambda message, *_, **__: tell(str(message))
            # What Pillow takes for an attack is a panorama here. One of twice as many pixels is an error, with its name.
            warnings.filterwarnings("ignore", "Image size .* could be decompression bomb")
            yield
    except (ValueError, OSError, ArithmeticError) as error:
        _complain(_describe(error))
        raise typer.Exit(1) from error
    except (MemoryError, RuntimeError) as error:
        from l2d.device import lacks_memory

        if not lacks_memory(error):
            raise
        _complain("The memory did not suffice; choose smaller numbers, of --batch-size or --image-size above all.")
        raise typer.Exit(1) from error


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """`l2d.processes.joined`, in which the main process alone prints; what ends a process is said by each, after it.

    Raises:
        ConnectionError: also if another process goes away meanwhile, for whatever torch calls that.
    """
    from l2d import processes

    with processes.joined():
        console.quiet = output.quiet = not processes.is_main()
        try:
            yield
        except Exception as error:
            if not processes.means_loss(error):
                raise
            raise ConnectionError("Another process is gone, and this one cannot go on without it; what that one said tells why.") from error
        finally:
            console.quiet = output.quiet = False


def say(message: str | Text) -> None:
    """A message on one line, however long: whoever reads it from a file finds names whole."""
    console.print(message, soft_wrap=True)


def _describe(error: Exception) -> str:
    """An error's own sentence; the system's ones are made of the file and what is wrong with it, without a number."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return f"{': '.join(str(part) for part in (error.filename, error.strerror) if part)}."


def _complain(reason: str) -> None:
    say(Text.assemble(("Error:", "red"), f" {reason}"))


def _warn(reason: str) -> None:
    say(Text.assemble(("Warning:", "yellow"), f" {reason}"))


@contextlib.contextmanager
def follow_steps(epochs: int, title: str = "") -> Iterator["StepCallback"]:
    """A progress bar as a function of the steps of a training."""
    with _bars() as bars:
        task = bars.add_task(f"{title}epoch 1", total=None)

        def on_step(step: "StepReport") -> None:
            description = f"{title}epoch {step.epoch}/{epochs}  {_list_losses(step.losses)}"
            bars.update(task, description=description, completed=step.step, total=step.steps)

        yield on_step


@contextlib.contextmanager
def progress(description: str, *, still: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A progress bar as a function of (done, total); a still one is drawn in these calls alone, to disturb no timing."""
    with _bars(still) as bars:
        task = bars.add_task(description, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total, refresh=still)


def describe_epoch(report: "EpochReport", epochs: int) -> str:
    """One line: losses, score, time."""
    # Pictures held out that show no label have none.
    mean = report.scores["mAP"] if report.scores else None
    score = f"  held-out mAP {mean:.2f}" if mean is not None else ""
    losses, speed = _list_losses(report.losses), f"{report.images_per_second:.0f} images/s"
    return f"epoch {report.epoch}/{epochs}  {losses}{score}  {report.seconds:.0f} s  {speed}"


def _list_losses(losses: dict[str, float]) -> str:
    # A loss that is a mean is small where the labels' own, a sum, is in the hundreds.
    return "  ".join(f"{name} {value:.1f}" if abs(value) >= 10 else f"{name} {value:.3g}" for name, value in losses.items())


def split_names(names: str) -> list[str]:
    """Names separated by commas; empty ones are left out."""
    return [name.strip() for name in names.split(",") if name.strip()]


def print_report(report: dict[str, Any], as_json: bool) -> None:
    """A report as JSON, or as a table of its entries."""
    if as_json:
        typer.echo(json.dumps(report))
        return
    table = Table(box=None, show_header=False)
    # A long name goes on in the next line, where rich would end it in an ellipsis.
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for name, value in _flatten(report):
        table.add_row(name, _format(value))
    print_table(table)


def print_table(table: Table) -> None:
    """A table; whoever reads it from a file or a pipe finds names whole."""
    (output if output.is_terminal else Console(markup=False, emoji=False, width=WIDEST, quiet=output.quiet)).print(table)


def _bars(still: bool = False) -> Progress:
    what = TextColumn("{task.description}", markup=False)
    columns = (what, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    # In a log file a bar would only leave empty lines.
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal, auto_refresh=not still)


def _format(value: Any) -> str:
    """A number with two decimals, a smaller one with two digits; a dash for what is not defined; several things between commas."""
    if isinstance(value, float):
        return f"{value:.2f}" if value == 0 or abs(value) >= 0.01 else f"{value:.2g}"
    if isinstance(value, list):
        return ", ".join(map(_format, value))
    return "-" if value is None else str(value)


def _flatten(report: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in report.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", value
