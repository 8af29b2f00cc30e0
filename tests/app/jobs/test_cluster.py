"""Jobs on a real Ray cluster of two nodes on this machine: `make test-cluster`."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from app.cluster import SLOTS, Need, RayCluster, find_job_server, name_attempt
from app.processes import ENTRY, make_environment

if TYPE_CHECKING:
    from conftest import Lab

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
pytest.importorskip("ray", reason="needs the extra ray")

NODE = "L2D_TEST_NODE"


class Node:
    """The processes of one node of a cluster: a head without processors, or one that works."""

    def __init__(self, name: str, *words: str):
        self.mark = f"{NODE}={name}\0".encode()
        environment = os.environ | {NODE: name, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--node-ip-address=127.0.0.1", *words]
        options = ["--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=80000000", "--disable-usage-stats"]
        options += [f"--dashboard-agent-listen-port={find_port()}"]
        self.process = subprocess.Popen([*command, *options], env=environment, start_new_session=True, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        """What a power cut does."""
        for _ in range(3):
            for pid in self._find_processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def _find_processes(self) -> set[int]:
        marked, parents = set(), {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                # After the name, which may hold anything: the state, the parent.
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if self.mark in (folder / "environ").read_bytes():
                    marked.add(int(folder.name))
        # Some write their title over their environment.
        return marked | {pid for pid, parent in parents.items() if parent in marked}


class Cluster:
    """A head, and one node with two processors."""

    def __init__(self, folder: str):
        self.folder = folder
        self.port, self.jobs, self.client = find_port(), find_port(), find_port()
        self.nodes: list[Node] = []
        self.head, self.node = self.start_head(), self.start_node()

    def start_head(self) -> Node:
        ports = [f"--port={self.port}", f"--dashboard-port={self.jobs}", f"--ray-client-server-port={self.client}"]
        return Node(f"head-{self.port}", "--head", "--num-cpus=0", "--dashboard-host=127.0.0.1", f"--temp-dir={self.folder}", *ports)

    def start_node(self, name: str = "node") -> Node:
        """Add a node that works, as soon as the head answers."""
        wait(lambda: can_connect(self.port), 120)
        self.nodes.append(Node(f"{name}-{self.port}", f"--address=127.0.0.1:{self.port}", "--num-cpus=2"))
        return self.nodes[-1]

    def close(self) -> None:
        while self.nodes:
            self.nodes.pop().kill()
        self.head.kill()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Ray's sockets need a short path.
    folder = tempfile.mkdtemp(prefix="l2d-", dir="/tmp")
    cluster = Cluster(folder)
    try:
        wait(lambda: can_connect(cluster.jobs), 120)
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def worker(lab: "Lab", cluster: Cluster) -> Callable[[], Any]:
    """Starts a worker for the cluster; the trainings may outlive it."""

    @contextlib.contextmanager
    def working() -> Iterator[subprocess.Popen[bytes]]:
        engine = {"L2D_ENGINE": f"ray://127.0.0.1:{cluster.jobs}", "L2D_ENGINE_CPUS": "2"}
        environment = make_environment(os.environ, lab.places) | engine
        process = subprocess.Popen([sys.executable, "-m", ENTRY, "worker"], env=environment, stdin=subprocess.PIPE, start_new_session=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(60)
            assert process.stdin is not None
            process.stdin.close()

    return working


def find_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def can_connect(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def wait(done: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := done()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
    return value


def ask(cluster: Cluster, lab: "Lab", job: str, attempt: int = 1) -> Any:
    """What Ray says about an attempt."""
    return RayCluster(lab.places, f"ray://127.0.0.1:{cluster.jobs}", Need(2, 0)).connect().get_job_info(name_attempt(job, attempt, False))


def test_both_ports_lead_to_the_job_server(cluster: Cluster, lab: "Lab"):
    assert find_job_server(f"ray://127.0.0.1:{cluster.jobs}") == f"http://127.0.0.1:{cluster.jobs}"
    wait(lambda: can_connect(cluster.client), 60)
    assert find_job_server(f"ray://127.0.0.1:{cluster.client}") == f"ray://127.0.0.1:{cluster.client}"
    ray = RayCluster(lab.places, f"ray://127.0.0.1:{cluster.client}", Need(2, 0))
    # What Ray forks for a client of this port hangs now and then, and is given up after half a minute; a worker asks again, too.
    wait(lambda: ray.reserve(1), 120)
    assert ray.connect().get_address() == f"http://127.0.0.1:{cluster.jobs}"


def test_a_worker_dies_and_the_next_one_finds_its_training(lab: "Lab", cluster: Cluster, worker: Callable[[], Any]):
    job = lab.submit(epochs=40)
    with worker() as first:
        lab.wait_for_epoch(job, 2)
        first.kill()
    reached = len(lab.events(job, "epoch"))
    wait(lambda: len(lab.events(job, "epoch")) > reached, 60)
    assert lab.queue.find(job).state == "running", "the row stays while nobody keeps it"
    with worker():
        ended = lab.wait_for(job, "succeeded", "failed", "interrupted")
        assert (ended.state, ended.attempts) == ("succeeded", 1), ended.reason
    assert ask(cluster, lab, job).status == "SUCCEEDED"
    assert "Student epoch 40/40" in (lab.places.jobs / job / "log.txt").read_text()
    assert lab.temporary() == []
    with lab.working():
        local = lab.wait_for(lab.submit(epochs=40), "succeeded", "failed")
    assert lab.hash_student(ended) == lab.hash_student(local), "the same command gives the same bits"


def test_running_or_waiting_for_room_it_is_cancelled_within_five_seconds(lab: "Lab", cluster: Cluster, worker: Callable[[], Any]):
    running = lab.submit(epochs=1000)
    with worker():
        lab.wait_for_epoch(running)
        waiting = lab.submit(epochs=2)
        wait(lambda: lab.queue.find(waiting).state == "running" and ask(cluster, lab, waiting).status == "PENDING", 60)
        for job in (waiting, running):
            start = time.monotonic()
            lab.queue.cancel(job)
            lab.wait_for(job, "cancelled")
            assert time.monotonic() - start < 5
        assert ask(cluster, lab, running).status == "STOPPED"
        wait(lambda: ask(cluster, lab, waiting).status == "STOPPED", 60)
        assert lab.events(waiting, "epoch") == []
        assert lab.find_processes("job") == []
        lab.queue.resume(running)
        lab.wait_for_epoch(running, 2 + len(lab.events(running, "epoch")))
        lab.queue.stop(running)
        kept = lab.wait_for(running, "succeeded", "failed")
        assert kept.reason.startswith("Stopped as asked"), kept.reason
    assert lab.hash_student(kept)
    assert lab.temporary() == []


def test_a_node_dies_then_the_whole_cluster_and_no_job_is_lost(lab: "Lab", cluster: Cluster, worker: Callable[[], Any]):
    job = lab.submit(epochs=60)
    with worker():
        lab.wait_for_epoch(job, 2)
        cluster.node.kill()
        interrupted = lab.wait_for(job, "interrupted", "failed", "succeeded")
        assert interrupted.state == "interrupted", interrupted.reason
        cluster.node = cluster.start_node()
        lab.queue.resume(job)
        lab.wait_for_epoch(job, len(lab.events(job, "epoch")) + 2)
        cluster.close()
        later = lab.submit(epochs=2)
        again = lab.wait_for(job, "interrupted", "failed", "succeeded")
        assert again.state == "interrupted", again.reason
        assert lab.queue.find(later).state == "queued", "it waits until a cluster answers"
        lab.wait(lambda: not lab.find_processes("job"))
        cluster.head = cluster.start_head()
        cluster.node = cluster.start_node()
        lab.queue.resume(job)
        ended = [lab.wait_for(number, "succeeded", "failed") for number in (later, job)]
    assert [row.state for row in ended] == ["succeeded"] * 2
    assert ended[0].attempts <= 1 + SLOTS, "each slot may have tried once before it knew that nobody answers"
    assert ended[1].attempts == 3
    assert lab.temporary() == []


def test_one_job_trains_on_two_nodes_and_survives_the_loss_of_one(lab: "Lab", cluster: Cluster, worker: Callable[[], Any]):
    def find_training() -> list[int]:
        return [pid for pid in lab.find_processes() if b"RayTrainWorker" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    changes = {"method": "l2d", "teacher_backbone": "test_resnet", "teacher_epochs": 1, "epochs": 20, "processes": 2}
    with lab.working():
        local = lab.wait_for(lab.submit(**changes), "succeeded", "failed")
    job = lab.submit(**changes)
    with worker():
        # Each process asks for two processors, and a node has no more: the job waits for the second node.
        wait(lambda: lab.find_processes("group"), 120)
        second = cluster.start_node("second")
        lab.wait_for_epoch(job, 3)
        environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in find_training()]
        marks = [node.mark for node in (cluster.node, second) for environment in environments if node.mark in environment]
        assert sorted(marks) == sorted([cluster.node.mark, second.mark]), "one process on each node"
        second.kill()
        interrupted = lab.wait_for(job, "interrupted", "failed", "succeeded")
        assert interrupted.state == "interrupted", interrupted.reason
        second = cluster.start_node("second")
        lab.queue.resume(job)
        ended = lab.wait_for(job, "succeeded", "failed", "interrupted")
        assert (ended.state, ended.attempts) == ("succeeded", 2), ended.reason
        log = (lab.places.jobs / job / "log.txt").read_text()
        assert "INFO Student epoch 20/20" in log
        failed = lab.wait_for(lab.submit(**changes | {"weights": {"mld": 1e39}}), "succeeded", "failed", "interrupted")
        assert failed.state == "failed", failed.reason
        assert "loss became" in failed.reason, "what the training says counts, not how its processes end"
        cancelled = lab.submit(**changes | {"epochs": 1000})
        lab.wait_for_epoch(cancelled, 2)
        start = time.monotonic()
        lab.queue.cancel(cancelled)
        lab.wait_for(cancelled, "cancelled")
        assert time.monotonic() - start < 5
        wait(lambda: not find_training(), 30)
    second.kill()
    assert lab.hash_student(ended) == lab.hash_student(local), "as under torchrun on one machine"
    assert lab.temporary() == []
