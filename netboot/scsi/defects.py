"""READ DEFECT DATA: what the medium has lost; a disk of files has no list (SBC-3 5.17, 5.18).

The file system below maps its own bad blocks away and tells nobody, so the primary and the
grown list are empty, in whatever format they are asked for. Pure.
"""

import struct

from netboot.scsi.action import Action
from netboot.scsi.cdb import Buffer, be16, be32, cut

#: REQ_PLIST, REQ_GLIST and the format, which are answered as they were asked.
ASKED = 0x1F


def read_defect_data10(view: object, cdb: Buffer, edtl: int) -> Action:
    """READ DEFECT DATA(10): the header of an empty list, 4 bytes."""
    return cut(struct.pack(">BBH", 0, cdb[2] & ASKED, 0), be16(cdb, 7))


def read_defect_data12(view: object, cdb: Buffer, edtl: int) -> Action:
    """READ DEFECT DATA(12): the header of an empty list, 8 bytes."""
    return cut(struct.pack(">BBHI", 0, cdb[1] & ASKED, 0, 0), be32(cdb, 6))
