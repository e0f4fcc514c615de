"""What one transfer touches of the world: its file, its socket, and the kernel's short cuts.

It knows neither the protocol nor the event loop. Files are only read; sockets never block.
"""

import errno
import os
import socket
import stat
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

Address: TypeAlias = tuple[str, int]
#: A datagram as head and body, as in the engine.
Packet: TypeAlias = tuple[bytes, bytes | memoryview]

#: One pread serves many blocks.
_CHUNK = 64 * 1024
#: Linux: ``IP_MTU`` of ip(7), and ``UDP_SEGMENT`` of udp(7): one call cuts a window into packets.
_IP_MTU = 14
_UDP_SEGMENT = 103
_SEGMENTS = 64
_SEGMENT_BYTES = 65000
_SEGMENT_SIZE = struct.Struct("=H")


class File:
    """An open file that reads as it was when it was opened, or not at all.

    pread, not mmap: a loader that is overwritten in place while it is mapped would end the
    whole process with SIGBUS; here it ends one transfer with an error.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self._before = os.fstat(self._fd)
        if not stat.S_ISREG(self._before.st_mode):
            os.close(self._fd)
            raise OSError(errno.EINVAL, "not a regular file")
        self.size = self._before.st_size
        #: The same for two files only if they hold the same bytes.
        self.identity = (
            self._before.st_dev,
            self._before.st_ino,
            self.size,
            self._before.st_mtime_ns,
            self._before.st_ctime_ns,
        )
        self._start = 0
        self._chunk = memoryview(b"")

    def read(self, offset: int, length: int) -> memoryview:
        """``length`` bytes at ``offset``, fewer only at the end; OSError when it has changed."""
        first = offset - self._start
        if first < 0 or first + length > len(self._chunk):
            self._fill(offset, max(length, _CHUNK))
            first = 0
        return self._chunk[first : first + length]

    def _fill(self, offset: int, length: int) -> None:
        wanted = max(0, min(length, self.size - offset))
        data = os.pread(self._fd, wanted, offset)
        now = os.fstat(self._fd)
        if len(data) < wanted or (now.st_size, now.st_mtime_ns) != (
            self.size,
            self._before.st_mtime_ns,
        ):
            raise OSError("it was changed while it was being sent")
        self._start = offset
        self._chunk = memoryview(data)

    def close(self) -> None:
        os.close(self._fd)


def connected(address: str, peer: Address) -> socket.socket:
    """A socket at a free port of ``address`` that hears only ``peer``; OSError: none is left."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.bind((address, 0))
        sock.connect(peer)
    except OSError:
        sock.close()
        raise
    return sock


def mtu(sock: socket.socket) -> int:
    """The MTU on the way to the client, as the kernel knows it."""
    try:
        return sock.getsockopt(socket.IPPROTO_IP, _IP_MTU)
    except OSError:
        return 1500


def send_to(sock: socket.socket, data: bytes, peer: Address) -> None:
    """One datagram; where the kernel does not take it, it counts as lost on the way."""
    try:
        sock.sendto(data, peer)
    except OSError:
        return


def send_segmented(sock: socket.socket, packets: Sequence[Packet]) -> None:
    """Whole windows in one call: all packets but the last are of one size, as UDP_SEGMENT wants."""
    size = len(packets[0][0]) + len(packets[0][1])
    share = max(1, min(_SEGMENTS, _SEGMENT_BYTES // size))
    for first in range(0, len(packets), share):
        some = packets[first : first + share]
        if len(some) == 1:
            sock.sendmsg(some[0])
        else:
            segment = (socket.IPPROTO_UDP, _UDP_SEGMENT, _SEGMENT_SIZE.pack(size))
            sock.sendmsg([part for packet in some for part in packet], [segment])


def cannot_listen(address: str, port: int, error: OSError) -> str:
    """Why a port could not be had, and the way out, in one line."""
    where = f"TFTP cannot listen on {address} port {port}/udp"
    if error.errno == errno.EADDRINUSE:
        return (
            f"{where}: another program has it; find it with `ss -lunp sport = :{port}` and stop it"
        )
    if error.errno == errno.EACCES:
        return f"{where}: not allowed; run as root, or grant CAP_NET_BIND_SERVICE"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{where}: no interface has this address; set it up, or correct site.address"
    return f"{where}: {error.strerror or error}"
