"""What we answer to DHCP, PXE and proxyDHCP packets.

Implements the server side of RFC 2131 section 4.3, relays (RFC 2131 section 4.1, RFC 3046, RFC
3527), the boot service of PXE 2.1 on port 4011, and probing before an address is first offered
(RFC 5227). Pure: packets and the time go in, effects come out in the order in which they must
happen. It never raises for what a packet says, and never answers a machine that has no plan.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from netboot.dhcp import replies, rules
from netboot.dhcp.boots import Boots
from netboot.dhcp.clients import identify
from netboot.dhcp.effects import (
    PXE_PORT,
    SERVER_PORT,
    Effect,
    How,
    Persist,
    Probe,
    Publish,
    Send,
    destination,
)
from netboot.dhcp.leases import Leases
from netboot.dhcp.options import Option, RelayAgent
from netboot.dhcp.planned import Planned
from netboot.dhcp.rules import Common, Facts, audience, program
from netboot.dhcp.verdicts import Granted, Nameless, Refused, Silence, verdict
from netboot.dhcp.wire import REPLY, UNSPECIFIED, Packet, decode
from netboot.errors import WireError
from netboot.events import BootEvent, Phase
from netboot.model import BootPlan, Chap, Client, DhcpMode, Lease, Site, Stage

log = logging.getLogger(__name__)

#: An owner of the address answers within milliseconds; firmware wants its offer within 1 s.
PROBE_WAIT = 0.3
_PROBE_BUDGET = 0.9
_COUNTED = {rules.OFFER: "offers", rules.ACK: "acks", rules.NAK: "naks"}
_NAMED = 1024  #: how many machines and servers we name in the log, once each


@dataclass(slots=True)
class _Asked:
    """One request with its sender and what is planned for it."""

    packet: Packet
    client: Client
    plan: BootPlan
    address: IPv4Address = UNSPECIFIED  #: being probed
    since: float = 0.0
    due: float = 0.0  #: when the probe counts as unanswered


class Engine:
    """One site's DHCP: full server or proxy, as ``site.dhcp_mode`` says."""

    def __init__(
        self,
        site: Site,
        pool: tuple[IPv4Address, IPv4Address],
        lease_seconds: int,
        plan: Callable[[Client], BootPlan | None],
        leases: Iterable[Lease] = (),
        dns: Sequence[IPv4Address] = (),
        *,
        probe: bool = True,
        chap_of: Callable[[str], Chap | None] = lambda mac: None,
    ) -> None:
        """``pool``: first and last address; ``plan``: the same for the same client until
        ``take_over``; ``leases``: as persisted before; ``dns``: option 6;
        ``chap_of``: what the iPXE of a machine is told to prove at its login."""
        self.site = site
        self.ours = site.address.ip
        self.lease_seconds = lease_seconds
        self.leases = Leases(
            site.address.network,
            pool,
            excluded=[a for a in (site.address.ip, site.router, *dns) if a is not None],
            reserved=_reservations(site),
            leases=leases,
        )
        self.counters: Counter[str] = Counter()
        self._plans = Planned(plan)
        self._common: Common | None = None  #: what every lease's OFFER and ACK say
        self._dns = tuple(dns)
        self._probe = probe
        self._chap_of = chap_of
        self._proxy = site.dhcp_mode is DhcpMode.PROXY
        self._boots = Boots()
        self._waiting: dict[str, _Asked] = {}
        self._probing: dict[IPv4Address, str] = {}
        self._named: set[tuple[str, str]] = set()

    def take_over(self, site: Site) -> None:
        """From now on the machines and reservations are those of ``site``."""
        self.site = site
        self._plans.forget()
        self._common = None
        self.leases.reserve(_reservations(site))

    @property
    def probing(self) -> Mapping[IPv4Address, str]:
        """The addresses whose probe is under way, and for which MAC."""
        return self._probing

    def receive(
        self, data: bytes, peer: tuple[str, int], now: float, port: int = SERVER_PORT
    ) -> list[Effect]:
        """Take one datagram that came from ``peer`` to our ``port``, 67 or 4011."""
        self.counters["received"] += 1
        try:
            packet = decode(data)
        except WireError as error:
            return self._drop("garbage", "garbage from %s: %s", peer[0], error)
        if packet.op == REPLY:
            server = Option.SERVER_ID.get(packet.options, IPv4Address)
            return self._foreign(server or IPv4Address(peer[0]))
        client = identify(packet)
        message = Option.MESSAGE_TYPE.get(packet.options, int)
        if client is None or message is None:
            return self._drop("garbage", "no DHCP client speaks in a packet from %s", peer[0])
        other = self._other_server(packet)
        if message == rules.REQUEST and port == SERVER_PORT and other is not None:
            self.leases.withdraw(client.mac)
            return self._foreign(other)
        plan = self._plans.of(client)
        if plan is None:
            self.counters["ignored"] += 1
            self._once("ignored", client.mac, logging.INFO, "%s is unknown and gets no answer")
            return []
        asked = _Asked(packet, client, plan)
        if port == PXE_PORT:
            return self._boot_service(asked, message, peer)
        if self._proxy:
            return self._proxy_offer(asked, now) if message == rules.DISCOVER else []
        if not self._reachable(packet):
            return []
        match message:
            case rules.DISCOVER:
                return self._discover(asked, now)
            case rules.REQUEST:
                return self._request(asked, now)
            case rules.DECLINE:
                return self._decline(asked, now)
            case rules.RELEASE:
                return self._release(asked, now)
            case rules.INFORM:
                return self._inform(asked, peer)
        return self._drop("garbage", "message type %s from %s", message, client.mac)

    def deadline(self) -> float | None:
        """When ``tick`` wants to be called, in the clock of ``now``."""
        return min((asked.due for asked in self._waiting.values()), default=None)

    def tick(self, now: float) -> list[Effect]:
        """Offer the addresses whose probe nobody answered."""
        done = [address for address, mac in self._probing.items() if self._waiting[mac].due <= now]
        return [effect for address in done for effect in self.probed(address, False, now)]

    def probed(self, address: IPv4Address, in_use: bool, now: float) -> list[Effect]:
        """The outcome of a probe; one that nobody waits for is nothing."""
        mac = self._probing.pop(address, None)
        if mac is None:
            return []
        asked = self._waiting.pop(mac)
        if not in_use:
            return self._offer(asked, address, now)
        self.counters["conflicts"] += 1
        log.warning("%s is in use by a machine we did not lease it to; kept out of use", address)
        effects: list[Effect] = [Persist(x) for x in self.leases.decline(mac, address, now)]
        if now + PROBE_WAIT > asked.since + _PROBE_BUDGET:
            return effects  # too late for this DISCOVER; the next one finds another address
        return effects + self._choose(asked, now, asked.since)

    # DORA (RFC 2131 section 3.1)

    def _discover(self, asked: _Asked, now: float) -> list[Effect]:
        mac = asked.client.mac
        effects = self._seen(asked, now)
        waiting = self._waiting.get(mac)
        if waiting is not None:  # a repeated DISCOVER, or the next program's: answer the latest
            waiting.packet, waiting.client, waiting.plan = asked.packet, asked.client, asked.plan
            waiting.due = min(waiting.due, now + PROBE_WAIT)  # the clock may have been set back
            return effects
        return effects + self._choose(asked, now, now)

    def _choose(self, asked: _Asked, now: float, since: float) -> list[Effect]:
        mac = asked.client.mac
        address = self.leases.choose(
            mac,
            now,
            reserved=asked.plan.reserved,
            wanted=Option.REQUESTED_ADDRESS.get(asked.packet.options, IPv4Address),
            running=asked.client.stage is Stage.OS,
            named=self.site.hosts,
        )
        if address is None:
            self.counters["exhausted"] += 1
            text = "no free address for %s: enlarge dhcp.pool or shorten dhcp.lease"
            self._once("exhausted", mac, logging.WARNING, text)
            return []
        if address in self._probing:  # for a stranger, who has to give way
            del self._waiting[self._probing.pop(address)]
        if asked.plan.reserved not in (None, address):
            text = f"%s gets {address}: its reservation {asked.plan.reserved} is in use elsewhere"
            self._once("reservation", mac, logging.WARNING, text)
        known = self.leases.had(mac, address, now)
        if known or not self._probe:
            return self._offer(asked, address, now)
        self.leases.offer(mac, address, now, asked.plan.name)
        asked.address, asked.since, asked.due = address, since, now + PROBE_WAIT
        self._waiting[mac], self._probing[address] = asked, mac
        return [Probe(address, mac)]

    def _offer(self, asked: _Asked, address: IPv4Address, now: float) -> list[Effect]:
        self.leases.offer(asked.client.mac, address, now, asked.plan.name)
        seconds = self.lease_seconds
        effects = self._send(asked, rules.OFFER, address=address, seconds=seconds)
        return effects + self._offered(asked, str(address), now)

    def _request(self, asked: _Asked, now: float) -> list[Effect]:
        mac = asked.client.mac
        match verdict(asked.packet, mac, self.leases, asked.plan.reserved, now):
            case Granted(address, renewing):
                return self._ack(asked, address, now, renewing)
            case Refused(text):
                return self._send(asked, rules.NAK, text=text)
            case Nameless():
                return self._drop("garbage", "a REQUEST of %s names no address", mac)
            case Silence():
                self.counters["silent"] += 1
                return []

    def _ack(self, asked: _Asked, address: IPv4Address, now: float, renewing: bool) -> list[Effect]:
        client = asked.client
        leases = self.leases.bind(client.mac, address, now, self.lease_seconds, asked.plan.name)
        effects: list[Effect] = [Persist(lease) for lease in leases]
        effects += self._send(asked, rules.ACK, address=address, seconds=self.lease_seconds)
        if client.stage is Stage.OS:
            self._boots.running(client.mac)
            if not renewing:
                detail = f"leased {address}"
                effects.append(Publish(BootEvent(client.mac, now, Phase.OS, detail)))
        return effects

    def _decline(self, asked: _Asked, now: float) -> list[Effect]:
        mac = asked.client.mac
        address = Option.REQUESTED_ADDRESS.get(asked.packet.options, IPv4Address)
        if address is None or self._other_server(asked.packet):
            return []
        declined = self.leases.decline(mac, address, now)
        if declined:
            self.counters["declined"] += 1
            log.warning("%s found %s in use by somebody else; kept out of use", mac, address)
        return [Persist(lease) for lease in declined]

    def _release(self, asked: _Asked, now: float) -> list[Effect]:
        if self._other_server(asked.packet):
            return []
        released = self.leases.release(asked.client.mac, asked.packet.ciaddr, now)
        return [Persist(lease) for lease in released]

    def _inform(self, asked: _Asked, peer: tuple[str, int]) -> list[Effect]:
        """Options without a lease (RFC 2131 section 4.3.5)."""
        to = peer if asked.packet.ciaddr == UNSPECIFIED else None
        return self._send(asked, rules.ACK, to=to)

    # PXE beside somebody else's DHCP, and on port 4011 (PXE 2.1 section 2)

    def _proxy_offer(self, asked: _Asked, now: float) -> list[Effect]:
        if not self._boots_from_us(asked):
            return []
        effects = self._seen(asked, now) + self._send(asked, rules.OFFER, proxy=True)
        return effects + self._offered(asked, "an address of another server's", now)

    def _boot_service(self, asked: _Asked, message: int, peer: tuple[str, int]) -> list[Effect]:
        """Stateless: some firmware asks here with another xid than before."""
        kinds = {rules.DISCOVER: rules.OFFER, rules.REQUEST: rules.ACK}
        kinds[rules.INFORM] = rules.ACK
        if message not in kinds or not self._boots_from_us(asked):
            return []
        return self._send(asked, kinds[message], proxy=True, boot_service=True, to=peer)

    @staticmethod
    def _boots_from_us(asked: _Asked) -> bool:
        return asked.client.stage is not Stage.OS and program(asked.plan) is not None

    # What they share

    def _send(
        self,
        asked: _Asked,
        message: int,
        *,
        address: IPv4Address = UNSPECIFIED,
        seconds: int | None = None,
        text: str = "",
        proxy: bool = False,
        boot_service: bool = False,
        to: tuple[str, int] | None = None,
    ) -> list[Effect]:
        facts = Facts(
            request=asked.packet,
            client=asked.client,
            plan=None if message == rules.NAK else asked.plan,
            site=self.site,
            message=message,
            address=address,
            seconds=seconds,
            dns=self._dns,
            proxy=proxy,
            boot_service=boot_service,
            text=text,
            common=None if seconds is None else self._common,
        )
        if seconds is not None and self._common is None:
            self._common = replies.common(facts)
        if rules.confides(facts):
            facts = replace(facts, chap=self._chap_of(asked.client.mac))
        data, packet, left_out = replies.render(facts)
        if left_out:
            names = ", ".join(option.label for option in left_out)
            text = f"the reply for %s had no room for {names}"
            self._once("room", asked.client.mac, logging.WARNING, text)
        where, to_port, how = destination(packet, refused=message == rules.NAK)
        if to is not None and how is not How.RELAY and IPv4Address(to[0]) != UNSPECIFIED:
            where, to_port, how = IPv4Address(to[0]), to[1], How.UNICAST
        self.counters[_COUNTED[message]] += 1
        source = PXE_PORT if boot_service else SERVER_PORT
        return [Send(data, where, to_port, how, asked.client.mac, source)]

    def _seen(self, asked: _Asked, now: float) -> list[Effect]:
        client = asked.client
        fresh = self._boots.begins(client.mac, client.stage, asked.packet.xid, now)
        if client.stage is Stage.OS:
            return []
        detail = f"{audience(client)} asks"
        return [Publish(BootEvent(client.mac, now, Phase.SEEN, detail, fresh))] if fresh else []

    def _offered(self, asked: _Asked, address: str, now: float) -> list[Effect]:
        client = asked.client
        if client.stage is Stage.OS:
            return []
        detail = f"{audience(client)}: {address}, {program(asked.plan) or 'nothing to boot'}"
        return [Publish(BootEvent(client.mac, now, Phase.OFFERED, detail))]

    def _other_server(self, packet: Packet) -> IPv4Address | None:
        server = Option.SERVER_ID.get(packet.options, IPv4Address)
        return server if server not in (None, self.ours) else None

    def _foreign(self, server: IPv4Address) -> list[Effect]:
        if server == self.ours:
            return []
        self.counters["foreign"] += 1
        if self._proxy:
            text = "%s is the DHCP server that gives the addresses here"
            self._once("foreign", str(server), logging.INFO, text)
        else:
            text = "another DHCP server, %s, answers on this network: stop it, or set dhcp.mode = "
            self._once("foreign", str(server), logging.WARNING, text + '"proxy"')
        return []

    def _reachable(self, packet: Packet) -> bool:
        """Whether our one pool lies on the client's network (RFC 3527, RFC 3011, giaddr)."""
        inside: dict[int, bytes] = Option.RELAY_AGENT.get(packet.options, dict) or {}
        link = (
            RelayAgent.LINK_SELECTION.get(inside, IPv4Address)
            or Option.SUBNET.get(packet.options, IPv4Address)
            or packet.giaddr
        )
        if link == UNSPECIFIED or link in self.site.address.network:
            return True
        self.counters["unserved"] += 1
        text = "a relay asks for the network of %s, for which there is no pool here"
        self._once("unserved", str(link), logging.WARNING, text)
        return False

    def _drop(self, counter: str, text: str, *values: object) -> list[Effect]:
        self.counters[counter] += 1
        log.debug(text, *values)
        return []

    def _once(self, what: str, who: str, level: int, text: str) -> None:
        if (what, who) in self._named or len(self._named) >= _NAMED:
            return
        self._named.add((what, who))
        log.log(level, text, who)


def _reservations(site: Site) -> dict[str, IPv4Address]:
    return {mac: host.address for mac, host in site.hosts.items() if host.address}
