"""RESERVE(6), RELEASE(6) and PERSISTENT RESERVE IN and OUT: the CDBs of ``reservations``.

SPC-4 sections 6.15, 6.16 and SPC-2 5.5.1. Not offered, and said so in REPORT CAPABILITIES: other
target ports (ATP_C), naming other initiators (SIP_C), surviving a power loss (PTPL_C).
"""

import struct

from netboot.scsi.action import Abort, Action, Collect, Reply, Status
from netboot.scsi.cdb import Buffer, be16, be32, cut, invalid_field, invalid_parameter, refuse
from netboot.scsi.reservations import MAX_REGISTRATIONS, Kind
from netboot.scsi.sense import Code, Key
from netboot.scsi.unit import View

CONFLICT = Status.RESERVATION_CONFLICT
REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE = range(7)
#: Parameter list of PERSISTENT RESERVE OUT (SPC-4 section 6.16.3).
PARAMETERS = struct.Struct(">QQ4xBxH")
SPEC_I_PT, ALL_TG_PT, APTPL = 0x08, 0x04, 0x01
KINDS = {int(kind): kind for kind in Kind}


def reserve6(view: View, cdb: Buffer, edtl: int) -> Action:
    """RESERVE(6): a conflict as soon as anyone is registered; whoever has it may repeat it."""
    state = view.unit.reservations
    if state.keys:
        return Reply(status=CONFLICT)
    state.legacy = view
    view.unit.refresh()
    return Reply()


def release6(view: View, cdb: Buffer, edtl: int) -> Action:
    """RELEASE(6): nothing happens when somebody else has the reservation."""
    state = view.unit.reservations
    if state.keys:
        return Reply(status=CONFLICT)
    if state.legacy is view:
        state.legacy = None
        view.unit.refresh()
    return Reply()


def _generation_and(view: View, rows: bytes) -> bytes:
    return struct.pack(">II", view.unit.reservations.generation, len(rows)) + rows


def read_keys(view: View, cdb: Buffer, edtl: int) -> Action:
    """PERSISTENT RESERVE IN, READ KEYS."""
    state = view.unit.reservations
    if state.legacy is not None:
        return Reply(status=CONFLICT)
    rows = b"".join(struct.pack(">Q", key) for key in state.keys.values())
    return cut(_generation_and(view, rows), be16(cdb, 7))


def read_reservation(view: View, cdb: Buffer, edtl: int) -> Action:
    """PERSISTENT RESERVE IN, READ RESERVATION: key 0 where all registrants hold it."""
    state = view.unit.reservations
    if state.legacy is not None:
        return Reply(status=CONFLICT)
    row = b""
    if state.kind is not None:
        key = 0 if state.kind.held_by_all else state.keys.get(state.holder, 0)
        row = struct.pack(">Q5xB2x", key, state.kind)
    return cut(_generation_and(view, row), be16(cdb, 7))


def report_capabilities(view: View, cdb: Buffer, edtl: int) -> Action:
    """PERSISTENT RESERVE IN, REPORT CAPABILITIES: TMV and all six types, nothing else."""
    if view.unit.reservations.legacy is not None:
        return Reply(status=CONFLICT)
    return cut(bytes((0, 8, 0, 0x80, 0xEA, 0x01, 0, 0)), be16(cdb, 7))


def transport_id(port: str) -> bytes:
    """TransportID: an initiator port, or a device where no ISID is known (SPC-4 7.6.4.6)."""
    value = port.encode()[:251] + b"\0"
    value = value.ljust(max(20, -(-len(value) // 4) * 4), b"\0")
    form = 0x40 if ",i,0x" in port else 0
    return struct.pack(">BBH", form | 5, 0, len(value)) + value


def read_full_status(view: View, cdb: Buffer, edtl: int) -> Action:
    """PERSISTENT RESERVE IN, READ FULL STATUS: every registration and what it holds."""
    state = view.unit.reservations
    if state.legacy is not None:
        return Reply(status=CONFLICT)
    rows = b""
    for port, key in state.keys.items():
        name = transport_id(port)
        holds = state.holds(port)
        kind = state.kind if holds and state.kind is not None else 0
        rows += struct.pack(">Q4xBB4xHI", key, holds, kind, 1, len(name)) + name
    return cut(_generation_and(view, rows), be16(cdb, 7))


def persistent_reserve_out(view: View, cdb: Buffer, edtl: int) -> Action:
    """PERSISTENT RESERVE OUT: the parameter list is 24 bytes for every service action we have."""
    if view.unit.reservations.legacy is not None:
        return Reply(status=CONFLICT)
    action, scope, kind = cdb[1] & 0x1F, cdb[2] >> 4, cdb[2] & 0x0F
    if action in (RESERVE, RELEASE, PREEMPT, PREEMPT_AND_ABORT):
        if scope:
            return invalid_field(2, 7)
        if kind not in KINDS:
            return invalid_field(2, 3)
    length = be32(cdb, 5)
    if length != PARAMETERS.size or edtl < length:
        return refuse(Key.ILLEGAL_REQUEST, Code.PARAMETER_LIST_LENGTH_ERROR)

    def then(data: bytes) -> Action:
        if len(data) != length:
            return refuse(Key.ILLEGAL_REQUEST, Code.PARAMETER_LIST_LENGTH_ERROR)
        return _out(view, action, kind, data)

    return Collect(length, then)


def _out(view: View, action: int, kind: int, data: bytes) -> Action:
    key, argument, flags, _ = PARAMETERS.unpack(data)
    unit, port = view.unit, view.nexus.port
    state = unit.reservations
    if action in (REGISTER, REGISTER_AND_IGNORE):
        for bit, value in ((3, SPEC_I_PT), (2, ALL_TG_PT), (0, APTPL)):
            if flags & value:
                return invalid_parameter(20, bit)
        if action == REGISTER and key != state.keys.get(port, 0):
            return Reply(status=CONFLICT)
        if argument and port not in state.keys and len(state.keys) >= MAX_REGISTRATIONS:
            return refuse(Key.ILLEGAL_REQUEST, Code.INSUFFICIENT_REGISTRATION_RESOURCES)
        notices = state.register(port, argument)
    elif port not in state.keys or state.keys[port] != key:
        return Reply(status=CONFLICT)
    elif action == RESERVE:
        notices = []
        if not state.reserve(port, KINDS[kind]):
            return Reply(status=CONFLICT)
    elif action == RELEASE:
        if state.holds(port) and state.kind != kind:
            code = Code.INVALID_RELEASE_OF_PERSISTENT_RESERVATION
            return refuse(Key.ILLEGAL_REQUEST, code)
        notices = state.release(port)
    elif action == CLEAR:
        notices = state.clear(port)
    else:
        if not argument and state.preempts_nothing(argument):
            return invalid_parameter(8)
        if state.preempts_nothing(argument):
            return Reply(status=CONFLICT)
        notices = state.preempt(port, argument, KINDS[kind])
    unit.refresh()
    unit.notify(notices)
    if action == PREEMPT_AND_ABORT:
        gone = {name for name, code in notices if code == Code.REGISTRATIONS_PREEMPTED}
        return Abort(tuple(other.nexus for other in unit.views_of(gone)))
    return Reply()
