"""Files are whole or not there, whoever else writes them."""

import errno
import fcntl
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from l2d.disk import LOCK, check_writable, find_cache, hold_folder, replace_file, sweep_partial


def test_a_folder_is_held_by_one_until_it_lets_go(tmp_path: Path):
    folder = tmp_path / "new" / "run"
    with hold_folder(folder):
        with pytest.raises(ValueError, match=r"Another process trains in .*run just now"), hold_folder(folder):
            pass
        with hold_folder(tmp_path):
            assert [file.name for file in folder.iterdir()] == [LOCK]
    assert not folder.exists(), "nobody filled it"
    with hold_folder(folder):
        (folder / "weights").touch()
    with hold_folder(folder):
        assert {file.name for file in folder.iterdir()} == {LOCK, "weights"}
    assert [file.name for file in folder.iterdir()] == ["weights"]


def test_hosts_hold_a_folder_against_each_other_as_far_as_nfs_lets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lock = fcntl.flock

    def lock_as_nfs(place: int, how: int) -> None:
        # Other hosts are told of locks on files that are open for writing; of those on folders nobody is.
        if fcntl.fcntl(place, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            return
        lock(place, how)

    monkeypatch.setattr(fcntl, "flock", lock_as_nfs)
    with hold_folder(tmp_path), pytest.raises(ValueError, match=r"If it was on a host that died, remove .*\.lock\."), hold_folder(tmp_path):
        pass
    # What a killed process leaves is held by nobody.
    (tmp_path / LOCK).touch()
    with hold_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_those_who_wait_for_a_folder_hold_it_one_after_the_other(tmp_path: Path):
    inside: list[int] = []

    def work(_: int) -> int:
        with hold_folder(tmp_path, patient=True):
            inside.append(1)
            together = len(inside)
            time.sleep(0.002)
            inside.pop()
        return together

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(40))) == {1}
    assert list(tmp_path.iterdir()) == []


def test_where_the_file_system_knows_no_locks_a_folder_is_held_by_anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with hold_folder(tmp_path / "run"), hold_folder(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()


def test_a_folder_that_cannot_be_made_is_named_and_nothing_is_left_of_one_that_can(tmp_path: Path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OSError, match=r"file/new/run cannot be written: Not a directory\."):
        check_writable(file / "new" / "run")
    check_writable(tmp_path / "new" / "run")
    assert list(tmp_path.iterdir()) == [file]


def test_two_that_write_the_same_file_do_not_disturb_each_other(tmp_path: Path):
    path, both_write = tmp_path / "table4.png", threading.Barrier(2, timeout=20)
    failures: list[Exception] = []

    def write(part: Path, content: bytes) -> None:
        part.write_bytes(content)
        both_write.wait()

    def replace(content: bytes) -> None:
        try:
            replace_file(path, lambda part: write(part, content))
        except OSError as error:
            failures.append(error)

    writers = [threading.Thread(target=replace, args=(content,)) for content in (b"first" * 9, b"second")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failures == []
    assert path.read_bytes() in (b"first" * 9, b"second")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device: '000001.png'"),
        (FileNotFoundError(2, "No such file or directory", "photo.jpg"), "[Errno 2] No such file or directory: 'photo.jpg'"),
        (OSError("cannot write mode F as PNG"), "cannot write mode F as PNG"),
    ],
)
def test_a_write_that_fails_is_told_and_leaves_nothing_but_what_was_there(tmp_path: Path, error: OSError, told: str):
    path = tmp_path / "000001.png"
    path.write_bytes(b"before")

    def fail(part: Path) -> None:
        part.write_bytes(b"half a fi")
        raise error

    with pytest.raises(OSError) as failed:
        replace_file(path, fail)
    assert str(failed.value).replace(f"{tmp_path}/", "") == told
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_told_by_the_name_that_was_asked_for(tmp_path: Path):
    gone, folder = tmp_path / "gone" / "card.json", tmp_path / "folder"
    folder.mkdir()
    for path in (gone, folder):
        with pytest.raises(OSError) as error:
            replace_file(path, lambda part: part.write_bytes(b"whole"))
        assert error.value.filename == str(path)


def test_what_killed_writers_left_is_swept_but_nothing_that_may_still_be_written(tmp_path: Path):
    names: list[str] = []

    def note(part: Path) -> None:
        part.write_bytes(b"half a fi")
        names.append(part.name)

    for _ in range(2):
        replace_file(tmp_path / "state.pt", note)
    dead, alive = (tmp_path / name for name in names)
    foreign = tmp_path / ".notes.partial"
    for path, minutes in ((dead, 61), (alive, 59), (foreign, 10_000)):
        path.write_bytes(b"half a fi")
        os.utime(path, (0, time.time() - 60 * minutes))
    sweep_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([alive.name, foreign.name, "state.pt"])


def test_a_user_without_a_home_is_told_how_to_name_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("HOME", "L2D_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    # No user of this machine has such a number.
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    with pytest.raises(OSError, match="set L2D_CACHE to a folder"):
        find_cache()
    monkeypatch.setenv("L2D_CACHE", str(tmp_path))
    assert find_cache() == tmp_path
