"""The state of a training: written whole, and taken up by the training that it belongs to. What it holds is tested where it is trained."""

from pathlib import Path

import pytest
import torch
from torch import nn

from l2d import state as states
from l2d.recipe import Recipe
from l2d.state import load_state, save_state

PROGRESS = {"epoch": 2, "seconds": 1.5, "report": {"losses": {"bce": 3.0}}}


def test_what_was_told_comes_back_and_parts_are_as_they_were(tmp_path: Path) -> None:
    path, recipe, (one, other) = tmp_path / "new" / "state.pt", Recipe(epochs=3), (nn.Linear(3, 2) for _ in range(2))
    save_state(path, {"student": one}, recipe, {"backbone": "small"}, **PROGRESS)
    told = load_state(path, {"student": other}, recipe, {"backbone": "small"})
    assert {name: told[name] for name in PROGRESS} == PROGRESS
    assert torch.equal(one.weight, other.weight)
    assert [file.name for file in path.parent.iterdir()] == ["state.pt"]


def test_a_full_disk_is_named_and_the_last_state_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full, path, part = Path("/dev/full"), tmp_path / "state.pt", {"student": nn.Linear(300, 300)}
    if not full.exists():
        pytest.skip("needs a device that is always full")
    save_state(path, part, Recipe(), {}, **PROGRESS)
    before, write = path.read_bytes(), states._write
    monkeypatch.setattr(states, "_write", lambda temporary, state: write(full, state))
    with pytest.raises(OSError, match="No space left"):
        save_state(path, part, Recipe(), {}, **PROGRESS)
    assert path.read_bytes() == before
