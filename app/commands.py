"""What `python -m app` does besides serving: `worker` runs jobs, `job` trains for one and is started by workers."""

import argparse
from collections.abc import Sequence

from app.places import Places


def run_command(words: Sequence[str], places: Places) -> int:
    """Run a command line without its first words; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m app", description="Without a command: start the server.")
    commands = parser.add_subparsers(dest="command", required=True)
    worker = commands.add_parser("worker", help="run jobs, on this machine, for every server that shares the folder L2D_STATE")
    worker.add_argument("--device", help="cpu, cuda:0, ...; by default the first GPU, or the CPU where there is none")
    worker.add_argument("--attached", action="store_true", help="leave when standard input ends; set by the server that starts a worker")
    job = commands.add_parser("job", help="train for one job; started by a worker")
    job.add_argument("id")
    options = parser.parse_args(words)
    if options.command == "job":
        from app.training import main as train

        return train(options.id, places)
    from app.worker import list_devices
    from app.worker import main as work

    return work(places, options.device or list_devices()[0], options.attached)
