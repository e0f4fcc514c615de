"""Messages as JSON lines: every one there and back, and what other releases may send."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.disks import wire
from netboot.disks.wire import MESSAGES, DiskEvent, Kind
from netboot.errors import WireError
from netboot.model import (
    Admission,
    Chap,
    Counters,
    DiskSpec,
    Knock,
    Lun,
    Portal,
    SessionLimits,
)

SPEC = DiskSpec("/g.raw", 4096, "sha256:x", "/o.qcow2", 3, True, False)
ADMISSION = Admission(
    0,
    "52:54:00:12:34:56",
    "iqn.t",
    (Lun(0, SPEC, "s0"), Lun(1, DiskSpec("/h.raw", 512, "sha256:y"), "s1")),
    "fine",
    Chap("ws1", "secret secret", "lab", "secret of ours", (5, 7)),
)
EVENT = DiskEvent("52:54:00:12:34:56", Kind.READING, 12.5, "iqn.a", "10.0.0.9", "détail")
EVERY: list[Any] = [
    wire.Hello(1, wire.PROTOCOL, "::1", 3260, "0.1.0", 5),
    wire.Asked(7, Knock("iqn.a", "iqn.t", "10.0.0.9", "400027231234", False)),
    wire.Happened(EVENT),
    wire.Counted((Counters("52:54:00:12:34:56", 1, 2, 3, 4, 5, 6, 7), Counters("b"))),
    wire.Counted(),
    wire.Forgotten(3),
    wire.Logged(40, "netboot.iscsi", "two\nlines"),
    wire.Admitted(7, ADMISSION),
    wire.Admitted(8, Admission(0x0203)),
    wire.Forget(3, "52:54:00:12:34:56", False),
    wire.Resize(3, "52:54:00:12:34:56", "/o.qcow2", 100 << 30),
    wire.Resized(3),
    wire.Resized(4, False, "no room"),
    wire.Limit(SessionLimits(10, 2)),
    wire.Hello(1, 1, "::1", 1, portals=(Portal("::1", 1, 2), Portal("10.0.0.1", 3))),
    wire.Admitted(9, Admission(0x0101, "m", redirect="10.0.0.2:3260")),
    wire.Hello(1, 1, "::1", 1, number=2, processes=3),
    wire.Passed(7, Portal("::1", 3260, 2)),
    wire.Taken(7),
    wire.Needed(),
    wire.Deaf(),
    wire.Count(),
    wire.Stop(),
]


@pytest.mark.parametrize("message", EVERY, ids=lambda message: type(message).__name__)
def test_there_and_back(message: Any) -> None:
    line = wire.encode(message)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert wire.decode(line) == message


def test_every_message_is_in_the_list_above() -> None:
    assert {type(message) for message in EVERY} == set(MESSAGES.values())


def test_where_a_process_listens() -> None:
    two = (Portal("::1", 1, 2), Portal("10.0.0.1", 3))
    found = wire.Hello(1, 1, "::1", 1, portals=two)
    assert found.listening == two and found.listens_at(two)
    assert found.listens_at((Portal("::1", 0, 2), two[1]))
    others = ((), two[:1], two[::-1], (*two, two[1]), (Portal("::1", 1, 1), two[1]))
    assert not any(found.listens_at(other) for other in others)
    assert wire.Hello(1, 1, "10.0.0.1", 3).listening == (Portal("10.0.0.1", 3, 1),)


def test_which_process_it_is() -> None:
    here = (Portal("10.0.0.1", 3),)
    found = wire.Hello(1, wire.PROTOCOL, "10.0.0.1", 3, number=1, processes=2)
    assert found.fits(1, 2, here)
    assert not (found.fits(0, 2, here) or found.fits(1, 3, here) or found.fits(1, 2, ()))
    assert not wire.Hello(1, wire.PROTOCOL + 1, "10.0.0.1", 3).fits(0, 1, here)
    assert wire.Hello(1, wire.PROTOCOL, "10.0.0.1", 3).fits(0, 1, here), "an older release"


def test_a_line_byte_for_byte() -> None:
    assert (
        wire.encode(wire.Forget(3, "m"))
        == b'{"type":"forget","number":3,"mac":"m","memory":true}\n'
    )


def test_a_message_of_a_newer_release() -> None:
    assert wire.decode(b'{"type": "from the future", "x": 1}') is None
    line = b'{"type": "forget", "number": 3, "mac": "m", "memory": false, "new": [1]}'
    assert wire.decode(line) == wire.Forget(3, "m", False)


def test_a_message_of_an_older_release() -> None:
    line = b'{"type": "hello", "pid": 1, "protocol": 1, "address": "a", "port": 2}'
    assert wire.decode(line) == wire.Hello(1, 1, "a", 2, "", 0)


def test_a_time_may_be_a_whole_number() -> None:
    line = wire.encode(wire.Happened(EVENT)).replace(b"12.5", b"12")
    message = wire.decode(line)
    assert isinstance(message, wire.Happened) and message.event.at == 12.0


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff",
        b"not json",
        b"[]",
        b'"text"',
        b"[" * 100_000,
        b'{"type": "forget"}',
        b'{"type": "forget", "number": "3", "mac": "m"}',
        b'{"type": "forget", "number": 3, "mac": 5}',
        b'{"type": "forget", "number": true, "mac": "m"}',
        b'{"type": "asked", "number": 1, "knock": []}',
        b'{"type": "asked", "number": 1, "knock": {"initiator": "i"}}',
        b'{"type": "counted", "counters": {}}',
        b'{"type": "counted", "counters": [1]}',
        b'{"type": "happened", "event": {"mac": "m", "kind": "odd", "at": 1.0}}',
        b'{"type": "happened", "event": {"mac": "m", "kind": "login", "at": 1%s}}' % (b"0" * 400),
        b'{"type": "admitted", "number": 1, "admission": {"status": 0, "chap": 5}}',
    ],
)
def test_what_is_no_message(line: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode(line)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(
    st.sampled_from(sorted(MESSAGES)),
    st.dictionaries(
        st.sampled_from(
            [
                "number",
                "mac",
                "knock",
                "admission",
                "event",
                "counters",
                "pid",
                "port",
                "level",
                "text",
            ]
        ),
        JSON,
        max_size=6,
    ),
)
def test_any_object_is_a_message_or_a_wire_error(kind: str, members: dict[str, Any]) -> None:
    try:
        message = wire.decode(json.dumps({"type": kind, **members}).encode())
    except WireError:
        return
    assert type(message) is MESSAGES[kind]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_wire_error(line: bytes) -> None:
    with contextlib.suppress(WireError):
        wire.decode(line)
