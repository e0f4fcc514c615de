"""REPORT TARGET PORT GROUPS: asymmetric access, of which there is none (SPC-4 sections 5.15, 6.37).

All ports of a target are one group, active and optimized for ever; it changes only by our own
doing (implicit), so SET TARGET PORT GROUPS is not offered. Pure.
"""

import struct

from netboot.scsi.action import Action
from netboot.scsi.cdb import Buffer, be32, cut, invalid_field
from netboot.scsi.unit import View

#: The group and its one port, as VPD 83 names them.
GROUP, PORT = 1, 1
ACTIVE_OPTIMIZED, AO_SUP = 0x0, 0x01


def report_target_port_groups(view: View, cdb: Buffer, edtl: int) -> Action:
    """One group with one port; with the extended header, when that is asked for."""
    form = cdb[1] >> 5
    if form > 1:
        return invalid_field(1, 7)
    # Return data format 001b, and no time that an implicit transition would take.
    head = bytes((0x10, 0, 0, 0)) if form else b""
    row = struct.pack(">BBHBBBBHH", ACTIVE_OPTIMIZED, AO_SUP, GROUP, 0, 0, 0, 1, 0, PORT)
    return cut(struct.pack(">I", len(head + row)) + head + row, be32(cdb, 6))
