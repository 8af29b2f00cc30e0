"""The benchmark compares what computes the same."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from l2d.bench_explain import bench_explain
from l2d.checkpoint import ModelCard, save_checkpoint
from l2d.cli import app
from l2d.model import create_model


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one network for ten labels."""
    monkeypatch.setenv("L2D_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    model = create_model("test_efficientnet", 10, image_size=64, width=32, feedforward=48)
    labels = tuple(f"label {number}" for number in range(10))
    card = ModelCard("tiny", "Tiny", "student", "vanilla", "test_efficientnet", labels, 64, width=32, feedforward=48)
    save_checkpoint(tmp_path / "networks" / "tiny", model, card)
    return tmp_path / "networks"


def test_every_way_gives_torchcams_maps(networks: Path):
    report = bench_explain([networks / "tiny"], rounds=1, device=torch.device("cpu"))
    assert list(report) == ["setting", "8 labels", "10 labels"]
    for part in (report["8 labels"], report["10 labels"]):
        assert part["disagreement"]["maps from one last map"] < 1e-4
        assert part["disagreement"]["probabilities"] < 1e-3
        assert part["ratio"]["torchcam"] == part["milliseconds"]["torchcam"] / part["milliseconds"]["ours"]


def test_the_command_reads_a_folder_of_networks(networks: Path):
    words = ["bench", "explain", "--checkpoints", str(networks), "--rounds", "1", "--device", "cpu", "--json"]
    assert json.loads(CliRunner().invoke(app, words).stdout)["setting"]["models"] == ["tiny"]
    for what in ("explain", "serve"):
        empty = CliRunner().invoke(app, ["bench", what, "--checkpoints", str(networks / "tiny")])
        assert empty.exit_code == 1
        assert "holds no trained network" in " ".join(empty.output.split())
