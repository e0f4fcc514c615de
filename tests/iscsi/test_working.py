"""Commands that wait for a worker: what they find then counts, and an abort leaves no answer."""

import struct
from typing import Any

from netboot.scsi.inquiry import naa
from netboot.storage.disk import DiskError, Fault

VERIFY = bytes.fromhex("2F 00 00000000 00 0008 00")
ORDERED = 0xC2  #: F, R and the attribute of a command that is to run alone
ERASE = b"\x48\x82" + bytes(8)  # BLOCK ERASE with IMMED
COMPARE_AND_WRITE = bytes.fromhex("89 00 0000000000000000 000000 01 00 00")


def sense(pdu: Any) -> tuple[int, int]:
    assert (pdu.opcode, pdu.byte3) == (0x21, 2)
    return pdu.data[4] & 0x0F, int.from_bytes(pdu.data[14:16], "big")


def compare_and_write(session: Any, old: bytes, new: bytes) -> bytes:
    made: bytes = session.initiator.command(COMPARE_AND_WRITE, 1024, flags=0xA1, data=old + new)
    return made


def test_a_verify_of_warm_blocks_is_answered_at_once(bench: Any) -> None:
    session = bench.session()
    (pdu,) = session.say(session.initiator.command(VERIFY))
    assert pdu.byte3 == 0 and bench.disk.calls == [("read", 0, 4096)]


def test_a_verify_of_cold_blocks_waits_and_looks_again(bench: Any) -> None:
    session = bench.session()
    bench.disk.cold = True
    assert session.say(session.initiator.command(VERIFY)) == []
    bench.workers.work()
    assert session.later()[0].byte3 == 0


def test_what_is_compared_is_what_is_there_when_it_is_compared(bench: Any) -> None:
    """A write comes in while the worker reads: the comparison is with the new block."""
    one, two = bench.session(), bench.session(isid=b"\x40\0\0\0\0\2")
    bench.disk.cold = True
    assert one.say(compare_and_write(one, bytes(512), b"n" * 512)) == []
    two.say(two.initiator.write(0, 1, b"w" * 512))
    bench.workers.work()
    assert sense(one.later()[0]) == (0xE, 0x1D00)
    assert bytes(bench.disk.data[:512]) == b"w" * 512
    assert one.say(compare_and_write(one, b"w" * 512, b"n" * 512)) == []
    bench.workers.work()
    assert one.later()[0].byte3 == 0 and bytes(bench.disk.data[:512]) == b"n" * 512


def test_a_fault_while_looking(bench: Any) -> None:
    session = bench.session()
    bench.disk.cold = True
    session.say(session.initiator.command(VERIFY))
    bench.disk.error = DiskError(Fault.MEDIUM, "EIO")
    bench.workers.work()
    assert sense(session.later()[0]) == (3, 0x1100)


def test_an_aborted_task_is_not_answered_and_writes_nothing(bench: Any) -> None:
    session = bench.session()
    bench.disk.cold = True
    session.say(compare_and_write(session, bytes(512), b"n" * 512))
    (task,) = session.engine.session.tasks.values()
    session.edge.abort(task)
    bench.workers.work()
    assert session.later() == []
    assert not [call for call in bench.disk.calls if call[0] == "write"]


def test_a_sanitize_ends_each_command_once_also_those_that_wait_for_their_turn(
    bench: Any,
) -> None:
    one, two = bench.session(), bench.session(isid=b"\x40\0\0\0\0\2")
    bench.disk.cold = True
    assert two.say(two.initiator.read(0, 1)) == []  # under way
    assert two.say(two.initiator.read(1, 1, flags=ORDERED)) == []  # waits for it
    assert two.say(two.initiator.read(2, 1)) == []  # waits for both
    (good,) = one.say(one.initiator.command(ERASE))  # which waits for none of them
    assert good.byte3 == 0
    answers = two.later()
    assert [sense(pdu) for pdu in answers] == [(2, 0x041B)] * 3
    assert len({pdu.itt for pdu in answers}) == 3
    bench.workers.work()
    assert one.later() == two.later() == []
    # Nothing is left behind: an ordered command runs at once.
    bench.disk.cold = False
    (pdu,) = two.say(two.initiator.read(0, 1, flags=ORDERED))
    assert pdu.opcode == 0x25
    tasks = bench.volume.tasks
    assert (tasks.running, list(tasks.waiting), tasks.barrier, tasks.clear) == ({}, [], None, True)


def test_a_copy_does_not_read_a_unit_that_is_being_sanitized(bench: Any) -> None:
    """It was under way when the sanitize operation began: it is ended like all others."""
    session = bench.session()
    target = struct.pack(">BBHBBBB", 0xE4, 0, 0, 1, 3, 0, 8)
    descriptor = (target + naa(bench.unit)).ljust(28, b"\0") + b"\0\0\2\0"
    segment = struct.pack(">BBHHHHHQQ", 2, 0, 24, 0, 0, 0, 64, 0, 128)
    body = struct.pack(">BBHIII", 0, 0x18, 32, 0, 28, 0) + descriptor + segment
    cdb = struct.pack(">BB8xIBB", 0x83, 0, len(body), 0, 0)
    assert session.say(session.initiator.command(cdb, len(body), flags=0xA1, data=body)) == []
    other = bench.session(isid=b"\x40\0\0\0\0\2")
    assert other.say(other.initiator.command(ERASE))[0].byte3 == 0
    assert sense(session.later()[0]) == (2, 0x041B)
    bench.workers.work()
    assert session.later() == other.later() == []
    assert not [call for call in bench.disk.calls if call[0] == "write"]
