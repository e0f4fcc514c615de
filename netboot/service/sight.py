"""What happens to the machines, seen from every side and told as one stream of BootEvents.

DHCP and HTTP publish their own; downloads by TFTP and what the disk process tells are turned
into events here. Then, in this order: the timelines, the journal, a line in the log, and
whoever else subscribed.
"""

import logging
from collections import Counter
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

from netboot.boot.initiators import initiator_of
from netboot.boot.timeline import Timelines
from netboot.disks.wire import DiskEvent, Kind
from netboot.events import BootEvent, Bus, Phase
from netboot.model import Admission, Lease, LeaseState, Site, Stage
from netboot.tftp.server import TftpEvent

log = logging.getLogger(__name__)

#: The kernel's neighbours: IP address, hardware type, flags, MAC address, mask, device.
_NEIGHBOURS = Path("/proc/net/arp")


class Sight:
    """``keep`` is called for every event, ``trouble`` (MAC, text, when) for whatever goes wrong
    with a disk.

    ``site`` and ``holder_of`` (who has an address) are asked anew each time.
    """

    def __init__(
        self,
        site: Callable[[], Site],
        timelines: Timelines,
        holder_of: Callable[[IPv4Address], Lease | None],
        keep: Callable[[BootEvent], None],
        clock: Callable[[], float],
        trouble: Callable[[str, str, float], None] = lambda mac, text, at: None,
    ) -> None:
        self.bus = Bus()
        self.timelines = timelines
        self.refused: Counter[int] = Counter()  #: logins, by their status, as the log tells
        self._site = site
        self._holder_of = holder_of
        self._clock = clock
        self._trouble = trouble
        self.bus.subscribe(self._tell)
        self.bus.subscribe(keep)

    def publish(self, event: BootEvent) -> None:
        """Tell everybody."""
        self.bus.publish(event)

    def on_tftp(self, event: TftpEvent) -> None:
        """A download: its first byte is the phase LOADER; what went wrong is a line in the log."""
        mac = self.mac_of(event.address)
        who = self._name(mac) if mac else event.address
        if event.kind == "start" and mac:
            self.publish(BootEvent(mac, self._clock(), Phase.LOADER, f"{event.name} by TFTP"))
        elif event.kind in ("missing", "failed"):
            log.warning("%s: TFTP %s: %s", who, event.name, event.detail)

    def on_disk(self, event: DiskEvent) -> None:
        """A login, the first read of a session, the end of one, trouble."""
        if event.kind is Kind.REFUSED:
            self._unproved(event)
        elif not event.mac:
            return
        elif event.kind is Kind.LOGIN:
            self.publish(self._login(event))
        elif event.kind is Kind.READING:
            self.publish(BootEvent(event.mac, event.at, Phase.READING, event.detail))
        elif event.kind is Kind.ERROR:
            log.error("%s: its disk: %s", self._name(event.mac), event.detail)
            self._trouble(event.mac, event.detail, event.at)
        else:
            log.info("%s: logged out: %s", self._name(event.mac), event.detail or event.address)

    def _unproved(self, event: DiskEvent) -> None:
        """The disk process does not tell of each try."""
        self.refused[0x0201] += 1
        who = f"{self._name(event.mac)}: " if event.mac else ""
        what = f"{event.initiator} from {event.address}: {event.detail}"
        log.warning("%slogin refused (%04x): %s", who, 0x0201, what)

    def on_refusal(self, answer: Admission) -> None:
        """A login that we did not allow."""
        self.refused[answer.status] += 1
        who = f"{self._name(answer.mac)}: " if answer.mac else ""
        log.warning("%slogin refused (%04x): %s", who, answer.status, answer.detail)

    def _login(self, event: DiskEvent) -> BootEvent:
        """Of firmware or of the operating system: by the initiator's maker; where we do not know
        it, a machine that has read from its disk now does so for its operating system."""
        known = initiator_of(event.isid)
        if known is not None:
            system = known.stage is Stage.OS
        else:
            system = (self.timelines.of(event.mac).phase or Phase.SEEN) >= Phase.READING
        who = known.name if known is not None else event.initiator
        proof = f" by {event.detail}" if event.detail else ""
        detail = f"{who} logs in from {event.address}{proof}"
        return BootEvent(event.mac, event.at, Phase.OS if system else Phase.LOGIN, detail)

    def ready(self, mac: str) -> None:
        """The guest says that it is up."""
        self.publish(BootEvent(mac, self._clock(), Phase.READY, "the guest says so"))

    def mac_of(self, address: str) -> str | None:
        """Who has an address: by our leases, by the reservations, else by the kernel's ARP."""
        try:
            wanted = IPv4Address(address)
        except AddressValueError:
            return None
        lease = self._holder_of(wanted)
        if lease is not None and lease.state is not LeaseState.DECLINED:
            return lease.mac
        hosts = self._site().hosts.values()
        reserved = next((host.mac for host in hosts if host.address == wanted), None)
        return reserved or neighbour(address)

    def _name(self, mac: str) -> str:
        return self._site().called(mac)

    def _tell(self, event: BootEvent) -> None:
        before = self.timelines.of(event.mac)
        known = before.boots, before.phase
        self.timelines.add(event)
        after = self.timelines.of(event.mac)
        if (after.boots, after.phase) == known:
            log.debug("%s: %s again: %s", event.mac, event.phase.label, event.detail)
            return
        seconds = after.steps[-1].after
        name, phase = self._name(event.mac), event.phase.label
        log.info("%s: %s after %.1f s: %s", name, phase, seconds, event.detail)


def neighbour(address: str, table: Path = _NEIGHBOURS) -> str | None:
    """The MAC behind an address of our own network, as the kernel knows it."""
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return None
    for line in lines:
        words = line.split()
        # A neighbour that does not answer has flags 0 and no address.
        if len(words) >= 4 and words[0] == address and int(words[2], 16) & 0x02:
            return words[3].lower()
    return None
