"""A conversation with libiscsi and QEMU, recorded, and read by Wireshark's dissectors."""

import contextlib
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import PcapWriter

from tests.interop.conftest import NAME
from tests.iscsi.dialogue import Dialogue
from tests.iscsi.mistakes import FULL, Reject, Said, Sense, rows

pytestmark = pytest.mark.interop

SEGMENT = 1400
ADDRESS = ("10.0.0.2", "10.0.0.1")  # the initiator's, the target's


class Tap:
    """Passes connections on to a port and records both directions as TCP segments."""

    def __init__(self, port: int, path: Path) -> None:
        self._to = port
        self._lock = threading.Lock()
        self._closed = False
        self._pcap = PcapWriter(str(path), sync=False)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._to))
            self._sockets += [client, server]
            # Not the client's own, which the kernel may give out again: to Wireshark the second
            # connection would be the first one's segments, sent again.
            source = 20000 + len(self._sockets)
            numbers = {client: 1000, server: 5000}
            for one, other, ports in (
                (client, server, (source, 3260)),
                (server, client, (3260, source)),
            ):
                self._threads.append(
                    threading.Thread(target=self._pump, args=(one, other, ports, numbers))
                )
                self._threads[-1].start()

    def _pump(
        self,
        one: socket.socket,
        other: socket.socket,
        ports: tuple[int, int],
        numbers: dict[socket.socket, int],
    ) -> None:
        try:
            while data := one.recv(1 << 16):
                with self._lock:  # what is recorded first is sent first
                    for at in range(0, len(data), SEGMENT):
                        piece = data[at : at + SEGMENT]
                        sport, dport = ports
                        head = TCP(
                            sport=sport,
                            dport=dport,
                            seq=numbers[one],
                            ack=numbers[other],
                            flags="PA",
                            window=65535,
                        )
                        self._pcap.write(
                            Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
                            / IP(src=ADDRESS[sport == 3260], dst=ADDRESS[dport == 3260])
                            / head
                            / piece
                        )
                        numbers[one] += len(piece)
                other.sendall(data)
        except OSError:
            pass
        with contextlib.suppress(OSError):  # an end and a reset are both passed on, as an end
            other.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Stop listening, wait for the connections, and write the file out."""
        if self._closed:
            return
        self._closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(20)
        for each in self._sockets:
            each.close()
        self._pcap.close()


@pytest.fixture
def tap(iscsi: Any, tmp_path: Path) -> Iterator[Tap]:
    made = Tap(iscsi.port, tmp_path / "iscsi.pcap")
    yield made
    made.close()


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tshark(path: Path, *arguments: str) -> str:
    return run("tshark", "-r", str(path), "-d", "tcp.port==3260,iscsi", *arguments)


def opcodes(path: Path) -> Counter[int]:
    rows = tshark(path, "-T", "fields", "-e", "iscsi.opcode", "-Y", "iscsi").split()
    return Counter(int(value, 16) for row in rows for value in row.split(","))


def test_nothing_is_malformed(iscsi: Any, tap: Tap, tmp_path: Path) -> None:
    path = tmp_path / "iscsi.pcap"
    url = iscsi.url(port=tap.port)
    run("iscsi-ls", f"iscsi://127.0.0.1:{tap.port}")
    run("iscsi-inq", url)
    run(
        *("qemu-io", "-f", "raw", "-c", "write -P 5 1M 1500k", "-c", "read -P 5 1M 1500k"),
        *("-c", "write -z 4M 1M", "-c", "discard 6M 1M", "-c", "flush", url),
    )
    subprocess.run(
        ["iscsi-test-cu", "-d", "-n", "--test=iSCSI.iSCSITMF", url], capture_output=True, timeout=50
    )
    tap.close()
    # QEMU asks for 64 bytes of VPD page 83, which is longer; the dissector takes what was cut
    # off by the allocation length for malformed (the iSCSI layer of that packet is whole).
    cut = "(scsi_sbc.opcode == 0x12 && iscsi.datasegmentlength == 64)"
    assert tshark(path, "-Y", f"(_ws.malformed && !{cut}) || _ws.unreassembled") == ""
    seen = opcodes(path)
    answers = (0x21, 0x23, 0x24, 0x25, 0x26, 0x31)
    assert all(seen[opcode] for opcode in answers), seen
    assert seen[0x03] == seen[0x23] and seen[0x04] == seen[0x24] and seen[0x06] == seen[0x26]


def test_what_wireshark_reads_of_the_login(iscsi: Any, tap: Tap, tmp_path: Path) -> None:
    path = tmp_path / "iscsi.pcap"
    run("iscsi-inq", iscsi.url(port=tap.port))
    tap.close()
    words = tshark(path, "-Y", "iscsi.opcode == 0x23", "-V")
    assert "Status: Success (0x0000)" in words
    pairs = [line.split(":", 1)[1].strip() for line in words.splitlines() if "KeyValue:" in line]
    assert pairs[0] == "TargetPortalGroupTag=1"
    assert pairs.count("MaxRecvDataSegmentLength=262144") == 1
    assert len(pairs) == len({pair.split("=")[0] for pair in pairs})


def test_status_numbers_go_up_by_one(iscsi: Any, tap: Tap, tmp_path: Path) -> None:
    """What Wireshark reads of StatSN, over every PDU with a status of one connection."""
    path = tmp_path / "iscsi.pcap"
    run("qemu-io", "-f", "raw", "-c", "read 0 4M", "-c", "write 1M 2M", iscsi.url(port=tap.port))
    tap.close()
    # Initiators ping on a busy machine, so that answers to that count too.
    status = "iscsi.opcode in {0x20, 0x21, 0x23, 0x24, 0x26} || iscsi.scsidata.S == 1"
    rows = tshark(
        path, "-Y", f"tcp.stream == 0 && ({status})", "-T", "fields", "-e", "iscsi.statsn"
    )
    numbers = [int(value, 0) for row in rows.split() for value in row.split(",")]
    firsts = sorted(set(numbers))
    assert firsts == list(range(firsts[0], firsts[0] + len(firsts))) and len(firsts) > 5


def test_the_answers_to_mistakes_are_well_formed(iscsi: Any, tap: Tap, tmp_path: Path) -> None:
    """Every row of the table of mistakes: what we answer is what Wireshark reads, kind by kind."""
    path = tmp_path / "iscsi.pcap"
    expected: Counter[int] = Counter()
    for row in rows(FULL):
        with Dialogue(tap.port, NAME, *row.keys) as session:
            for pdu in row.build(session.initiator):
                session.send(pdu)
                if None in session.answers():
                    break
        for said in row.expected:
            match said:
                case Reject():
                    expected[0x3F] += 1
                case Sense():
                    expected[0x21] += 1
                case Said() if said.opcode not in (0x20, 0x26):
                    expected[said.opcode] += 1
                case "r2t":
                    expected[0x31] += 1
    tap.close()
    ours = "ip.src == 10.0.0.1"
    # The dissector goes on into the header that a Reject returns, which is the mistake itself.
    bad = "(_ws.malformed || _ws.unreassembled) && !(iscsi.opcode == 0x3f)"
    assert tshark(path, "-Y", f"{ours} && {bad}") == ""
    frames = tshark(path, "-Y", f"{ours} && iscsi", "-T", "fields", "-e", "iscsi.opcode").split()
    kinds = [[int(value, 16) for value in frame.split(",")] for frame in frames]
    seen = Counter(kind for found in kinds for kind in (found[:1] if 0x3F in found else found))
    # What asks for the rest of a text has neither F nor C, and the dissector knows it not.
    seen[0x24] += 1
    # Beside the answers to the rows: each login's, and those to TEST UNIT READY after it.
    sessions = seen.pop(0x23)
    assert sessions == len(rows(FULL))
    expected[0x21] += sessions
    assert {op: seen[op] for op in expected} == dict(expected)
