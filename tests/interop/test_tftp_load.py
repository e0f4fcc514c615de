"""The load of `make bench-net`: it fetches whole, asks again, and tells when something is amiss."""

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from netboot.tftp import wire
from netboot.tftp.wire import Ack, Data, Error, ErrorCode, OptionAck
from tests.bench.programs import compiled

pytestmark = pytest.mark.interop

BLOCK = 1000
CONTENT = bytes(range(256)) * 10

#: What answers the ``number``-th datagram of a client; None: silence.
Answer = Callable[[wire.Packet, int], wire.Packet | None]


def serve(packet: wire.Packet, number: int) -> wire.Packet | None:
    if isinstance(packet, wire.Request):
        assert (packet.name, packet.mode) == ("a.bin", "octet")
        return OptionAck({"tsize": str(len(CONTENT)), "blksize": packet.options["blksize"]})
    assert isinstance(packet, Ack)
    first = packet.block * BLOCK
    return Data(packet.block + 1, CONTENT[first : first + BLOCK]) if first <= len(CONTENT) else None


@contextmanager
def server(answer: Answer) -> Iterator[int]:
    """One port for everything, which is enough for a client; its number."""
    with socket.socket(type=socket.SOCK_DGRAM) as door:
        door.bind(("127.0.0.1", 0))
        heard: dict[object, int] = {}

        def run() -> None:
            while True:
                data, peer = door.recvfrom(2048)
                if data == b"stop":
                    return
                heard[peer] = heard.get(peer, 0) + 1
                said = answer(wire.parse(data), heard[peer])
                if said is not None:
                    door.sendto(wire.encode(said), peer)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield door.getsockname()[1]
        finally:
            door.sendto(b"stop", door.getsockname())
            thread.join()


def load(port: int, size: int = len(CONTENT), clients: int = 7) -> tuple[int, str]:
    words = [str(compiled("tftp_load")), *map(str, (port, "a.bin", size, clients, BLOCK))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    return done.returncode, (done.stdout + done.stderr).strip()


def test_all_fetch_whole_and_nothing_is_said_twice() -> None:
    with server(serve) as port:
        assert load(port) == (0, "0")


def test_what_had_no_answer_is_said_again() -> None:
    def deaf_at_times(packet: wire.Packet, number: int) -> wire.Packet | None:
        return None if number in (1, 3) else serve(packet, number)

    with server(deaf_at_times) as port:
        assert load(port, clients=2) == (0, "4")


def test_a_file_that_is_shorter_is_no_success() -> None:
    with server(serve) as port:
        code, said = load(port, size=len(CONTENT) + 1)
    assert (code, said) == (1, f"tftp_load: {len(CONTENT)} of {len(CONTENT) + 1} bytes have come")


def test_a_block_that_comes_twice_or_too_early_counts_once() -> None:
    def hasty(packet: wire.Packet, number: int) -> wire.Packet | None:
        said = serve(packet, number)
        if isinstance(said, Data) and number == 3:
            return Data(said.block + 1, b"x")  # not its turn: the ACK is said again
        return said

    with server(hasty) as port:
        assert load(port, clients=1) == (0, "1")


def test_what_the_server_refuses_is_told() -> None:
    with server(lambda packet, number: Error(ErrorCode.NOT_FOUND, "no such file")) as port:
        assert load(port, clients=1) == (1, "tftp_load: the server says: no such file")
