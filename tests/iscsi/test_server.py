"""Commands through engine, SCSI and edge to a disk in memory, and what comes back."""

import struct
from typing import Any

import pytest

from netboot.storage.disk import DiskError, Fault

DATA = bytes(number * 5 & 0xFF for number in range(16384))


def fill(bench: Any) -> None:
    bench.disk.data[: len(DATA)] = DATA


def sense(pdu: Any) -> tuple[int, int]:
    """Key and additional code of a CHECK CONDITION."""
    assert (pdu.opcode, pdu.byte3) == (0x21, 2), pdu
    return pdu.data[4] & 0x0F, int.from_bytes(pdu.data[14:16], "big")


def good(pdu: Any) -> bool:
    return (pdu.opcode, pdu.byte3) == (0x21, 0) or (pdu.opcode, pdu.flags & 1) == (0x25, 1)


# Reading.


def test_a_new_session_meets_one_unit_attention(bench: Any) -> None:
    session = bench.session()
    assert session.welcome[0] == 0x23
    (ready,) = session.say(session.initiator.command(bytes(6)))
    assert good(ready)


def test_reads_in_one_breath(bench: Any) -> None:
    fill(bench)
    session = bench.session()
    first, second = session.say(session.initiator.read(0, 8), session.initiator.read(8, 8))
    assert (first.data, second.data) == (DATA[:4096], DATA[4096:8192])
    assert (bench.tally.reads, bench.tally.read_bytes, session.reads) == (2, 8192, 1)


def test_a_cold_read_waits_in_a_worker_and_stalls_nobody(bench: Any) -> None:
    fill(bench)
    session, other = bench.session(), bench.session(isid=b"other!")
    bench.disk.cold = True
    assert session.say(session.initiator.read(0, 8)) == []
    ping = session.initiator.request(0x00, word20=0xFFFFFFFF)
    assert [pdu.opcode for pdu in session.say(ping)] == [0x20]  # NOPs never wait for a disk
    bench.disk.cold = False
    assert other.say(other.initiator.read(8, 8))[0].data == DATA[4096:8192]
    assert bench.workers.work() == 1
    (late,) = session.later()
    assert late.data == DATA[:4096] and session.engine.session.tasks == {}


@pytest.mark.parametrize(
    ("edtl", "asked", "residual", "flags"),
    [(512, 512, 512, 0x85), (700, 1024, 324, 0x85), (0, 0, 1024, 0x84)],
)
def test_a_read_with_less_room_than_its_cdb_wants(
    bench: Any, edtl: int, asked: int, residual: int, flags: int
) -> None:
    fill(bench)
    session = bench.session()
    (pdu,) = session.say(session.initiator.read(0, 2, edtl=edtl))
    assert (pdu.data, pdu.word44, pdu.flags) == (DATA[:edtl], residual, flags)
    assert bench.disk.calls == [("read", 0, asked)]


def test_a_read_with_more_room_than_its_cdb_wants(bench: Any) -> None:
    session = bench.session()
    (pdu,) = session.say(session.initiator.read(0, 1, edtl=4096))
    assert (len(pdu.data), pdu.word44, pdu.flags) == (512, 3584, 0x83)


def test_a_read_beyond_the_end(bench: Any) -> None:
    session = bench.session()
    (pdu,) = session.say(session.initiator.read(2047, 2))
    assert sense(pdu) == (5, 0x2100) and pdu.word44 == 1024 and pdu.flags == 0x82
    assert not bench.disk.calls


@pytest.mark.parametrize("cold", [False, True])
def test_a_medium_that_cannot_be_read(bench: Any, cold: bool) -> None:
    session = bench.session()
    bench.disk.cold, bench.disk.error = cold, DiskError(Fault.MEDIUM, "EIO at 0")
    answers = session.say(session.initiator.read(0, 8))
    bench.workers.work()
    (pdu,) = answers or session.later()
    assert sense(pdu) == (3, 0x1100)
    assert bench.errors == ["EIO at 0"] and bench.tally.errors == 1
    bench.disk.error = None
    assert good(session.say(session.initiator.command(bytes(6)))[0])


def test_a_worker_that_fails_in_another_way(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    session = bench.session()
    bench.disk.cold = True
    session.say(session.initiator.read(0, 8))
    bench.disk.error = ValueError("a mistake of ours")
    bench.workers.work()
    (pdu,) = session.later()
    assert sense(pdu) == (4, 0x4400)


def test_inquiry_is_cut_and_its_residual_told(bench: Any) -> None:
    session = bench.session()
    cdb = b"\x12\0\0\0\x24\0"
    (pdu,) = session.say(session.initiator.command(cdb, 255, flags=0xC0))
    assert (len(pdu.data), pdu.flags, pdu.word44) == (36, 0x83, 219)


def test_a_unit_that_does_not_exist(bench: Any) -> None:
    session = bench.session()
    (ready,) = session.say(session.initiator.command(bytes(6), lun=7 << 48))
    assert sense(ready) == (5, 0x2500)
    (inquiry,) = session.say(
        session.initiator.command(b"\x12\0\0\0\x24\0", 36, flags=0xC0, lun=7 << 48)
    )
    assert inquiry.data[0] == 0x7F
    (write,) = session.say(session.initiator.write(0, 1, DATA[:512], lun=7 << 48))
    assert sense(write) == (5, 0x2500)
    assert not bench.disk.calls


# Writing.


def test_immediate_data_is_written_in_the_same_breath(bench: Any) -> None:
    session = bench.session("InitialR2T=No", "ImmediateData=Yes")
    (pdu,) = session.say(session.initiator.write(8, 2, DATA[:1024]))
    assert good(pdu) and pdu.flags == 0x80
    assert bench.disk.data[4096:5120] == DATA[:1024]
    assert (bench.tally.writes, bench.tally.write_bytes) == (1, 1024)


def test_a_write_by_r2t_as_ipxe_does_it(bench: Any) -> None:
    session = bench.session("InitialR2T=Yes", "ImmediateData=No")
    (r2t,) = session.say(session.initiator.write(0, 4))
    assert (r2t.opcode, r2t.word40, r2t.word44) == (0x31, 0, 2048)
    assert r2t.stat_sn == session.engine.answers.stat_sn
    pieces = [
        session.initiator.data_out(
            r2t.itt, r2t.word20, at, at * 512, DATA[at * 512 : at * 512 + 512], final=at == 3
        )
        for at in range(4)
    ]
    assert session.say(*pieces[:3]) == []
    (status,) = session.say(pieces[3])
    assert good(status) and status.word36 == 1
    assert bench.disk.data[:2048] == DATA[:2048]


def test_a_long_write_goes_to_the_disk_burst_by_burst(bench: Any) -> None:
    session = bench.session("InitialR2T=Yes", "ImmediateData=No", "MaxBurstLength=4096")
    answers = session.say(session.initiator.write(0, 20))
    for offset, length in ((0, 4096), (4096, 4096), (8192, 2048)):
        (r2t,) = answers
        assert (r2t.word40, r2t.word44) == (offset, length)
        data = DATA[offset : offset + length]
        answers = session.say(session.initiator.data_out(r2t.itt, r2t.word20, 0, offset, data))
    assert good(answers[0])
    assert [call for call in bench.disk.calls if call[0] == "write"] == [
        ("write", 0, 4096),
        ("write", 4096, 4096),
        ("write", 8192, 2048),
    ]


@pytest.mark.parametrize(
    ("blocks", "sent", "written", "flags", "residual"),
    [
        (2, 512, 512, 0x84, 512),
        (1, 1024, 512, 0x82, 512),
        (2, 700, 512, 0x84, 324),
        (1, 0, 0, 0x84, 512),
    ],
)
def test_writes_whose_lengths_do_not_agree(
    bench: Any, blocks: int, sent: int, written: int, flags: int, residual: int
) -> None:
    session = bench.session("ImmediateData=Yes")
    (pdu,) = session.say(session.initiator.write(0, blocks, DATA[:sent], edtl=sent))
    assert good(pdu)
    assert (pdu.flags, pdu.word44) == (flags, residual)
    assert bench.disk.data[:1024] == DATA[:written] + bytes(1024 - written)


def test_fua_is_answered_when_it_is_durable(bench: Any) -> None:
    session = bench.session("ImmediateData=Yes")
    assert session.say(session.initiator.write(0, 1, DATA[:512], byte1=0x08)) == []
    assert bench.disk.data[:512] == DATA[:512]
    bench.workers.work()
    assert bench.disk.calls[-1] == ("flush",)
    assert good(session.later()[0])


def test_synchronize_cache_waits_and_immed_does_not(bench: Any) -> None:
    session = bench.session()
    assert session.say(session.initiator.command(b"\x35".ljust(10, b"\0"))) == []
    (at_once,) = session.say(session.initiator.command(b"\x35\x02".ljust(10, b"\0")))
    assert good(at_once)
    bench.workers.work()
    assert good(session.later()[0])
    assert bench.tally.flushes == 2


def test_good_is_never_answered_to_a_flush_that_failed(bench: Any) -> None:
    session = bench.session("ImmediateData=Yes")
    session.say(session.initiator.command(b"\x35".ljust(10, b"\0")))
    session.say(session.initiator.write(0, 1, DATA[:512], byte1=0x08))
    bench.disk.error = DiskError(Fault.MEDIUM, "EIO")
    bench.workers.work()
    first, second = session.later()
    assert sense(first) == sense(second) == (3, 0x0C00)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault.SPACE, (7, 0x2707)),
        (Fault.READ_ONLY, (7, 0x2700)),
        (Fault.FAILED, (4, 0x4400)),
        (Fault.MEDIUM, (3, 0x0C00)),
    ],
)
def test_each_fault_of_a_write_has_its_sense(
    bench: Any, fault: Fault, expected: tuple[int, int]
) -> None:
    session = bench.session("ImmediateData=Yes")
    bench.disk.error = DiskError(fault, "no")
    (pdu,) = session.say(session.initiator.write(0, 1, DATA[:512]))
    assert sense(pdu) == expected


def test_a_fault_in_the_middle_of_a_long_write(bench: Any) -> None:
    session = bench.session("InitialR2T=Yes", "ImmediateData=No", "MaxBurstLength=4096")
    (r2t,) = session.say(session.initiator.write(0, 16))
    bench.disk.error = DiskError(Fault.SPACE, "no space left")
    data = session.initiator.data_out(r2t.itt, r2t.word20, 0, 0, DATA[:4096])
    (second,) = session.say(data)
    late = session.initiator.data_out(second.itt, second.word20, 0, 4096, DATA[4096:8192])
    (status,) = session.say(late)  # not before the last Data-Out that was asked for
    assert sense(status) == (7, 0x2707)
    assert session.engine.session.solicited == 0 and not session.engine.session.tasks


def test_data_out_that_breaks_a_rule(bench: Any) -> None:
    session = bench.session("InitialR2T=Yes", "ImmediateData=No")
    (r2t,) = session.say(session.initiator.write(0, 4))
    (status,) = session.say(session.initiator.data_out(r2t.itt, r2t.word20, 1, 0, DATA[:2048]))
    assert sense(status) == (0x0B, 0x4705)
    (early,) = session.say(session.initiator.write(0, 1, DATA[:512]))
    assert sense(early) == (0x0B, 0x0C0C)  # immediate data although it was agreed not to
    assert bench.disk.data[:2048] == bytes(2048)


# Commands that look, zero, unmap, compare.


def test_unmap(bench: Any) -> None:
    fill(bench)
    session = bench.session("ImmediateData=Yes")
    parameters = struct.pack(">HHI", 22, 16, 0) + struct.pack(">QII", 8, 8, 0)
    cdb = b"\x42" + bytes(6) + struct.pack(">HB", len(parameters), 0)
    (pdu,) = session.say(
        session.initiator.command(cdb, len(parameters), flags=0xA1, data=parameters)
    )
    assert good(pdu)
    assert ("unmap", 4096, 4096) in bench.disk.calls


def test_parameter_data_that_comes_by_r2t(bench: Any) -> None:
    session = bench.session("InitialR2T=Yes", "ImmediateData=No")
    parameters = struct.pack(">HHI", 22, 16, 0) + struct.pack(">QII", 8, 8, 0)
    cdb = b"\x42" + bytes(6) + struct.pack(">HB", len(parameters), 0)
    (r2t,) = session.say(session.initiator.command(cdb, len(parameters), flags=0xA1))
    half = len(parameters) // 2
    assert (
        session.say(
            session.initiator.data_out(r2t.itt, r2t.word20, 0, 0, parameters[:half], final=False)
        )
        == []
    )
    (status,) = session.say(
        session.initiator.data_out(r2t.itt, r2t.word20, 1, half, parameters[half:])
    )
    assert good(status) and ("unmap", 4096, 4096) in bench.disk.calls


@pytest.mark.parametrize(
    ("byte1", "block", "call"),
    [(0x00, bytes(512), "zero"), (0x08, bytes(512), "unmap"), (0x00, b"\xa5" * 512, "write")],
)
def test_write_same(bench: Any, byte1: int, block: bytes, call: str) -> None:
    fill(bench)
    session = bench.session("ImmediateData=Yes")
    cdb = struct.pack(">BBIBHB", 0x41, byte1, 8, 0, 16, 0)
    (pdu,) = session.say(session.initiator.command(cdb, 512, flags=0xA1, data=block))
    assert good(pdu)
    assert bench.disk.data[4096:12288] == block * 16
    assert bench.disk.calls[0][:2] == (call, 4096)


@pytest.mark.parametrize("cold", [False, True])
def test_compare_and_write(bench: Any, cold: bool) -> None:
    fill(bench)
    session = bench.session("ImmediateData=Yes")
    bench.disk.cold = cold

    def compare(old: bytes, new: bytes) -> Any:
        cdb = b"\x89\0" + struct.pack(">Q", 0) + b"\0\0\0\x01\0\0"
        answers = session.say(session.initiator.command(cdb, 1024, flags=0xA1, data=old + new))
        bench.workers.work()
        return (answers or session.later())[0]

    assert good(compare(DATA[:512], b"N" * 512))
    assert bench.disk.data[:512] == b"N" * 512
    wrong = bytearray(b"N" * 512)
    wrong[77] ^= 1
    pdu = compare(bytes(wrong), b"X" * 512)
    assert sense(pdu) == (0x0E, 0x1D00)
    assert int.from_bytes(pdu.data[5:9], "big") == 77
    assert bench.disk.data[:512] == b"N" * 512


@pytest.mark.parametrize("cold", [False, True])
def test_verify_reads_and_sends_nothing(bench: Any, cold: bool) -> None:
    session = bench.session()
    bench.disk.cold = cold
    cdb = struct.pack(">BBIBHB", 0x2F, 0, 0, 0, 8, 0)
    answers = session.say(session.initiator.command(cdb))
    bench.workers.work()
    (pdu,) = answers or session.later()
    assert good(pdu) and pdu.data == b""
    assert ("read", 0, 4096) in bench.disk.calls


def test_a_verify_that_cannot_read(bench: Any) -> None:
    session = bench.session()
    bench.disk.cold, bench.disk.error = True, DiskError(Fault.MEDIUM, "EIO")
    session.say(session.initiator.command(struct.pack(">BBIBHB", 0x2F, 0, 0, 0, 8, 0)))
    bench.workers.work()
    assert sense(session.later()[0]) == (3, 0x1100)


@pytest.mark.parametrize(("cold", "status"), [(False, 4), (True, 0)])
def test_prefetch(bench: Any, cold: bool, status: int) -> None:
    session = bench.session()
    bench.disk.cold = cold
    (pdu,) = session.say(session.initiator.command(struct.pack(">BBIBHB", 0x34, 0, 0, 0, 8, 0)))
    assert (pdu.opcode, pdu.byte3) == (0x21, status)
    assert bench.workers.work() == cold
    assert session.later() == []


def test_get_lba_status(bench: Any) -> None:
    session = bench.session()
    cdb = b"\x9e\x12" + struct.pack(">QI", 0, 255) + b"\0\0"
    (pdu,) = session.say(session.initiator.command(cdb, 255, flags=0xC0))
    assert pdu.data[8:24] == struct.pack(">QIB3x", 0, 8, 0)
    assert pdu.data[24:40] == struct.pack(">QIB3x", 8, 2040, 1)


def test_orwrite(bench: Any) -> None:
    bench.disk.data[:512] = b"\x0f" * 512
    session = bench.session("ImmediateData=Yes")
    cdb = b"\x8b\0" + struct.pack(">QI", 0, 1) + b"\0\0"
    (pdu,) = session.say(session.initiator.command(cdb, 512, flags=0xA1, data=b"\xf0" * 512))
    assert good(pdu)
    assert bench.disk.data[:512] == b"\xff" * 512


# Order, aborts, the end.


def test_an_ordered_task_waits_for_the_cold_read_before_it(bench: Any) -> None:
    fill(bench)
    session, other = bench.session(), bench.session("ImmediateData=Yes", isid=b"other!")
    bench.disk.cold = True
    session.say(session.initiator.read(0, 1))
    bench.disk.cold = False
    assert other.say(other.initiator.write(0, 1, b"N" * 512, flags=0xA2)) == []  # ORDERED
    assert session.say(session.initiator.read(0, 1)) == []  # younger than the ordered one
    assert session.say(session.initiator.read(1, 1, flags=0xC3))[0].data == DATA[512:1024]  # HEAD
    bench.workers.work()
    assert [pdu.data for pdu in session.later()] == [DATA[:512], b"N" * 512]
    assert good(other.later()[0])
    assert bench.volume.tasks.clear and not bench.volume.tasks.all()


def test_an_aborted_read_is_not_answered(bench: Any) -> None:
    session = bench.session()
    bench.disk.cold = True
    session.say(session.initiator.read(0, 1, itt=0x99))
    abort = session.initiator.request(0x02, 0x81, word20=0x99, immediate=True)
    (answer,) = session.say(abort)
    assert (answer.opcode, answer.byte2) == (0x22, 0)
    bench.workers.work()
    assert session.later() == []
    (again,) = session.say(session.initiator.request(0x02, 0x81, word20=0x99, immediate=True))
    assert again.byte2 == 1  # no such task


def test_an_aborted_write_takes_no_more_data(bench: Any) -> None:
    session = bench.session("InitialR2T=Yes", "ImmediateData=No")
    (r2t,) = session.say(session.initiator.write(0, 1))
    session.say(session.initiator.request(0x02, 0x81, word20=r2t.itt, immediate=True))
    assert session.say(session.initiator.data_out(r2t.itt, r2t.word20, 0, 0, DATA[:512])) == []
    assert bench.disk.data[:512] == bytes(512)


def test_an_aborted_flush_is_not_answered(bench: Any) -> None:
    session = bench.session()
    session.say(session.initiator.command(b"\x35".ljust(10, b"\0"), itt=0x99))
    session.say(session.initiator.request(0x02, 0x81, word20=0x99, immediate=True))
    bench.workers.work()
    assert session.later() == []


def test_the_end_of_a_session_ends_its_tasks_and_frees_others(bench: Any) -> None:
    session, other = bench.session(), bench.session(isid=b"other!")
    bench.disk.cold = True
    session.say(session.initiator.read(0, 1, flags=0xC2))
    bench.disk.cold = False
    assert other.say(other.initiator.read(0, 1)) == []
    session.edge.close()
    session.edge.close()
    (freed,) = other.later()
    assert good(freed)
    bench.workers.work()
    assert session.later() == [] and not bench.volume.tasks.all()


def test_a_broken_task_among_those_that_wait(bench: Any) -> None:
    session = bench.session("ImmediateData=No")
    bench.disk.cold = True
    session.say(session.initiator.read(0, 1, flags=0xC2))  # an ordered one, under way
    (status,) = session.say(session.initiator.write(0, 1, DATA[:512]))
    assert sense(status) == (0x0B, 0x0C0C)
    bench.workers.work()
    assert len(session.later()) == 1 and not bench.volume.tasks.all()


# What is remembered, measured, sanitized


REGISTER = struct.pack(">BBB2xIB", 0x5F, 0, 0, 24, 0)
WITH_APTPL = struct.pack(">QQ4xBxH", 0, 0xA1, 1, 0)
ERASE = b"\x48\x82" + bytes(8)  # BLOCK ERASE with IMMED


def remembering(make: Any) -> tuple[Any, list[bytes]]:
    """A bench whose disk remembers, and what it was given to remember."""
    bench = make(remembers=True)
    kept: list[bytes] = []
    bench.volume.remember = kept.append
    return bench, kept


def test_a_registration_is_answered_when_it_is_kept(bench: Any) -> None:
    bench, kept = remembering(type(bench))
    session = bench.session()
    ask = session.initiator.command(REGISTER, 24, flags=0xA1, data=WITH_APTPL)
    assert session.say(ask) == [] and kept == []
    bench.workers.work()
    (pdu,) = session.later()
    assert good(pdu) and b"161" in kept[0]
    assert not bench.volume.tasks.running and not session.engine.session.tasks


def test_a_registration_that_is_aborted_holds_all_the_same(bench: Any) -> None:
    """It is kept, so that it must not be unknown to the unit until the next power cut."""
    bench, kept = remembering(type(bench))
    session = bench.session()
    session.say(session.initiator.command(REGISTER, 24, flags=0xA1, data=WITH_APTPL))
    (task,) = session.engine.session.tasks.values()
    session.edge.abort(task)
    bench.workers.work()
    assert session.later() == [] and len(kept) == 1
    assert list(bench.unit.reservations.keys.values()) == [0xA1]


def test_the_space_is_asked_of_a_worker(bench: Any) -> None:
    bench = type(bench)(measured=True)
    bench.volume.space = lambda: (5 << 20, 9 << 20)
    session = bench.session()
    cdb = bytes.fromhex("4D 00 4C 00 00 0000 00FF 00")
    assert session.say(session.initiator.command(cdb, 255, flags=0xC1)) == []
    bench.workers.work()
    (pdu,) = session.later()
    assert struct.unpack_from(">I8xI", pdu.data, 8) == (9, 5)

    def broken() -> tuple[int, int]:
        raise DiskError(Fault.MEDIUM, "EIO")

    bench.volume.space = broken
    session.say(session.initiator.command(cdb, 255, flags=0xC1))
    bench.workers.work()
    assert sense(session.later()[0]) == (3, 0x1100)


def test_an_immediate_sanitize_is_answered_before_it_is_done(bench: Any) -> None:
    bench, kept = remembering(type(bench))
    session = bench.session()
    fill(bench)
    assert session.say(session.initiator.command(ERASE)) == []
    bench.workers.work(1)  # what is under way is kept
    (pdu,) = session.later()
    assert good(pdu) and len(kept) == 1 and b"sanitize" in kept[0]
    (busy,) = session.say(session.initiator.read(0, 1))
    assert sense(busy) == (2, 0x041B)
    bench.workers.work()
    assert session.later() == [] and kept[1:] == [b""]
    assert not any(bench.disk.data)
    assert session.say(session.initiator.read(0, 1))[0].opcode == 0x25


def test_a_sanitize_ends_what_the_others_have_under_way(bench: Any) -> None:
    one, two = bench.session(), bench.session("ImmediateData=No", isid=b"\x40\0\0\0\0\2")
    (r2t,) = two.say(two.initiator.write(0, 8))
    bench.disk.cold = True
    assert two.say(two.initiator.read(0, 1)) == []
    bench.disk.cold = False
    (pdu,) = one.say(one.initiator.command(ERASE))
    assert good(pdu)
    (read,) = two.later()  # the read at once; the write when its data has come (RFC 7143 11.4.2)
    assert sense(read) == (2, 0x041B)
    (write,) = two.say(two.initiator.data_out(r2t.itt, r2t.word20, 0, 0, b"L" * 4096))
    assert write.itt == r2t.itt and sense(write) == (2, 0x041B)
    bench.workers.work()
    assert one.later() == two.later() == []
    assert not any(bench.disk.data)
    assert not [call for call in bench.disk.calls if call[0] == "write"]


def test_a_session_that_ends_does_not_end_its_sanitize(bench: Any) -> None:
    session = bench.session()
    fill(bench)
    session.say(session.initiator.command(b"\x48\x02" + bytes(8)))
    session.edge.close()
    bench.workers.work()
    assert session.later() == []
    assert not any(bench.disk.data) and bench.unit.barred is None


def test_switching_the_cache_off_flushes_it(bench: Any) -> None:
    session = bench.session()
    page = bytes(4) + bytes.fromhex("08 12 00") + bytes(17)
    cdb = bytes((0x15, 0x10, 0, 0, len(page), 0))
    ask = session.initiator.command(cdb, len(page), flags=0xA1, data=page)
    assert session.say(ask) == []
    bench.workers.work()
    assert good(session.later()[0]) and bench.disk.calls[-1] == ("flush",)
    assert session.say(session.initiator.write(0, 1, bytes(512))) == []
    bench.workers.work()
    assert good(session.later()[0])
    assert [call[0] for call in bench.disk.calls[-2:]] == ["write", "flush"]


def test_a_write_under_way_when_the_cache_is_switched_off_is_flushed_too(bench: Any) -> None:
    session = bench.session("ImmediateData=No", "InitialR2T=Yes")
    (r2t,) = session.say(session.initiator.write(0, 1))
    bench.unit.turn({"write_cache": False})
    late = session.initiator.data_out(r2t.itt, r2t.word20, 0, 0, b"L" * 512)
    assert session.say(late) == []
    bench.workers.work()
    assert good(session.later()[0])
    assert [call[0] for call in bench.disk.calls] == ["write", "flush"]
