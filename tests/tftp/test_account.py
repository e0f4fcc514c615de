"""Each way in which a transfer ends is counted once and told once."""

import logging

import pytest

from netboot.tftp import wire
from netboot.tftp.account import TftpCounters, TftpEvent
from netboot.tftp.engine import Transfer
from netboot.tftp.options import Limits, Terms, negotiate
from netboot.tftp.wire import Ack, Error


def transfer(**options: str) -> Transfer:
    data = b"x" * 700
    terms = negotiate(options, Limits(size=len(data))) if options else Terms()
    run = Transfer(lambda offset, length: data[offset : offset + length], terms)
    run.start(0)
    return run


def say(run: Transfer, *packets: wire.Packet) -> Transfer:
    for packet in packets:
        run.receive(wire.encode(packet), 0)
    return run


def test_a_whole_file(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    counters = TftpCounters(active=3)
    run = say(transfer(), Ack(7), Ack(1), Ack(2))
    told = counters.ended(run, "10.0.0.9", "a.efi")
    assert told == TftpEvent("10.0.0.9", "a.efi", "done", 700, "")
    assert counters == TftpCounters(active=2, done=1, bytes=700, garbage=1)
    assert [record.getMessage() for record in caplog.records] == [
        "TFTP: 10.0.0.9 has fetched a.efi, 700 bytes"
    ]


def test_a_question_for_the_size_alarms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    counters = TftpCounters(active=1)
    run = say(transfer(tsize="0"), Error(0, "enough"))
    told = counters.ended(run, "10.0.0.9", "a.efi")
    assert told == TftpEvent("10.0.0.9", "a.efi", "probe", 0, "the client stopped: error 0 enough")
    assert counters == TftpCounters(probes=1)
    assert not caplog.records


def test_a_failure_has_its_reason_and_what_had_arrived() -> None:
    counters = TftpCounters(active=1)
    run = transfer()
    run.tick(1.0)
    say(run, Ack(1), Error(3, "full\x1b[2J"))
    told = counters.ended(run, "10.0.0.9", "a.efi")
    assert told.kind == "failed"
    assert told.bytes == 512
    assert told.detail == "the client stopped: error 3 full\ufffd[2J"
    assert counters == TftpCounters(failed=1, bytes=512, resent=1)


@pytest.mark.parametrize("outcome", ["done", "failed"])
def test_what_the_service_ends_itself(outcome: str) -> None:
    counters = TftpCounters(active=1)
    run = say(transfer(), Ack(1)) if outcome == "done" else transfer()
    run.abandon("the service stopped")
    told = counters.ended(run, "10.0.0.9", "a.efi")
    assert (told.kind, told.bytes) == (outcome, 512 if outcome == "done" else 0)
