"""Sense data byte by byte, in both formats."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.scsi.sense import (
    READ_FAULTS,
    WRITE_FAULTS,
    Code,
    Key,
    Sense,
    for_fault,
    miscompare,
)
from netboot.storage.disk import Fault


def test_fixed_format() -> None:
    sense = Sense(Key.ILLEGAL_REQUEST, Code.INVALID_COMMAND_OPERATION_CODE)
    assert sense.fixed() == bytes.fromhex("70 00 05 00000000 0A 00000000 2000 00 000000")


def test_fixed_format_points_at_a_bit_of_the_cdb() -> None:
    sense = Sense(Key.ILLEGAL_REQUEST, Code.INVALID_FIELD_IN_CDB, field=1, bit=7)
    # SKSV, C/D (the CDB), BPV and bit 7; byte 1.
    assert sense.fixed() == bytes.fromhex("70 00 05 00000000 0A 00000000 2400 00 CF0001")


def test_fixed_format_points_into_the_parameter_list() -> None:
    code = Code.INVALID_FIELD_IN_PARAMETER_LIST
    sense = Sense(Key.ILLEGAL_REQUEST, code, field=0x123, in_data=True)
    assert sense.fixed() == bytes.fromhex("70 00 05 00000000 0A 00000000 2600 00 800123")


def test_fixed_format_holds_information() -> None:
    assert miscompare(0x1234).fixed() == bytes.fromhex(
        "F0 00 0E 00001234 0A 00000000 1D00 00 000000"
    )


def test_information_zero_is_valid_information() -> None:
    assert miscompare(0).fixed()[:7] == bytes.fromhex("F0000E00000000")
    assert miscompare(0).descriptor()[8:] == bytes.fromhex("000A80000000000000000000")


def test_information_that_does_not_fit_is_not_told_in_fixed_format() -> None:
    sense = miscompare(1 << 32)
    assert sense.fixed() == bytes.fromhex("70 00 0E 00000000 0A 00000000 1D00 00 000000")
    assert sense.descriptor() == bytes.fromhex("72 0E 1D00 000000 0C 000A8000 0000000100000000")


def test_descriptor_format() -> None:
    sense = Sense(Key.UNIT_ATTENTION, Code.CAPACITY_DATA_HAS_CHANGED)
    assert sense.descriptor() == bytes.fromhex("72 06 2A09 000000 00")


def test_descriptor_format_with_everything() -> None:
    sense = Sense(Key.ILLEGAL_REQUEST, Code.INVALID_FIELD_IN_CDB, information=5, field=2, bit=0)
    assert sense.descriptor() == bytes.fromhex(
        "72 05 2400 000000 14 000A8000 0000000000000005 02060000 C8000200"
    )


@pytest.mark.parametrize(
    ("fault", "writing", "key", "asc"),
    [
        ("medium", False, 0x3, 0x1100),
        ("medium", True, 0x3, 0x0C00),
        ("space", True, 0x7, 0x2707),
        ("failed", False, 0x4, 0x4400),
        ("failed", True, 0x4, 0x4400),
        ("read-only", True, 0x7, 0x2700),
        ("something new", True, 0x4, 0x4400),
    ],
)
def test_what_a_storage_fault_becomes(fault: str, writing: bool, key: int, asc: int) -> None:
    sense = for_fault(fault, writing=writing)
    assert (sense.key, sense.asc) == (key, asc)


def test_every_fault_of_the_storage_has_its_rows() -> None:
    words = {fault.value for fault in Fault}
    assert set(READ_FAULTS) == words
    assert set(WRITE_FAULTS) == words


@given(
    st.sampled_from(Key),
    st.integers(0, 0xFFFF),
    st.none() | st.integers(0, (1 << 64) - 1),
    st.none() | st.integers(0, 0xFFFF),
    st.booleans(),
    st.none() | st.integers(0, 7),
)
def test_any_sense_has_both_formats(
    key: Key,
    asc: int,
    information: int | None,
    field: int | None,
    in_data: bool,
    bit: int | None,
) -> None:
    sense = Sense(key, asc, information, field, in_data, bit)
    fixed, descriptor = sense.fixed(), sense.descriptor()
    assert len(fixed) == 18
    assert fixed[2] == descriptor[1] == key
    assert int.from_bytes(fixed[12:14]) == int.from_bytes(descriptor[2:4]) == asc
    assert descriptor[7] == len(descriptor) - 8
