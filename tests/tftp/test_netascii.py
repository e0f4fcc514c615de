"""netascii against the plain definition, in any order in which blocks may be asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.tftp.netascii import KEEP, Netascii


def plain(data: bytes) -> bytes:
    """RFC 764: CR is followed by LF or NUL."""
    return b"".join({10: b"\r\n", 13: b"\r\0"}.get(byte, bytes([byte])) for byte in data)


def over(data: bytes) -> Netascii:
    return Netascii(lambda offset, length: data[offset : offset + length], len(data))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", b""),
        (b"a\nb", b"a\r\nb"),
        (b"a\r\nb", b"a\r\0\r\nb"),
        (b"\r", b"\r\0"),
        (b"\n\n", b"\r\n\r\n"),
        (b"\0", b"\0"),
    ],
)
def test_line_ends(data: bytes, text: bytes) -> None:
    assert over(data).read(0, 100) == text


@given(st.binary(max_size=300) | st.text("a\r\n", max_size=300).map(str.encode), st.integers(1, 64))
def test_blocks_join_to_the_whole(data: bytes, size: int) -> None:
    reader, text = over(data), plain(data)
    blocks, offset = [], 0
    while True:
        block = reader.read(offset, size)
        assert reader.read(offset, size) == block  # sent again, the same
        blocks.append(block)
        offset += size
        if len(block) < size:
            break
    assert b"".join(blocks) == text


def test_memory_is_bounded_and_a_window_back_still_there() -> None:
    data = b"line\n" * (KEEP // 2)
    reader, text = over(data), plain(data)
    size = 1428
    for offset in range(0, len(text), size):
        assert reader.read(offset, size) == text[offset : offset + size]
        back = max(0, offset - KEEP // 2)
        assert reader.read(back, size) == text[back : back + size]
        assert len(reader._text) < 2 * KEEP
    with pytest.raises(ValueError, match="no longer kept"):
        reader.read(0, size)


def test_a_reader_that_ends_early_is_an_error_not_a_short_file() -> None:
    with pytest.raises(OSError, match="ended"):
        Netascii(lambda _offset, _length: b"", 10).read(0, 5)
