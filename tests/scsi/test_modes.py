"""MODE SENSE byte by byte; MODE SELECT as a whole or not at all."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.scsi.action import Check, Collect, Flush, Reply
from netboot.scsi.modes import PAGES, Page
from netboot.scsi.sense import Code
from netboot.scsi.unit import KNOBS
from tests.scsi.conftest import Bench

CACHING = "08 12 04 00" + "00" * 16
CONTROL = "0A 0A 02 10 00 00 00 00 00 00 00 00"
EXCEPTIONS = "1C 0A 08 00 00 00 00 00 00 00 00 00"
#: Number of blocks of 64 MiB, and 512 bytes each.
BLOCK_DESCRIPTOR = "00020000 00 000200"
HEAD6, HEAD10 = "00 00 00 00", "0000 00 00 00 00 0000"


def select6(body: str, flags: int = 0x10) -> tuple[bytes, bytes]:
    """CDB and parameter list of MODE SELECT(6)."""
    data = bytes.fromhex(body)
    return bytes((0x15, flags, 0, 0, len(data), 0)), data


def select10(body: str) -> tuple[bytes, bytes]:
    data = bytes.fromhex(body)
    return bytes((0x55, 0x10, 0, 0, 0, 0, 0, 0, len(data), 0)), data


# MODE SENSE


def test_caching_page(bench: Bench) -> None:
    data = bench.data("1A 00 08 00 FF 00")
    # DPOFUA; a block descriptor of 8 bytes.
    assert data == bytes.fromhex("1F 00 10 08" + BLOCK_DESCRIPTOR + CACHING)
    assert data[0] == len(data) - 1


def test_without_block_descriptor(bench: Bench) -> None:
    assert bench.data("1A 08 08 00 FF 00") == bytes.fromhex("17 00 10 00" + CACHING)


def test_control_page(bench: Bench) -> None:
    assert bench.data("1A 08 0A 00 FF 00") == bytes.fromhex("0F 00 10 00" + CONTROL)


def test_informational_exceptions_page(bench: Bench) -> None:
    assert bench.data("1A 08 1C 00 FF 00") == bytes.fromhex("0F 00 10 00" + EXCEPTIONS)


@pytest.mark.parametrize("subpage", ["00", "FF"])
def test_all_pages(bench: Bench, subpage: str) -> None:
    pages = CACHING + CONTROL + EXCEPTIONS
    assert bench.data(f"1A 08 3F {subpage} FF 00") == bytes.fromhex("2F 00 10 00" + pages)


def test_ten_byte_form(bench: Bench) -> None:
    data = bench.data("5A 00 08 00 000000 00FF 00")
    assert data == bytes.fromhex("0022 00 10 00 00 0008" + BLOCK_DESCRIPTOR + CACHING)
    assert int.from_bytes(data[:2]) == len(data) - 2


def test_long_block_descriptor(bench: Bench) -> None:
    data = bench.data("5A 10 0A 00 000000 00FF 00")
    assert data == bytes.fromhex(
        "0022 00 10 01 00 0010 0000000000020000 00000000 00000200" + CONTROL
    )


def test_more_blocks_than_the_short_descriptor_counts(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(size=3 << 40)
    assert bench.data("1A 00 0A 00 FF 00")[4:12] == bytes.fromhex("FFFFFFFF 00 000200")
    assert bench.data("5A 10 0A 00 000000 00FF 00")[8:16] == bytes.fromhex("0000000180000000")


@pytest.mark.parametrize("room", [0, 1, 4, 12, 31, 32, 255])
def test_data_is_cut(bench: Bench, room: int) -> None:
    whole = bench.data("1A 00 08 00 FF 00")
    assert bench.data(bytes((0x1A, 0, 8, 0, room, 0))) == whole[:room]


def test_write_protection_shows(make_bench: Callable[..., Bench]) -> None:
    assert make_bench(read_only=True).data("1A 08 0A 00 FF 00")[2] == 0x90


def test_changeable_values(bench: Bench) -> None:
    assert bench.data("1A 08 7F 00 FF 00")[4:] == bytes.fromhex(
        "08 12 04 00" + "00" * 16 + "0A 0A 04 00 08 00 00 00 00 00 00 00" + "1C 0A" + "00" * 10
    )


def test_default_values_stay_what_they_were(bench: Bench) -> None:
    before = bench.data("1A 08 BF 00 FF 00")
    assert before[4:] == bytes.fromhex(CACHING + CONTROL + EXCEPTIONS)
    bench.unit.turn(dict.fromkeys(KNOBS, True))
    bench.unit.turn({"write_cache": False})
    assert bench.data("1A 08 BF 00 FF 00")[4:] == before[4:]


def test_mode_sense_refusals(bench: Bench) -> None:
    assert bench.asc("1A 08 C8 00 FF 00") == Code.SAVING_PARAMETERS_NOT_SUPPORTED
    assert bench.field("1A 08 05 00 FF 00") == (2, 5)
    assert bench.field("1A 08 08 01 FF 00") == (3, None)
    assert bench.field("5A 08 3F 02 000000 00FF 00") == (3, None)


def test_pages_are_in_rising_order_and_as_long_as_they_say() -> None:
    assert [page.code for page in PAGES] == sorted(page.code for page in PAGES)
    for page in PAGES:
        assert len(page.body) == page.body[1] + 2
        for knob in page.knobs:
            assert knob.attribute in KNOBS
            assert not page.body[knob.byte] >> knob.bit & 1


def test_every_knob_is_on_exactly_one_page() -> None:
    assert sorted(knob.attribute for page in PAGES for knob in page.knobs) == sorted(KNOBS)


# MODE SELECT


def test_the_write_cache_is_switched_off(bench: Bench) -> None:
    cdb, data = select6(HEAD6 + "08 12 00 00" + "00" * 16)
    # What the cache still had is written before that is answered.
    assert bench.run(cdb, data=data) == Flush()
    assert not bench.unit.write_cache
    assert bench.run(cdb, data=data) == Reply()
    assert bench.data("1A 08 08 00 FF 00")[6] == 0
    assert bench.asc("00 00000000 00", nexus=bench.other) == Code.MODE_PARAMETERS_CHANGED
    assert bench.status("00 00000000 00") == 0


def test_nobody_is_told_when_nothing_changed(bench: Bench) -> None:
    cdb, data = select6(HEAD6 + CACHING)
    assert bench.run(cdb, data=data) == Reply()
    assert bench.status("00 00000000 00", nexus=bench.other) == 0


def test_what_was_sensed_can_be_selected(bench: Bench) -> None:
    """Initiators echo a page with PS and the header as they got them."""
    sensed = bytearray(bench.data("1A 00 3F 00 FF 00"))
    sensed[12] |= 0x80
    cdb = bytes((0x15, 0x10, 0, 0, len(sensed), 0))
    assert bench.run(cdb, data=bytes(sensed)) == Reply()
    sensed10 = bench.data("5A 10 3F 00 000000 00FF 00")
    cdb = bytes((0x55, 0x10, 0, 0, 0, 0, 0, 0, len(sensed10), 0))
    assert bench.run(cdb, data=sensed10) == Reply()


def test_software_write_protection(bench: Bench) -> None:
    cdb, data = select10(HEAD10 + "0A 0A 02 10 08 00 00 00 00 00 00 00")
    assert bench.run(cdb, data=data) == Reply()
    assert bench.data("1A 08 0A 00 FF 00")[2] == 0x90
    assert bench.asc("2A 00 00000000 00 0001 00", edtl=512) == 0x2702
    cdb, data = select10(HEAD10 + CONTROL)
    assert bench.run(cdb, data=data) == Reply()
    assert not bench.unit.protected


def test_descriptor_sense(bench: Bench) -> None:
    cdb, data = select6(HEAD6 + "0A 0A 06 10 00 00 00 00 00 00 00 00")
    assert bench.run(cdb, data=data) == Reply()
    sense = bench.sense("FF 00 00 00 00 00")
    assert bench.units.sense_bytes(0, sense) == bytes.fromhex("72 05 2000 000000 00")
    bench.unit.reset()
    assert bench.units.sense_bytes(0, sense)[0] == 0x70


def test_several_pages_at_once(bench: Bench) -> None:
    body = HEAD6 + "08 12 00 00" + "00" * 16 + "0A 0A 06 10 00 00 00 00 00 00 00 00"
    cdb, data = select6(body)
    assert bench.run(cdb, data=data) == Flush()
    assert not bench.unit.write_cache
    assert bench.unit.descriptor_sense


def test_nothing_takes_effect_when_a_later_page_is_wrong(bench: Bench) -> None:
    body = HEAD6 + "08 12 00 00" + "00" * 16 + "0A 0A 02 F0 00 00 00 00 00 00 00 00"
    cdb, data = select6(body)
    assert bench.parameter(cdb, data=data) == (4 + 20 + 3, 7)
    assert bench.unit.write_cache


def test_no_parameter_list_is_no_error(bench: Bench) -> None:
    assert bench.run("15 10 0000 00 00") == Reply()
    assert bench.run("55 10 0000000000 0000 00") == Reply()


@pytest.mark.parametrize(
    ("body", "byte", "bit"),
    [
        (HEAD6 + "05 0A" + "00" * 10, 4, 5),  # no such page
        (HEAD6 + "48 12" + "00" * 18, 4, 6),  # subpage format
        (HEAD6 + "08 11 04" + "00" * 16, 5, None),  # wrong page length
        (HEAD6 + "08 12 05" + "00" * 17, 6, 0),  # RCD cannot be changed
        (HEAD6 + "1C 0A 00" + "00" * 9, 6, 3),
        ("00 00 00 04" + "00" * 4, 3, None),  # half a block descriptor
        ("00 00 00 08" + "00000001 00 000200", 4, None),  # another number of blocks
        ("00 00 00 08" + "00000000 00 001000", 9, None),  # another block size
    ],
)
def test_wrong_fields(bench: Bench, body: str, byte: int, bit: int | None) -> None:
    cdb, data = select6(body)
    assert bench.parameter(cdb, data=data) == (byte, bit)


def test_wrong_fields_of_the_long_descriptor(bench: Bench) -> None:
    head = "0000 00 00 01 00 0010"
    cdb, data = select10(head + "0000000000000001 00000000 00000200")
    assert bench.parameter(cdb, data=data) == (8, None)
    cdb, data = select10(head + "0000000000020000 00000000 00000000")
    assert bench.parameter(cdb, data=data) == (20, None)
    cdb, data = select10("0000 00 00 00 00 0010" + "00" * 16)
    assert bench.parameter(cdb, data=data) == (6, None)


@pytest.mark.parametrize(
    "body",
    [
        "00 00 00",  # no whole header
        "00 00 00 08 00020000",  # no whole descriptor
        HEAD6 + "08",  # no whole page header
        HEAD6 + "08 12 04 00",  # no whole page
    ],
)
def test_lists_that_end_too_soon(bench: Bench, body: str) -> None:
    cdb, data = select6(body)
    assert bench.asc(cdb, data=data) == Code.PARAMETER_LIST_LENGTH_ERROR


def test_mode_select_cdb_refusals(bench: Bench) -> None:
    assert bench.field(*select6(HEAD6, 0x00)[:1], edtl=4) == (1, 4)  # not the page format
    assert bench.field(*select6(HEAD6, 0x11)[:1], edtl=4) == (1, 0)  # save pages
    assert bench.field("15 10 0000 0C 00", edtl=8) == (4, None)
    assert bench.field("55 10 0000000000 000C 00", edtl=8) == (7, None)


@given(st.binary(max_size=64), st.sampled_from([0x15, 0x55]))
def test_any_parameter_list_is_answered(data: bytes, opcode: int) -> None:
    bench = Bench()
    if opcode == 0x15:
        cdb = bytes((0x15, 0x10, 0, 0, len(data), 0))
    else:
        cdb = bytes((0x55, 0x10, 0, 0, 0, 0, 0, 0, len(data), 0))
    action = bench.run(cdb, data=data)
    assert not isinstance(action, Collect)
    if isinstance(action, Check):
        assert {name: getattr(bench.unit, name) for name in KNOBS} == KNOBS


# The changeable masks are the truth


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.parametrize("ten", [False, True])
def test_every_bit_is_changeable_as_the_mask_says(page: Page, ten: bool) -> None:
    """MODE SENSE with PC 01b against MODE SELECT, bit by bit; SPC-4 section 6.11."""
    start = 8 if ten else 4
    for index in range(2, len(page.body)):
        for bit in range(8):
            bench = Bench()
            mask = bench.data(bytes((0x1A, 8, 0x40 | page.code, 0, 255, 0)))[4:]
            sensed = bench.data(bytes((0x1A, 8, page.code, 0, 255, 0)))[4:]
            assert len(mask) == len(sensed) == len(page.body)
            wanted = bytearray(sensed)
            wanted[index] ^= 1 << bit
            cdb = bytes((0x55, 0x10, *bytes(6), start + len(wanted), 0))
            if not ten:
                cdb = bytes((0x15, 0x10, 0, 0, start + len(wanted), 0))
            data = bytes(start) + bytes(wanted)
            if mask[index] >> bit & 1:
                assert isinstance(bench.run(cdb, data=data), Reply | Flush)
                now = bench.data(bytes((0x1A, 8, page.code, 0, 255, 0)))[4:]
                assert now == wanted
                assert bench.asc("00 00000000 00", nexus=bench.other) == 0x2A01
                assert bench.status("00 00000000 00") == 0
            else:
                assert bench.parameter(cdb, data=data) == (start + index, bit)
                assert bench.status("00 00000000 00", nexus=bench.other) == 0
            default = bench.data(bytes((0x1A, 8, 0x80 | page.code, 0, 255, 0)))[4:]
            assert default == sensed


def test_every_page_can_be_asked_for_in_every_way() -> None:
    """Each page control, each form; no page is savable, and says so (PS is 0)."""
    bench = Bench()
    for page in PAGES:
        for control in range(3):
            code = control << 6 | page.code
            six = bench.data(bytes((0x1A, 8, code, 0, 255, 0)))[4:]
            ten = bench.data(bytes((0x5A, 8, code, 0, *bytes(3), 0, 255, 0)))[8:]
            assert six == ten and six[0] & 0x80 == 0
        assert bench.asc(bytes((0x1A, 8, 0xC0 | page.code, 0, 255, 0))) == 0x3900
    assert bench.field("15 11 0000 04 00", edtl=4) == (1, 0)  # SP


def test_a_reset_puts_every_knob_back_and_the_others_learn_of_the_reset(bench: Bench) -> None:
    cdb, data = select6(HEAD6 + "0A 0A 06 10 08 00 00 00 00 00 00 00")
    bench.run(cdb, data=data)
    bench.units.reset_unit(0)
    assert bench.asc("00 00000000 00", nexus=bench.other) == 0x2903
    assert bench.status("00 00000000 00", nexus=bench.other) == 0  # which made the change moot
    assert bench.asc("00 00000000 00") == 0x2903
    assert bench.data("1A 08 0A 00 FF 00")[6:9] == bytes.fromhex("02 10 00")
