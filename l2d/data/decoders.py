"""Processes that decode pictures for a GPU: threads hold up the one that trains, since Python runs one at a time.

Training on processors gains nothing by them: it takes far longer than decoding, and forked processes hold on to all memory that it
overwrites while they live.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from l2d import processes

# Processes are started for at least so many pictures each: starting and ending them takes as long as threads do for fewer.
LEAST_PER_PROCESS = 200
# So many decode faster than a GPU trains.
MOST_PROCESSES = 16
# Pictures that a process hands over at once.
CHUNK = 16
# How often a process looks whether its parent is alive.
PARENT_SECONDS = 1.0

# Bytes of a picture.
Pixels = npt.NDArray[np.uint8]


class StartError(OSError):
    """Processes that the system does not let start, or not get as far as their first pictures."""


def count_decoders(pictures: int) -> int:
    """Processes for so many pictures; 0 where threads do.

    They are forked, torch's own way on Linux: what is forked here never touches CUDA, and every other way would run the user's script
    once more, whose calls may stand outside of a main guard. Where forking is not safe, or not possible, threads have to do.
    """
    count = min(processes.count_processors(), MOST_PROCESSES)
    forkable = sys.platform == "linux" and not multiprocessing.current_process().daemon
    return count if forkable and pictures >= LEAST_PER_PROCESS * count else 0


def decode_in_processes(decode: Callable[[int], Pixels], rows: Sequence[int], count: int) -> Generator[Pixels, None, None]:
    """The pictures of these rows, in order, from processes that end with the iteration.

    Raises:
        ValueError: `decode`'s own.
        StartError: if not all processes get as far as their first pictures; some may have been given by then.
        ChildProcessError: if one is killed later.
    """
    loader = DataLoader(
        _Decoding(decode),
        batch_size=CHUNK,
        sampler=rows,
        num_workers=count,
        collate_fn=list,
        multiprocessing_context="fork",
        worker_init_fn=partial(_prepare_process, os.getpid()),
        generator=torch.Generator(),  # the default one belongs to the training
    )
    given = 0
    try:
        for found in chain.from_iterable(_start(loader)):
            if isinstance(found, ValueError):
                raise found
            yield found
            given += 1
        return
    except RuntimeError as error:
        # Its last line is what happened; torch puts a process's traceback before it.
        reason = str(error).strip().splitlines()[-1]
        # torch's frames hold on to the other processes, and to this error.
        error.__traceback__ = None
    # Not from within, for the same reason.
    if given < CHUNK * count:
        raise StartError(reason)
    raise ChildProcessError(f"A process that decodes pictures was killed, perhaps for want of memory: {reason}.")


def _start(loader: DataLoader[Pixels | ValueError]) -> Iterator[list[Pixels | ValueError]]:
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        return iter(loader)
    except (OSError, RuntimeError) as error:
        reason = str(error)
    finally:
        # Once torch's half-made iterator is freed: it ends those that run, and then stumbles over what it did not come to set.
        sys.unraisablehook = hook
    raise StartError(reason)


class _Decoding(Dataset[Pixels | ValueError]):
    """What the processes do. Arrays go through pipes; tensors would need more shared memory than a container has."""

    def __init__(self, decode: Callable[[int], Pixels]):
        self.decode = decode

    def __getitem__(self, row: int) -> Pixels | ValueError:
        try:
            return self.decode(row)
        except ValueError as error:  # as a value, since torch would put its traceback into the sentence
            return error


def _prepare_process(parent: int, _: int) -> None:
    # Ctrl-C reaches all processes of a terminal; the parent ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    # torch looks for the parent as well, but a process that waits for room in its pipe would stay for ever.
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os._exit(1)
