"""The processes of this app on this machine: how they are started, what they are told, and how they end."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from app.jobs import Job
from app.places import SOURCE_TREE, Places
from app.records import JobFolder
from app.seats import CPU, Devices

# What a training process gets between being asked and being killed.
GRACE_SECONDS = 2.0
# Of 1000: how much sooner than others Linux ends a training when the machine's memory runs out. It can be resumed; a page is just gone.
OOM_SCORE = "500"
# Which GPUs CUDA shows a process, and by which order it counts them.
VISIBLE, COUNTED = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
# What training needs of the environment; everything else, secrets above all, stays out.
PASSED_ON = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_OFFLINE"),
    *(VISIBLE, COUNTED, "OMP_NUM_THREADS", "MKL_NUM_THREADS", "L2D_CACHE", "L2D_LOG", "PYTHONDONTWRITEBYTECODE"),
    *("L2D_ENGINE", "L2D_ENGINE_CPUS", "L2D_ENGINE_GPUS"),
    # The way to the hub, for weights of ImageNet.
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "HF_ENDPOINT", "SSL_CERT_FILE"),
)
ENTRY = "app"


class Exit(NamedTuple):
    """How a training ended.

    Attributes:
        code: of its process, negative for a signal; None if it went down together with what ran it.
        message: what that says about it.
    """

    code: int | None
    message: str = ""


class MachineError(RuntimeError):
    """A training cannot be started; a sentence.

    Args:
        passes: whether it can once the machine answers again.
    """

    def __init__(self, message: str, passes: bool = False):
        super().__init__(message)
        self.passes = passes


class Training(Protocol):
    """A training on its way."""

    def poll(self) -> Exit | None:
        """How it ended; None as long as it has not."""

    def end(self) -> None:
        """Make sure that it is gone. Everything that it writes is renamed into place, so it may be ended anywhere."""


class Machine(Protocol):
    """What trainings run on: this machine, or a cluster.

    Attributes:
        slots: how many trainings it takes at once.
        outlives_worker: whether a training goes on without its worker, and can be found again by the next one.
    """

    slots: int
    outlives_worker: bool

    @property
    def device(self) -> str:
        """What a training is told to run on."""

    def reserve(self, processes: int) -> bool:
        """Hold what a training of so many processes runs on, until it is released; False, holding nothing, if it has to wait."""

    def release(self) -> None:
        """Let go of that, after the training."""

    def start(self, job: Job, folder: JobFolder, stop: bool) -> Training:
        """Start what the folder's order says, its output going to the folder's log.

        Raises:
            MachineError: if it cannot be started.
        """

    def find(self, job: Job, stop: bool) -> Training:
        """The training that an earlier worker started for this attempt; only of a machine whose trainings outlive workers."""

    def abandon(self, job: Job) -> None:
        """Make sure that no training of a job that was given up goes on."""


class LocalMachine:
    """This machine: every training is a process below its worker's, and ends with it.

    Args:
        seat: "cpu", or the worker's GPU.
        seats: those of all workers of this machine, whose GPUs a job of several processes may take.
    """

    slots = 1
    outlives_worker = False

    def __init__(self, places: Places, seat: str, seats: Sequence[str] = ()):
        self.places = places
        self._devices = Devices(places.state, seat, seats) if seat != CPU else None

    @property
    def device(self) -> str:
        """What a training is told to run on: of several GPUs, each process takes its own."""
        if self._devices is None:
            return CPU
        return "cuda" if len(self._devices.held) > 1 else self._devices.own

    def reserve(self, processes: int) -> bool:
        """Take a GPU for each process; the processor has room at any time, and a job that can never start is left to `start`."""
        return self._devices is None or processes > len(self._devices.all) or self._devices.take(processes)

    def release(self) -> None:
        """Let go of them."""
        if self._devices is not None:
            self._devices.release()

    def start(self, job: Job, folder: JobFolder, stop: bool) -> Training:
        """Start a process, or several under torchrun.

        Raises:
            MachineError: for more processes than this machine has GPUs, or processors: their memory would take the server down with it.
        """
        count: int = job.spec.get("processes", 1)
        if self._devices is None and count > (processors := count_processors()):
            raise MachineError(_describe_want(count, "processors", processors))
        shown = {} if self._devices is None or count == 1 else show_gpus(self._devices, count)
        with folder.log.open("ab") as log:
            return LocalTraining(start_process(self.places, ["job", "--attached", job.id], log, count, shown))

    def find(self, job: Job, stop: bool) -> Training:
        """There is none: it ended with its worker."""
        raise MachineError("The training ended with its worker.")

    def abandon(self, job: Job) -> None:
        """Nothing to do: it ended with its worker."""


def show_gpus(devices: Devices, count: int) -> dict[str, str]:
    """The variable that shows a training the GPUs taken for it, and no others; this process may have been shown only some itself.

    Raises:
        MachineError: if that are not `count`, because this machine has fewer.
    """
    if len(devices.held) != count:
        raise MachineError(_describe_want(count, "GPUs", len(devices.all)))
    numbers = [int(seat.removeprefix("cuda:")) for seat in devices.held]
    visible = os.environ.get(VISIBLE)
    names = visible.split(",") if visible else [str(number) for number in range(max(numbers) + 1)]
    return {VISIBLE: ",".join(names[number] for number in numbers)}


def count_processors() -> int:
    """Processors that this process may use."""
    # Not by `l2d.processes`, which would load torch into every worker.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _describe_want(count: int, kind: str, there: int) -> str:
    return (
        f"The job asks for {count} {kind}, and this machine has {there}: order fewer processes, or give its {kind} and others' to a Ray "
        "cluster (L2D_ENGINE)."
    )


class LocalTraining:
    """A process on this machine."""

    def __init__(self, process: subprocess.Popen[bytes]):
        self._process = process

    def poll(self) -> Exit | None:
        """How it ended; None as long as it has not."""
        code = self._process.poll()
        return None if code is None else Exit(code)

    def end(self) -> None:
        """Ask it to end, then kill it."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def start_process(
    places: Places, words: list[str], output: IO[bytes] | None, processes: int = 1, variables: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start another process of this app, out of reach of the terminal's signals, with nothing of the environment that it does not need.

    It holds the other end of a pipe, and so learns when this process is gone.

    Args:
        variables: added to its environment.
    """
    return subprocess.Popen(
        write_command(words, processes),
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        env=make_environment(os.environ, places) | dict(variables or {}),
        start_new_session=True,
    )


def yield_memory() -> None:
    """Have this process ended before others when memory runs out, where the system knows of such a thing."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)


def write_command(words: list[str], processes: int = 1) -> list[str]:
    """The command line of this app's process; under torchrun, if several are to train together."""
    # They would look for each other by this host's name, which a laptop's network, or none, may not know.
    here = ["--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={processes}"]
    launcher = ["-m", "torch.distributed.run", *here] if processes > 1 else []
    return [sys.executable, *launcher, "-m", ENTRY, *words]


def make_environment(environment: Mapping[str, str], places: Places) -> dict[str, str]:
    """The environment of workers and training processes."""
    kept = {name: environment[name] for name in PASSED_ON if name in environment}
    return {"L2D_CACHE": str(places.cache)} | kept | places.as_environment() | {"PYTHONPATH": str(SOURCE_TREE)}
