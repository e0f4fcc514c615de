"""CRC32C (Castagnoli), the digest of iSCSI (RFC 7143 section 13.1).

The polynomial work is the ``crc32c`` package's; this module only fixes the byte order, which
RFC 7143 gives as least significant byte first.
"""

import struct
from collections.abc import Iterable

import crc32c as _crc32c

_DIGEST = struct.Struct("<I")


def crc32c(parts: Iterable[bytes | bytearray | memoryview]) -> int:
    """CRC32C over the concatenation of ``parts``, as an unsigned 32-bit number."""
    value = 0
    for part in parts:
        value = _crc32c.crc32c(part, value)
    return value


def digest(parts: Iterable[bytes | bytearray | memoryview]) -> bytes:
    """The four digest bytes that follow ``parts`` on the wire."""
    return _DIGEST.pack(crc32c(parts))
