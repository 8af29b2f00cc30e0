"""The state of a training on disk: everything that its next epoch depends on."""

import dataclasses
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from l2d.disk import replace_file
from l2d.recipe import Recipe

# What there is besides the parts and the identity, which the oldest do not tell.
TOLD = {"epoch", "seconds", "recipe", "report"}


class StateError(ValueError):
    """A state that cannot be gone on from; `reason` is why, without what to do."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"Cannot resume from {path}: {reason}. Remove its folder to start over.")
        self.reason = reason


def save_state(path: Path, parts: Mapping[str, Any], recipe: Recipe, identity: Mapping[str, Any], **progress: Any) -> None:
    """Write the state of every part (networks, optimiser, ...), and what tells this training from others; whole or not at all.

    Args:
        identity: plain values, by words that a person understands.
        progress: `epoch`, `seconds` and `report`, as `load_state` gives them back.

    Raises:
        OSError: naming the file.
    """
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"recipe": dataclasses.asdict(recipe), "identity": dict(identity)} | progress
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda temporary: _write(temporary, state))


def load_state(path: Path, parts: Mapping[str, Any], recipe: Recipe, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Bring every part to where it was; returns what `save_state` was told besides.

    Raises:
        StateError: naming the file, if it is damaged or belongs to another training.
    """
    try:
        # Every part takes its tensors to where it lives; Adam's counters of steps live on the host, where reading them costs nothing.
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        _check(state, parts, recipe, identity)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        return {name: state[name] for name in TOLD}
    except Exception as error:  # torch.load fails in many ways on a damaged file
        # Of an empty file torch says nothing.
        reason = textwrap.shorten(str(error) or "it is damaged", 300, placeholder=" ...").removesuffix(".")
        raise StateError(path, reason) from error


def _check(state: Any, parts: Mapping[str, Any], recipe: Recipe, identity: Mapping[str, Any]) -> None:
    if not isinstance(state, dict) or not {*parts, *TOLD} <= state.keys():
        raise ValueError("it does not hold the state of such a run")
    if changed := recipe.find_changes(state["recipe"]):
        raise ValueError(f"it belongs to a run with other settings ({', '.join(changed)}); give the same ones to go on with it")
    # What an older version did not write tells nothing.
    known = state.get("identity", {})
    if other := [name for name, value in identity.items() if known.get(name, value) != value]:
        raise ValueError(f"it belongs to a run with another {', another '.join(other)}")
    if newer := state.keys() - {*parts, *TOLD, "identity"}:
        raise ValueError(f"it holds {', '.join(sorted(newer))}, of which only a newer revision knows; go on with that one")


def _write(path: Path, state: dict[str, Any]) -> None:
    try:
        with path.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as error:
        # What the disk said, such as that it is full, or Ctrl-C; torch hides that behind an error of its own.
        if isinstance(error.__context__, OSError | KeyboardInterrupt):
            raise error.__context__ from error
        raise
