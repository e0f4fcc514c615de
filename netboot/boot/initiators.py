"""Who logs in: the makers of iSCSI initiators, told by the first bytes of their ISID.

An ISID (RFC 7143 section 11.12.5) begins with who assigned it: type 00b and an OUI, or type 01b
(40h) and an IANA enterprise number. A boot has at least two logins, its firmware's and its
operating system's, and firmware may log in more than once, so their order alone does not tell
them apart.
"""

from typing import NamedTuple

from netboot.model import Stage


class Initiator(NamedTuple):
    """``prefix``: the first bytes of the ISID, hex."""

    prefix: str
    name: str
    stage: Stage
    story: str


INITIATORS: tuple[Initiator, ...] = (
    Initiator(
        "40002723",
        "iPXE",
        Stage.IPXE,
        "Enterprise 10019, Fen Systems. Debian's ROM of 2019 logs in twice before the kernel "
        "does: once to hook the disk, once to boot from it.",
    ),
    Initiator(
        "00023d",
        "open-iscsi",
        Stage.OS,
        "OUI 00-02-3d, as its sources have it from Cisco's driver; iscsistart in an initramfs "
        "sends it too.",
    ),
    Initiator("40000137", "Microsoft", Stage.OS, "Enterprise 311."),
)


def initiator_of(isid: str) -> Initiator | None:
    """The row of an ISID (hex), or None for makers that we do not know."""
    return next((row for row in INITIATORS if isid.startswith(row.prefix)), None)
