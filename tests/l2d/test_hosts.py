"""One training on two hosts: two networks of this machine, each with its own name, address and loopback, joined by a cable."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from l2d.checkpoint import save_checkpoint
from l2d.data.shapes import LABELS
from tests.l2d.conftest import make_network

ROOT = Path(__file__).parents[2]
# Linux lets any user have hosts of its own, and takes them down with the last process in them.
ALONE = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--uts", "--pid", "--fork", "bash", "-c"]
HOSTS = """
set -e
mount -t tmpfs none /run
mount --bind ./names /etc/hosts
hostname first
ip netns add second
ip link add eth0 type veth peer name eth0 netns second
for host in 'ip' 'ip -n second'; do $host link set lo up; $host link set eth0 up; done
ip addr add 10.0.0.1/24 dev eth0
ip -n second addr add 10.0.0.2/24 dev eth0
ip netns exec second unshare --uts sh -c 'hostname second; . ./second.sh' > second.log 2>&1 &
sh ./first.sh > first.log 2>&1 &
# The first one that fails ends the other, which may wait for it for half an hour.
wait -n && wait -n
"""

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


def run_on_hosts(folder: Path, first: str, second: str = "true", names: tuple[str, str] = ("10.0.0.1", "10.0.0.2")) -> tuple[int, str, str]:
    """Whether a command ends well on each of two hosts that share this machine's disk and processors, and what it says there.

    Args:
        names: the address that each host's name stands for.
    """
    for file, content in {
        "first.sh": first,
        "second.sh": second,
        "names": "127.0.0.1 localhost\n{} first\n{} second\n".format(*names),
    }.items():
        (folder / file).write_text(content)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "L2D_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*ALONE, HOSTS], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, timeout=300)
    assert not done.stderr
    return done.returncode, *(" ".join((folder / log).read_text().split()) for log in ("first.log", "second.log"))


def launch(*words: str, out: str) -> str:
    """The command of docs/training.md, for two processes or one of two hosts."""
    command = ["l2d", "distill", "--teacher", "teacher", "--student", "test_resnet", "--method", "l2d", "--out", out]
    command += ["--data", "shapes:24", "--epochs", "2", "--batch-size", "8", "--image-size", "32", "--width", "16", "--feedforward", "24"]
    return shlex.join([sys.executable, "-m", "torch.distributed.run", *words, "-m", *command, "--device", "cpu"])


def launch_both() -> list[str]:
    hosts = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "10.0.0.1", "--node-rank"]
    return [launch(*hosts, rank, out="hosts") for rank in "01"]


def test_two_hosts_train_what_two_processes_of_one_host_do(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "teacher", *make_network(labels=LABELS))
    status, first, second = run_on_hosts(tmp_path, *launch_both())
    assert status == 0, first + second
    assert first.count("epoch 2/2") == first.count("Wrote hosts") == 1
    assert "epoch" not in second
    status, first, _ = run_on_hosts(tmp_path, launch("--nproc-per-node", "2", out="processes"))
    assert status == 0, first
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("hosts", "processes"))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_hosts_whose_names_stand_for_themselves_alone_are_told_what_to_set(tmp_path: Path) -> None:
    status, first, second = run_on_hosts(tmp_path, *launch_both(), names=("127.0.1.1", "127.0.1.1"))
    assert status == 1
    # It depends on their ports which of them calls the other.
    assert "Error: The processes do not find each other" in first + second
    assert "such as GLOO_SOCKET_IFNAME=eth0" in first + second
    # It is right.
    save_checkpoint(tmp_path / "teacher", *make_network(labels=LABELS))
    commands = [f"GLOO_SOCKET_IFNAME=eth0 {command}" for command in launch_both()]
    status, first, second = run_on_hosts(tmp_path, *commands, names=("127.0.1.1", "127.0.1.1"))
    assert status == 0, first + second
