"""SANITIZE: everything on the unit is made unreadable, and nothing stops it (SBC-3 5.22).

The work itself is an Action; here are the checks, and what other commands meet meanwhile and
after a failure (SBC-3 section 4.11). No sanitize operation survives the end of the process:
a disk that was being sanitized then is ready again, with some of its blocks as they were.
"""

from netboot.scsi.action import Action, Check, Collect, Reply, Sanitize
from netboot.scsi.cdb import Buffer, be16, invalid_field, invalid_parameter, list_length_error
from netboot.scsi.sense import Code, Key, Sense
from netboot.scsi.unit import View

IN_PROGRESS = Sense(Key.NOT_READY, Code.LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS)
FAILED = Sense(Key.MEDIUM_ERROR, Code.SANITIZE_COMMAND_FAILED)

IMMED, AUSE = 0x80, 0x20
#: Header of OVERWRITE's parameter list: INVERT, TEST and the number of passes; then a length.
INVERT, TEST, PASSES = 0x80, 0x60, 0x1F
HEADER = 4


def _begin(view: View, cdb: Buffer, patterns: tuple[bytes, ...]) -> Action:
    """From now on the unit answers nothing else; ``then`` ends that, however it went."""
    unit, may_exit = view.unit, cdb[1] & AUSE != 0
    unit.bar(IN_PROGRESS)

    def then(done: bool) -> Action:
        unit.may_exit_failure = may_exit
        unit.bar(None if done else FAILED)
        return Reply() if done else Check(FAILED)

    return Sanitize(unit.size, patterns, cdb[1] & IMMED != 0, then)


def overwrite(view: View, cdb: Buffer, edtl: int) -> Action:
    """SANITIZE, OVERWRITE: up to 31 passes of a pattern, at most a block of it."""
    block, length = view.unit.block_size, be16(cdb, 7)
    if not HEADER < length <= HEADER + block or edtl < length:
        return invalid_field(7)
    raw = bytes(cdb)

    def then(data: bytes) -> Action:
        if len(data) < length:
            return list_length_error()
        passes, size = data[0] & PASSES, be16(data, 2)
        if data[0] & TEST:
            return invalid_parameter(0, 6)
        if not passes:
            return invalid_parameter(0, 4)
        if not 0 < size <= block or size != length - HEADER:
            return invalid_parameter(2)
        pattern = (data[HEADER:] * -(-block // size))[:block]
        patterns = [pattern] * passes
        if data[0] & INVERT:
            # Every second pass is the complement of the one before.
            patterns[1::2] = [bytes(byte ^ 0xFF for byte in pattern)] * (passes // 2)
        return _begin(view, raw, tuple(patterns))

    return Collect(length, then)


def erase(view: View, cdb: Buffer, edtl: int) -> Action:
    """SANITIZE, BLOCK ERASE and CRYPTOGRAPHIC ERASE: all blocks are deallocated, and zeros.

    There is no key to throw away, so the second does what the first does; what the file system
    below still has of the bytes is beyond the reach of every initiator.
    """
    return invalid_field(7) if be16(cdb, 7) else _begin(view, cdb, ())


def exit_failure_mode(view: View, cdb: Buffer, edtl: int) -> Action:
    """SANITIZE, EXIT FAILURE MODE: only after an operation that allowed it (AUSE)."""
    unit = view.unit
    if be16(cdb, 7):
        return invalid_field(7)
    if unit.barred is None:
        return Reply()
    if not unit.may_exit_failure:
        return invalid_field(1, 4)
    unit.bar(None)
    return Reply()
