"""scapy as the independent judge of every TFTP packet we read and write."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.tftp import (
    TFTP,
    TFTP_ACK,
    TFTP_DATA,
    TFTP_ERROR,
    TFTP_OACK,
    TFTP_RRQ,
    TFTP_WRQ,
    TFTP_Option,
    TFTP_Options,
)

from netboot.tftp import wire
from netboot.tftp.engine import Transfer, admit
from netboot.tftp.options import Limits, negotiate
from netboot.tftp.wire import Ack, Data, Error, Opcode, OptionAck, Request

pytestmark = pytest.mark.interop

name = st.text("abcdefghijklmnopqrstuvwxyz0123456789./-_", min_size=1, max_size=30)
options = st.dictionaries(
    st.sampled_from(["blksize", "tsize", "timeout", "windowsize", "multicast"]),
    st.integers(0, 99999).map(str),
    max_size=5,
)


def rows(asked: dict[str, str]) -> TFTP_Options:
    return TFTP_Options(
        options=[
            TFTP_Option(oname=key.encode(), value=value.encode()) for key, value in asked.items()
        ]
    )


@given(name, options, st.booleans())
@settings(max_examples=50, deadline=None)
def test_requests_of_scapy_are_read(file: str, asked: dict[str, str], write: bool) -> None:
    kind = TFTP_WRQ if write else TFTP_RRQ
    packet = TFTP() / kind(filename=file.encode(), mode=b"octet")
    if asked:
        packet = packet / rows(asked)
    opcode = Opcode.WRQ if write else Opcode.RRQ
    assert wire.parse(bytes(packet)) == Request(opcode, file, "octet", asked)


@given(name, options)
@settings(max_examples=50, deadline=None)
def test_our_requests_are_what_scapy_reads(file: str, asked: dict[str, str]) -> None:
    packet = TFTP(wire.encode(Request(Opcode.RRQ, file, "octet", asked)))
    assert packet[TFTP_RRQ].filename == file.encode()
    assert packet[TFTP_RRQ].mode == b"octet"
    if asked:
        assert {
            row.oname.decode(): row.value.decode() for row in packet[TFTP_Options].options
        } == asked


@given(st.integers(0, 65535), st.binary(min_size=1, max_size=600))
@settings(max_examples=50, deadline=None)
def test_data_and_acks_both_ways(block: int, payload: bytes) -> None:
    theirs = bytes(TFTP() / TFTP_DATA(block=block) / payload)
    assert theirs == wire.encode(Data(block, payload))
    read = TFTP(theirs)
    assert (read[TFTP_DATA].block, bytes(read[TFTP_DATA].payload)) == (block, payload)
    assert bytes(TFTP() / TFTP_ACK(block=block)) == wire.encode(Ack(block))


@given(st.integers(0, 8), st.text("abc def", max_size=30))
@settings(max_examples=30, deadline=None)
def test_errors_both_ways(code: int, text: str) -> None:
    ours = wire.encode(Error(code, text))
    assert bytes(TFTP() / TFTP_ERROR(errorcode=code, errormsg=text.encode())) == ours
    read = TFTP(ours)[TFTP_ERROR]
    assert (read.errorcode, read.errormsg) == (code, text.encode())


def test_a_whole_conversation_in_scapys_words() -> None:
    data = bytes(range(256)) * 12
    request = TFTP() / TFTP_RRQ(filename=b"/boot/x.efi", mode=b"octet")
    request = request / rows({"blksize": "1024", "tsize": "0", "windowsize": "2"})
    admitted = admit(bytes(request))
    assert isinstance(admitted, Request)
    terms = negotiate(admitted.options, Limits(size=len(data)))
    run = Transfer(lambda offset, length: data[offset : offset + length], terms)
    ((head, _),) = run.start(0)
    granted = TFTP(head)
    assert granted.haslayer(TFTP_OACK)
    answer = {row.oname: row.value for row in granted[TFTP_Options].options}
    assert answer == {b"blksize": b"1024", b"tsize": b"3072", b"windowsize": b"2"}
    assert wire.parse(head) == OptionAck({k.decode(): v.decode() for k, v in answer.items()})
    got, block = b"", 0
    while run.outcome is None:
        for head, body in run.receive(bytes(TFTP() / TFTP_ACK(block=block)), 0):
            packet = TFTP(head + bytes(body))
            block += 1
            assert packet[TFTP_DATA].block == block
            got += bytes(packet[TFTP_DATA].payload)
    assert got == data


def test_scapys_errors_end_a_transfer() -> None:
    run = Transfer(lambda offset, length: b"x" * length, negotiate({"tsize": "0"}, Limits(size=9)))
    run.start(0)
    run.receive(bytes(TFTP() / TFTP_ERROR(errorcode=8, errormsg=b"no, thanks")), 0)
    assert run.detail == "the client stopped: error 8 no, thanks"
