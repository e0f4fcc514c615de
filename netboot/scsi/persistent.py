"""RESERVE(6), RELEASE(6) and PERSISTENT RESERVE IN and OUT: the CDBs of ``reservations``.

SPC-4 sections 6.15, 6.16 and SPC-2 5.5.1. Not offered, and said so in REPORT CAPABILITIES: other
target ports (ATP_C), naming other initiators (SIP_C), and on a unit that cannot remember anything
surviving a power loss (PTPL_C). A change takes effect when it is kept, if it is to be kept: who
was told GOOD finds it again after a power cut.
"""

import struct

from netboot.scsi.action import Abort, Action, Amend, Collect, Keep, Reply, Status
from netboot.scsi.cdb import Buffer, be16, be32, cut, invalid_field, invalid_parameter, refuse
from netboot.scsi.reservations import MAX_REGISTRATIONS, Kind, Notices, Reservations
from netboot.scsi.sense import Code, Key
from netboot.scsi.unit import View, apart

CONFLICT = Status.RESERVATION_CONFLICT
REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE = range(7)
#: Parameter list of PERSISTENT RESERVE OUT (SPC-4 section 6.16.3).
PARAMETERS = struct.Struct(">QQ4xBxH")
SPEC_I_PT, ALL_TG_PT, APTPL = 0x08, 0x04, 0x01
#: REPORT CAPABILITIES, bytes 2 and 3 (SPC-4 section 6.15.4).
PTPL_C, TMV, PTPL_A = 0x01, 0x80, 0x01
KINDS = {int(kind): kind for kind in Kind}


def reserve6(view: View, cdb: Buffer, edtl: int) -> Action:
    """RESERVE(6): a conflict as soon as anyone is registered; whoever has it may repeat it.

    In its turn: a registration that is being kept is one, though it does not hold yet.
    """

    def change() -> Action:
        state = view.unit.reservations
        gone = view not in view.unit.views  # its session has ended before its turn
        if gone or state.keys or state.legacy not in (None, view):
            return Reply(status=CONFLICT)
        state.legacy = view
        view.unit.refresh()
        return Reply()

    return Amend(change)


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
    """PERSISTENT RESERVE IN, REPORT CAPABILITIES: PTPL, TMV and all six types, nothing else."""
    state = view.unit.reservations
    if state.legacy is not None:
        return Reply(status=CONFLICT)
    capable, active = view.unit.lasting, state.persists
    return cut(
        bytes((0, 8, PTPL_C * capable, TMV | PTPL_A * active, 0xEA, 0x01, 0, 0)), be16(cdb, 7)
    )


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
        initiator, target_port = apart(port)
        name = transport_id(initiator)
        holds = state.holds(port)
        kind = state.kind if holds and state.kind is not None else 0
        rows += struct.pack(">Q4xBB4xHI", key, holds, kind, target_port, len(name)) + name
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
        return Amend(lambda: _out(view, action, kind, data))

    return Collect(length, then)


def _out(view: View, action: int, kind: int, data: bytes) -> Action:
    """What becomes of the reservations, worked out on a copy; then that is kept, and holds."""
    unit = view.unit
    if unit.reservations.legacy is not None:
        return Reply(status=CONFLICT)
    state = unit.reservations.copy()
    notices = _changed(state, view, action, kind, data)
    if not isinstance(notices, list):
        return notices
    # PREEMPT AND ABORT ends what the preempted have under way.
    gone = {name for name, code in notices if code == Code.REGISTRATIONS_PREEMPTED}
    before = unit.worth_keeping()
    content = unit.worth_keeping(state)

    def hold(kept: bool) -> Action:
        if not kept:
            return refuse(Key.HARDWARE_ERROR, Code.INTERNAL_TARGET_FAILURE)
        unit.reservations.become(state)
        unit.refresh()
        unit.notify(notices)
        if action != PREEMPT_AND_ABORT:
            return Reply()
        victims = unit.views_of(gone)
        for victim in victims:
            victim.prevents = False
        return Abort(tuple(victim.nexus for victim in victims))

    return hold(True) if content == before else Keep(content, hold)


def _changed(
    state: Reservations, view: View, action: int, kind: int, data: bytes
) -> Notices | Action:
    """Change ``state`` as the command wants: whom to tell of it, or why it was not changed."""
    key, argument, flags, _ = PARAMETERS.unpack(data)
    port = view.nexus.port
    if action in (REGISTER, REGISTER_AND_IGNORE):
        refused = SPEC_I_PT | ALL_TG_PT | (0 if view.unit.lasting else APTPL)
        for bit in (3, 2, 0):
            if flags & refused & 1 << bit:
                return invalid_parameter(20, bit)
        if action == REGISTER and key != state.keys.get(port, 0):
            return Reply(status=CONFLICT)
        if argument and port not in state.keys and len(state.keys) >= MAX_REGISTRATIONS:
            return refuse(Key.ILLEGAL_REQUEST, Code.INSUFFICIENT_REGISTRATION_RESOURCES)
        state.persists = flags & APTPL != 0
        return state.register(port, argument)
    if port not in state.keys or state.keys[port] != key:
        return Reply(status=CONFLICT)
    if action == RESERVE:
        return [] if state.reserve(port, KINDS[kind]) else Reply(status=CONFLICT)
    if action == RELEASE:
        if state.holds(port) and state.kind != kind:
            code = Code.INVALID_RELEASE_OF_PERSISTENT_RESERVATION
            return refuse(Key.ILLEGAL_REQUEST, code)
        return state.release(port)
    if action == CLEAR:
        return state.clear(port)
    if state.preempts_nothing(argument):
        return Reply(status=CONFLICT) if argument else invalid_parameter(8)
    return state.preempt(port, argument, KINDS[kind])
