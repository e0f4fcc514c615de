"""SANITIZE: what is asked of the disk, what others meet meanwhile, and after a failure."""

import struct
from collections.abc import Callable

import pytest

from netboot.scsi.action import Check, Reply, Sanitize
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
    assert action.then(True) == Reply()
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
    assert bench.data("03 00 0000 12 00")[12:14] == bytes((0x04, 0x1B))


def test_a_reset_does_not_end_it(bench: Bench) -> None:
    bench.run(ERASE)
    bench.units.reset_target(cold=True)
    assert bench.asc("00 00000000 00") == 0x2900
    assert bench.run("00 00000000 00") == Check(IN_PROGRESS)


def test_a_failure_stays_until_a_sanitize_succeeds(bench: Bench) -> None:
    action = bench.run(ERASE)
    assert isinstance(action, Sanitize) and action.then(False) == Check(FAILED)
    assert bench.run(READ) == Check(FAILED)
    # AUSE was not set: the failure mode has no other way out.
    assert bench.field("48 1F 0000000000 0000 00") == (1, 4)
    again = bench.run(ERASE)
    assert isinstance(again, Sanitize) and again.then(True) == Reply()
    assert bench.status("00 00000000 00") == 0


def test_the_failure_mode_may_be_left_when_that_was_allowed(bench: Bench) -> None:
    action = bench.run("48 22 0000000000 0000 00")
    assert isinstance(action, Sanitize) and action.then(False) == Check(FAILED)
    assert bench.field("48 1F 0000000000 0008 00") == (7, None)
    assert bench.status("48 1F 0000000000 0000 00") == 0
    assert bench.status("00 00000000 00") == 0


def test_leaving_a_failure_mode_that_is_not_there(bench: Bench) -> None:
    assert bench.status("48 1F 0000000000 0000 00") == 0
