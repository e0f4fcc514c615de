"""What a name server answers: query bytes → reply, a question for somebody else, or silence.

Pure, and it never raises, whatever arrives: garbage gets silence or FORMERR. Authoritative for
the ``Zone`` it is given (RFC 1035), negative answers with the SOA (RFC 2308), EDNS0 (RFC 6891),
truncation over UDP (RFC 2181 section 9); ANY gets the HINFO of RFC 8482 section 4.2, so that
nobody can use us to multiply bytes. The wire format is dnslib's.
"""

import struct
from dataclasses import dataclass
from typing import Any

import dnslib
from dnslib import QTYPE, RCODE

from netboot.dns.zone import Node, Zone
from netboot.errors import WireError

#: What fits where nobody said otherwise (RFC 1035 section 4.2.1).
PLAIN_LIMIT = 512
#: What we are ready to receive, and the most we send by UDP: no fragments (DNS flag day 2020).
EDNS_LIMIT = 1232
STREAM_LIMIT = 65535
#: No honest query is longer; dnslib's decoder recurses with its input.
LONGEST_QUERY = 2048

_HEADER = struct.Struct("!HHHHHH")
_IN = 1
_ANY_CLASS = 255
_BAD_VERSION = 16
_TRANSFERS = (QTYPE.AXFR, QTYPE.IXFR)
#: HINFO with the CPU "RFC8482" and no operating system, as two character strings.
_NO_ANY = b"\x07RFC8482\x00"


@dataclass(frozen=True, slots=True)
class Reply:
    """Send this back."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Forward:
    """Ask somebody else, with a number of your own; ``accept`` judges what comes back."""

    query: bytes
    limit: int  #: bytes that the client takes

    def numbered(self, number: int) -> bytes:
        """The query with ``number`` (16 bits) as its id."""
        return number.to_bytes(2, "big") + self.query[2:]


def answer(query: bytes, zone: Zone, *, forwards: bool, stream: bool) -> Reply | Forward | None:
    """What to do with ``query``.

    ``forwards``: whether there is somebody else to ask; ``stream``: it came by TCP.
    """
    if len(query) < _HEADER.size or query[2] & 0x80:  # too short, or itself a reply
        return None
    try:
        if len(query) > LONGEST_QUERY:
            raise WireError("too long for a query")
        question_section(query)
        record = dnslib.DNSRecord.parse(query)
    except Exception:  # dnslib raises half a dozen unrelated kinds on bad input
        return Reply(_bare(query, RCODE.FORMERR))
    return _answer(query, record, zone, forwards, stream)


def accept(forward: Forward, number: int, reply: bytes) -> bytes | None:
    """The reply for our client, or None for one that does not answer what we asked.

    The id and the question must be ours (RFC 5452 section 9.1); that it came from the server
    we asked, to the port we asked from, is for the socket to see to.
    """
    if len(reply) < _HEADER.size or not reply[2] & 0x80:
        return None
    if int.from_bytes(reply[:2], "big") != number:
        return None
    try:
        if question_section(reply).lower() != question_section(forward.query).lower():
            return None
    except WireError:
        return None
    ours = forward.query[:2] + reply[2:]
    return ours if len(ours) <= forward.limit else _truncated(ours)


def failed(forward: Forward) -> bytes:
    """SERVFAIL: nobody answered."""
    return _bare(forward.query, RCODE.SERVFAIL, question=True)


def rcode(reply: bytes) -> int:
    """The response code in a reply's header."""
    return int(reply[3] & 0x0F)


def question_section(data: bytes) -> bytes:
    """The bytes of the one question; ``WireError`` when there is not exactly one, well-formed.

    Compression is refused: nothing lies before the first name that it could point to.
    """
    if len(data) < _HEADER.size or _HEADER.unpack_from(data)[2] != 1:
        raise WireError("not exactly one question")
    position = _HEADER.size
    while True:
        if position >= len(data):
            raise WireError("the name does not end")
        length = data[position]
        position += 1 + length
        if not length:
            break
        if length > 63 or position - _HEADER.size > 254:
            raise WireError("a label or the name is too long")
    if position + 4 > len(data):
        raise WireError("the question has no type or class")
    return data[_HEADER.size : position + 4]


def _answer(
    query: bytes, record: Any, zone: Zone, forwards: bool, stream: bool
) -> Reply | Forward | None:
    extras = [extra for extra in record.ar if extra.rtype == QTYPE.OPT]
    if len(extras) > 1:  # RFC 6891 section 6.1.1
        return Reply(_bare(query, RCODE.FORMERR))
    options = extras[0] if extras else None
    limit = _limit(options, stream)
    reply = record.reply(ra=int(forwards), aa=0)
    reply.header.tc = 0
    reply.header.ad = 0
    if options is not None and (options.ttl >> 16) & 0xFF:
        return _finish(reply, options, limit, _BAD_VERSION)
    if record.header.opcode != 0:
        return _finish(reply, options, limit, RCODE.NOTIMP)
    question = record.q
    if question.qclass not in (_IN, _ANY_CLASS) or question.qtype in _TRANSFERS:
        return _finish(reply, options, limit, RCODE.REFUSED)
    node = zone.lookup(str(question.qname))
    if node is not None:
        return _finish(reply, options, limit, _fill(reply, question, node, zone))
    if forwards and record.header.rd and question.qtype != QTYPE.ANY:
        return Forward(query, limit)
    return _finish(reply, options, limit, RCODE.REFUSED)


def _fill(reply: Any, question: Any, node: Node, zone: Zone) -> int:
    """Put what ``node`` holds into ``reply``; gives the response code."""
    reply.header.aa = 1
    for kind, rdata in _records(question.qtype, node, zone):
        reply.add_answer(dnslib.RR(question.qname, kind, rdata=rdata, ttl=zone.ttl))
    if not reply.rr:
        soa = dnslib.RR(node.apex, QTYPE.SOA, rdata=_soa(zone), ttl=zone.negative_ttl)
        reply.add_auth(soa)
    return int(RCODE.NOERROR if node.exists else RCODE.NXDOMAIN)


def _records(kind: int, node: Node, zone: Zone) -> list[tuple[int, Any]]:
    """The records of type ``kind`` at ``node``, with their types."""
    if not node.exists:
        return []
    match kind:
        case QTYPE.A:
            return [(QTYPE.A, dnslib.A(str(address))) for address in node.addresses]
        case QTYPE.PTR if node.pointer is not None:
            return [(QTYPE.PTR, dnslib.PTR(node.pointer))]
        case QTYPE.SOA if node.is_apex:
            return [(QTYPE.SOA, _soa(zone))]
        case QTYPE.NS if node.is_apex:
            return [(QTYPE.NS, dnslib.NS(zone.server_name))]
        case QTYPE.ANY:
            return [(QTYPE.HINFO, dnslib.RD(_NO_ANY))]
    return []


def _soa(zone: Zone) -> Any:
    """Its last number is how long a "no" may be remembered (RFC 2308 section 4)."""
    times = (1, 3600, 600, 86400, zone.negative_ttl)
    return dnslib.SOA(zone.server_name, f"hostmaster.{zone.domain}", times)


def _limit(options: Any, stream: bool) -> int:
    if stream:
        return STREAM_LIMIT
    if options is None:
        return PLAIN_LIMIT
    asked: int = options.rclass
    return max(PLAIN_LIMIT, min(asked, EDNS_LIMIT))


def _finish(reply: Any, options: Any, limit: int, code: int) -> Reply:
    reply.header.rcode = code & 0x0F
    if options is not None:
        reply.add_ar(dnslib.EDNS0(udp_len=EDNS_LIMIT, ext_rcode=code >> 4))
    data = bytes(reply.pack())
    return Reply(data if len(data) <= limit else _truncated(data))


def _truncated(reply: bytes) -> bytes:
    """Header and question only, with TC: the client asks again by TCP (RFC 2181 section 9)."""
    number, flags = _HEADER.unpack_from(reply)[:2]
    return _HEADER.pack(number, flags | 0x0200, 1, 0, 0, 0) + question_section(reply)


def _bare(query: bytes, code: int, *, question: bool = False) -> bytes:
    """A reply without records: all that can be said of a query that could not be read."""
    number, flags = _HEADER.unpack_from(query)[:2]
    flags = 0x8000 | (flags & 0x7900) | code  # the opcode and RD come back
    body = question_section(query) if question else b""
    return _HEADER.pack(number, flags, int(question), 0, 0, 0) + body
