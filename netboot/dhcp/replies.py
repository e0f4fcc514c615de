"""A reply, whole: the fields of its header, and the options that ``rules`` gives it.

Both styles are filled: ``file`` and option 67, ``siaddr``, ``sname`` and option 66 say the same,
because ROMs differ in where they look (RFC 2131 table 3; PXE 2.1 section 2.2). Nothing here
decides who is told what.
"""

from collections.abc import Mapping
from dataclasses import replace

from netboot.dhcp.options import Option
from netboot.dhcp.rules import (
    ACK,
    NAK,
    RULES,
    SHARED,
    Audience,
    Common,
    Facts,
    Raw,
    Rule,
    audience,
)
from netboot.dhcp.wire import (
    BROADCAST,
    DEFAULT_LIMIT,
    IP_UDP_HEADERS,
    REPLY,
    UNSPECIFIED,
    Packet,
    encode,
)
from netboot.errors import WireError

_ETHERNET = 1500


def common(facts: Facts) -> Common:
    """What ``facts`` tell that is the same for all of the site, in bytes."""
    found = {}
    for rule in RULES:
        value = rule.value(facts) if rule.option in SHARED else None
        if value is not None:
            found[rule.option.code] = rule.option.encode(value)
    return Common(facts.ours, facts.name, found)


def reply(facts: Facts) -> Packet:
    """The whole reply, before it is cut to what the client can take."""
    request, plan = facts.request, facts.plan
    refused = facts.message == NAK
    file = (facts.boot_file or "").encode()
    serving = facts.bootable and not refused
    keeps_ciaddr = facts.message == ACK and not refused
    flags = request.flags
    if refused and request.giaddr != UNSPECIFIED:
        flags |= BROADCAST  # RFC 2131 section 4.3.2: the relay shall broadcast it
    if facts.chap is not None and not facts.proxy:
        # A frame to the machine alone, whatever it asks for: anybody can ask in its name. iPXE
        # asks for a broadcast when it has an address already (dhcp.c), which is this very one.
        flags &= ~BROADCAST
    if facts.proxy and request.ciaddr == UNSPECIFIED:
        flags |= BROADCAST  # there is no address to unicast to
    return Packet(
        op=REPLY,
        htype=request.htype,
        hardware=request.hardware,
        xid=request.xid,
        flags=flags,
        ciaddr=request.ciaddr if keeps_ciaddr else UNSPECIFIED,
        yiaddr=UNSPECIFIED if facts.proxy or refused else facts.address,
        siaddr=facts.ours if serving and plan is not None else UNSPECIFIED,
        giaddr=request.giaddr,
        sname=facts.name.encode() if file and not facts.client.http else b"",
        file=file if len(file) <= 127 else b"",
        options=_options(facts),
    )


def render(facts: Facts) -> tuple[bytes, Packet, list[Option]]:
    """The bytes, the packet they are, and the options that were left out for want of room.

    The room is what the client says in option 57, which counts IP and UDP headers, and 576 bytes
    where it says nothing. A packet without options always fits.
    """
    told = Option.MAXIMUM_SIZE.get(facts.request.options, int) or 0
    limit = max(DEFAULT_LIMIT, min(told, _ETHERNET) - IP_UDP_HEADERS)
    packet = reply(facts)
    left_out: list[Option] = []
    last_first = [rule.option for rule in reversed(RULES) if rule.option.code in packet.options]
    while True:
        try:
            return encode(packet, limit), packet, left_out
        except WireError:
            left_out.append(last_first[len(left_out)])
            gone = {option.code for option in left_out}
            kept = {code: raw for code, raw in packet.options.items() if code not in gone}
            packet = replace(packet, options=kept)


def table() -> str:
    """``RULES`` as the table of ``docs/dhcp.md``: ● always, ○ when asked."""
    columns = ["option", "name", *(who.value for who in Audience), "proxy", "why", "reference"]
    lines = [columns, ["---"] * len(columns)]
    for rule in RULES:
        marks = [
            "●" if who in rule.always else "○" if who in rule.asked else "" for who in Audience
        ]
        option = rule.option
        proxy = "●" if rule.proxy else ""
        lines.append([str(option.code), option.label, *marks, proxy, rule.why, option.reference])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _options(facts: Facts) -> Mapping[int, bytes]:
    wants, known = facts.client.wants, facts.common
    found: dict[int, bytes] = {}
    for rule, code, always in _RULES[audience(facts.client), facts.message == NAK, facts.proxy]:
        if not always and wants and code not in wants:
            continue
        if known is not None and code in _SHARED:
            if code in known.options:
                found[code] = known.options[code]
            continue
        value = rule.value(facts)
        if value is not None:
            raw = isinstance(value, Raw)
            found[code] = bytes(value) if raw else rule.option.encode(value)
    return found


def _rules(who: Audience, refused: bool, proxy: bool) -> tuple[tuple[Rule, int, bool], ...]:
    """What ``who`` may be told, the option's code, and whether also unasked."""
    return tuple(
        (rule, rule.option.code, who in rule.always)
        for rule in RULES
        if (who in rule.always or who in rule.asked)
        and (rule.refusal or not refused)
        and (rule.proxy or not proxy)
    )


#: ``RULES`` by who asks, whether it is refused, and whether we are a proxy.
_RULES = {
    (who, refused, proxy): _rules(who, refused, proxy)
    for who in Audience
    for refused in (False, True)
    for proxy in (False, True)
}
_SHARED = frozenset(option.code for option in SHARED)
