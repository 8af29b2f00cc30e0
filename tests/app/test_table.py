"""The queue's file: whatever becomes of it is a sentence, and nothing in it is lost."""

import contextlib
import resource
import sqlite3
from pathlib import Path

import pytest

from app import table
from app.errors import UnavailableError
from app.queue import Queue
from app.table import choose_journal

SPEC = {"data": "shapes", "epochs": 3}


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path)


def order(queue: Queue) -> str:
    return queue.submit(SPEC).id


def test_a_locked_file_is_a_sentence_and_nothing_is_lost(queue: Queue, monkeypatch: pytest.MonkeyPatch):
    job = order(queue)
    monkeypatch.setattr(table, "LOCK_SECONDS", 0.05)
    other = sqlite3.connect(queue.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UnavailableError, match="locked"):
        queue.claim("w", job)
    other.execute("ROLLBACK")
    other.close()
    assert queue.claim("w", job) is not None


def test_a_full_disk_is_said_to_be_one(queue: Queue):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(UnavailableError, match=r"\(.*: the disk may be full\)"):
            queue.submit(SPEC | {"name": "x" * 10_000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    queue.submit(SPEC)


@pytest.mark.parametrize("damage", [b"no database", b""], ids=["foreign", "torn"])
def test_a_damaged_file_is_a_sentence(queue: Queue, damage: bytes):
    order(queue)
    data = queue.path.read_bytes()
    for file in queue.path.parent.glob(f"{queue.path.name}*"):
        file.unlink()
    queue.path.write_bytes(damage * 1000 or data[:100] + bytes(len(data) - 100))
    for ask in (lambda: queue.page(10), queue.count):
        with pytest.raises(UnavailableError, match=r"jobs\.sqlite is damaged; stop server and workers, and put .*L2D_STATE"):
            ask()


def test_a_queue_that_is_gone_is_a_sentence_and_may_come_back(queue: Queue):
    job = order(queue)
    aside = queue.path.with_name("aside")
    queue.path.rename(aside)
    for _ in range(2):
        with pytest.raises(UnavailableError, match=r"jobs\.sqlite may have been moved, .*; if it is lost, start server and workers anew"):
            queue.page(10)
    aside.rename(queue.path)
    assert [found.id for found in queue.page(10)] == [job]


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="L2D_STATE"):
        Queue(tmp_path / "file" / "below")


@pytest.mark.parametrize(("kind", "journal"), [("ext4", "WAL"), ("nfs4", "DELETE"), ("tmpfs", "WAL"), ("cifs", "DELETE")])
def test_network_folders_go_without_shared_memory(tmp_path: Path, kind: str, journal: str):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"root / ext4 rw 0 0\nhost:/x {tmp_path} {kind} rw 0 0\n")
    assert choose_journal(tmp_path / "state", mounts) == journal


def test_the_file_system_is_that_behind_a_link_also_with_blanks_in_its_name(tmp_path: Path):
    disk, link, mounts = tmp_path / "my disk", tmp_path / "link", tmp_path / "mounts"
    disk.mkdir()
    link.symlink_to(disk)
    # A name may hold bytes of another encoding.
    mounts.write_bytes(f"root / ext4 rw 0 0\nhost:/x {tmp_path}/my\\040disk nfs4 rw 0 0\n".encode() + b"stick /media/\xe9 vfat rw 0 0\n")
    assert choose_journal(link, mounts) == "DELETE"


def test_a_folder_may_have_any_name(tmp_path: Path):
    folder = tmp_path / "50% off? #1"
    Queue(folder).submit(SPEC)
    assert len(Queue(folder).page(10)) == 1
    assert (folder / "jobs.sqlite").is_file()


@pytest.mark.parametrize("damage", ["", "{", "\0"])
def test_a_damaged_row_is_named(queue: Queue, damage: str):
    job = queue.submit({"data": "shapes"}).id
    with contextlib.closing(sqlite3.connect(queue.path)) as connection, connection:
        connection.execute("UPDATE jobs SET spec = ?", (damage,))
    for ask in (lambda: queue.find(job), lambda: queue.page(10), queue.find_oldest):
        with pytest.raises(UnavailableError, match=rf"The row of job '{job}' in jobs\.sqlite is damaged"):
            ask()


def test_a_state_that_only_a_newer_revision_knows_is_told(queue: Queue):
    job = queue.submit({"data": "shapes"}).id
    with contextlib.closing(sqlite3.connect(queue.path)) as connection, connection:
        connection.execute("UPDATE jobs SET state = 'paused'")
    with pytest.raises(UnavailableError, match=rf"'{job}' in .* is damaged, or of a newer revision \(its state is 'paused'\): mend"):
        queue.page(10)
