"""A job of several processes: torchrun starts them, one of them writes."""

import subprocess
import sys
import threading
from typing import TYPE_CHECKING, ClassVar

import pytest

from app.cluster import Need, RayCluster
from app.jobs import Job
from app.processes import OOM_SCORE, SOURCE_TREE, VISIBLE, LocalMachine, LocalTraining, show_gpus, write_command
from app.records import JobFolder
from app.seats import Devices
from app.worker import Worker

if TYPE_CHECKING:
    from conftest import Lab


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not ask whom to end")
def test_a_training_gives_way_when_memory_runs_out():
    script = "from app.processes import yield_memory; yield_memory(); print(open('/proc/self/oom_score_adj').read())"
    told = subprocess.run([sys.executable, "-c", script], cwd=SOURCE_TREE, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == OOM_SCORE


def test_torchrun_starts_the_same_command():
    assert write_command(["job", "1"])[1:] == ["-m", "app", "job", "1"]
    assert write_command(["job", "1"], 3)[1:] == [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--local-addr=127.0.0.1",
        "--nproc-per-node=3",
        "-m",
        "app",
        "job",
        "1",
    ]


def test_a_cluster_is_asked_for_room_by_whoever_trains(lab: "Lab"):
    cluster = RayCluster(lab.places, "ray://127.0.0.1:1", Need(2, 1))
    alone, together = (lab.queue.find(lab.submit(processes=count)) for count in (1, 3))
    assert cluster.plan(alone) == (["job", alone.id], Need(2, 1))
    assert cluster.plan(together) == (["group", together.id, "--processes=3", "--cpus=2", "--gpus=1"], Need(0, 0))


GPUS = ("cuda:0", "cuda:1")


@pytest.mark.parametrize(("visible", "shown"), [(None, "1,0"), ("4,7", "7,4"), ("GPU-aa,GPU-bb,GPU-cc", "GPU-bb,GPU-aa")])
def test_a_training_is_shown_the_gpus_that_were_taken_for_it(lab: "Lab", visible: str | None, shown: str, monkeypatch: pytest.MonkeyPatch):
    if visible is None:
        monkeypatch.delenv(VISIBLE, raising=False)
    else:
        monkeypatch.setenv(VISIBLE, visible)
    devices = Devices(lab.places.state, "cuda:1", GPUS)
    assert devices.take(2)
    assert show_gpus(devices, 2) == {VISIBLE: shown}
    devices.release()


def test_each_process_of_several_takes_its_own_gpu(lab: "Lab"):
    machine = LocalMachine(lab.places, "cuda:1", GPUS)
    assert machine.reserve(1)
    assert machine.device == "cuda:1"
    machine.release()
    assert machine.reserve(2)
    assert machine.device == "cuda"
    machine.release()
    processor = LocalMachine(lab.places, "cpu")
    assert processor.reserve(5)
    assert processor.device == "cpu"


def test_more_gpus_than_there_are_is_said_instead_of_waited_for(lab: "Lab"):
    job = lab.submit(processes=4)
    Worker(lab.places, "cuda:0", LocalMachine(lab.places, "cuda:0", GPUS)).work_once()
    ended = lab.queue.find(job)
    assert ended.state == "failed"
    assert "asks for 4 GPUs, and this machine has 2: order fewer processes" in ended.reason
    assert "Resume" not in ended.reason


def test_more_processes_than_processors_are_not_started(lab: "Lab", monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.processes.count_processors", lambda: 1)
    job = lab.submit(processes=2)
    Worker(lab.places, "cpu", LocalMachine(lab.places, "cpu")).work_once()
    ended = lab.queue.find(job)
    assert ended.state == "failed"
    assert "asks for 2 processors, and this machine has 1: order fewer processes" in ended.reason
    assert "Resume" not in ended.reason
    assert lab.find_processes() == []


class Pretended(LocalMachine):
    """GPUs whose trainings do nothing but last a while; keeps what each was given."""

    given: ClassVar[dict[str, list[str]]] = {}

    def start(self, job: Job, folder: JobFolder, stop: bool) -> LocalTraining:
        assert self._devices is not None
        self.given[job.id] = sorted(self._devices.held)
        return LocalTraining(subprocess.Popen(["sh", "-c", "sleep 0.8; mkdir ready"], cwd=folder.path, stdin=subprocess.PIPE))


def test_a_job_of_several_gpus_waits_for_them_and_newer_jobs_wait_for_it(lab: "Lab"):
    jobs = [lab.submit(processes=count) for count in (1, 2, 1, 1)]
    workers = [Worker(lab.places, gpu, Pretended(lab.places, gpu, GPUS)) for gpu in GPUS]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    ended = [lab.wait_for(job, "succeeded", "failed", "interrupted") for job in jobs]
    for worker in workers:
        worker.leave.set()
    for thread in threads:
        thread.join()
    first, together, *newer = ended
    assert [job.state for job in ended] == ["succeeded"] * 4
    assert Pretended.given[together.id] == list(GPUS)
    assert together.started >= first.finished
    assert all(job.started >= together.finished for job in newer)


@pytest.mark.slow
@pytest.mark.cluster
def test_two_processes_train_stop_and_resume_as_one(lab: "Lab"):
    changes = {"method": "l2d", "teacher_backbone": "test_resnet", "teacher_epochs": 1, "epochs": 4, "processes": 2}
    with lab.working() as worker:
        job = lab.submit(**changes)
        lab.wait_for_epoch(job, 3)
        worker.kill()
    with lab.working():
        lab.wait_for(job, "interrupted")
        lab.queue.resume(job)
        ended = lab.wait_for(job, "succeeded", "failed")
        undisturbed = lab.wait_for(lab.submit(**changes), "succeeded", "failed")
    student = f"tiny-test_resnet-l2d-{job}"
    assert student in ended.models, ended.reason
    assert lab.hash_student(ended) == lab.hash_student(undisturbed)
    assert sorted({(line["stage"], line["epoch"]) for line in lab.events(job, "epoch")}) == [
        ("student", 1),
        ("student", 2),
        ("student", 3),
        ("student", 4),
        ("teacher", 1),
    ]
    assert lab.temporary() == []
