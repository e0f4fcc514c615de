"""SANITIZE: everything on the unit is made unreadable, and nothing stops it (SBC-3 5.22).

The work itself is an Action; here are the checks, and what other commands meet meanwhile and
after a failure (SBC-4 section 4.11). That it is under way, or has failed, is kept before a byte
is touched and forgotten before the unit is ready again: so a power cut in between is no way
out, and the operation begins anew when the unit is there again (``resumed``).
"""

from collections.abc import Callable
from dataclasses import replace

from netboot.scsi.action import Action, Amend, Check, Collect, Keep, Reply, Sanitize
from netboot.scsi.cdb import (
    Buffer,
    be16,
    invalid_field,
    invalid_parameter,
    list_length_error,
    refuse,
)
from netboot.scsi.kept import Operation
from netboot.scsi.sense import Code, Key, Sense
from netboot.scsi.unit import Unit, View

IN_PROGRESS = Sense(Key.NOT_READY, Code.LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS, progress=0)
FAILED = Sense(Key.MEDIUM_ERROR, Code.SANITIZE_COMMAND_FAILED)

IMMED, AUSE = 0x80, 0x20
#: Header of OVERWRITE's parameter list: INVERT, TEST and the number of passes; then a length.
INVERT, TEST, PASSES = 0x80, 0x60, 0x1F
HEADER = 4


def _refused(unit: Unit, cdb: Buffer) -> Check | None:
    """After a failure that had no AUSE, no operation may have it (SBC-4 section 5.30.1)."""
    before = unit.sanitizing
    if before is not None and before.failed and not before.ause and cdb[1] & AUSE:
        return invalid_field(1, 5)
    return None


def _begin(unit: Unit, operation: Operation, *, immediate: bool) -> Action:
    """From now on the unit answers nothing else; what follows ends that, however it went."""
    before = unit.sanitizing, unit.barred
    unit.sanitizing = operation
    unit.bar(IN_PROGRESS)

    def change() -> Action:
        return _kept(unit, kept)

    def kept(done: bool) -> Action:
        if not done:  # nothing was touched, so all is as it was
            unit.sanitizing = before[0]
            unit.bar(before[1])
            return _not_kept()
        return _work(unit, operation, immediate=immediate)

    return Amend(change)


def _kept(unit: Unit, then: Callable[[bool], Action]) -> Action:
    return Keep(unit.worth_keeping(), then) if unit.remembers else then(True)


def _not_kept() -> Check:
    return refuse(Key.HARDWARE_ERROR, Code.INTERNAL_TARGET_FAILURE)


def _work(unit: Unit, operation: Operation, *, immediate: bool) -> Sanitize:
    def progress(done: int, of: int) -> None:
        unit.barred = replace(IN_PROGRESS, progress=min(0xFFFF, (done << 16) // max(1, of)))

    def then(done: bool) -> Action:
        return Amend(lambda: _over(unit, operation, done=done))

    return Sanitize(unit.size, operation.patterns, immediate, then, progress, IN_PROGRESS)


def _over(unit: Unit, operation: Operation, *, done: bool) -> Action:
    """The work has ended: first that is kept, then the unit is ready, or failed."""
    if done:
        unit.sanitizing = None
    else:
        operation.failed = True

    def kept(safe: bool) -> Action:
        if done and safe:
            unit.bar(None)
            return Reply()
        # Were it ready while a power cut still brought the operation back, that would destroy
        # what was written meanwhile.
        operation.failed = True
        unit.sanitizing = operation
        unit.bar(FAILED)
        return Check(FAILED)

    return _kept(unit, kept)


def resumed(unit: Unit) -> Action | None:
    """The unit is there again: bar it, and what is to be done, if an operation was under way."""
    operation = unit.sanitizing
    if operation is None:
        return None
    if operation.failed:
        unit.bar(FAILED)
        return None
    unit.bar(IN_PROGRESS)
    return _work(unit, operation, immediate=False)


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
        if view.unit.barred is not None and view.unit.barred is not FAILED:
            return Check(view.unit.barred)  # another was faster with its parameters
        pattern = (data[HEADER:] * -(-block // size))[:block]
        operation = Operation(passes, pattern, data[0] & INVERT != 0, raw[1] & AUSE != 0)
        return _begin(view.unit, operation, immediate=raw[1] & IMMED != 0)

    return _refused(view.unit, cdb) or Collect(length, then)


def erase(view: View, cdb: Buffer, edtl: int) -> Action:
    """SANITIZE, BLOCK ERASE and CRYPTOGRAPHIC ERASE: all blocks are deallocated, and zeros.

    There is no key to throw away, so the second does what the first does; what the file system
    below still has of the bytes is beyond the reach of every initiator.
    """
    if be16(cdb, 7):
        return invalid_field(7)
    operation = Operation(0, ause=cdb[1] & AUSE != 0)
    return _refused(view.unit, cdb) or _begin(view.unit, operation, immediate=cdb[1] & IMMED != 0)


def exit_failure_mode(view: View, cdb: Buffer, edtl: int) -> Action:
    """SANITIZE, EXIT FAILURE MODE: only after an operation that allowed it (AUSE)."""
    unit = view.unit
    if be16(cdb, 7):
        return invalid_field(7)
    operation = unit.sanitizing
    if operation is None:
        return Reply()
    if not operation.ause:
        return invalid_field(1, 4)

    def change() -> Action:
        if unit.sanitizing is not operation:
            return Check(unit.barred) if unit.barred else Reply()  # another was faster
        unit.sanitizing = None
        return _kept(unit, kept)

    def kept(safe: bool) -> Action:
        if not safe:
            unit.sanitizing = operation
            return _not_kept()
        unit.bar(None)
        return Reply()

    return Amend(change)
