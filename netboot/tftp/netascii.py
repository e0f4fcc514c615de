"""netascii, the text mode of TFTP (RFC 1350 section 1, after RFC 764): LF → CR LF, CR → CR NUL.

The converted length is not known beforehand and old blocks may have to be sent again, so a
``Netascii`` converts forward piece by piece and keeps what lies up to ``KEEP`` bytes behind.
It holds no more than that in memory, whatever the size of the file.
"""

from collections.abc import Callable

Read = Callable[[int, int], bytes | memoryview]

#: Converted bytes kept for retransmission: more than the largest window that is ever granted.
KEEP = 256 * 1024
_PIECE = 16 * 1024


class Netascii:
    """A reader over the converted text of a file of ``size`` bytes that ``read`` reads."""

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self._left = size
        self._position = 0  # of the next byte to convert, in the file
        self._start = 0  # of ``_text``, in the converted stream
        self._text = bytearray()

    def read(self, offset: int, length: int) -> bytes:
        """Converted bytes; fewer than ``length`` only at the end.

        ``ValueError`` for an offset further back than ``KEEP``: no engine asks for that.
        """
        if offset < self._start:
            raise ValueError(f"netascii offset {offset} is no longer kept")
        while self._left and self._start + len(self._text) < offset + length:
            piece = bytes(self._read(self._position, min(_PIECE, self._left)))
            if not piece:  # the reader broke its promise; better an error than a short file
                raise OSError("the file ended before its size")
            self._position += len(piece)
            self._left -= len(piece)
            self._text += piece.replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")
        first = offset - self._start
        answer = bytes(self._text[first : first + length])
        surplus = first - KEEP
        if surplus > 0:
            del self._text[:surplus]
            self._start += surplus
        return answer
