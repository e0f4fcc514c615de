"""SANITIZE: what is asked of the disk, what others meet meanwhile, and after a failure."""

import struct
from collections.abc import Callable

import pytest

from netboot.scsi.action import Amend, Check, Collect, Keep, Read, Reply, Sanitize
from netboot.scsi.commands import COMMANDS, Command
from netboot.scsi.kept import Operation, decode
from netboot.scsi.sanitize import FAILED, IN_PROGRESS
from tests.scsi.conftest import SIZE, Bench

ERASE = "48 02 0000000000 0000 00"
READ = "28 00 00000000 00 0001 00"


def overwrite(bench: Bench, head: int, pattern: bytes, size: int | None = None) -> object:
    length = len(pattern) if size is None else size
    data = struct.pack(">BBH", head, 0, length) + pattern
    cdb = bytes.fromhex("48 01 0000000000") + struct.pack(">HB", len(data), 0)
    return bench.run(cdb, data=data)


@pytest.mark.parametrize("service", ["02", "03"])
def test_an_erase_unmaps_everything(bench: Bench, service: str) -> None:
    action = bench.run(f"48 {service} 0000000000 0000 00")
    assert isinstance(action, Sanitize)
    assert (action.size, action.patterns, action.immediate) == (SIZE, (), False)
    assert bench.settle(action.then(True)) == Reply()
    assert bench.unit.barred is None


def test_an_erase_takes_no_parameters_and_a_thin_unit(make_bench: Callable[..., Bench]) -> None:
    assert make_bench().field("48 02 0000000000 0008 00", edtl=8) == (7, None)
    assert make_bench(thin=False).asc(ERASE) == 0x2000
    assert isinstance(overwrite(make_bench(thin=False), 1, b"abcd"), Sanitize)


def test_overwrite_repeats_its_pattern_to_a_block(bench: Bench) -> None:
    action = overwrite(bench, 1, b"abc")
    assert isinstance(action, Sanitize)
    assert action.patterns == ((b"abc" * 171)[:512],)


def test_overwrite_inverts_every_second_pass(bench: Bench) -> None:
    action = overwrite(bench, 0x80 | 3, b"\x0f" * 512)
    assert isinstance(action, Sanitize)
    assert action.patterns == (b"\x0f" * 512, b"\xf0" * 512, b"\x0f" * 512)
    bench.unit.bar(None)
    plain = overwrite(bench, 31, b"\x0f" * 512)
    assert isinstance(plain, Sanitize) and plain.patterns == (b"\x0f" * 512,) * 31


@pytest.mark.parametrize(
    ("head", "pattern", "size", "at"),
    [
        (0, b"abcd", None, (0, 4)),  # no passes
        (0x21, b"abcd", None, (0, 6)),  # TEST
        (1, b"abcd", 0, (2, None)),
        (1, b"abcd", 3, (2, None)),
        (1, bytes(512), 516, (2, None)),
    ],
)
def test_a_wrong_parameter_list(
    bench: Bench, head: int, pattern: bytes, size: int | None, at: tuple[int, int | None]
) -> None:
    action = overwrite(bench, head, pattern, size)
    assert isinstance(action, Check)
    assert (action.sense.asc, action.sense.field, action.sense.bit) == (0x2600, *at)
    assert bench.unit.barred is None


@pytest.mark.parametrize("length", [0, 1, 4, 517, 65535])
def test_a_wrong_parameter_list_length(bench: Bench, length: int) -> None:
    cdb = bytes.fromhex("48 01 0000000000") + struct.pack(">HB", length, 0)
    assert bench.field(cdb, edtl=65535) == (7, None)


def test_less_data_than_announced(bench: Bench) -> None:
    assert bench.asc("48 01 0000000000 0008 00", data=b"\1\0\0\4", edtl=8) == 0x1A00
    assert bench.field("48 01 0000000000 0008 00", edtl=4) == (7, None)


def test_meanwhile_nothing_is_answered_but_inquiry(bench: Bench) -> None:
    action = bench.run("48 82 0000000000 0000 00")
    assert isinstance(action, Sanitize) and action.immediate
    for cdb in ("00 00000000 00", READ, "1B 01 0000 01 00", "2A" + READ[2:], ERASE):
        assert bench.run(cdb, edtl=512) == Check(IN_PROGRESS)
        assert bench.run(cdb, edtl=512, nexus=bench.other) == Check(IN_PROGRESS)
    assert bench.data("12 00 00 0024 00")[8:15] == b"NETBOOT"
    assert bench.data("03 00 0000 12 00")[2] == 0x02
    assert bench.data("03 00 0000 12 00")[12:18] == bytes((0x04, 0x1B, 0, 0x80, 0, 0))


def test_a_reset_does_not_end_it(bench: Bench) -> None:
    bench.run(ERASE)
    bench.units.reset_target(cold=True)
    assert bench.asc("00 00000000 00") == 0x2900
    assert bench.run("00 00000000 00") == Check(IN_PROGRESS)


def test_a_failure_stays_until_a_sanitize_succeeds(bench: Bench) -> None:
    action = bench.run(ERASE)
    assert isinstance(action, Sanitize) and bench.settle(action.then(False)) == Check(FAILED)
    assert bench.run(READ) == Check(FAILED)
    # AUSE was not set: the failure mode has no other way out.
    assert bench.field("48 1F 0000000000 0000 00") == (1, 4)
    again = bench.run(ERASE)
    assert isinstance(again, Sanitize) and bench.settle(again.then(True)) == Reply()
    assert bench.status("00 00000000 00") == 0


def test_the_failure_mode_may_be_left_when_that_was_allowed(bench: Bench) -> None:
    action = bench.run("48 22 0000000000 0000 00")
    assert isinstance(action, Sanitize) and bench.settle(action.then(False)) == Check(FAILED)
    assert bench.field("48 1F 0000000000 0008 00") == (7, None)
    assert bench.status("48 1F 0000000000 0000 00") == 0
    assert bench.status("00 00000000 00") == 0


def test_leaving_a_failure_mode_that_is_not_there(bench: Bench) -> None:
    assert bench.status("48 1F 0000000000 0000 00") == 0


# What SBC-4 section 4.11 says beyond that


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row.name)
def test_who_is_answered_meanwhile(make_bench: Callable[..., Bench], row: Command) -> None:
    bench = make_bench()
    bench.run(ERASE)
    cdb = bytearray(row.size)
    cdb[0], cdb[1] = row.opcode, row.service_action or 0
    action = bench.run(bytes(cdb), edtl=4096)
    assert (action == Check(IN_PROGRESS)) is not row.calm
    names = {row.name.split("(")[0] for row in COMMANDS if row.calm}
    assert names == {
        *("INQUIRY", "REQUEST SENSE", "MODE SENSE", "READ CAPACITY", "REPORT LUNS"),
        *("REPORT SUPPORTED OPERATION CODES", "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS"),
    }


def test_how_far_it_is_can_be_polled(bench: Bench) -> None:
    action = bench.run("48 82 0000000000 0000 00")
    assert isinstance(action, Sanitize)
    for done, wanted in ((0, 0), (1, 0x4000), (2, 0x8000), (4, 0xFFFF)):
        action.progress(done, 4)
        for cdb in ("03 00 0000 FF 00", "03 01 0000 FF 00"):
            data = bench.data(cdb)
            at = 15 if data[0] == 0x70 else 12
            assert data[at : at + 3] == b"\x80" + struct.pack(">H", wanted)
        assert bench.sense(READ).progress == wanted


def test_the_others_are_ended_with_the_same_words(bench: Bench) -> None:
    action = bench.run(ERASE)
    assert isinstance(action, Sanitize) and action.begins == IN_PROGRESS


def test_an_even_number_of_inverted_passes_begins_with_the_inverted_one(bench: Bench) -> None:
    action = overwrite(bench, 0x80 | 2, b"\x0f" * 512)
    assert isinstance(action, Sanitize)
    assert action.patterns == (b"\xf0" * 512, b"\x0f" * 512)


def test_after_a_restricted_failure_no_operation_may_be_unrestricted(bench: Bench) -> None:
    action = bench.run(ERASE)
    assert isinstance(action, Sanitize)
    bench.settle(action.then(False))
    assert bench.field("48 22 0000000000 0000 00") == (1, 5)
    refused = bench.field(bytes.fromhex("48 21 0000000000 0008 00"), edtl=8)
    assert refused == (1, 5)
    # After one that was allowed to end so, either may come.
    again = bench.run(ERASE)
    assert isinstance(again, Sanitize)
    bench.settle(again.then(True))
    unrestricted = bench.run("48 22 0000000000 0000 00")
    assert isinstance(unrestricted, Sanitize)
    bench.settle(unrestricted.then(False))
    assert isinstance(bench.run("48 22 0000000000 0000 00"), Sanitize)


def test_a_write_protected_unit_refuses(make_bench: Callable[..., Bench]) -> None:
    assert make_bench(read_only=True).asc(ERASE) == 0x2700


def test_two_that_bring_their_parameters_at_once(bench: Bench) -> None:
    """Both were decoded while nothing was under way: the second meets the first."""
    data = struct.pack(">BBH", 1, 0, 4) + b"abcd"
    cdb = bytes.fromhex("48 01 0000000000 0008 00").ljust(16, b"\0")
    first = bench.units.execute(bench.nexus, 0, cdb, 8)
    second = bench.units.execute(bench.other, 0, cdb, 8)
    assert isinstance(first, Collect) and isinstance(second, Collect)
    assert isinstance(bench.settle(first.then(data)), Sanitize)
    assert second.then(data) == Check(IN_PROGRESS)


# It outlives everything (``kept``)


def test_it_is_kept_before_it_begins_and_forgotten_before_the_unit_is_ready(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(remembers=True)
    collected = bench.run("48 A2 0000000000 0000 00")
    assert isinstance(collected, Sanitize)
    (kept,) = bench.kept
    assert decode(kept)[1] == Operation(0, ause=True)
    over = collected.then(True)
    assert isinstance(over, Amend)
    forgetting = over.change()
    assert isinstance(forgetting, Keep) and forgetting.content == b""
    assert bench.run(READ) == Check(IN_PROGRESS)
    assert forgetting.then(True) == Reply()
    assert bench.run(READ) == Read(0, 512)


def test_what_cannot_be_kept_does_not_begin(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(remembers=True)
    bench.can_keep = False
    assert bench.asc(ERASE) == 0x4400
    assert bench.run(READ) == Read(0, 512)


def test_what_cannot_be_forgotten_has_failed(make_bench: Callable[..., Bench]) -> None:
    """Ready with the operation still kept: the next power cut would destroy what is new."""
    bench = make_bench(remembers=True)
    action = bench.run("48 22 0000000000 0000 00")
    assert isinstance(action, Sanitize)
    bench.can_keep = False
    assert bench.settle(action.then(True)) == Check(FAILED)
    assert bench.run(READ) == Check(FAILED)
    assert bench.asc("48 1F 0000000000 0000 00") == 0x4400
    assert bench.run(READ) == Check(FAILED)
    bench.can_keep = True
    assert bench.status("48 1F 0000000000 0000 00") == 0
    assert bench.run(READ) == Read(0, 512)


def test_reservations_are_kept_beside_it(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(remembers=True)
    data = struct.pack(">QQ4xBxH", 0, 0xA1, 1, 0)
    assert bench.run(struct.pack(">BBB2xIB", 0x5F, 0, 0, 24, 0), data=data) == Reply()
    action = bench.run(ERASE)
    assert isinstance(action, Sanitize)
    reservations, operation = decode(bench.kept[-1])
    assert list(reservations.keys.values()) == [0xA1] and operation == Operation(0)
    bench.settle(action.then(True))
    assert list(decode(bench.kept[-1])[0].keys.values()) == [0xA1]
