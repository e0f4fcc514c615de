"""Query bytes → reply bytes; dnslib reads the replies."""

from ipaddress import IPv4Address, IPv4Interface

import dnslib
import pytest
from dnslib import QTYPE, RCODE, DNSRecord
from hypothesis import example, given
from hypothesis import strategies as st

from netboot.dns import engine
from netboot.dns.engine import Forward, Reply
from netboot.dns.zone import Zone
from netboot.errors import WireError

ZONE = Zone(
    "lab.netboot",
    IPv4Interface("192.168.77.1/24"),
    lambda: [("ws1", IPv4Address("192.168.77.21"))],
)
QUERY = bytes.fromhex(
    "1234 0100 0001 0000 0000 0000 03 777331 03 6c6162 07 6e6574626f6f74 00 0001 0001"
)


def query(name: str, kind: str = "A", **edns: int) -> bytes:
    record = DNSRecord.question(name, kind)
    if edns:
        record.add_ar(dnslib.EDNS0(**edns))
    return bytes(record.pack())


def reply(data: bytes, *, forwards: bool = False, stream: bool = False) -> DNSRecord:
    outcome = engine.answer(data, ZONE, forwards=forwards, stream=stream)
    assert isinstance(outcome, Reply)
    record = DNSRecord.parse(outcome.data)
    assert record.header.qr == 1
    assert outcome.data[:2] == data[:2]
    return record


def forward(data: bytes, *, stream: bool = False) -> Forward:
    outcome = engine.answer(data, ZONE, forwards=True, stream=stream)
    assert isinstance(outcome, Forward)
    return outcome


def test_a_query_and_its_reply_byte_by_byte() -> None:
    outcome = engine.answer(QUERY, ZONE, forwards=False, stream=False)
    assert outcome == Reply(
        bytes.fromhex(
            "1234 8500 0001 0001 0000 0000"  # QR AA RD, one question, one answer
            "03 777331 03 6c6162 07 6e6574626f6f74 00 0001 0001"
            "c00c 0001 0001 0000001e 0004 c0a84d15"  # 30 s, 192.168.77.21
        )
    )


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("ws1.lab.netboot", "A", "192.168.77.21"),
        ("WS1.Lab.NETBOOT", "A", "192.168.77.21"),
        ("netboot.lab.netboot", "A", "192.168.77.1"),
        ("lab.netboot", "A", "192.168.77.1"),
        ("lab.netboot", "NS", "netboot.lab.netboot."),
        ("21.77.168.192.in-addr.arpa", "PTR", "ws1.lab.netboot."),
        ("1.77.168.192.in-addr.arpa", "PTR", "netboot.lab.netboot."),
        ("77.168.192.in-addr.arpa", "NS", "netboot.lab.netboot."),
    ],
)
def test_what_is_ours(name: str, kind: str, value: str) -> None:
    record = reply(query(name, kind))
    assert record.header.aa == 1
    assert record.header.rcode == RCODE.NOERROR
    (answer,) = record.rr
    assert (QTYPE[answer.rtype], str(answer.rdata), answer.ttl) == (kind, value, 30)
    assert record.auth == []
    assert str(record.q.qname) == name + "."  # the case of the question comes back


@pytest.mark.parametrize("name", ["lab.netboot", "77.168.192.in-addr.arpa"])
def test_the_soa(name: str) -> None:
    (answer,) = reply(query(name, "SOA")).rr
    assert str(answer.rdata.mname) == "netboot.lab.netboot."
    assert answer.rdata.times[4] == ZONE.negative_ttl


@pytest.mark.parametrize(
    ("name", "kind", "code", "apex"),
    [
        ("ws1.lab.netboot", "AAAA", RCODE.NOERROR, "lab.netboot."),
        ("ws1.lab.netboot", "HTTPS", RCODE.NOERROR, "lab.netboot."),
        ("lab.netboot", "MX", RCODE.NOERROR, "lab.netboot."),
        ("ws1.lab.netboot", "SOA", RCODE.NOERROR, "lab.netboot."),
        ("ws9.lab.netboot", "A", RCODE.NXDOMAIN, "lab.netboot."),
        ("ws9.lab.netboot", "AAAA", RCODE.NXDOMAIN, "lab.netboot."),
        ("9.77.168.192.in-addr.arpa", "PTR", RCODE.NXDOMAIN, "77.168.192.in-addr.arpa."),
        ("21.77.168.192.in-addr.arpa", "A", RCODE.NOERROR, "77.168.192.in-addr.arpa."),
    ],
)
def test_a_no_carries_the_soa_and_a_short_ttl(name: str, kind: str, code: int, apex: str) -> None:
    record = reply(query(name, kind))
    assert (record.header.aa, record.header.rcode, record.rr) == (1, code, [])
    (soa,) = record.auth
    assert (str(soa.rname), QTYPE[soa.rtype], soa.ttl) == (apex, "SOA", 5)


def test_any_gets_one_small_record() -> None:
    (answer,) = reply(query("ws1.lab.netboot", "ANY")).rr
    assert answer.rtype == QTYPE.HINFO
    assert bytes(answer.rdata.data) == b"\x07RFC8482\x00"
    assert reply(query("ws9.lab.netboot", "ANY")).header.rcode == RCODE.NXDOMAIN
    assert reply(query("example.org", "ANY"), forwards=True).header.rcode == RCODE.REFUSED


@pytest.mark.parametrize("kind", ["A", "PTR", "TXT"])
def test_what_is_not_ours_is_refused_when_nobody_can_be_asked(kind: str) -> None:
    record = reply(query("example.org", kind))
    assert (record.header.rcode, record.header.ra, record.header.aa) == (RCODE.REFUSED, 0, 0)


def test_without_recursion_desired_nobody_is_asked() -> None:
    data = bytearray(query("example.org"))
    data[2] &= ~1
    assert reply(bytes(data), forwards=True).header.rcode == RCODE.REFUSED


def test_other_classes_and_zone_transfers_are_refused() -> None:
    chaos = DNSRecord(q=dnslib.DNSQuestion("version.bind", QTYPE.TXT, 3))
    assert reply(bytes(chaos.pack())).header.rcode == RCODE.REFUSED
    for kind in ("AXFR", "IXFR"):
        assert reply(query("lab.netboot", kind), stream=True).header.rcode == RCODE.REFUSED


@pytest.mark.parametrize("opcode", [1, 2, 4, 5, 15])
def test_other_opcodes_are_not_implemented(opcode: int) -> None:
    data = bytearray(QUERY)
    data[2] |= opcode << 3
    record = reply(bytes(data))
    assert (record.header.rcode, record.header.opcode) == (RCODE.NOTIMP, opcode)


# -- EDNS0 and sizes -----------------------------------------------------------------------


def test_edns_is_answered_with_edns_and_only_then() -> None:
    assert reply(QUERY).ar == []
    (options,) = reply(query("ws1.lab.netboot", udp_len=4096)).ar
    assert (options.rtype, options.rclass, options.ttl) == (QTYPE.OPT, 1232, 0)


def test_an_edns_version_to_come_is_badvers() -> None:
    record = reply(query("ws1.lab.netboot", udp_len=4096, version=1))
    (options,) = record.ar
    assert (options.ttl >> 24 << 4) | record.header.rcode == 16
    assert record.rr == []


def test_two_opt_records_are_a_format_error() -> None:
    record = DNSRecord.question("ws1.lab.netboot")
    record.add_ar(dnslib.EDNS0(udp_len=512), dnslib.EDNS0(udp_len=512))
    outcome = engine.answer(bytes(record.pack()), ZONE, forwards=False, stream=False)
    assert isinstance(outcome, Reply)
    assert engine.rcode(outcome.data) == RCODE.FORMERR


@pytest.mark.parametrize(
    ("edns", "stream", "limit"),
    [
        ({}, False, 512),
        ({"udp_len": 100}, False, 512),
        ({"udp_len": 800}, False, 800),
        ({"udp_len": 4096}, False, 1232),
        ({}, True, 65535),
        ({"udp_len": 800}, True, 65535),
    ],
)
def test_how_much_the_client_takes(edns: dict[str, int], stream: bool, limit: int) -> None:
    assert forward(query("example.org", **edns), stream=stream).limit == limit


# -- garbage -------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\x12\x34", QUERY[:11], b"\xff" * 11])
def test_what_has_no_header_gets_silence(data: bytes) -> None:
    assert engine.answer(data, ZONE, forwards=True, stream=False) is None


def test_a_reply_is_never_answered() -> None:
    data = bytearray(QUERY)
    data[2] |= 0x80
    assert engine.answer(bytes(data), ZONE, forwards=True, stream=False) is None


@pytest.mark.parametrize(
    "data",
    [
        QUERY[:-1],
        QUERY[:12],
        QUERY[:5] + b"\0" + QUERY[6:],  # no question
        QUERY[:5] + b"\2" + QUERY[6:] + QUERY[12:],  # two questions
        QUERY[:12] + b"\xc0\x0c\0\1\0\1",  # a name that points to itself
        QUERY[:12] + b"\x40" + b"a" * 64 + b"\0\0\1\0\1",
        QUERY[:12] + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1",
        QUERY[:12] + b"\3ab\xff\0\0\1\0\1",
        QUERY[:11] + b"\1" + QUERY[12:],  # an additional record that is not there
        QUERY + bytes(3000),
    ],
)
def test_what_cannot_be_read_is_a_format_error(data: bytes) -> None:
    outcome = engine.answer(data, ZONE, forwards=True, stream=False)
    assert isinstance(outcome, Reply)
    assert outcome.data == data[:2] + b"\x81\x01" + bytes(8)


def test_the_longest_name_there_may_be() -> None:
    labels = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61
    data = QUERY[:12] + labels + b"\0\0\1\0\1"
    assert isinstance(engine.answer(data, ZONE, forwards=True, stream=False), Forward)
    assert reply(data).header.rcode == RCODE.REFUSED


@given(st.binary(max_size=100))
@example(bytes(12))
@example(QUERY[:12] + b"\x01" * 200)
def test_no_bytes_raise(tail: bytes) -> None:
    for data in (tail, QUERY[:12] + tail, QUERY + tail, QUERY[:10] + b"\0\3" + QUERY[12:] + tail):
        outcome = engine.answer(data, ZONE, forwards=True, stream=False)
        if isinstance(outcome, Reply):
            assert outcome.data[2] & 0x80
            assert len(outcome.data) <= 1232


@given(st.lists(st.binary(min_size=1, max_size=63), max_size=3), st.integers(0, 65535))
def test_every_name_and_type_below_our_domain_gets_an_answer(
    labels: list[bytes], kind: int
) -> None:
    encoded = b"".join(bytes([len(label)]) + label for label in labels)
    ours = b"\3lab\7netboot\0"
    data = QUERY[:12] + encoded + ours + kind.to_bytes(2, "big") + b"\0\1"
    outcome = engine.answer(data, ZONE, forwards=True, stream=False)
    assert isinstance(outcome, Reply)
    assert engine.rcode(outcome.data) in (
        RCODE.NOERROR,
        RCODE.NXDOMAIN,
        RCODE.REFUSED,
        RCODE.FORMERR,
    )


# -- what others say -----------------------------------------------------------------------


def upstream(asked: bytes, *addresses: str, name: str = "") -> bytes:
    record = DNSRecord.parse(asked).reply(aa=0)
    for address in addresses:
        record.add_answer(
            dnslib.RR(name or record.q.qname, QTYPE.A, rdata=dnslib.A(address), ttl=9)
        )
    return bytes(record.pack())


def test_a_good_reply_gets_the_clients_number_back() -> None:
    asked = forward(query("Example.org"))
    sent = asked.numbered(0xBEEF)
    assert sent == b"\xbe\xef" + asked.query[2:]
    accepted = engine.accept(asked, 0xBEEF, upstream(sent, "192.0.2.9"))
    assert accepted is not None
    record = DNSRecord.parse(accepted)
    assert accepted[:2] == asked.query[:2]
    assert str(record.rr[0].rdata) == "192.0.2.9"


def test_case_may_come_back_changed() -> None:
    asked = forward(query("Example.org"))
    answer = upstream(query("eXAMPLE.ORG"), "192.0.2.9")
    assert engine.accept(asked, int.from_bytes(answer[:2], "big"), answer) is not None


def test_forgeries_are_not_accepted() -> None:
    asked = forward(query("example.org"))
    good = upstream(asked.numbered(7), "192.0.2.66")
    assert engine.accept(asked, 7, good) is not None
    assert engine.accept(asked, 8, good) is None  # the number of another question
    assert engine.accept(asked, 7, asked.numbered(7)) is None  # not a reply at all
    assert engine.accept(asked, 7, good[:11]) is None
    assert engine.accept(asked, 7, good[:14]) is None
    for other in (query("example.com"), query("example.org", "AAAA")):
        wrong = b"\0\7" + upstream(other, "192.0.2.66")[2:]
        assert engine.accept(asked, 7, wrong) is None


def test_a_reply_larger_than_the_client_takes_is_truncated() -> None:
    asked = forward(query("example.org"))
    large = upstream(asked.numbered(7), *(f"192.0.2.{i}" for i in range(60)))
    assert len(large) > 512
    accepted = engine.accept(asked, 7, large)
    assert accepted is not None
    record = DNSRecord.parse(accepted)
    assert (record.header.tc, record.rr, str(record.q.qname)) == (1, [], "example.org.")
    by_tcp = engine.accept(forward(query("example.org"), stream=True), 7, large)
    assert by_tcp is not None
    assert by_tcp[2:] == large[2:]


@given(st.binary(max_size=80))
def test_no_reply_raises(data: bytes) -> None:
    asked = forward(query("example.org"))
    for tail in (data, b"\0\7\x80" + data, asked.numbered(7)[:2] + b"\x81\x80\0\1" + data):
        engine.accept(asked, 7, tail)


def test_when_nobody_answers_the_client_is_told() -> None:
    asked = forward(query("example.org", udp_len=4096))
    record = DNSRecord.parse(engine.failed(asked))
    assert record.header.rcode == RCODE.SERVFAIL
    assert engine.failed(asked)[:2] == asked.query[:2]
    assert str(record.q.qname) == "example.org."
    assert record.ar == []


def test_the_question_section() -> None:
    assert engine.question_section(QUERY) == QUERY[12:]
    assert engine.question_section(QUERY + b"more") == QUERY[12:]
    with pytest.raises(WireError):
        engine.question_section(QUERY[:-1])
