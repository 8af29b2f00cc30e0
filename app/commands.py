"""What `python -m app` does besides serving: `worker` runs jobs; `job` and `group` train for one and are started by workers."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from app.settings import Settings


def run_command(words: Sequence[str], settings: Settings) -> int:
    """Run a command line without its first words; returns the exit code."""
    options = _create_parser().parse_args(words)
    if options.command == "job":
        from app.training import main as train

        return train(options.id, settings.places, options.attached)
    if options.command == "group":
        from app.group import main as train_together

        return train_together(options.id, settings.places, options.processes, options.cpus, options.gpus)
    if options.check:
        return _check_worker(settings.state)
    from app.worker import main as work

    return work(settings, options.device, options.attached)


def _create_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m app",
        description="Without a command: start the server.",
        epilog=_describe_settings(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    worker = commands.add_parser("worker", help="run jobs, on this machine, for every server that shares the folder L2D_STATE")
    worker.add_argument(
        "--device", type=_parse_device, help="ray, cpu, cuda:0, ...; by default the cluster L2D_ENGINE, else the first GPU, else the CPU"
    )
    worker.add_argument("--attached", action="store_true", help="leave when standard input ends; set by the server that starts a worker")
    worker.add_argument("--check", action="store_true", help="run nothing: exit status 0 if a worker of this host runs and is not stuck")
    job = commands.add_parser("job", help="train for one job; started by a worker")
    job.add_argument("id")
    job.add_argument(
        "--attached", action="store_true", help="end when standard input ends, instead of when the job is no longer this run's"
    )
    group = commands.add_parser("group", help="train for one job in several processes of a Ray cluster; started by a worker")
    group.add_argument("id")
    group.add_argument("--processes", type=int, required=True)
    group.add_argument("--cpus", type=float, required=True, help="of each process")
    group.add_argument("--gpus", type=float, required=True, help="of each process")
    return parser


def _check_worker(state: Path) -> int:
    from app.seats import find_marked

    if find_marked(state):
        return 0
    print(f"No worker of this host has gone round for a minute in {state}: none runs, or it is stuck.", file=sys.stderr)
    return 1


def _parse_device(name: str) -> str:
    # Not left to the trainings: every job that the worker took would fail.
    if not re.fullmatch(r"ray|cpu|cuda:\d+", name):
        raise argparse.ArgumentTypeError(f"unknown device {name!r}; use ray, cpu or cuda:NUMBER")
    return name


def _describe_settings() -> str:
    fields = Settings.model_fields.items()
    lines = [f"  L2D_{name.upper():22}{field.description} ({_describe_default(field.default)})" for name, field in fields]
    return "\n".join(["environment variables, with their defaults:", *lines])


def _describe_default(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return "none" if value in (None, "") else str(value)
