"""All portals or none, and words for people when an address cannot be had."""

import errno
import socket
from typing import Any

import pytest

from netboot.disks import listening
from netboot.disks.listening import CONGESTION, listen
from netboot.errors import ConfigError
from netboot.model import Portal


def test_every_portal_gets_its_socket_and_a_free_port() -> None:
    found = listen([Portal("127.0.0.1", 0, 1), Portal("127.0.0.2", 0, 2), Portal("::1", 0, 3)])
    try:
        assert [(portal.address, portal.group) for portal, _ in found] == [
            ("127.0.0.1", 1),
            ("127.0.0.2", 2),
            ("::1", 3),
        ]
        for portal, sock in found:
            assert sock.getsockname()[:2] == (portal.address, portal.port) and portal.port
            with socket.create_connection((portal.address, portal.port), 5):
                pass
    finally:
        for _, sock in found:
            sock.close()


def test_an_ipv6_portal_leaves_ipv4_alone() -> None:
    ((six, first),) = listen([Portal("::1", 0)])
    with first:
        assert first.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
        ((_, second),) = listen([Portal("127.0.0.1", six.port)])
        second.close()


def test_a_port_in_use_is_one_clear_line_and_none_is_listened_on() -> None:
    with socket.socket() as free, socket.socket() as taken:
        free.bind(("127.0.0.1", 0))
        spare = free.getsockname()[1]
        free.close()
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as error:
            listen([Portal("127.0.0.1", spare), Portal("127.0.0.1", port)])
    assert str(error.value) == (
        f"iSCSI cannot listen on 127.0.0.1 port {port}: Address already in use: stop who has it "
        f"(ss -ltnp 'sport = :{port}' names it), or change iscsi.port or iscsi.portals"
    )
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", spare), 5)


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_an_address_that_no_interface_has(address: str) -> None:
    with pytest.raises(ConfigError) as error:
        listen([Portal(address, 3260)])
    assert str(error.value) == (
        f"iSCSI cannot listen on {address} port 3260: Cannot assign requested address: give an "
        "interface that address, or take it out of iscsi.portals"
    )


def test_a_kernel_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: Any) -> None:
        raise OSError(errno.EAFNOSUPPORT, "no")

    monkeypatch.setattr("socket.socket", no)
    with pytest.raises(ConfigError, match=r"::1 port 1: Address family not .* iscsi\.portals"):
        listen([Portal("::1", 1)])


def test_a_port_below_1024_without_the_right(monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: Any) -> None:
        raise OSError(errno.EACCES, "no")

    monkeypatch.setattr("socket.socket.bind", no)
    with pytest.raises(ConfigError, match=r"port 860: Permission denied: .* iscsi\.port"):
        listen([Portal("127.0.0.1", 860)])


def test_large_reads_are_not_paced_for_a_long_way() -> None:
    ((portal, sock),) = listen([Portal("127.0.0.1", 0)])
    with sock, socket.create_connection((portal.address, portal.port)):
        taken, _ = sock.accept()
        with taken:
            chosen = taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
            assert chosen.rstrip(b"\0") == CONGESTION


def test_a_kernel_without_that_congestion_control_listens_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listening, "CONGESTION", b"none such")
    ((_, sock),) = listen([Portal("127.0.0.1", 0)])
    with sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
