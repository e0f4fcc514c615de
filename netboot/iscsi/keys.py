"""The login keys (RFC 7143 section 13): one row each, and negotiation by the row.

A row says what the key means before anybody spoke (``default``), what we want of it
(``ours``), which numbers are legal, and by which rule the answer follows from the offer. The
row drives the negotiation, the session's parameters and the table in the documentation. Must
never answer a key that was not offered: EDK2 and open-iscsi end the login over it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from netboot.iscsi.wire import DEFAULT_SEGMENT

#: What we take in one PDU. 8192, the default, makes 128 PDUs of a write of 1 MiB.
OUR_SEGMENT: Final = 262144
OUR_BURST: Final = 1048576
OUR_FIRST_BURST: Final = 262144


class Rule(StrEnum):
    """How two values become one (section 6.2)."""

    DECLARED = "declared"  #: each side says its own; there is no answer
    MINIMUM = "minimum"
    MAXIMUM = "maximum"
    AND = "and"
    OR = "or"
    CHOICE = "choice"  #: the first of the offered list that we have
    NO = "no"  #: obsolete and boolean: the answer is No
    IRRELEVANT = "irrelevant"  #: obsolete


class Use(StrEnum):
    """In which login stage a key may appear."""

    ANY = "any"
    SECURITY = "security"
    OPERATIONAL = "operational"
    FULL = "full"  #: full-feature phase only


@dataclass(frozen=True, slots=True)
class Key:
    """One login key."""

    name: str
    rule: Rule
    use: Use
    default: str
    ours: str = ""
    low: int = 0
    high: int = 0
    ref: str = ""  #: section of RFC 7143


_MAX: Final = (1 << 24) - 1

#: Every key there is (section 13), in its order.
KEYS: Final[Mapping[str, Key]] = MappingProxyType(
    {
        row.name: row
        for row in (
            Key("AuthMethod", Rule.CHOICE, Use.SECURITY, "None", "None", ref="12"),
            Key("HeaderDigest", Rule.CHOICE, Use.OPERATIONAL, "None", "CRC32C,None", ref="13.1"),
            Key("DataDigest", Rule.CHOICE, Use.OPERATIONAL, "None", "CRC32C,None", ref="13.1"),
            Key("MaxConnections", Rule.MINIMUM, Use.OPERATIONAL, "1", "1", 1, 65535, "13.2"),
            Key("SendTargets", Rule.DECLARED, Use.FULL, "", ref="13.3"),
            Key("TargetName", Rule.DECLARED, Use.ANY, "", ref="13.4"),
            Key("InitiatorName", Rule.DECLARED, Use.ANY, "", ref="13.5"),
            Key("TargetAlias", Rule.DECLARED, Use.ANY, "", ref="13.6"),
            Key("InitiatorAlias", Rule.DECLARED, Use.ANY, "", ref="13.7"),
            Key("TargetAddress", Rule.DECLARED, Use.ANY, "", ref="13.8"),
            Key("TargetPortalGroupTag", Rule.DECLARED, Use.ANY, "", ref="13.9"),
            Key("InitialR2T", Rule.OR, Use.OPERATIONAL, "Yes", "No", ref="13.10"),
            Key("ImmediateData", Rule.AND, Use.OPERATIONAL, "Yes", "Yes", ref="13.11"),
            Key(
                "MaxRecvDataSegmentLength",
                *(Rule.DECLARED, Use.ANY, str(DEFAULT_SEGMENT), str(OUR_SEGMENT), 512, _MAX),
                "13.12",
            ),
            Key(
                "MaxBurstLength",
                *(Rule.MINIMUM, Use.OPERATIONAL, "262144", str(OUR_BURST), 512, _MAX),
                "13.13",
            ),
            Key(
                "FirstBurstLength",
                *(Rule.MINIMUM, Use.OPERATIONAL, "65536", str(OUR_FIRST_BURST), 512, _MAX),
                "13.14",
            ),
            Key("DefaultTime2Wait", Rule.MAXIMUM, Use.OPERATIONAL, "2", "0", 0, 3600, "13.15"),
            Key("DefaultTime2Retain", Rule.MINIMUM, Use.OPERATIONAL, "20", "0", 0, 3600, "13.16"),
            Key("MaxOutstandingR2T", Rule.MINIMUM, Use.OPERATIONAL, "1", "1", 1, 65535, "13.17"),
            Key("DataPDUInOrder", Rule.OR, Use.OPERATIONAL, "Yes", "Yes", ref="13.18"),
            Key("DataSequenceInOrder", Rule.OR, Use.OPERATIONAL, "Yes", "Yes", ref="13.19"),
            Key("ErrorRecoveryLevel", Rule.MINIMUM, Use.OPERATIONAL, "0", "0", 0, 2, "13.20"),
            Key("SessionType", Rule.DECLARED, Use.ANY, "Normal", ref="13.21"),
            Key("IFMarker", Rule.NO, Use.OPERATIONAL, "No", ref="13.25"),
            Key("OFMarker", Rule.NO, Use.OPERATIONAL, "No", ref="13.25"),
            Key("IFMarkInt", Rule.IRRELEVANT, Use.OPERATIONAL, "2048", ref="13.25"),
            Key("OFMarkInt", Rule.IRRELEVANT, Use.OPERATIONAL, "2048", ref="13.25"),
            Key("TaskReporting", Rule.CHOICE, Use.OPERATIONAL, "RFC3720", "RFC3720", ref="13.23"),
            Key("iSCSIProtocolLevel", Rule.MINIMUM, Use.OPERATIONAL, "1", "1", 0, 31, "13.24"),
        )
    }
)

#: The keys of an authentication method, which ``auth`` answers and not this table (section 12).
AUTH_KEYS: Final = frozenset({"CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R"})


@dataclass(slots=True)
class Parameters:
    """What was agreed; every field begins at its key's default."""

    header_digest: bool = False
    data_digest: bool = False
    send_segment: int = DEFAULT_SEGMENT  #: the largest data segment the initiator takes
    max_burst: int = 262144
    first_burst: int = 65536
    initial_r2t: bool = True
    immediate_data: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one offered key: the answer (None: none is due) and the agreed value."""

    answer: str | None
    value: str | None


def number(text: str) -> int | None:
    """A numeric value, decimal or hexadecimal (section 6.1); None when it is neither."""
    try:
        if text[:2] in ("0x", "0X"):
            return int(text[2:], 16) if text[2:].isalnum() else None
        return int(text) if text.isdigit() and text.isascii() else None
    except ValueError:
        return None


def negotiate(name: str, offer: str, ours: str | None = None) -> Outcome:
    """The answer to one offered key by its row; ``ours`` replaces the row's own wish."""
    row = KEYS.get(name)
    if row is None:
        return Outcome("NotUnderstood", None)
    wish = row.ours if ours is None else ours
    match row.rule:
        case Rule.DECLARED:
            return _declared(row, offer)
        case Rule.NO:
            return Outcome("No", "No")
        case Rule.IRRELEVANT:
            return Outcome("Irrelevant", None)
        case Rule.CHOICE:
            have = wish.split(",")
            chosen = next((value for value in offer.split(",") if value in have), None)
            return Outcome(chosen or "Reject", chosen)
        case Rule.AND | Rule.OR:
            if offer not in ("Yes", "No"):
                return Outcome("Reject", None)
            decides = "No" if row.rule is Rule.AND else "Yes"
            value = decides if decides in (offer, wish) else wish
            return Outcome(value, value)
        case Rule.MINIMUM | Rule.MAXIMUM:
            theirs = number(offer)
            if theirs is None or not row.low <= theirs <= row.high:
                return Outcome("Reject", None)
            choose = min if row.rule is Rule.MINIMUM else max
            value = str(choose(theirs, int(wish)))
            return Outcome(value, value)


def _declared(row: Key, offer: str) -> Outcome:
    if row.high:
        value = number(offer)
        if value is None or not row.low <= value <= row.high:
            return Outcome("Reject", None)
    return Outcome(None, offer)


def first_burst(said: Iterable[tuple[str, str]]) -> str:
    """The FirstBurstLength that we want: not above the MaxBurstLength there will be (section
    13.14). Linux refuses to begin a session in which it is."""
    most = number(dict(said).get("MaxBurstLength", "")) or OUR_FIRST_BURST
    return str(max(KEYS["FirstBurstLength"].low, min(OUR_FIRST_BURST, most)))


def apply(parameters: Parameters, agreed: Iterable[tuple[str, str]]) -> None:
    """Note the agreed values that the full-feature phase needs."""
    for name, value in agreed:
        match name:
            case "HeaderDigest":
                parameters.header_digest = value == "CRC32C"
            case "DataDigest":
                parameters.data_digest = value == "CRC32C"
            case "MaxRecvDataSegmentLength":
                parameters.send_segment = number(value) or DEFAULT_SEGMENT
            case "MaxBurstLength":
                parameters.max_burst = int(value)
            case "FirstBurstLength":
                parameters.first_burst = int(value)
            case "InitialR2T":
                parameters.initial_r2t = value == "Yes"
            case "ImmediateData":
                parameters.immediate_data = value == "Yes"
