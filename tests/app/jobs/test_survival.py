"""Whatever dies: no job is lost, none runs twice, none stays running, no temporary file is left, the catalogue is whole."""

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from app.catalog import Catalog
from app.jobs import Job

if TYPE_CHECKING:
    from conftest import Lab

# A server reduced to what keeps workers alive.
SERVER = """
import os, time
from pathlib import Path
from app.places import Places
from app.supervisor import Supervisor
Supervisor(Places(*(Path(os.environ["L2D_" + name]) for name in ("STATE", "DATA", "CHECKPOINTS"))), ["cpu"]).start()
while True:
    time.sleep(1)
"""


def check_whole(lab: "Lab", *jobs: Job) -> None:
    """After everything has ended."""
    assert lab.temporary() == []
    catalog = Catalog(lab.places.checkpoints, made=lab.places.models)
    assert catalog.refused() == {}
    assert sorted(entry.name for entry in catalog.entries()) == sorted(model for job in jobs for model in job.models)
    assert [job.state for job in lab.queue.page(100) if job.state in ("running", "queued")] == []


@pytest.mark.slow
def test_the_training_process_alone_is_killed(lab: "Lab"):
    job = lab.submit(epochs=4)
    with lab.working():
        lab.wait_for_epoch(job, 1)
        os.kill(lab.find_processes("job")[0], signal.SIGKILL)
        failed = lab.wait_for(job, "failed")
        assert "SIGKILL" in failed.reason
        assert "memory" in failed.reason
        lab.queue.resume(job)
        ended = lab.wait_for(job, "succeeded", "failed")
    assert ended.state == "succeeded", ended.reason
    check_whole(lab, ended)


@pytest.mark.slow
def test_a_data_set_that_vanishes_is_named(lab: "Lab"):
    job = lab.submit(epochs=1000)
    with lab.working():
        lab.wait_for_epoch(job, 1)
        shutil.move(lab.places.data / "tiny", lab.places.data / "gone")
        failed = lab.wait_for(job, "failed")
        assert "tiny" in failed.reason
        lab.queue.resume(job)
        again = lab.wait_for(job, "failed")
        assert "Unknown data set 'tiny'" in again.reason
    check_whole(lab, again)


@pytest.mark.slow
def test_the_server_dies_and_the_job_goes_on(lab: "Lab"):
    job = lab.submit(epochs=30)
    with lab.working("-c", SERVER) as server:
        lab.wait_for_epoch(job, 1)
        server.kill()
        with lab.working("-c", SERVER):
            ended = lab.wait_for(job, "succeeded", "failed", "interrupted")
            assert (ended.state, ended.attempts) == ("succeeded", 1), ended.reason
            # The old worker has left, and the new one takes what comes.
            second = lab.wait_for(lab.submit(), "succeeded", "failed")
    check_whole(lab, ended, second)


@pytest.mark.slow
def test_server_and_worker_die_together(lab: "Lab"):
    job = lab.submit(epochs=6)
    with lab.working("-c", SERVER) as server:
        lab.wait_for_epoch(job, 2)
        for number in (*lab.find_processes("worker"), server.pid):
            os.kill(number, signal.SIGKILL)
        lab.wait(lambda: not lab.find_processes())
    with lab.working("-c", SERVER):
        lab.wait_for(job, "interrupted")
        lab.queue.resume(job)
        ended = lab.wait_for(job, "succeeded", "failed")
        undisturbed = lab.wait_for(lab.submit(epochs=6), "succeeded", "failed")
    assert lab.hash_student(ended) == lab.hash_student(undisturbed)
    check_whole(lab, ended, undisturbed)


@pytest.mark.slow
def test_a_worker_that_dies_is_started_again(lab: "Lab"):
    with lab.working("-c", SERVER):
        first = lab.wait(lambda: lab.find_processes("worker"))
        assert b"L2D_TOKEN" not in Path(f"/proc/{first[0]}/environ").read_bytes(), "the server's token stays with the server"
        os.kill(first[0], signal.SIGKILL)
        assert lab.wait(lambda: set(lab.find_processes("worker")) - set(first))
        ended = lab.wait_for(lab.submit(), "succeeded", "failed")
    check_whole(lab, ended)


@pytest.mark.slow
def test_two_servers_share_one_folder(lab: "Lab"):
    jobs = [lab.submit() for _ in range(3)]
    with lab.working("-c", SERVER):
        other = lab.start("-c", SERVER)
        while [job for job in jobs if lab.queue.find(job).state in ("queued", "running")]:
            assert len(lab.find_processes("job")) <= 1, "one device runs one job"
            time.sleep(0.2)
        other.terminate()
        other.communicate()
    ended = [lab.queue.find(job) for job in jobs]
    assert [(job.state, job.attempts) for job in ended] == [("succeeded", 1)] * 3
    check_whole(lab, *ended)


@pytest.mark.slow
def test_the_queue_is_locked_for_longer_than_anyone_waits(lab: "Lab"):
    job = lab.submit(epochs=30)
    with lab.working():
        lab.wait_for_epoch(job, 1)
        other = sqlite3.connect(lab.queue.path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(15)
        other.execute("ROLLBACK")
        other.close()
        ended = lab.wait_for(job, "succeeded", "failed", "interrupted")
    assert (ended.state, ended.attempts) == ("succeeded", 1), ended.reason
    check_whole(lab, ended)


@pytest.fixture
def small_disk(tmp_path: Path):
    """A disk of 4 MB where the state folder lies; needs the right to mount."""
    place = tmp_path / "state"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("may not mount a small disk here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.slow
def test_the_disk_is_full_while_a_checkpoint_is_written(small_disk: Path, lab: "Lab"):
    job = lab.submit(width=256, feedforward=1024)
    with lab.working():
        failed = lab.wait_for(job, "failed", "succeeded")
        assert failed.reason.startswith("The disk is full"), failed.reason
        assert lab.temporary() == []
        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
        lab.queue.resume(job)
        ended = lab.wait_for(job, "succeeded", "failed")
    assert ended.state == "succeeded", ended.reason
    check_whole(lab, ended)
