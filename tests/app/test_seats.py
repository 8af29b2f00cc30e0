"""What the jobs of a host run on, as its settings say, and who has it."""

import errno
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from app import seats as seats_module
from app import settings as settings_module
from app.cluster import PLAIN_LOG, RayCluster
from app.errors import UnavailableError
from app.places import Places
from app.processes import LocalMachine, MachineError
from app.seats import Devices, find_marked, hold_seat, list_seats, mark_seat
from app.settings import Settings
from app.worker import Worker, create_machine

ADDRESS = "ray://127.0.0.1:8265"


@pytest.fixture
def with_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_module, "find_spec", lambda name: name)


def test_a_cluster_is_one_seat_beside_which_a_device_can_still_be_named(with_ray: None, tmp_path: Path):
    settings = Settings(engine=ADDRESS, engine_gpus=1, state=tmp_path)
    assert list_seats(settings) == ["ray"]
    assert isinstance(create_machine(settings, "ray"), RayCluster)
    assert isinstance(create_machine(settings, "cpu"), LocalMachine)
    assert create_machine(settings, "ray").device == "auto"
    assert create_machine(Settings(engine=ADDRESS), "ray").device == "cpu"


def test_the_cluster_is_told_where_things_are_and_no_secret(with_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("L2D_TOKEN", "a-token-of-the-server")
    machine = create_machine(Settings(engine=ADDRESS, state=tmp_path), "ray")
    assert isinstance(machine, RayCluster)
    places = {"L2D_STATE", "L2D_DATA", "L2D_CHECKPOINTS", "L2D_CACHE", "PYTHONPATH"}
    assert machine.make_environment().keys() == places | PLAIN_LOG.keys()


@pytest.mark.parametrize(
    ("seat", "reason"),
    [("cuda:2", r"has no cuda:2\. Known are: cpu, cuda:0, cuda:1\."), ("ray", "L2D_ENGINE"), ("cuda:01", "Known are")],
)
def test_what_is_not_there_is_refused_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seat: str, reason: str):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(MachineError, match=reason):
        create_machine(Settings(state=tmp_path), seat)
    assert create_machine(Settings(state=tmp_path), "cuda:1").device == "cuda:1"


def test_beside_a_cluster_a_gpu_borrows_from_gpus_alone(with_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    machine = create_machine(Settings(engine=ADDRESS, state=tmp_path), "cuda:1")
    assert machine.reserve(2)
    assert isinstance(machine, LocalMachine)
    assert machine._devices is not None
    assert machine._devices.held == ["cuda:1", "cuda:0"]
    machine.release()


@pytest.mark.parametrize(("gpus", "seats"), [(0, ["cpu"]), (2, ["cuda:0", "cuda:1"])])
def test_every_gpu_is_a_seat_or_else_the_processor(monkeypatch: pytest.MonkeyPatch, gpus: int, seats: list[str]):
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert list_seats(Settings()) == seats


@pytest.mark.parametrize("address", ["127.0.0.1:8265", "http://head:8265", "ray://head", "ray://head:8265/x y"])
def test_an_address_of_another_kind_is_refused(with_ray: None, address: str):
    with pytest.raises(ValidationError, match="engine"):
        Settings(engine=address)


def test_without_ray_its_installation_is_named_as_one_of_this_repository(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(settings_module, "find_spec", lambda name: None)
    with pytest.raises(ValidationError, match=r"pip install -e '\.\[app,ray\]'"):
        Settings(engine=ADDRESS)
    assert Settings().engine is None


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_set_hides_no_stuck_worker_and_makes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int):
    with hold_seat(tmp_path, "cpu", lambda: True):
        now = time.time() + 3600 * hours
        monkeypatch.setattr("app.seats.time.time", lambda: now)
        assert find_marked(tmp_path) == []
        mark_seat(tmp_path / f"{socket.gethostname()}-cpu.lock")
        assert find_marked(tmp_path) == [f"{socket.gethostname()}-cpu.lock"]


def test_a_worker_of_a_host_with_a_longer_name_is_another_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "lab-2")
    with hold_seat(tmp_path, "cuda:1", lambda: True):
        assert find_marked(tmp_path) == ["lab-2-cuda1.lock"]
        monkeypatch.setattr(socket, "gethostname", lambda: "lab")
        assert find_marked(tmp_path) == []
        assert find_marked(tmp_path, everywhere=True) == ["lab-2-cuda1.lock"]


SEATS = ("cuda:0", "cuda:1", "cuda:2")


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[Devices]]:
    """Three workers of one host, with a GPU each."""
    workers = [Devices(tmp_path, seat, SEATS) for seat in SEATS]
    yield workers
    for worker in workers:
        worker.release()


def test_a_job_of_several_gpus_takes_its_workers_and_idle_neighbours(workers: list[Devices]):
    assert workers[2].take(2)
    assert workers[2].held == ["cuda:2", "cuda:0"]
    assert not workers[0].take(1)
    assert workers[1].take(1)


def test_too_few_free_gpus_are_not_held_meanwhile(workers: list[Devices]):
    assert workers[0].take(1)
    assert not workers[1].take(3)
    assert workers[1].held == []
    assert workers[2].take(1)
    workers[0].release()
    workers[2].release()
    assert workers[1].take(3)


@pytest.mark.parametrize("seed", range(5))
def test_no_gpu_is_ever_held_twice(workers: list[Devices], seed: int):
    draw = random.Random(seed)
    for _ in range(200):
        worker = draw.choice(workers)
        if worker.held:
            worker.release()
        elif worker.take(count := draw.randint(1, 3)):
            assert len(worker.held) == count
            assert worker.own in worker.held
        held = [seat for one in workers for seat in one.held]
        assert len(held) == len(set(held))


def test_the_gpus_of_a_killed_worker_are_free(workers: list[Devices], tmp_path: Path):
    script = f"from app.seats import *; d = Devices(Path({str(tmp_path)!r}), 'cuda:1', {SEATS}); print(d.take(3), flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert not workers[0].take(1)
        holder.kill()
    assert workers[0].take(3)


def test_who_stands_by_and_has_to_leave_touches_no_job_of_the_holder(tmp_path: Path):
    places = Places(tmp_path, tmp_path, tmp_path)
    holder, standby = (Worker(places, "cpu", LocalMachine(places, "cpu")) for _ in range(2))
    job = holder.queue.submit({"data": "shapes"})
    with hold_seat(tmp_path, "cpu", lambda: False) as held:
        assert held
        assert holder.queue.claim(holder.name, job.id)
        standby.leave.set()
        standby.run()
        assert holder.queue.find(job.id).state == "running"
    standby.run()
    assert holder.queue.find(job.id).state == "interrupted", "once the seat is free, its holder is gone"


def test_a_gpu_of_another_user_keeps_jobs_waiting_and_ends_no_worker(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    places = Places(tmp_path, tmp_path, tmp_path)
    machine = LocalMachine(places, "cuda:0", ["cuda:0", "cuda:1"])
    worker = Worker(places, "cuda:0", machine)
    job = worker.queue.submit({"data": "shapes", "processes": 2})
    (tmp_path / f"{socket.gethostname()}-cuda1-job.lock").mkdir()
    assert not worker.work_once()
    assert worker.queue.find(job.id).state == "queued"
    assert "cuda1-job.lock cannot be opened" in caplog.text
    assert machine.reserve(1), "what was taken before is free again"
    machine.release()


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(seats_module.fcntl, "flock", refuse)
    with pytest.raises(UnavailableError, match=r"-cpu\.lock cannot be locked: No locks available\. Give an L2D_STATE"):
        Worker(Places(tmp_path, tmp_path, tmp_path), "cpu", LocalMachine(Places(tmp_path, tmp_path, tmp_path), "cpu")).run()
