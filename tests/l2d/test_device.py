"""What training asks of a device."""

import platform
import subprocess
import sys

import pytest
import torch

from l2d.device import choose_memory_format, supports_bfloat16
from l2d.model import create_model

CPU = torch.device("cpu")


def test_repvgg_is_trained_in_the_memory_format_that_does_not_crash() -> None:
    with torch.device("meta"):
        repvgg, resnet = create_model("repvgg_a0", 3, width=16), create_model("resnet18", 3, width=16)
    assert choose_memory_format(repvgg, CPU) is torch.contiguous_format
    assert choose_memory_format(repvgg, torch.device("cuda")) is choose_memory_format(resnet, CPU) is torch.channels_last


@pytest.mark.parametrize(
    ("found", "expected"), [({"amx_bf16": True}, True), ({"avx512_bf16": True, "amx_bf16": False}, False), ({}, False)]
)
def test_mixed_precision_needs_a_processor_that_multiplies_matrices_in_it(
    found: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert supports_bfloat16(CPU) is expected


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have no such switch")
def test_the_memory_of_a_step_serves_the_next_one() -> None:
    """In a process of its own: the system gives memory in pages, and counts them."""
    script = """
import resource, torch
from l2d.device import keep_freed_memory
def pages(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(count)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
pages(2**26), print(pages(2**25))
keep_freed_memory()
pages(2**26), print(pages(2**25))
"""
    given_back, kept = map(int, subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split())
    assert kept < 0.1 * given_back
