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
ALONE = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--uts", "--pid", "--fork", "sh", "-c"]
HOSTS = """
set -e
mount -t tmpfs none /run
printf '127.0.0.1 localhost\\n10.0.0.1 first\\n10.0.0.2 second\\n' > /run/hosts
mount --bind /run/hosts /etc/hosts
hostname first
ip netns add second
ip link add eth0 type veth peer name eth0 netns second
for host in 'ip' 'ip -n second'; do $host link set lo up; $host link set eth0 up; done
ip addr add 10.0.0.1/24 dev eth0
ip -n second addr add 10.0.0.2/24 dev eth0
ip netns exec second unshare --uts sh -c 'hostname second; . ./second.sh' > second.log 2>&1 &
sh ./first.sh > first.log 2>&1
wait $!
"""

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


def run_on_hosts(first: str, second: str, folder: Path) -> tuple[str, str]:
    """What a command says on each of two hosts that share this machine's disk and processors; both succeed."""
    (folder / "first.sh").write_text(first)
    (folder / "second.sh").write_text(second)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "L2D_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*ALONE, HOSTS], cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    first, second = (log.read_text() if log.exists() else "" for log in (folder / "first.log", folder / "second.log"))
    assert done.returncode == 0, done.stderr + first + second
    return first, second


def launch(*words: str, out: str) -> str:
    """The README's command, of one of two processes or hosts."""
    command = ["l2d", "distill", "--teacher", "teacher", "--student", "test_resnet", "--method", "l2d", "--out", out]
    command += ["--data", "shapes:24", "--epochs", "2", "--batch-size", "8", "--image-size", "32", "--width", "16", "--feedforward", "24"]
    return shlex.join([sys.executable, "-m", "torch.distributed.run", *words, "-m", *command, "--device", "cpu"])


def test_two_hosts_train_what_two_processes_of_one_host_do(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "teacher", *make_network(labels=LABELS))
    hosts = ["--nnodes", "2", "--master-addr", "first", "--nproc-per-node", "1", "--node-rank"]
    first, second = run_on_hosts(launch(*hosts, "0", out="hosts"), launch(*hosts, "1", out="hosts"), tmp_path)
    assert first.count("epoch 2/2") == first.count("Wrote hosts") == 1
    assert "epoch" not in second
    run_on_hosts(launch("--nproc-per-node", "2", out="processes"), "true", tmp_path)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("hosts", "processes"))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
