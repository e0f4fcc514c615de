"""Sockets at the portals' addresses, and what people are told when one cannot be had.

All of them or none: a target that is silently missing at one of its addresses is found out
about when another one fails. Must never take an address on all interfaces: what SendTargets
says must be where we are.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from netboot.errors import ConfigError
from netboot.model import Portal

#: Congestion control of all connections, which inherit it. Where BBR is the system's choice its
#: pacing, meant for long ways, made large reads a third dearer (52 us against 39 for 256 KiB).
CONGESTION: Final = b"cubic"


def listen(portals: Sequence[Portal]) -> list[tuple[Portal, socket.socket]]:
    """A listening socket for each portal, whose port 0 becomes the one that was free.

    ConfigError when one of the addresses cannot be had.
    """
    found: list[tuple[Portal, socket.socket]] = []
    try:
        for portal in portals:
            sock = _listening(portal)
            found.append((replace(portal, port=int(sock.getsockname()[1])), sock))
    except BaseException:
        for _, sock in found:
            sock.close()
        raise
    return found


def inherited(
    portals: Sequence[Portal], handles: Sequence[int]
) -> list[tuple[Portal, socket.socket]]:
    """The sockets that whoever started us, or spoke to us, has given us: one for each portal.

    OSError when one of them is no socket.
    """
    return [
        (portal, socket.socket(fileno=handle))
        for portal, handle in zip(portals, handles, strict=True)
    ]


def _listening(portal: Portal) -> socket.socket:
    family = socket.AF_INET6 if ":" in portal.address else socket.AF_INET
    sock: socket.socket | None = None
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((portal.address, portal.port))
        with contextlib.suppress(OSError):  # not this kernel, or not for us: then as it is
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION)
        sock.listen(socket.SOMAXCONN)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise ConfigError(
            f"iSCSI cannot listen on {portal.address} port {portal.port}: "
            f"{os.strerror(error.errno or 0)}: {_advice(error, portal.port)}"
        ) from error
    return sock


def _advice(error: OSError, port: int) -> str:
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return "give an interface that address, or take it out of iscsi.portals"
    return (
        f"stop who has it (ss -ltnp 'sport = :{port}' names it), "
        "or change iscsi.port or iscsi.portals"
    )
