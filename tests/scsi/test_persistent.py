"""RESERVE(6) and PERSISTENT RESERVE IN and OUT through their CDBs."""

import json
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.scsi.action import Abort, Action, Amend, Check, Collect, Read, Reply, Status, Write
from netboot.scsi.kept import decode
from netboot.scsi.persistent import transport_id
from netboot.scsi.reservations import MAX_REGISTRATIONS, Kind
from netboot.scsi.sense import Code
from netboot.scsi.unit import Nexus
from tests.scsi.conftest import Bench

READY = "00 00000000 00"
READ = "28 00 00000000 00 0001 00"
WRITE = "2A 00 00000000 00 0001 00"
RESERVE6, RELEASE6 = "16 00 000000 00", "17 00 000000 00"
CONFLICT = Reply(status=Status.RESERVATION_CONFLICT)
REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, IGNORE = range(7)
MINE, THEIRS = 0xA1A1, 0xB2B2


def out(
    bench: Bench,
    action: int,
    key: int = 0,
    argument: int = 0,
    *,
    kind: int = 0,
    flags: int = 0,
    nexus: Nexus | None = None,
) -> Action:
    """PERSISTENT RESERVE OUT with its 24-byte parameter list."""
    cdb = struct.pack(">BBB2xIB", 0x5F, action, kind, 24, 0)
    data = struct.pack(">QQ4xBxH", key, argument, flags, 0)
    return bench.run(cdb, data=data, nexus=nexus)


def register_both(bench: Bench) -> None:
    assert out(bench, REGISTER, 0, MINE) == Reply()
    assert out(bench, REGISTER, 0, THEIRS, nexus=bench.other) == Reply()


def read_keys(bench: Bench) -> tuple[int, list[int]]:
    data = bench.data("5E 00 0000000000 0100 00")
    generation, length = struct.unpack_from(">II", data)
    assert length == len(data) - 8
    return generation, list(struct.unpack_from(f">{length // 8}Q", data, 8))


# RESERVE(6) and RELEASE(6)


def test_reserve6(bench: Bench) -> None:
    assert bench.run(RESERVE6) == Reply()
    assert bench.run(RESERVE6) == Reply()
    for cdb in (RESERVE6, READY, READ, WRITE, "1A 08 3F 00 FF 00", "25 00 00000000 0000 00 00"):
        assert bench.run(cdb, nexus=bench.other, edtl=512) == CONFLICT, cdb
    assert bench.run(READ) == Read(0, 512)
    assert bench.run(WRITE, edtl=512) == Write(0, 512)


def test_reserve6_of_another_lets_identity_questions_through(bench: Bench) -> None:
    bench.run(RESERVE6)
    assert bench.data("12 00 00 00FF 00", nexus=bench.other)
    assert bench.data("A0 00 00 000000 00000010 00 00", nexus=bench.other)
    assert bench.data("03 00 0000 FF 00", nexus=bench.other)
    # A release by somebody else does nothing, and is no conflict.
    assert bench.run(RELEASE6, nexus=bench.other) == Reply()
    assert bench.run(READY, nexus=bench.other) == CONFLICT


def test_release6(bench: Bench) -> None:
    bench.run(RESERVE6)
    assert bench.run(RELEASE6) == Reply()
    assert bench.run(RELEASE6) == Reply()
    assert bench.run(RESERVE6, nexus=bench.other) == Reply()
    assert bench.run(READ) == CONFLICT


@pytest.mark.parametrize("end", ["logout", "unit reset", "target reset"])
def test_reserve6_ends_with_its_nexus_or_a_reset(bench: Bench, end: str) -> None:
    bench.run(RESERVE6)
    if end == "logout":
        bench.units.detach(bench.nexus)
    elif end == "unit reset":
        bench.units.reset_unit(0)
    else:
        bench.units.reset_target()
    bench.run(READY, nexus=bench.other)
    assert bench.run(READ, nexus=bench.other) == Read(0, 512)


def test_reserve6_refusals(bench: Bench) -> None:
    assert bench.field("16 10 000000 00") == (1, 4)  # third party
    assert bench.field("16 01 000000 00") == (1, 0)  # extents
    assert bench.field("17 10 000000 00") == (1, 4)
    assert bench.field("17 01 000000 00") == (1, 0)


def test_the_two_kinds_of_reservation_exclude_each_other(bench: Bench) -> None:
    bench.run(RESERVE6)
    for action in range(4):
        assert bench.run(f"5E {action:02X} 0000000000 0100 00") == CONFLICT
    assert out(bench, REGISTER, 0, MINE) == CONFLICT
    bench.run(RELEASE6)
    register_both(bench)
    assert bench.run(RESERVE6) == CONFLICT
    assert bench.run(RELEASE6) == CONFLICT


# PERSISTENT RESERVE IN


def test_read_keys(bench: Bench) -> None:
    assert bench.data("5E 00 0000000000 0100 00") == bytes(8)
    register_both(bench)
    assert bench.data("5E 00 0000000000 0100 00") == bytes.fromhex(
        "00000002 00000010 000000000000A1A1 000000000000B2B2"
    )
    assert bench.data("5E 00 0000000000 000C 00") == bytes.fromhex("00000002 00000010 00000000")


def test_read_reservation(bench: Bench) -> None:
    register_both(bench)
    assert bench.data("5E 01 0000000000 0100 00") == bytes.fromhex("00000002 00000000")
    assert out(bench, RESERVE, MINE, kind=Kind.EXCLUSIVE_ACCESS) == Reply()
    assert bench.data("5E 01 0000000000 0100 00") == bytes.fromhex(
        "00000002 00000010 000000000000A1A1 00000000 00 03 0000"
    )


def test_read_reservation_of_all_registrants_has_no_key(bench: Bench) -> None:
    register_both(bench)
    out(bench, RESERVE, MINE, kind=Kind.WRITE_EXCLUSIVE_ALL_REGISTRANTS)
    assert bench.data("5E 01 0000000000 0100 00")[8:] == bytes.fromhex(
        "0000000000000000 00000000 00 07 0000"
    )


def test_report_capabilities(bench: Bench) -> None:
    # TMV; all six types; no SIP_C, ATP_C, PTPL_C.
    assert bench.data("5E 02 0000000000 0100 00") == bytes.fromhex("0008 00 80 EA01 0000")


def test_read_full_status(bench: Bench) -> None:
    register_both(bench)
    out(bench, RESERVE, THEIRS, kind=Kind.WRITE_EXCLUSIVE, nexus=bench.other)
    data = bench.data("5E 03 0000000000 0400 00")
    generation, length = struct.unpack_from(">II", data)
    assert (generation, length) == (2, len(data) - 8)
    name = b"iqn.1994-05.com.example:one,i,0x400001370000"
    size = len(name) + 1 + -(len(name) + 1) % 4
    row = struct.pack(">Q4xBB4xHI", MINE, 0, 0, 1, size + 4)
    row += struct.pack(">BBH", 0x45, 0, size) + name.ljust(size, b"\0")
    assert data[8 : 8 + len(row)] == row
    second = data[8 + len(row) :]
    # R_HOLDER, and the type.
    assert second[:14] == struct.pack(">Q4xBB", THEIRS, 1, Kind.WRITE_EXCLUSIVE)


def test_transport_id_of_a_device_without_isid() -> None:
    data = transport_id("iqn.x")
    assert data == struct.pack(">BBH", 0x05, 0, 20) + b"iqn.x".ljust(20, b"\0")


@given(st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=300))
def test_any_transport_id_is_whole_words(port: str) -> None:
    data = transport_id(port)
    assert len(data) % 4 == 0
    assert len(data) >= 24
    assert data.endswith(b"\0")
    assert struct.unpack_from(">H", data, 2) == (len(data) - 4,)


@pytest.mark.parametrize("action", range(4, 32))
def test_unknown_service_actions(bench: Bench, action: int) -> None:
    assert bench.field(f"5E {action:02X} 0000000000 0100 00") == (1, 4)
    if action > IGNORE:
        assert bench.field(f"5F {action:02X} 000000 00000018 00", edtl=24) == (1, 4)


# PERSISTENT RESERVE OUT: registering


def test_register_needs_the_key_one_has(bench: Bench) -> None:
    assert out(bench, REGISTER, 5, MINE) == CONFLICT
    assert out(bench, REGISTER, 0, MINE) == Reply()
    assert out(bench, REGISTER, 0, MINE) == CONFLICT
    assert out(bench, REGISTER, MINE, 7) == Reply()
    assert read_keys(bench) == (2, [7])
    assert out(bench, REGISTER, 7, 0) == Reply()
    assert read_keys(bench) == (3, [])


def test_register_and_ignore(bench: Bench) -> None:
    assert out(bench, IGNORE, 0xDEAD, MINE) == Reply()
    assert out(bench, IGNORE, 0xDEAD, 7) == Reply()
    assert read_keys(bench) == (2, [7])


@pytest.mark.parametrize(("flag", "bit"), [(0x08, 3), (0x04, 2), (0x01, 0)])
def test_what_we_cannot_register(bench: Bench, flag: int, bit: int) -> None:
    for action in (REGISTER, IGNORE):
        refusal = out(bench, action, 0, MINE, flags=flag)
        assert isinstance(refusal, Check)
        assert (refusal.sense.asc, refusal.sense.field, refusal.sense.bit) == (0x2600, 20, bit)
    assert read_keys(bench) == (0, [])


def test_registrations_outlive_sessions_and_resets(bench: Bench) -> None:
    register_both(bench)
    out(bench, RESERVE, MINE, kind=Kind.EXCLUSIVE_ACCESS)
    bench.units.detach(bench.nexus)
    bench.units.reset_target()
    bench.run(READY, nexus=bench.other)
    assert bench.run(READ, nexus=bench.other) == CONFLICT
    again = bench.join("iqn.1994-05.com.example:one", b"\x40\0\1\x37\0\0")
    assert bench.run(READ, nexus=again) == Read(0, 512)
    assert out(bench, RELEASE, MINE, kind=Kind.EXCLUSIVE_ACCESS, nexus=again) == Reply()
    assert bench.run(READ, nexus=bench.other) == Read(0, 512)


def test_another_isid_is_another_port(bench: Bench) -> None:
    register_both(bench)
    out(bench, RESERVE, MINE, kind=Kind.EXCLUSIVE_ACCESS)
    stranger = bench.join("iqn.1994-05.com.example:one", b"\x40\0\1\x37\0\x09")
    assert bench.run(READ, nexus=stranger) == CONFLICT


def test_registrations_are_limited(bench: Bench) -> None:
    for number in range(MAX_REGISTRATIONS):
        nexus = bench.join("iqn.x", number.to_bytes(6))
        assert out(bench, REGISTER, 0, 1, nexus=nexus) == Reply()
    refusal = out(bench, REGISTER, 0, 1)
    assert isinstance(refusal, Check)
    assert refusal.sense.asc == Code.INSUFFICIENT_REGISTRATION_RESOURCES
    assert out(bench, REGISTER, 1, 2, nexus=nexus) == Reply()


# PERSISTENT RESERVE OUT: reserving


@pytest.mark.parametrize("action", [RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT])
def test_only_the_registered_with_their_key(bench: Bench, action: int) -> None:
    assert out(bench, action, 0, MINE, kind=1) == CONFLICT
    out(bench, REGISTER, 0, MINE)
    assert out(bench, action, 5, MINE, kind=1) == CONFLICT


@pytest.mark.parametrize("kind", list(Kind))
def test_what_each_type_lets_through(bench: Bench, kind: Kind) -> None:
    register_both(bench)
    stranger = bench.join("iqn.stranger", b"\0\0\0\0\0\1")
    assert out(bench, RESERVE, MINE, kind=kind) == Reply()
    for nexus, free in (
        (bench.nexus, True),
        (bench.other, kind.for_registrants),
        (stranger, False),
    ):
        may_read = free or kind.lets_others_read
        assert bench.run(READY, nexus=nexus) == Reply()
        assert bench.run(READ, nexus=nexus) == (Read(0, 512) if may_read else CONFLICT)
        written = bench.run(WRITE, nexus=nexus, edtl=512)
        assert written == (Write(0, 512) if free else CONFLICT)
        sensed = bench.run("1A 08 0A 00 00 00", nexus=nexus)
        assert sensed == (Reply() if may_read else CONFLICT)
        selected = bench.run("15 10 0000 00 00", nexus=nexus)
        assert selected == (Reply() if free else CONFLICT)
        # A start is no access; a stop and a lock are.
        assert bench.run("1B 00 0000 01 00", nexus=nexus) == Reply()
        assert bench.run("1B 00 0000 04 00", nexus=nexus) == (Reply() if free else CONFLICT)
        assert bench.run("1E 000000 00 00", nexus=nexus) == Reply()
        assert bench.run("1E 000000 01 00", nexus=nexus) == (Reply() if free else CONFLICT)


def test_reserve_and_release(bench: Bench) -> None:
    register_both(bench)
    assert out(bench, RESERVE, MINE, kind=1) == Reply()
    assert out(bench, RESERVE, MINE, kind=1) == Reply()
    assert out(bench, RESERVE, MINE, kind=3) == CONFLICT
    assert out(bench, RESERVE, THEIRS, kind=1, nexus=bench.other) == CONFLICT
    assert out(bench, RELEASE, THEIRS, kind=1, nexus=bench.other) == Reply()
    refusal = out(bench, RELEASE, MINE, kind=3)
    assert isinstance(refusal, Check)
    assert refusal.sense.asc == Code.INVALID_RELEASE_OF_PERSISTENT_RESERVATION
    assert out(bench, RELEASE, MINE, kind=1) == Reply()
    assert out(bench, RESERVE, THEIRS, kind=3, nexus=bench.other) == Reply()


def test_release_tells_the_other_registrants(bench: Bench) -> None:
    register_both(bench)
    out(bench, RESERVE, MINE, kind=Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY)
    out(bench, RELEASE, MINE, kind=Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY)
    assert bench.run(READY) == Reply()
    assert bench.asc(READY, nexus=bench.other) == Code.RESERVATIONS_RELEASED


def test_clear(bench: Bench) -> None:
    register_both(bench)
    out(bench, RESERVE, MINE, kind=Kind.EXCLUSIVE_ACCESS)
    assert out(bench, CLEAR, THEIRS, nexus=bench.other) == Reply()
    assert bench.asc(READY) == Code.RESERVATIONS_PREEMPTED
    assert read_keys(bench) == (3, [])
    assert bench.run(READ, nexus=bench.other) == Read(0, 512)


def test_preempt(bench: Bench) -> None:
    register_both(bench)
    out(bench, RESERVE, MINE, kind=Kind.EXCLUSIVE_ACCESS)
    taken = out(bench, PREEMPT, THEIRS, MINE, kind=Kind.WRITE_EXCLUSIVE, nexus=bench.other)
    assert taken == Reply()
    # A conflict comes before the unit attention, which waits for what is no conflict.
    assert bench.run(WRITE, edtl=512) == CONFLICT
    assert bench.asc(READ) == Code.REGISTRATIONS_PREEMPTED
    assert bench.run(READ) == Read(0, 512)
    assert bench.run(WRITE, nexus=bench.other, edtl=512) == Write(0, 512)


def test_preempt_and_abort_names_the_sessions(bench: Bench) -> None:
    register_both(bench)
    out(bench, RESERVE, MINE, kind=Kind.EXCLUSIVE_ACCESS)
    action = out(bench, PREEMPT_AND_ABORT, THEIRS, MINE, kind=3, nexus=bench.other)
    assert action == Abort((bench.nexus,))
    assert bench.run(READ) == CONFLICT


def test_preempt_refusals(bench: Bench) -> None:
    register_both(bench)
    assert out(bench, PREEMPT, MINE, 0x999, kind=1) == CONFLICT
    refusal = out(bench, PREEMPT, MINE, 0, kind=1)
    assert isinstance(refusal, Check)
    assert (refusal.sense.asc, refusal.sense.field) == (0x2600, 8)


@pytest.mark.parametrize("action", [RESERVE, RELEASE, PREEMPT, PREEMPT_AND_ABORT])
def test_scopes_and_types_we_do_not_have(bench: Bench, action: int) -> None:
    def field(kind: int) -> tuple[int | None, int | None]:
        return bench.field(struct.pack(">BBB2xIB", 0x5F, action, kind, 24, 0), edtl=24)

    assert field(0x11) == (2, 7)
    for kind in (0, 2, 4, 9, 15):
        assert field(kind) == (2, 3)


@pytest.mark.parametrize(("length", "announced"), [(0, 0), (23, 23), (24, 23), (25, 25), (24, 0)])
def test_parameter_lists_of_a_wrong_length(bench: Bench, length: int, announced: int) -> None:
    cdb = struct.pack(">BBB2xIB", 0x5F, 0, 0, length, 0)
    assert bench.asc(cdb, edtl=announced) == Code.PARAMETER_LIST_LENGTH_ERROR


def test_a_parameter_list_that_came_short(bench: Bench) -> None:
    collect = bench.run(struct.pack(">BBB2xIB", 0x5F, 0, 0, 24, 0), edtl=24)
    assert isinstance(collect, Collect)
    short = collect.then(bytes(8))
    assert isinstance(short, Check)
    assert short.sense.asc == Code.PARAMETER_LIST_LENGTH_ERROR


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.integers(0, 7),
            st.integers(0, 2),
            st.integers(0, 2),
            st.integers(0, 9),
        ),
        max_size=20,
    )
)
def test_any_sequence_is_answered(steps: list[tuple[bool, int, int, int, int]]) -> None:
    bench = Bench()
    for mine, action, key, argument, kind in steps:
        nexus = bench.nexus if mine else bench.other
        answer = out(bench, action, key, argument, kind=kind, nexus=nexus)
        assert isinstance(answer, Reply | Check | Abort)
    for nexus in (bench.nexus, bench.other):
        for view in nexus.views.values():
            assert view.ceiling == bench.unit.reservations.ceiling(nexus.port, view)


def test_naca_is_refused(make_bench: Callable[..., Bench]) -> None:
    assert make_bench().field("5E 00 0000000000 0100 04") == (9, 2)
    assert make_bench().field("5F 00 000000 00000018 04", edtl=24) == (9, 2)


# Through power loss (SPC-4 section 5.13.5)

APTPL = 0x01


def capabilities(bench: Bench) -> bytes:
    return bench.data("5E 02 0000000000 0008 00")


def test_what_is_kept_is_told_and_switched_by_the_last_registration(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(remembers=True)
    assert capabilities(bench)[2:4] == b"\x01\x80"  # PTPL_C, TMV
    assert out(bench, REGISTER, 0, MINE, flags=APTPL) == Reply()
    assert capabilities(bench)[2:4] == b"\x01\x81"  # PTPL_A
    assert json.loads(bench.kept[-1])["registrations"] == [[bench.nexus.port, MINE]]
    # Any registration without the bit gives up what was kept of all (SPC-4 section 6.16.3).
    assert out(bench, IGNORE, 0, THEIRS, nexus=bench.other) == Reply()
    assert capabilities(bench)[2:4] == b"\x01\x80"
    assert bench.kept[-1] == b""


def test_every_change_is_kept_and_what_changes_nothing_is_not(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(remembers=True)
    kind = Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY
    steps: list[tuple[Callable[[], Action], int]] = [
        (lambda: out(bench, REGISTER, 0, MINE, flags=APTPL), 1),
        (lambda: out(bench, REGISTER, 0, THEIRS, flags=APTPL, nexus=bench.other), 2),
        (lambda: out(bench, RESERVE, MINE, kind=kind), 3),
        (lambda: out(bench, RESERVE, MINE, kind=kind), 3),
        (lambda: out(bench, RESERVE, THEIRS, kind=1, nexus=bench.other), 3),  # a conflict
        (lambda: out(bench, PREEMPT, THEIRS, MINE, kind=1, nexus=bench.other), 4),
        (lambda: out(bench, RELEASE, THEIRS, kind=1, nexus=bench.other), 5),
        (lambda: out(bench, RELEASE, THEIRS, kind=1, nexus=bench.other), 5),
        (lambda: out(bench, CLEAR, THEIRS, nexus=bench.other), 6),
    ]
    for step, kept in steps:
        step()
        assert len(bench.kept) == kept
    assert decode(bench.kept[-1])[0].keys == {}


def test_what_cannot_be_kept_has_not_happened(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(remembers=True)
    out(bench, REGISTER, 0, MINE, flags=APTPL)
    out(bench, REGISTER, 0, THEIRS, flags=APTPL, nexus=bench.other)
    bench.can_keep = False
    preempt = out(bench, PREEMPT, MINE, THEIRS, kind=1)
    assert isinstance(preempt, Check)
    assert (preempt.sense.key, preempt.sense.asc) == (4, 0x4400)
    assert read_keys(bench) == (2, [MINE, THEIRS])
    assert bench.status(READY, nexus=bench.other) == 0  # and nobody was told that it had


def test_a_unit_that_remembers_nothing_refuses_and_says_so(bench: Bench) -> None:
    assert capabilities(bench)[2:4] == b"\x00\x80"
    refused = out(bench, REGISTER, 0, MINE, flags=APTPL)
    assert isinstance(refused, Check) and (refused.sense.field, refused.sense.bit) == (20, 0)


def test_the_bit_is_of_no_meaning_but_in_a_registration(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(remembers=True)
    out(bench, REGISTER, 0, MINE)
    assert out(bench, RESERVE, MINE, kind=1, flags=APTPL) == Reply()
    assert not bench.kept


def test_changes_are_worked_out_in_their_turn(make_bench: Callable[..., Bench]) -> None:
    """Two registrations under way at once: the second must not undo the first."""
    bench = make_bench(remembers=True)

    def begun(nexus: Nexus, key: int) -> Amend:
        data = struct.pack(">QQ4xBxH", 0, key, APTPL, 0)
        cdb = struct.pack(">BBB2xIB", 0x5F, REGISTER, 0, 24, 0)
        collect = bench.units.execute(nexus, 0, cdb.ljust(16, b"\0"), 24)
        assert isinstance(collect, Collect)
        amend = collect.then(data)
        assert isinstance(amend, Amend)
        return amend

    first, second = begun(bench.nexus, MINE), begun(bench.other, THEIRS)
    assert bench.settle(first) == bench.settle(second) == Reply()
    assert read_keys(bench) == (2, [MINE, THEIRS])
    assert list(decode(bench.kept[-1])[0].keys.values()) == [MINE, THEIRS]


def test_reserve6_waits_for_the_registration_before_it(make_bench: Callable[..., Bench]) -> None:
    """Both at once: whoever is registered could never be rid of a RESERVE(6) again."""
    bench = make_bench(remembers=True)
    cdb = struct.pack(">BBB2xIB", 0x5F, REGISTER, 0, 24, 0).ljust(16, b"\0")
    collect = bench.units.execute(bench.nexus, 0, cdb, 24)
    assert isinstance(collect, Collect)
    register = collect.then(struct.pack(">QQ4xBxH", 0, MINE, APTPL, 0))
    reserve = bench.units.execute(bench.other, 0, bytes.fromhex(RESERVE6).ljust(16, b"\0"))
    assert isinstance(register, Amend) and isinstance(reserve, Amend)
    assert bench.settle(register) == Reply()
    assert bench.settle(reserve) == CONFLICT
    # And the other way round.
    assert out(bench, REGISTER, MINE, 0) == Reply()
    late = collect.then(struct.pack(">QQ4xBxH", 0, MINE, APTPL, 0))
    assert bench.run(RESERVE6, nexus=bench.other) == Reply()
    assert bench.settle(late) == CONFLICT
    assert read_keys_raw(bench) == CONFLICT


def test_reserve6_of_a_session_that_has_ended_holds_nothing(bench: Bench) -> None:
    reserve = bench.units.execute(bench.other, 0, bytes.fromhex(RESERVE6).ljust(16, b"\0"))
    bench.units.detach(bench.other)
    assert bench.settle(reserve) == CONFLICT
    assert bench.unit.reservations.legacy is None


def read_keys_raw(bench: Bench) -> Action:
    return bench.run("5E 00 0000000000 0100 00")


# Unit attentions, and what a preempted nexus loses (SPC-4 section 5.13.11.2)


def test_preempting_to_another_type_tells_the_registrants_that_are_left(bench: Bench) -> None:
    register_both(bench)
    third = bench.join("iqn.1994-05.com.example:three", b"\x40\0\1\x37\0\2")
    out(bench, REGISTER, 0, 0xC3, nexus=third)
    out(bench, RESERVE, MINE, kind=Kind.WRITE_EXCLUSIVE)
    out(bench, PREEMPT, THEIRS, MINE, kind=Kind.EXCLUSIVE_ACCESS, nexus=bench.other)
    assert bench.asc(READY) == Code.REGISTRATIONS_PREEMPTED
    assert bench.asc(READY, nexus=third) == Code.RESERVATIONS_RELEASED
    assert bench.status(READY, nexus=bench.other) == 0


def test_clear_tells_every_registrant_but_him_who_did_it(bench: Bench) -> None:
    register_both(bench)
    stranger = bench.join("iqn.1994-05.com.example:three", b"\x40\0\1\x37\0\2")
    out(bench, CLEAR, MINE)
    assert bench.asc(READY, nexus=bench.other) == Code.RESERVATIONS_PREEMPTED
    assert bench.status(READY) == bench.status(READY, nexus=stranger) == 0


def test_preempt_and_abort_opens_the_door_that_the_preempted_held(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(removable=True)
    register_both(bench)
    assert bench.run("1E 000000 01 00") == Reply()
    assert bench.asc("1B 00 0000 02 00", nexus=bench.other) == Code.MEDIUM_REMOVAL_PREVENTED
    out(bench, PREEMPT, THEIRS, MINE, kind=1, nexus=bench.other)
    assert bench.unit.prevented  # PREEMPT alone does not
    assert bench.asc(READY) == Code.REGISTRATIONS_PREEMPTED
    assert out(bench, IGNORE, 0, MINE) == Reply()
    out(bench, PREEMPT_AND_ABORT, THEIRS, MINE, kind=1, nexus=bench.other)
    assert not bench.unit.prevented
