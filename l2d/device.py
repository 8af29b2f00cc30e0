"""What training asks of a device: how tensors should lie, be rounded and be kept there."""

import contextlib
import ctypes
import math
import platform
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

# Parameters of glibc's mallopt (malloc.h): what the heap gives back, and how many blocks lie outside of it.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4

# What Linux tells of the host's memory, of the groups that this process is in, and where their limits stand.
HOST, GROUPS, LIMITS = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def choose_memory_format(model: nn.Module, device: torch.device) -> torch.memory_format:
    """Channels last, which is faster, wherever it works.

    On CPUs torch (2.13 to 2.15) writes past its memory in the backward pass of a strided 1x1 convolution of three channels, which is
    how RepVGG begins.
    """
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    unsafe = any(one.in_channels == 3 and one.kernel_size == (1, 1) and one.stride != (1, 1) for one in convolutions)
    return torch.contiguous_format if unsafe and device.type == "cpu" else torch.channels_last


def supports_bfloat16(device: torch.device) -> bool:
    """Whether mixed precision pays: on GPUs, and on CPUs that multiply matrices in bfloat16 (AMX).

    Where a CPU has only vectors of bfloat16, most networks train in it more slowly than in single precision.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16"))


def name_device(device: torch.device) -> str:
    """A GPU by its name, a CPU by the number of threads that torch takes there."""
    threads = torch.get_num_threads()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{threads} CPU thread{'s' * (threads > 1)}"


def lacks_memory(error: Exception) -> bool:
    """Whether an error says that memory did not suffice, on the host or the device."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def find_free_memory() -> float:
    """Bytes that are free on the host, or that a container, or a cluster's job, may have in all if these are fewer; infinite if unknown."""
    bounds = [math.inf, *_list_limits()]
    with contextlib.suppress(OSError):
        lines = HOST.read_text().splitlines()
        bounds += [int(line.split()[1]) * 1024.0 for line in lines if line.startswith("MemAvailable:")]
    return min(bounds)


def _list_limits() -> Iterator[float]:
    """Those of this process's group and of all around it, in either version of Linux's control groups."""
    with contextlib.suppress(OSError):
        for line in GROUPS.read_text().splitlines():
            _, kinds, group = line.split(":", 2)
            # Of the first version every kind of limit has groups of its own.
            top, name = (LIMITS / "memory", "memory.limit_in_bytes") if kinds else (LIMITS, "memory.max")
            for place in (Path(group), *Path(group).parents) if kinds in ("", "memory") else ():
                with contextlib.suppress(OSError, ValueError):  # "max", without a limit
                    yield float(int((top / place.relative_to("/") / name).read_text()))


def keep_freed_memory() -> None:
    """Let this process keep the memory of tensors that are freed, where it runs on glibc.

    A step's tensors are so large that glibc gives each back to the system and asks for it anew, zeroed page by page, which
    costs a good part of a step's time (`l2d bench train`).
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # never
