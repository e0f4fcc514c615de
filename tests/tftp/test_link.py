"""Files that read as they were or not at all, and windows in one call."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from netboot.tftp.link import File, cannot_listen, connected, mtu, send_segmented, send_to


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "loader"
    path.write_bytes(bytes(range(256)) * 1000)
    return path


@pytest.fixture
def ear() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)
        yield sock


def test_reads_any_piece_in_any_order(path: Path) -> None:
    data = path.read_bytes()
    file = File(path)
    try:
        assert file.size == len(data)
        for offset, length in [
            (0, 512),
            (512, 512),
            (0, 512),
            (200_000, 9),
            (65_000, 1468),
            (7, 1),
        ]:
            assert file.read(offset, length) == data[offset : offset + length]
        assert file.read(0, 1 << 20) == data
    finally:
        file.close()


def test_fewer_bytes_only_at_the_end(path: Path) -> None:
    file = File(path)
    try:
        assert len(file.read(255_990, 512)) == 10
        assert len(file.read(256_000, 512)) == 0
    finally:
        file.close()


def _shorter(path: Path) -> None:
    os.truncate(path, 100_000)


def _longer(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def _other(path: Path) -> None:
    path.write_bytes(b"x" * path.stat().st_size)
    os.utime(path, (1, 1))


@pytest.mark.parametrize("change", [_shorter, _longer, _other])
def test_a_file_changed_in_place_is_an_error(path: Path, change: object) -> None:
    file = File(path)
    try:
        file.read(0, 512)
        assert callable(change)
        change(path)
        with pytest.raises(OSError, match="changed"):
            file.read(150_000, 512)
    finally:
        file.close()


@pytest.mark.parametrize("change", [_shorter, _longer, _other])
def test_the_identity_is_of_the_bytes(path: Path, change: object) -> None:
    files = [File(path), File(path)]
    assert callable(change)
    change(path)
    files.append(File(path))
    assert files[0].identity == files[1].identity != files[2].identity
    for file in files:
        file.close()


def test_a_file_replaced_by_rename_reads_on_as_it_was(path: Path) -> None:
    data = path.read_bytes()
    file = File(path)
    try:
        new = path.with_suffix(".new")
        new.write_bytes(b"new")
        new.rename(path)
        assert file.read(100_000, 512) == data[100_000:100_512]
    finally:
        file.close()


def test_only_regular_files(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="regular"):
        File(fifo)
    with pytest.raises(OSError):
        File(tmp_path / "missing")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_connected_socket_hears_its_peer_only_and_knows_the_mtu(ear: socket.socket) -> None:
    with connected("127.0.0.1", ear.getsockname()) as sock:
        assert not sock.getblocking()
        device = int(Path("/sys/class/net/lo/mtu").read_text())
        assert mtu(sock) == min(device, 65535)  # a datagram cannot be larger
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"not for you", sock.getsockname())
        ear.sendto(b"hello", sock.getsockname())
        sock.settimeout(5)
        assert sock.recv(100) == b"hello"


def test_no_socket_at_a_foreign_address(ear: socket.socket) -> None:
    with pytest.raises(OSError):
        connected("192.0.2.123", ear.getsockname())


def test_without_a_route_the_mtu_is_ethernets() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert mtu(sock) == 1500


@pytest.mark.parametrize("count", [1, 2, 16, 64, 65, 130])
def test_a_window_arrives_as_its_packets(ear: socket.socket, count: int) -> None:
    packets = [(b"%04d" % i, b"x" * 508) for i in range(count - 1)] + [(b"last", b"short")]
    with connected("127.0.0.1", ear.getsockname()) as sock:
        send_segmented(sock, packets)
    assert [ear.recv(2000) for _ in packets] == [head + body for head, body in packets]


def test_large_blocks_go_out_in_several_calls(ear: socket.socket) -> None:
    packets = [(b"%04d" % i, bytes(30_000)) for i in range(4)]
    with connected("127.0.0.1", ear.getsockname()) as sock:
        send_segmented(sock, packets)
    assert [len(ear.recv(65535)) for _ in packets] == [30_004] * 4


def test_a_datagram_that_cannot_be_sent_is_lost_quietly(ear: socket.socket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        send_to(sock, b"x", ("255.255.255.255", 9))  # not allowed without SO_BROADCAST
        send_to(sock, b"heard", ear.getsockname())
    assert ear.recv(100) == b"heard"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EADDRINUSE, "find it with `ss -lunp sport = :69` and stop it"),
        (errno.EACCES, "grant CAP_NET_BIND_SERVICE"),
        (errno.EADDRNOTAVAIL, "correct site.address"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_port_that_cannot_be_had_tells_the_way_out(code: int, words: str) -> None:
    text = cannot_listen("192.0.2.1", 69, OSError(code, os.strerror(code)))
    assert text.startswith("TFTP cannot listen on 192.0.2.1 port 69/udp: ")
    assert words in text
