"""REPORT TARGET PORT GROUPS: asymmetric access, of which there is none (SPC-4 sections 5.15, 6.37).

A target port is a portal group of iSCSI, and its relative identifier the portal group's tag (RFC
7143 section 4.4.2). All ports of a target are one target port group, active and optimized for
ever; it changes only by our own doing (implicit), so SET TARGET PORT GROUPS is not offered. Pure.
"""

import struct

from netboot.scsi.action import Action
from netboot.scsi.cdb import Buffer, be32, cut, invalid_field
from netboot.scsi.unit import View

#: The group, as VPD 83 names it, and its port where there is one only.
GROUP, PORT = 1, 1
ACTIVE_OPTIMIZED, AO_SUP = 0x0, 0x01


def report_target_port_groups(view: View, cdb: Buffer, edtl: int) -> Action:
    """One group with all ports; with the extended header, when that is asked for."""
    form = cdb[1] >> 5
    if form > 1:
        return invalid_field(1, 7)
    # Return data format 001b, and no time that an implicit transition would take.
    head = bytes((0x10, 0, 0, 0)) if form else b""
    ports = view.unit.ports
    row = struct.pack(">BBHBBBB", ACTIVE_OPTIMIZED, AO_SUP, GROUP, 0, 0, 0, len(ports) & 0xFF)
    row += b"".join(struct.pack(">HH", 0, port) for port in ports)
    return cut(struct.pack(">I", len(head + row)) + head + row, be32(cdb, 6))
