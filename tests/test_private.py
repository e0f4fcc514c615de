"""Sockets that only we may open."""

import os
import socket
import stat
from pathlib import Path

import pytest

from netboot.errors import ConfigError
from netboot.private import private_socket


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_nobody_else_may_open_it(tmp_path: Path, kind: socket.SocketKind) -> None:
    before = os.umask(0)
    try:
        with private_socket(tmp_path / "door", kind) as sock:
            assert sock.type == kind
            assert stat.S_IMODE((tmp_path / "door").stat().st_mode) == 0o600
        assert os.umask(0) == 0  # and other files are made as before
    finally:
        os.umask(before)


def test_what_a_dead_one_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "door"
    private_socket(path, socket.SOCK_STREAM).close()
    with private_socket(path, socket.SOCK_STREAM) as ours:
        ours.listen()
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))


@pytest.mark.parametrize("path", ["missing/door", "x" * 200])
def test_where_none_can_be_is_told_with_the_way_out(tmp_path: Path, path: str) -> None:
    mask = os.umask(0o022)
    try:
        with pytest.raises(ConfigError, match=r"no socket can be made there: .*\[site\] state"):
            private_socket(tmp_path / path, socket.SOCK_STREAM)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(mask)
