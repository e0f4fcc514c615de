"""What tests of several folders share: network namespaces of their own, and signals that work.

A namespace has a name that nobody else uses (our process id is in it), is entered by this very
process, and is deleted only by the test that made it.
"""

import ctypes
import itertools
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

_NUMBERS = itertools.count()
_CLONE_NEWNET = 0x40000000


def pytest_configure() -> None:
    """A shell has its background jobs ignore SIGINT, and so would every program we start: a
    handler of our own is the default one in them. And how long an example takes says nothing
    on a busy machine."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    settings.register_profile("netboot", deadline=None)
    settings.load_profile("netboot")


def ip(*arguments: str) -> str:
    """One ``ip`` command; its words when it fails."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout


@dataclass
class Cable:
    """Two namespaces and a cable between them: ``srv0`` at the server, ``cli0`` at the client."""

    server: str
    client: str
    mac: str = "52:54:00:c0:ff:ee"

    @contextmanager
    def inside(self, namespace: str) -> Iterator[None]:
        """This thread in ``namespace``: a socket opened there stays there."""
        libc = ctypes.CDLL(None, use_errno=True)
        with (
            Path("/proc/thread-self/ns/net").open("rb") as here,
            Path(f"/run/netns/{namespace}").open("rb") as there,
        ):
            assert libc.setns(there.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert libc.setns(here.fileno(), _CLONE_NEWNET) == 0

    def at_client(self, *command: str) -> list[str]:
        """``command`` as it runs in the client's namespace."""
        return ["ip", "netns", "exec", self.client, *command]


@pytest.fixture
def cable() -> Iterator[Callable[[str], Cable]]:
    """Makes a Cable whose server end has the address (with prefix) that it is called with."""
    made: list[str] = []

    def make(address: str) -> Cable:
        number = next(_NUMBERS)
        server, client = (f"nbtest-{os.getpid()}-{number}-{end}" for end in ("srv", "cli"))
        for name in (server, client):
            ip("netns", "add", name)
            made.append(name)
            ip("-n", name, "link", "set", "lo", "up")
        lan = Cable(server, client)
        ip("-n", server, "link", "add", "srv0", "type", "veth", "peer", "cli0", "netns", client)
        ip("-n", client, "link", "set", "cli0", "address", lan.mac)
        ip("-n", server, "address", "add", address, "dev", "srv0")
        ip("-n", server, "link", "set", "srv0", "up")
        ip("-n", client, "link", "set", "cli0", "up")
        return lan

    yield make
    for name in made:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=20)
