"""What `python -m app` takes besides nothing."""

import socket
from pathlib import Path

import pytest

from app.commands import run_command
from app.settings import Settings


def test_help_names_every_variable_and_its_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        run_command(["--help"], Settings(state=tmp_path))
    told = capsys.readouterr().out
    assert [name for name in Settings.model_fields if f"L2D_{name.upper()} " not in told] == []
    assert "(7860)" in told
    assert "()" not in told
    assert "coco-edgetpu-teacher,coco-mobilenetv2-vanilla" in told


def test_a_worker_on_a_device_that_cannot_be_takes_no_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        run_command(["worker", "--device", "gpu"], Settings(state=tmp_path))
    assert "unknown device 'gpu'; use ray, cpu or cuda:NUMBER" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cuda:7", "ray"])
def test_a_worker_on_a_device_that_is_not_here_ends_with_a_sentence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, device: str
):
    monkeypatch.setattr("app.worker.configure_logs", lambda format: None)
    monkeypatch.setattr("app.worker.Worker.run", lambda worker: None)
    assert run_command(["worker", "--device", device], Settings(state=tmp_path)) == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_lock_that_cannot_be_opened_ends_the_worker_with_a_sentence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("app.worker.configure_logs", lambda format: None)
    monkeypatch.setattr("signal.signal", lambda number, action: None)
    # Other users' files are open to root, who may run the tests; a folder is not.
    lock = tmp_path / f"{socket.gethostname()}-cpu.lock"
    lock.mkdir()
    assert run_command(["worker", "--device", "cpu"], Settings(state=tmp_path)) == 1
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert told.startswith(f"{lock} cannot be opened: Is a directory.")
