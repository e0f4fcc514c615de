"""Is this machine fit to run the service: looked at before anybody is answered.

Each check returns, or raises a ConfigError of one line that says what is wrong and what to do.
They take plain values and change nothing, but for the state folder and its lock, which they
make, and the process itself: its limit of open files, and what its garbage collector looks at.
That a port was free is no promise: whoever opens it says the same again.
"""

import errno
import fcntl
import gc
import os
import resource
import socket
import tempfile
import time
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Interface
from pathlib import Path

from netboot.errors import ConfigError
from netboot.rooted import resolve

#: Bytes that must fit into the state folder: a few transactions, and a line or two of logs.
_ROOM = 1 << 20
#: How often, and how many seconds apart, the lock of the state folder is tried.
_TRIES, _PAUSE = 5, 0.05
_ROUTES = Path("/proc/net/route")
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def interface(name: str, address: IPv4Interface) -> None:
    """The interface is there, and our address is one of this machine's.

    The address is bound to that interface: another one's of the same machine will not do.
    """
    names = sorted(found for _index, found in socket.if_nameindex())
    if name not in names:
        raise ConfigError(
            f"site.interface: there is no {name} on this machine, only {', '.join(names)}: name "
            f"one of them, or make it: ip link add {name} type bridge && ip link set {name} up"
        )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address.ip), 0))
        except OSError:
            raise ConfigError(
                f"site.address: {address.ip} is not an address of this machine: "
                f"ip address add {address} dev {name}"
            ) from None
    owner = _owner(address)
    if owner not in (None, name):
        raise ConfigError(
            f"site.address: {address.ip} belongs to {owner}, not to {name}: correct "
            f"site.interface, or move the address"
        )


def _owner(address: IPv4Interface) -> str | None:
    """The interface that has an address of ours, where the kernel's list says so.

    /proc/net/fib_trie knows the address but not its interface, /proc/net/route knows the
    interface of its subnet; with the address ours, the subnet's interface is its owner.
    """
    wanted = int.from_bytes(address.network.network_address.packed, "little")
    mask = int.from_bytes(address.network.netmask.packed, "little")
    try:
        lines = _ROUTES.read_text().splitlines()[1:]
    except OSError:
        return None
    found = [line.split() for line in lines]
    owners = [f[0] for f in found if int(f[1], 16) == wanted and int(f[7], 16) == mask]
    return owners[0] if len(set(owners)) == 1 else None


def port(kind: str, address: str, number: int, setting: str) -> None:
    """Nobody has the port ``number`` of ``kind`` (tcp or udp), and we may open it."""
    with socket.socket(socket.AF_INET, _KINDS[kind]) as probe:
        if kind == "tcp":  # as servers do: connections of a service that just ended do not count
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, number))
            if kind == "tcp":
                probe.listen()
        except OSError as error:
            raise ConfigError(_no_port(kind, address, number, setting, error)) from None


def dhcp_port(name: str, number: int) -> None:
    """Nobody on the interface has the UDP port; somebody on another interface may."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode() + b"\0")
            probe.bind(("", number))
        except OSError as error:
            text = _no_port("udp", name, number, 'dhcp.mode = "off"', error)
            raise ConfigError(text) from None


def _no_port(kind: str, where: str, number: int, setting: str, error: OSError) -> str:
    what = f"{kind.upper()} port {number} on {where}"
    if error.errno == errno.EADDRINUSE:
        option = "-ltnp" if kind == "tcp" else "-lunp"
        return (
            f"{what} is in use by another program (ss {option} 'sport = :{number}' names it): "
            f"stop it, or set {setting}"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"{what} may not be opened: run as root, or grant CAP_NET_BIND_SERVICE and CAP_NET_RAW"
        )
    return f"{what} cannot be opened: {error.strerror}"


def loaders(folders: Sequence[Path], wanted: Iterable[tuple[str, str]]) -> None:
    """Each boot program is in one of the folders; ``wanted``: its name and who wants it."""
    for name, whose in wanted:
        if resolve(folders, name) is None:
            listed = ", ".join(str(folder) for folder in folders)
            raise ConfigError(
                f"the boot program {name} for {whose} is in none of {listed}: "
                f"apt-get install ipxe, or put it there"
            )


def freeze_what_is_loaded() -> None:
    """Once everything has started: what is there by now stays, and the garbage collector need not
    look at it again. It did for 35 ms, every few thousand packets, and nobody was answered.

    Nothing is collected first, which takes as long, at a moment when machines ask already.
    """
    gc.freeze()


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


def raise_file_limit() -> int:
    """Let this process and its children open as many files as root lets them; how many.

    A shell gives 1024, and one machine's disk and connection take four.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


class StateFolder:
    """The state folder, made if need be, writable, and ours alone until ``release``.

    A service that was killed leaves no lock behind: it belongs to the open file.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(bytes(_ROOM))
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            way_out = "make room" if full else "run as root"
            raise ConfigError(
                f"site.state: {folder} cannot be written to ({error.strerror}): {way_out}, or "
                f"choose another folder"
            ) from None
        if not self._take():
            owner = os.pread(self._lock, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            raise ConfigError(
                f"site.state: another netboot serve (process {owner}) uses {folder}: stop it, or "
                f"choose another folder"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _take(self) -> bool:
        """Somebody who only looks whether we run (``running``) has it for an instant."""
        for _ in range(_TRIES):
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(_PAUSE)
            else:
                return True
        return False

    def release(self) -> None:
        """Let others have it. Twice is harmless."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def running(folder: Path) -> int | None:
    """The process of the service that uses the state folder; None when there is none."""
    try:
        lock = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return int(os.pread(lock, 20, 0).strip() or 0)
    finally:
        os.close(lock)
    return None
