"""The state of a training: written whole, and taken up by the training that it belongs to, which ends as if it had never been stopped."""

import dataclasses
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from l2d import state as states
from l2d.data.images import Index
from l2d.recipe import Recipe
from l2d.state import load_state, save_state
from l2d.train import StepReport, fit
from tests.l2d.conftest import make_network, make_recipe, same, train_out, weights

PROGRESS = {"epoch": 2, "seconds": 1.5, "report": {"losses": {"bce": 3.0}}}


@pytest.fixture(scope="module")
def begun(bands: Index, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("begun") / "state.pt"
    next(fit(make_network(), bands, make_recipe(), state=path))
    return path


@pytest.fixture
def state(begun: Path, tmp_path: Path) -> Path:
    """A training after its first epoch, for a test that may change it."""
    return Path(shutil.copy(begun, tmp_path))


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


def test_ctrl_c_while_the_state_is_written_is_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            # As torch does when it closes a file that lacks a part.
            raise RuntimeError("unexpected pos 213983872 vs 213983764")

    monkeypatch.setattr(torch, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_state(tmp_path / "state.pt", {}, Recipe(), {}, **PROGRESS)
    assert list(tmp_path.iterdir()) == []


def test_the_caller_may_stop_and_go_on(bands: Index, tmp_path: Path) -> None:
    recipe = make_recipe(epochs=3, averaging=0.9, method="reviewkd", freeze_stages=1)
    whole = train_out(bands, recipe, teacher=make_network(7))
    state = tmp_path / "deep" / "state.pt"
    next(fit(make_network(), bands, recipe, teacher=make_network(7), state=state))
    rest = train_out(bands, recipe, make_network(seed=55), teacher=make_network(7), state=state)
    assert [report.epoch for report in rest] == [1, 2, 3]
    assert [report.losses for report in rest] == [report.losses for report in whole]
    assert [report.total_seconds for report in rest[1:]] == list(accumulate(report.seconds for report in rest))[1:]
    assert same(weights(rest[-1].model), weights(whole[-1].model))
    # The last report again, for a caller that died before it could use it.
    assert [report.losses for report in train_out(bands, recipe, teacher=make_network(7), state=state)] == [whole[-1].losses]


INTERRUPTED = {"epochs": 3, "batch_size": 2, "method": "l2d", "averaging": 0.9}


RUN = """
import torch
from pathlib import Path
from l2d.data.images import Index
from l2d.train import fit
from tests.l2d.conftest import make_network, make_recipe
torch.set_num_threads({threads})
index = Index(*torch.load({index!r}, weights_only=False))
recipe = make_recipe(**{recipe!r})
def announce(step):
    print(step.epoch, step.step, flush=True)
for report in fit(make_network(), index, recipe, teacher=make_network(7), state=Path({state!r}), on_step=announce):
    pass
"""


def start_run(tmp_path: Path) -> subprocess.Popen[str]:
    places = {name: str(tmp_path / name) for name in ("index", "state")}
    script = RUN.format(threads=torch.get_num_threads(), recipe=INTERRUPTED, **places)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def test_a_run_killed_within_an_epoch_ends_with_the_same_bits(bands: Index, tmp_path: Path) -> None:
    whole = train_out(bands, make_recipe(**INTERRUPTED), teacher=make_network(7))
    torch.save(tuple(bands), tmp_path / "index")
    killed = start_run(tmp_path)
    for line in killed.stdout or ():
        if line == "2 10\n":
            killed.send_signal(signal.SIGKILL)
            break
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    steps: list[StepReport] = []
    options = {"teacher": make_network(7), "state": tmp_path / "state", "on_step": steps.append}
    resumed = train_out(bands, make_recipe(**INTERRUPTED), make_network(seed=55), **options)
    assert (steps[0].epoch, steps[0].step) == (2, 10)
    assert same(weights(resumed[-1].model), weights(whole[-1].model))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda content: content[:1000], "Cannot resume from .*state.pt: .*Remove its folder to start over"),
        (lambda content: b"", r"Cannot resume from .*state.pt: it is damaged\. Remove"),
        (lambda content: b"text", "Cannot resume from .*state.pt"),
    ],
)
def test_a_damaged_state_is_refused_in_a_sentence(bands: Index, state: Path, damage: Callable[[bytes], bytes], sentence: str) -> None:
    state.write_bytes(damage(state.read_bytes()))
    with pytest.raises(ValueError, match=sentence):
        train_out(bands, make_recipe(), state=state)


def test_the_state_of_another_run_is_refused(bands: Index, state: Path) -> None:
    with pytest.raises(ValueError, match=r"a run with other settings \(lr, seed\)"):
        train_out(bands, make_recipe(lr=2e-3, seed=4), state=state)
    with pytest.raises(ValueError, match="a run with another set of pictures"):
        train_out(bands.select(range(16)), make_recipe(), state=state)
    with pytest.raises(ValueError, match="a run with another set of pictures"):
        train_out(bands._replace(targets=bands.targets.flip(0)), make_recipe(), state=state)
    torch.save(torch.load(state, weights_only=True) | {"scaler": {}}, state)
    with pytest.raises(ValueError, match="it holds scaler, of which only a newer revision knows; go on with that one"):
        train_out(bands, make_recipe(), state=state)
    torch.save({"epoch": 1}, state)
    with pytest.raises(ValueError, match="it does not hold the state of such a run"):
        train_out(bands, make_recipe(), state=state)


def test_a_state_from_before_something_told_runs_apart_is_gone_on_from(bands: Index, state: Path) -> None:
    content = torch.load(state, weights_only=True)
    del content["identity"]["scaling of pixels"], content["recipe"]["augmentation"]
    torch.save(content, state)
    assert next(fit(make_network(), bands, make_recipe(), state=state)).epoch == 1
    del content["identity"]
    torch.save(content, state)
    assert next(fit(make_network(), bands, make_recipe(), state=state)).epoch == 1


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"backbone": "test_efficientnet"}, "backbone"),
        ({"image_size": 64}, "image size"),
        ({"output_stride": 16}, "output stride"),
        ({"width": 24}, "size of the head"),
        ({"feedforward": 8}, "size of the head"),
        ({"mean": (0.4, 0.4, 0.4)}, "scaling of pixels"),
        ({"lineage": {"init": "other.safetensors", "sha256": "0"}}, "origin of its initial weights"),
    ],
)
def test_the_state_of_another_network_is_refused(bands: Index, state: Path, changes: dict[str, Any], name: str) -> None:
    """What the card would tell of the network that comes out."""
    student = make_network()
    with pytest.raises(ValueError, match=f"a run with another {name}"):
        train_out(bands, make_recipe(), student._replace(card=dataclasses.replace(student.card, **changes)), state=state)


def test_the_state_of_a_run_under_another_teacher_is_refused(bands: Index, tmp_path: Path) -> None:
    state, recipe, teacher = tmp_path / "state.pt", make_recipe(method="mld"), make_network(7)
    next(fit(make_network(), bands, recipe, teacher=teacher, state=state))
    other = teacher._replace(card=dataclasses.replace(teacher.card, sha256="f" * 64))
    with pytest.raises(ValueError, match="a run with another teacher"):
        list(fit(make_network(), bands, recipe, teacher=other, state=state))


def test_what_the_disk_said_amid_a_write_is_told(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*state\.pt"):
            save_state(tmp_path / "state.pt", {"student": nn.Linear(300, 300)}, Recipe(), {}, **PROGRESS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


class Surprise:
    """Makes a file when it is unpickled."""

    def __init__(self, made: Path):
        self.made = made

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.made,)


def test_nothing_runs_that_a_file_brings(tmp_path: Path) -> None:
    torch.save({"surprise": Surprise(tmp_path / "made")}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="Cannot resume from"):
        load_state(tmp_path / "state.pt", {}, Recipe(), {})
    assert not (tmp_path / "made").exists()
