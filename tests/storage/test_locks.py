"""Who may have a file open with whom; all in one process, as the locks are of open files."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from netboot.storage import locks


@pytest.fixture
def fds(tmp_path: Path) -> Iterator[list[int]]:
    path = tmp_path / "file"
    path.touch()
    opened = [os.open(path, os.O_RDWR) for _ in range(3)] + [os.open(path, os.O_RDONLY)]
    yield opened
    for fd in opened:
        os.close(fd)


def test_only_one_owns(fds):
    assert locks.own(fds[0])
    assert not locks.own(fds[1])
    assert not locks.hold(fds[1])


def test_an_owner_may_own_again(fds):
    assert locks.own(fds[0])
    assert locks.own(fds[0])


def test_any_number_holds_and_nobody_owns(fds):
    assert locks.hold(fds[0])
    assert locks.hold(fds[3])  # read-only will do
    assert not locks.own(fds[1])


def test_in_use_sees_others_and_not_itself(fds):
    assert not locks.in_use(fds[3])
    assert locks.hold(fds[3])
    assert not locks.in_use(fds[3])
    assert locks.in_use(fds[0])


def test_in_use_sees_an_owner_through_a_read_only_descriptor(fds):
    assert locks.own(fds[0])
    assert locks.in_use(fds[3])


def test_a_lock_ends_with_its_file(tmp_path):
    path = tmp_path / "file"
    path.touch()
    first, second = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
    assert locks.own(first)
    os.close(first)
    assert locks.own(second)
    os.close(second)


def test_a_lock_ends_with_its_process(tmp_path):
    path = tmp_path / "file"
    path.touch()
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        fd = os.open(path, os.O_RDWR)
        os.write(tell, b"y" if locks.own(fd) else b"n")
        os.read(os.pipe()[0], 1)  # until killed
    assert os.read(ready, 1) == b"y"
    fd = os.open(path, os.O_RDWR)
    assert not locks.own(fd)
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert locks.own(fd)
    for each in (fd, ready, tell):
        os.close(each)


def test_errors_that_are_no_conflict_come_through(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        fd = file.fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        locks.own(fd)
