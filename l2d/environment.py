"""What a training ran with: versions, the revision of this program, the device."""

import json
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

import torch

from l2d import processes
from l2d.device import name_device, supports_bfloat16

Environment = dict[str, Any]


def describe_environment(device: torch.device) -> Environment:
    """What a training on a device runs with: `describe_program`, the numbers' precision, and the processes that share the work."""
    precision = "mixed (bfloat16)" if supports_bfloat16(device) else "single"
    return describe_program(device) | {"precision": precision, "processes": processes.count()}


def describe_program(device: torch.device) -> Environment:
    """The device and the versions of what runs there; nothing that names host or person.

    `revision`, the commit of this program, is there only where it is known: in a clone, with "-dirty" behind it if files were changed,
    and where pip installed from a repository.
    """
    revision = find_revision()
    return {"device": name_device(device)} | list_versions() | ({"revision": revision} if revision else {})


def list_versions() -> dict[str, str]:
    """Of what decides a training's result: Python, torch, timm and this program."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "timm": version("timm")}
    try:
        return found | {"l2d": version("l2d")}
    except PackageNotFoundError:
        # Run from a folder, without an installation.
        return found


def find_revision() -> str | None:
    """The commit of this program, if anything tells it."""
    here = Path(__file__)
    # Another repository may hold the environment that this program is installed in.
    if _ask_git(here.parent, "ls-files", "--error-unmatch", here.name) is not None:
        return _name_commit(here.parent)
    try:
        told = json.loads(distribution("l2d").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        return None
    return told.get("vcs_info", {}).get("commit_id")


def add_environment(earlier: list[Environment], now: Environment, epoch: int) -> list[Environment]:
    """The environments of a run with the one that an epoch was trained in: anew only if it is not the last one's.

    Each has `from_epoch`, the first epoch that was trained in it.
    """
    same = earlier and {name: value for name, value in earlier[-1].items() if name != "from_epoch"} == now
    return earlier if same else [*earlier, {"from_epoch": epoch} | now]


def _name_commit(folder: Path) -> str | None:
    commit = _ask_git(folder, "rev-parse", "HEAD")
    # Not by `git describe`, which locks the index: of somebody who commits meanwhile, or for good where it is ended for taking too long.
    changed = _ask_git(folder, "--no-optional-locks", "status", "--porcelain", "--untracked-files=no")
    return f"{commit}-dirty" if commit and changed else commit


def _ask_git(folder: Path, *command: str) -> str | None:
    """What git prints, or None where there is no git or it refuses."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, errors="replace", timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
