"""Names and numbers of a target: iSCSI names, LUNs, and which session gives way.

Names are RFC 7143 section 4.2.7 (and RFC 3722), LUN formats SAM-5 section 4.7, session
identity RFC 7143 section 4.4.3. Pure values and functions.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

_NAME = re.compile(r"[^\s\x00-\x1f\x7f,;=/\\]+")
NAME_LIMIT = 223

#: The IANA enterprise number of Fen Systems in an ISID of IANA format: an iPXE.
#: iPXE sets these four bytes and draws the last two at random for each
#: connection, so its ISID never repeats (net/tcp/iscsi.c, "Assign new ISID").
IPXE_ISID = bytes.fromhex("40002723")


def valid_name(name: str) -> bool:
    """Whether ``name`` can be an iSCSI name: at most 223 bytes, nothing that is never in one.

    Its form (iqn, eui, naa) is not policed: who may log in is decided by the whole name.
    """
    return len(name.encode()) <= NAME_LIMIT and _NAME.fullmatch(name) is not None


def lun_number(field: int) -> int | None:
    """The number in an 8-byte LUN field; None for an addressing method we do not have.

    Peripheral (00b, bus 0) and flat space (01b) addressing, one level (SAM-5 section 4.7.7).
    """
    if field == 0:
        return 0
    if field & 0xFFFFFFFFFFFF:
        return None
    top = field >> 48
    if top < 0x100:
        return top
    return top & 0x3FFF if top >> 14 == 1 else None


def lun_field(number: int) -> int:
    """The 8-byte LUN field of a number below 16384."""
    return (number if number < 0x100 else 0x4000 | number) << 48


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a session is: the initiator port (name, ISID) and the target port (name, tag).

    The same ISID through another portal group is another nexus (section 4.4.3).
    """

    initiator: str
    isid: bytes
    target: str
    group: int = 1  #: portal group tag

    @property
    def nexus(self) -> str:
        """The initiator port's name, as persistent reservations know it (SPC-4 7.6.4.6)."""
        return f"{self.initiator},i,0x{self.isid.hex()}"

    @property
    def firmware(self) -> bool:
        """Whether this is certainly iPXE, which drops the session over an unknown PDU."""
        return self.isid.startswith(IPXE_ISID)


class HasIdentity(Protocol):
    """Anything that stands for a session."""

    @property
    def identity(self) -> Identity:
        """Whose session it is."""


S = TypeVar("S", bound=HasIdentity)


def displaced(newcomer: Identity, sessions: Iterable[S]) -> tuple[list[S], list[S]]:
    """Which of a target's sessions give way to a newcomer, and which must show they are alive.

    The same nexus (name and ISID, target and portal group) is a reinstatement: the old one
    gives way (section 6.3.5). Another ISID or group of the same name may be a second path of a
    living system (Windows boots over two), or what a machine that was reset has left behind:
    iPXE draws a new ISID for every connection and never logs out, and an OS that takes over
    from firmware brings its own. Those are probed: the machine that has just logged in answers
    for its dead connections with a TCP reset, and for living ones with an acknowledgement.
    """
    gone: list[S] = []
    probed: list[S] = []
    for session in sessions:
        old = session.identity
        if old == newcomer:
            gone.append(session)
        elif old.initiator == newcomer.initiator and old.target == newcomer.target:
            probed.append(session)
    return gone, probed
