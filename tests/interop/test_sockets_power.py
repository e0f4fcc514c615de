"""kill -9 of a real disk process: who held a disk still does, and what was erased stays erased."""

import os
import random
import signal
import struct
import threading
import time
from pathlib import Path

import pytest

from netboot.disks.wire import Kind
from netboot.storage import parts
from tests.interop.conftest import NAME, SIZE, IscsiTarget
from tests.iscsi.conftest import Pdu
from tests.iscsi.dialogue import Dialogue

pytestmark = pytest.mark.interop

ONE, TWO = b"\x40\0\x27\x23\x12\x34", b"\x40\0\x27\x23\x12\x35"
REGISTER, RESERVE = 0, 1
EXCLUSIVE_ACCESS = 3
IN_PROGRESS = (2, 0x041B)
BLOCK = b"\xa5" * 512


def reserve_out(session: Dialogue, action: int, key: int, argument: int, kind: int = 0) -> int:
    """PERSISTENT RESERVE OUT with APTPL; the status."""
    cdb = struct.pack(">BBB2xIB", 0x5F, action, kind, 24, 0)
    data = struct.pack(">QQ4xBxH", key, argument, 1, 0)
    return session.ask(session.initiator.command(cdb, 24, flags=0xA1, data=data)).byte3


def data_in(session: Dialogue, cdb: str, room: int = 255) -> bytes:
    pdu = session.ask(session.initiator.command(bytes.fromhex(cdb), room, flags=0xC1))
    assert pdu.opcode == 0x25, sense(pdu)
    return pdu.data


def sense(pdu: Pdu) -> tuple[int, int]:
    assert pdu.byte3 == 2, pdu
    return pdu.data[4] & 0x0F, int.from_bytes(pdu.data[14:16], "big")


def status(session: Dialogue, pdu: bytes) -> int:
    return session.ask(pdu).byte3


def sanitize(session: Dialogue, passes: int) -> int:
    """OVERWRITE with IMMED; the status."""
    data = struct.pack(">BBH", passes, 0, len(BLOCK)) + BLOCK
    cdb = struct.pack(">BB5xHB", 0x48, 0x81, len(data), 0)
    return session.ask(session.initiator.command(cdb, len(data), flags=0xA1, data=data)).byte3


def kill(target: IscsiTarget) -> None:
    """kill -9 of the disk process, and wait for the next."""
    assert target.disks.pid is not None
    old = target.disks.pid
    os.kill(old, signal.SIGKILL)
    for _ in range(600):
        if target.disks.pid not in (None, old):
            return
        time.sleep(0.05)
    raise AssertionError("no disk process came back")


def until_ready(session: Dialogue) -> list[int]:
    """Ask until the unit is ready; the progress told meanwhile."""
    seen = []
    for _ in range(3000):
        pdu = session.ask(session.initiator.command(bytes(6)))
        if not pdu.byte3:
            return seen
        assert sense(pdu) == IN_PROGRESS
        assert pdu.data[17] == 0x80
        seen.append(int.from_bytes(pdu.data[18:20], "big"))
        time.sleep(0.01)
    raise AssertionError("the sanitize operation has no end")


def overwritten(session: Dialogue) -> bool:
    """Whether nothing but the pattern can be read any more."""
    step = 128
    for lba in range(0, SIZE // 512, step):
        session.send(session.initiator.read(lba, step))
        got = b""
        while len(got) < step * 512:
            pdu = session.read()
            assert pdu is not None and pdu.opcode == 0x25
            got += pdu.data
        if got != BLOCK * step:
            return False
    return True


def test_a_reservation_holds_and_its_holder_goes_on(iscsi: IscsiTarget) -> None:
    with Dialogue(iscsi.port, NAME, isid=ONE) as one, Dialogue(iscsi.port, NAME, isid=TWO) as two:
        assert reserve_out(one, REGISTER, 0, 0xA1) == 0
        assert reserve_out(one, RESERVE, 0xA1, 0, EXCLUSIVE_ACCESS) == 0
        assert status(two, two.initiator.read(0, 1)) == 0x18
    kill(iscsi)
    with Dialogue(iscsi.port, NAME, isid=TWO) as two:
        assert status(two, two.initiator.read(0, 1)) == 0x18
        with Dialogue(iscsi.port, NAME, isid=ONE) as one:
            assert one.ask(one.initiator.read(0, 1)).opcode == 0x25
            assert data_in(one, "5E 00 0000000000 00FF 00") == struct.pack(">IIQ", 0, 8, 0xA1)
            assert data_in(one, "5E 01 0000000000 00FF 00")[8:16] == struct.pack(">Q", 0xA1)
            assert data_in(one, "5E 02 0000000000 00FF 00")[2:4] == b"\x01\x81"
        assert status(two, two.initiator.write(0, 1, bytes(512))) == 0x18
    kept = iscsi.overlay.with_suffix(".scsi")
    assert f"{0xA1}" in kept.read_text()
    iscsi.stop()
    parts.discard(str(iscsi.overlay))
    assert not kept.exists()


def test_what_was_answered_is_kept_whenever_the_process_dies(iscsi: IscsiTarget) -> None:
    """Keys are changed one after the other, and the process is killed in between, four times."""
    key, rng = 0, random.Random(7)
    for _ in range(4):
        with Dialogue(iscsi.port, NAME, isid=ONE) as one:
            found = data_in(one, "5E 00 0000000000 00FF 00")[8:]
            here = int.from_bytes(found, "big") if found else 0
            assert here in (key, key + 1), (
                "an answered change is gone, or one that nobody asked for"
            )
            key = here
            end = threading.Timer(rng.uniform(0.005, 0.1), kill, (iscsi,))
            end.start()
            while True:
                cdb = struct.pack(">BBB2xIB", 0x5F, REGISTER, 0, 24, 0)
                data = struct.pack(">QQ4xBxH", key, key + 1, 1, 0)
                one.send(one.initiator.command(cdb, 24, flags=0xA1, data=data))
                answer = one.read()
                if answer is None:
                    break
                assert answer.byte3 == 0
                key += 1
            end.join()
    assert key > 8


def test_a_sanitize_operation_goes_on(iscsi: IscsiTarget) -> None:
    with Dialogue(iscsi.port, NAME) as session:
        assert sanitize(session, 31) == 0
        assert sense(session.ask(session.initiator.read(0, 1))) == IN_PROGRESS
    kill(iscsi)
    with Dialogue(iscsi.port, NAME) as session:
        assert sense(session.ask(session.initiator.read(0, 1))) == IN_PROGRESS
        seen = until_ready(session)
        assert seen and seen == sorted(seen)
        assert overwritten(session)
    assert not iscsi.overlay.with_suffix(".scsi").exists()


def test_it_needs_no_session(iscsi: IscsiTarget) -> None:
    with Dialogue(iscsi.port, NAME) as session:
        assert sanitize(session, 2) == 0
    kept = iscsi.overlay.with_suffix(".scsi")
    for _ in range(1000):
        if not kept.exists():
            break
        time.sleep(0.02)
    with Dialogue(iscsi.port, NAME) as session:
        assert not until_ready(session)
        assert overwritten(session)


def test_a_write_that_waits_for_its_data_is_ended_and_leaves_nothing(iscsi: IscsiTarget) -> None:
    late = ("ImmediateData=No", "InitialR2T=Yes")
    with (
        Dialogue(iscsi.port, NAME, isid=ONE) as one,
        Dialogue(iscsi.port, NAME, *late, isid=TWO) as two,
    ):
        asked = two.ask(two.initiator.write(0, 8))
        assert asked.opcode == 0x31  # R2T
        assert sanitize(one, 1) == 0
        two.send(two.initiator.data_out(asked.itt, asked.word20, 0, 0, b"L" * 4096))
        answer = two.read()
        assert answer is not None and answer.itt == asked.itt and sense(answer) == IN_PROGRESS
        until_ready(one)
        assert overwritten(one)


def test_a_damaged_file_is_told_and_the_disk_is_there(iscsi: IscsiTarget) -> None:
    with Dialogue(iscsi.port, NAME) as session:
        assert reserve_out(session, REGISTER, 0, 0xA1) == 0
    kept = iscsi.overlay.with_suffix(".scsi")
    raw = kept.read_bytes()
    kept.write_bytes(raw[:-3] + b"!" + raw[-2:])
    kill(iscsi)
    with Dialogue(iscsi.port, NAME) as session:
        assert session.ask(session.initiator.read(0, 1)).opcode == 0x25
        assert data_in(session, "5E 00 0000000000 00FF 00") == bytes(8)
        told = [event.detail for event in iscsi.events if event.kind is Kind.ERROR]
        assert any(f"{kept.name}: is damaged" in words for words in told)
        assert reserve_out(session, REGISTER, 0, 0xB2) == 0
    assert f"{0xB2}" in kept.read_text()


def test_what_the_overlay_takes_is_told(iscsi: IscsiTarget) -> None:
    cdb = "4D 00 4C 00 00 0000 00FF 00"
    with Dialogue(iscsi.port, NAME) as session:
        for lba in range(0, 8192, 64):
            session.send(session.initiator.write(lba, 64, os.urandom(32768)))
            assert session.read() is not None
        session.ask(session.initiator.command(b"\x35".ljust(10, b"\0")))
        available, used = struct.unpack_from(">I8xI", data_in(session, cdb), 8)
    assert 4 <= used <= 8
    system = os.statvfs(Path(iscsi.overlay).parent)
    there = system.f_bavail * system.f_frsize >> 20
    assert abs(available - there) < 2048
