"""What a run was trained with, as its card tells it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from l2d import environment
from l2d.environment import add_environment, describe_environment, find_revision

SOURCE = Path(environment.__file__)


def git(folder: Path, *command: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    return subprocess.run(["git", "-C", str(folder), *identity, *command], check=True, capture_output=True, text=True).stdout.strip()


def test_versions_device_and_precision_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "find_revision", lambda: None)
    told = describe_environment(torch.device("cpu"))
    assert told.keys() == {"device", "processes", "precision", "python", "torch", "timm", "l2d"}
    assert (told["torch"], told["processes"]) == (torch.__version__, 1)
    assert told["device"].endswith(("CPU thread", "CPU threads"))


def test_the_revision_is_that_of_this_program_and_of_no_repository_around_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "__file__", str(shutil.copy(SOURCE, tmp_path)))
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "Somebody's work")
    assert find_revision() is None
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "The program")
    commit = git(tmp_path, "rev-parse", "HEAD")
    index = tmp_path / ".git" / "index"
    before = index.read_bytes()
    os.utime(tmp_path / SOURCE.name, (1, 1))
    assert find_revision() == commit
    # Untouched, so that nobody who works in the repository is in the way of a training, or the other way round.
    assert index.read_bytes() == before
    (tmp_path / SOURCE.name).write_text("changed")
    assert find_revision() == f"{commit}-dirty"
    monkeypatch.setenv("PATH", "")
    assert find_revision() is None


def test_an_environment_is_told_anew_where_another_one_begins() -> None:
    told = add_environment([], {"device": "a"}, 1)
    assert add_environment(told, {"device": "a"}, 2) == told == [{"from_epoch": 1, "device": "a"}]
    assert add_environment(told, {"device": "b"}, 3) == [*told, {"from_epoch": 3, "device": "b"}]
