"""A job of several processes: torchrun starts them, one of them writes."""

from typing import TYPE_CHECKING

import pytest

from app.cluster import Need, RayCluster
from app.jobs import Job
from app.places import Places
from app.processes import LocalMachine, MachineError, write_command

if TYPE_CHECKING:
    from conftest import Lab


def test_torchrun_starts_the_same_command():
    assert write_command(["job", "1"])[1:] == ["-m", "app", "job", "1"]
    assert write_command(["job", "1"], 3)[1:] == [
        "-m",
        "torch.distributed.run",
        "--standalone",
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


def test_a_worker_of_one_gpu_takes_no_job_of_several(lab: "Lab"):
    job: Job = lab.queue.find(lab.submit(processes=2))
    machine = LocalMachine(Places(*lab.places), "cuda:0")
    with pytest.raises(MachineError, match="asks for 2"):
        machine.check(job)
    LocalMachine(lab.places, "cpu").check(job)


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
