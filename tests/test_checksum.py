"""CRC32C against the vectors of RFC 7143 appendix A.4."""

import pytest

from netboot.checksum import crc32c, digest


@pytest.mark.parametrize(
    ("data", "wire"),
    [
        (bytes(32), "aa36918a"),
        (b"\xff" * 32, "43aba862"),
        (bytes(range(32)), "4e79dd46"),
        (bytes(range(31, -1, -1)), "5cdb3f11"),
        (
            bytes.fromhex(
                "01c00000000000000000000000000000140000000000040000000014000000182800000000000000"
                "0200000000000000"
            ),
            "563a96d9",
        ),
    ],
)
def test_the_standards_own_examples(data: bytes, wire: str) -> None:
    assert digest([data]).hex() == wire


def test_parts_count_as_their_concatenation() -> None:
    whole = bytes(range(200))
    assert crc32c([whole[:7], bytearray(whole[7:100]), memoryview(whole)[100:]]) == crc32c([whole])
