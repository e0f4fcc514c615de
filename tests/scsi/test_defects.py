"""READ DEFECT DATA: empty lists, and as much of them as there is room for."""

import pytest

from tests.scsi.conftest import Bench


@pytest.mark.parametrize("asked", ["00", "1D", "18", "05"])
def test_ten_bytes(bench: Bench, asked: str) -> None:
    assert bench.data(f"37 00 {asked} 00000000 0020 00").hex() == f"00{asked.lower()}0000"


@pytest.mark.parametrize("asked", ["00", "1D", "18", "05"])
def test_twelve_bytes(bench: Bench, asked: str) -> None:
    made = bench.data(f"B7 {asked} 00000000 00000020 00 00").hex()
    assert made == f"00{asked.lower()}000000000000"


def test_an_answer_is_cut(bench: Bench) -> None:
    assert bench.data("37 00 1D 00000000 0002 00") == b"\0\x1d"
    assert bench.data("B7 1D 00000000 00000003 00 00") == b"\0\x1d\0"
    assert bench.data("37 00 1D 00000000 0000 00") == b""


def test_a_reserved_bit_is_looked_at_in_neither(bench: Bench) -> None:
    assert bench.data("37 00 E0 00000000 0004 00") == bytes(4)
