"""Outgoing PDUs: numbering, splitting, residuals, digests."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.checksum import digest
from netboot.iscsi.answers import Answers
from netboot.iscsi.keys import Parameters
from netboot.iscsi.session import READ, WRITE, Buffer, Session, Task, Transfer
from netboot.iscsi.target import Identity
from netboot.iscsi.wire import NO_TAG

Read = Callable[[bytes], list[Any]]


def answers(**parameters: Any) -> Answers:
    session = Session(Identity("iqn.a", b"123456", "iqn.t"), Parameters(**parameters))
    session.open_window(10)
    made = Answers(session)
    made.agree()
    return made


def task(edtl: int, flags: int = READ, *, immediate: bool = False) -> Task:
    return Task(0x77, 0, 0x80 | flags, edtl, bytes(16), b"", immediate)


def sent(of: Answers) -> bytes:
    return b"".join(of.take())


def test_a_read_in_one_pdu_has_its_status_in_it(pdus: Read) -> None:
    of = answers()
    parts = (b"a" * 512, memoryview(b"b" * 512))
    of.complete_read(task(1024), parts, 1024)
    (pdu,) = pdus(sent(of))
    assert (pdu.opcode, pdu.flags, pdu.byte3) == (0x25, 0x81, 0)
    assert (pdu.itt, pdu.word20, pdu.stat_sn) == (0x77, NO_TAG, 1)
    assert (pdu.exp_cmd_sn, pdu.max_cmd_sn) == (10, 10 + 128)
    assert (pdu.word36, pdu.word40, pdu.word44) == (0, 0, 0)
    assert pdu.data == b"a" * 512 + b"b" * 512
    assert of.take() == []


def test_data_is_passed_on_and_not_copied() -> None:
    of = answers()
    data = memoryview(bytes(4096))
    of.complete_read(task(4096), (data,), 4096)
    assert of.out[1] is data


def test_a_long_read_is_cut_at_the_segment_and_at_the_burst(pdus: Read) -> None:
    """Every PDU carries the window and a StatSN, with status or without: iPXE reads them."""
    of = answers(send_segment=1024, max_burst=2560)
    of.complete_read(task(4096), (b"x" * 3000, b"y" * 1096), 4096)
    cut = pdus(sent(of))
    assert [len(pdu.data) for pdu in cut] == [1024, 1024, 512, 1024, 512]
    assert [pdu.flags for pdu in cut] == [0, 0, 0x80, 0, 0x81]
    assert [pdu.word36 for pdu in cut] == [0, 1, 2, 3, 4]  # DataSN
    assert [pdu.word40 for pdu in cut] == [0, 1024, 2048, 2560, 3584]  # Buffer Offset
    assert {pdu.stat_sn for pdu in cut} == {1} and of.stat_sn == 2
    assert {(pdu.exp_cmd_sn, pdu.max_cmd_sn) for pdu in cut} == {(10, 138)}
    assert b"".join(pdu.data for pdu in cut) == b"x" * 3000 + b"y" * 1096


def test_an_odd_segment_length_is_cut_to_whole_words(pdus: Read) -> None:
    of = answers(send_segment=515)
    of.complete_read(task(1024), (b"x" * 1024,), 1024)
    assert [len(pdu.data) for pdu in pdus(sent(of))] == [512, 512]


@pytest.mark.parametrize(
    ("edtl", "length", "flags", "residual", "sent_bytes"),
    [
        (36, 36, 0x81, 0, 36),
        (255, 36, 0x83, 219, 36),  # underflow
        (8, 36, 0x85, 28, 8),  # overflow
        (5, 6, 0x85, 1, 5),
    ],
)
def test_residuals_of_data(
    pdus: Read, edtl: int, length: int, flags: int, residual: int, sent_bytes: int
) -> None:
    of = answers()
    of.complete_read(task(edtl), (bytes(length),), length)
    (pdu,) = pdus(sent(of))
    assert (pdu.opcode, pdu.flags, pdu.word44, len(pdu.data)) == (0x25, flags, residual, sent_bytes)


@pytest.mark.parametrize(
    ("flags", "edtl", "length", "answer", "residual"),
    [
        (READ, 0, 512, 0x84, 512),  # no room at all
        (0, 0, 512, 0x84, 512),
        (WRITE, 512, 512, 0x82, 512),  # data for a command that announced a write: none was taken
        (READ, 512, 0, 0x82, 512),
    ],
)
def test_a_read_that_cannot_send(
    pdus: Read, flags: int, edtl: int, length: int, answer: int, residual: int
) -> None:
    of = answers()
    of.complete_read(task(edtl, flags), (bytes(length),) if length else (), length)
    (pdu,) = pdus(sent(of))
    assert (pdu.opcode, pdu.flags, pdu.word44, pdu.data) == (0x21, answer, residual, b"")


@pytest.mark.parametrize(
    ("flags", "edtl", "taken", "answer", "residual"),
    [
        (WRITE, 4096, 4096, 0x80, 0),
        (WRITE, 4096, 1024, 0x82, 3072),
        (WRITE, 512, 1024, 0x84, 512),
        (WRITE, 0, 1024, 0x84, 1024),
        (0, 0, 0, 0x80, 0),
        (0, 99, 0, 0x80, 0),  # an EDTL without R or W means nothing
        (READ, 4096, 0, 0x82, 4096),
    ],
)
def test_residuals_of_a_status(
    pdus: Read, flags: int, edtl: int, taken: int, answer: int, residual: int
) -> None:
    of = answers()
    of.complete(task(edtl, flags), 0, taken=taken)
    (pdu,) = pdus(sent(of))
    assert (pdu.opcode, pdu.flags, pdu.byte2, pdu.byte3) == (0x21, answer, 0, 0)
    assert (pdu.itt, pdu.stat_sn, pdu.word44) == (0x77, 1, residual)


def test_sense_goes_with_its_length(pdus: Read) -> None:
    of = answers()
    of.complete(task(0, 0), 2, b"\x70" + bytes(17))
    (pdu,) = pdus(sent(of))
    assert pdu.byte3 == 2
    assert pdu.data == b"\x00\x12\x70" + bytes(17)


def test_a_write_counts_its_r2ts(pdus: Read) -> None:
    of, write = answers(), task(4096, WRITE)
    write.transfer = Transfer(False, bytearray(), r2t_sn=3)
    of.complete(write, 0, taken=4096)
    assert pdus(sent(of))[0].word36 == 3  # ExpDataSN


def test_an_immediate_command_does_not_move_the_window(pdus: Read) -> None:
    of = answers()
    of.complete(task(0, 0, immediate=True), 0)
    of.complete_read(task(512, immediate=True), (bytes(512),), 512)
    assert {pdu.max_cmd_sn for pdu in pdus(sent(of))} == {10 + 127}


def test_the_numbers_wrap(pdus: Read) -> None:
    of = answers()
    of.stat_sn = 0xFFFFFFFF
    of.session.max_cmd_sn = 0xFFFFFFFF
    of.complete(task(0, 0), 0)
    of.complete(task(0, 0), 0)
    first, second = pdus(sent(of))
    assert (first.stat_sn, second.stat_sn) == (0xFFFFFFFF, 0)
    assert (first.max_cmd_sn, second.max_cmd_sn) == (0, 1)


def test_an_r2t_has_the_next_stat_sn_and_takes_none(pdus: Read) -> None:
    """EDK2 compares R2T.StatSN with the one that it expects next."""
    of = answers()
    of.r2t(task(4096, WRITE), 9, 2, 1024, 3072)
    (pdu,) = pdus(sent(of))
    assert (pdu.opcode, pdu.flags, pdu.itt, pdu.word20, pdu.stat_sn) == (0x31, 0x80, 0x77, 9, 1)
    assert (pdu.word36, pdu.word40, pdu.word44) == (2, 1024, 3072)
    assert of.stat_sn == 1


def test_a_reject_returns_the_header(pdus: Read) -> None:
    of = answers()
    of.reject(5, b"\x1c" + bytes(47))
    (pdu,) = pdus(sent(of))
    assert (pdu.opcode, pdu.flags, pdu.byte2, pdu.itt) == (0x3F, 0x80, 5, NO_TAG)
    assert pdu.data == b"\x1c" + bytes(47)


def test_both_digests() -> None:
    of = answers(header_digest=True, data_digest=True)
    of.complete_read(task(5), (b"abc", b"de"), 5)
    stream = sent(of)
    assert len(stream) == 48 + 4 + 8 + 4
    assert stream[48:52] == digest([stream[:48]])
    assert stream[52:60] == b"abcde\0\0\0"
    assert stream[60:] == digest([stream[52:60]])


def test_only_the_data_digest() -> None:
    of = answers(data_digest=True)
    of.complete(task(0, 0), 0)  # without data there is none
    assert len(sent(of)) == 48
    of.complete_read(task(512), (bytes(512),), 512)
    assert len(sent(of)) == 48 + 512 + 4


@given(
    st.integers(512, 3000),
    st.integers(512, 5000),
    st.integers(1, 9000),
    st.integers(0, 9000),
    st.lists(st.integers(1, 8999), max_size=5),
)
def test_whatever_the_lengths_the_data_arrives(
    segment: int, burst: int, length: int, edtl: int, cuts: list[int]
) -> None:
    data = bytes(number * 7 & 0xFF for number in range(length))
    edges = [0, *sorted(cut for cut in cuts if cut < length), length]
    parts: list[Buffer] = [data[a:b] for a, b in itertools.pairwise(edges) if a < b]
    of = answers(send_segment=segment, max_burst=burst)
    of.complete_read(task(edtl), parts, length)
    stream, got = sent(of), b""
    in_burst = 0
    while stream:
        op, flags, size = stream[0], stream[1], int.from_bytes(stream[5:8], "big")
        got += stream[48 : 48 + size]
        stream = stream[48 + size + -size % 4 :]
        assert size <= segment
        if op == 0x25:
            in_burst += size
            assert in_burst <= burst
            in_burst = 0 if flags & 0x80 else in_burst
        assert bool(flags & 0x01 if op == 0x25 else True) == (not stream)
    assert got == data[:edtl]
    assert of.stat_sn == 2


@pytest.mark.parametrize(
    "transfer", [Transfer(True, bytearray(b"x")), Transfer(False, bytearray(), tag=3)]
)
def test_a_status_does_not_overtake_data_that_is_under_way(transfer: Transfer) -> None:
    of = answers()
    held = task(4096, WRITE)
    held.transfer = transfer
    window = of.session.max_cmd_sn
    of.complete(held, 2, b"sense", 7)
    assert of.take() == [] and of.session.tasks == {held.itt: held}
    assert (transfer.held, transfer.broken, transfer.burst) == ((2, b"sense", 7), True, b"")
    assert of.session.max_cmd_sn == window  # it has its place until it is answered
    transfer.unsolicited, transfer.tag = False, NO_TAG
    of.complete(held, *transfer.held)
    assert sent(of)[:4] == b"\x21\x82\x00\x02" and of.session.tasks == {}


@pytest.mark.parametrize("edtl", [512, 4096])
def test_data_in_the_wrong_direction_is_not_moved_and_the_residual_says_so(
    edtl: int, pdus: Read
) -> None:
    of = answers()
    of.complete(task(edtl, READ), 0, taken=512)  # a WRITE with R
    of.complete_read(task(edtl, WRITE), (bytes(512),), 512)  # a READ with W
    for pdu in pdus(sent(of)):
        assert (pdu.opcode, pdu.flags, pdu.byte3, pdu.word44) == (0x21, 0x82, 0, edtl)
