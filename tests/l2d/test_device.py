"""What training asks of a device, and that it loses the same on each."""

import copy
import math
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from l2d import device, graphs, train
from l2d.checkpoint import Network
from l2d.data.images import Index
from l2d.device import choose_memory_format, find_free_memory, supports_bfloat16
from l2d.distill import METHODS
from l2d.model import create_model
from l2d.train import fit
from tests.l2d.conftest import make_network, make_recipe, train_out

CPU = torch.device("cpu")


def test_repvgg_is_trained_in_the_memory_format_that_does_not_crash() -> None:
    with torch.device("meta"):
        repvgg, resnet = create_model("repvgg_a0", 3, width=16), create_model("resnet18", 3, width=16)
    assert choose_memory_format(repvgg, CPU) is torch.contiguous_format
    assert choose_memory_format(repvgg, torch.device("cuda")) is choose_memory_format(resnet, CPU) is torch.channels_last


# A container of either version of Linux's groups, and a job of Slurm, whose steps have groups within its own.
@pytest.mark.parametrize(
    ("groups", "place"),
    [("0::/", "memory.max"), ("0::/job_1/step_0", "job_1/memory.max"), ("4:memory:/docker/1", "memory/memory.limit_in_bytes")],
)
@pytest.mark.parametrize(("limit", "expected"), [("max", 3072), ("2000", 2000), ("4000", 3072), (None, 3072)])
def test_memory_is_bounded_by_the_host_and_its_container(
    groups: str, place: str, limit: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:      9 kB\nMemAvailable:  3 kB\n")
    (tmp_path / "cgroup").write_text(f"1:cpu:/job_1\n{groups}\n")
    if limit is not None:
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(f"{limit}\n")
    for name, file in (("HOST", "meminfo"), ("GROUPS", "cgroup"), ("LIMITS", "")):
        monkeypatch.setattr(device, name, tmp_path / file)
    assert find_free_memory() == expected
    for name in ("HOST", "GROUPS"):
        monkeypatch.setattr(device, name, tmp_path / "of another system")
    assert find_free_memory() == math.inf


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


@pytest.fixture(scope="module")
def trained(bands: Index) -> tuple[Network, Network]:
    """A student and a teacher that tell labels apart. What untrained ones say of them is so little that rounding changes much of it."""
    networks = make_network(), make_network(7)
    for network in networks:
        train_out(bands, make_recipe(epochs=8, lr=3e-3), network)
    return networks


@pytest.fixture
def measure(bands: Index, trained: tuple[Network, Network], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, float]]:
    """The losses of an epoch more, on this device and in mixed precision or not."""

    def measure(method: str, device: str, mixed: bool) -> dict[str, float]:
        for module in (train, graphs):
            monkeypatch.setattr(module, "supports_bfloat16", lambda _: mixed)
        student, teacher = copy.deepcopy(trained)
        for module in student.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # each device draws its own
        recipe = make_recipe(method=method, epochs=1, averaging=0.9, freeze_stages=1)
        return train_out(bands, recipe, student, teacher=teacher, device=device)[0].losses

    return measure


@pytest.mark.parametrize("method", ["l2d", "ps", "mse", "rkd", "pkt", "reviewkd"])
def test_mixed_precision_loses_what_single_precision_does(measure: Callable[..., dict[str, float]], method: str) -> None:
    assert measure(method, "cpu", True) == pytest.approx(measure(method, "cpu", False), rel=0.02)


@pytest.mark.gpu
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_gpu_trains_as_the_cpu_does(measure: Callable[..., dict[str, float]], method: str, mixed: bool) -> None:
    assert measure(method, "cuda", mixed) == pytest.approx(measure(method, "cpu", mixed), rel=0.03 if mixed else 0.02)


@pytest.mark.gpu
def test_it_learns_on_a_gpu_and_goes_on_after_a_stop(bands: Index, tmp_path: Path) -> None:
    recipe = make_recipe(method="mld", epochs=12, lr=3e-3, cutout=0.0, min_area=0.8, averaging=0.5)
    state = tmp_path / "state.pt"
    first = next(fit(make_network(), bands, recipe, teacher=make_network(7), device="cuda", state=state))
    rest = train_out(bands, recipe, teacher=make_network(7), device="cuda", state=state)
    assert rest[0].losses == first.losses
    assert rest[-1].losses["bce"] < 0.5 * first.losses["bce"]
