"""The composition root of the control process: builds every part and hands the callables in.

``Service.start`` is read from top to bottom in the order of dependency: the machine, the state,
what is seen, the disks, the servers. Nothing is answered before everything that can be checked
was checked, and DHCP opens last, so that nobody is sent where nobody serves. Only this module
knows all parts; no part knows this module.
"""

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Protocol

import uvloop

from netboot.boot import admission, profiles
from netboot.boot.plan import plan
from netboot.boot.script import DEFAULT, Scripts
from netboot.boot.timeline import Timelines
from netboot.config import Settings, load, reloaded
from netboot.dhcp.engine import Engine
from netboot.dhcp.server import DhcpServer
from netboot.disks.supervisor import Supervisor
from netboot.dns.server import DnsServer
from netboot.dns.zone import Zone
from netboot.errors import NetbootError
from netboot.http.server import HttpServer
from netboot.http.views import Health, Views
from netboot.model import (
    Admission,
    Client,
    DhcpMode,
    Knock,
    LeaseState,
    Overlay,
    Stage,
)
from netboot.ndp.engine import Engine as RouterEngine
from netboot.ndp.server import RouterServer, hardware_address
from netboot.service import fitness, preflight
from netboot.service.control import ControlServer
from netboot.service.errands import Errands
from netboot.service.journal import Journal
from netboot.service.ledger import Ledger
from netboot.service.measures import Measures, in_words
from netboot.service.overview import Overview
from netboot.service.sight import Sight
from netboot.service.vault import Vault
from netboot.service.warming import Warmer
from netboot.state.store import Store
from netboot.tftp.server import TftpServer

log = logging.getLogger(__name__)

#: Events of the past that the timelines begin with.
_PAST = 5000


class Service:
    """The whole control process: ``start``, then ``stop``; ``reload`` in between.

    ``leave_disks``: the disk process lives on when we end, for the next service to adopt, so
    that an upgrade does not interrupt a machine.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        leave_disks: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.site = settings.to_site()
        self._leave_disks = leave_disks
        self._clock = clock
        self._parts = contextlib.AsyncExitStack()
        self._servers: list[Part] = []
        self._ready = False

    async def start(self) -> None:
        """Return when machines are served. NetbootError says what is not fit, and what to do."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End everything in the reverse order. Twice is harmless."""
        self._ready = False
        await self._parts.aclose()

    async def _start(self) -> None:
        settings, site = self.settings, self.site
        state, own = settings.site.state, str(site.address.ip)

        # The machine.
        folder = preflight.StateFolder(state)
        self._parts.callback(folder.release)
        fitness.check_machine(settings, site)

        # The state.
        self._store = Store(settings.site.url)
        self._parts.callback(self._store.close)
        self._ledger = Ledger(self._store, state)
        fitness.check_images(site, self._ledger)
        journal = Journal(self._store, self._clock)
        await self._open(journal)

        # The brain, and what is seen. The leases live in the engine, also where DHCP is off.
        self._scripts = Scripts([settings.http.templates] if settings.http.templates else [])
        self._vault = Vault(self._store, lambda: self.site, self._clock)
        self._mark = os.urandom(32).hex()  # our challenges are known again by it
        self._engine = self._make_engine()
        self._sight = Sight(
            site=lambda: self.site,
            timelines=Timelines(self._store.events(limit=_PAST)),
            holder_of=self._engine.leases.by_address,
            keep=journal.add,
            clock=self._clock,
            trouble=self._ledger.trouble,
        )

        # The disks.
        self._disks = Supervisor(
            *(state, settings.portals, self._admit, self._sight.on_disk),
            limits=settings.limits,
            processes=fitness.disk_processes(settings),
        )
        self._errands = Errands(self._store, self._vault, self._disks, lambda: self.site)
        await self._disks.start()
        self._parts.push_async_callback(
            self._disks.leave if self._leave_disks else self._disks.stop
        )

        self._warmer = Warmer(settings.iscsi.prefetch)
        await self._open(self._warmer)

        # The servers; DHCP at the end.
        if settings.dns.enabled:
            zone = Zone(site.domain, site.address, self._names)
            upstreams = fitness.resolvers(settings)
            await self._open(DnsServer(own, zone, upstreams, port=settings.dns.port))
        await self._open(
            TftpServer(own, settings.loaders, self._sight.on_tftp, port=settings.tftp.port)
        )
        await self._open(
            HttpServer(
                self._views(),
                own,
                settings.http.port,
                loaders=settings.loaders,
                files=[state / "files"],
                clock=self._clock,
            )
        )
        await self._open(ControlServer(state, self._errands.handlers()))
        if site.dhcp_mode is not DhcpMode.OFF:
            self._store.prepare()
            await self._open(
                DhcpServer(
                    self._engine,
                    site.interface,
                    site.address.ip,
                    persist=self._store.keep,
                    publish=self._sight.publish,
                    begins=self._begins,
                    clock=self._clock,
                )
            )
            solicited = RouterEngine(hardware_address(site.interface), self._is_ours)
            await self._open(RouterServer(solicited, site.interface))
        self._parts.callback(self._disks.listen_no_more)  # the first that is done at the end
        self._ready = True

    def _is_ours(self, mac: str) -> bool:
        return profiles.assign(mac, self.site).profile is not None

    async def _open(self, part: "Part") -> None:
        """Start a part, and see to it that it is stopped, also when its start fails."""
        self._parts.push_async_callback(part.stop)
        self._servers.append(part)
        await part.start()

    def _make_engine(self) -> Engine:
        own = self.site.address.ip
        pool = self.settings.dhcp.pool or (own, own)  # no pool in mode proxy or off: our own
        return Engine(
            self.site,
            (pool[0], pool[1]),
            int(self.settings.dhcp.lease),
            lambda client: plan(client, self.site),
            leases=self._store.leases(),
            dns=self.settings.name_servers,
            chap_of=self._vault.told,
        )

    # What the parts ask.

    def _begins(self, mac: str) -> Overlay | None:
        profile = profiles.assign(mac, self.site).profile
        if profile is None:
            return None
        named = mac, profile.image, profile.overlay
        self._warmer.boots(profile.image, lambda: self._ledger.golden_of(*named))
        return self._ledger.begins(*named)

    def _admit(self, knock: Knock) -> Admission:
        """The answer to the disk process; nobody gets in while their disk is thrown away."""
        answer = admission.admit(
            knock,
            self.site,
            lease_of=self._engine.leases.by_mac,
            version_of=self._ledger.version_of,
            overlay_of=self._ledger.overlay_of,
            secrets_of=self._vault.secrets_of,
            mark=self._mark,
            version_at=self._ledger.version_at,
            mac_of=self._sight.mac_of,
        )
        if answer.mac in self._errands.busy and answer.status == admission.WELCOME:
            detail = "its overlay is being reset, or grows"
            answer = Admission(admission.UNAVAILABLE, answer.mac, answer.target, detail=detail)
        if answer.status not in (admission.WELCOME, admission.MOVED):
            self._sight.on_refusal(answer)
        return answer

    def _names(self) -> list[tuple[str, IPv4Address]]:
        """For DNS, the most trusted first: reservations, named machines, everybody's leases."""
        hosts, now = self.site.hosts, self._clock()
        reserved = [(host.name, host.address) for host in hosts.values() if host.address]
        leases = [x for x in self._engine.leases.all() if x.expires > now and x.hostname]
        held = [x for x in leases if x.state is LeaseState.BOUND]
        held.sort(key=lambda lease: lease.mac not in hosts)
        return reserved + [(lease.hostname, lease.address) for lease in held]

    def _views(self) -> Views:
        by_mac = self._engine.leases.by_mac
        overview = Overview(
            site=lambda: self.site,
            store=self._store,
            timelines=self._sight.timelines,
            lease_of=by_mac,
            counters=self._disks.counters,
        )
        measures = Measures(
            state=self.settings.site.state,
            clock=self._clock,
            started=self._clock(),
            overview=overview,
            health=self._health,
            leases=self._engine.leases.all,
            disks=self._disks,
            refused=self._sight.refused,
            parts=self._servers,
        )
        return Views(
            clients=overview.clients,
            images=overview.images,
            overlays=overview.overlays,
            health=self._health,
            mac_of=self._sight.mac_of,
            subscribe=self._sight.bus.subscribe,
            publish=self._sight.publish,
            script_for=self._script_for,
            explain=lambda mac: self._ledger.explain(mac, self.site, self._scripts, by_mac),
            ready=self._sight.ready,
            metrics=measures.figures,
        )

    def _health(self) -> Health:
        parts = {
            "service": "ready" if self._ready else "starting or stopping",
            "disks": in_words(self._disks.processes),
            "dhcp": f"{self.site.dhcp_mode} on {self.site.interface}",
        }
        return Health(self._ready and self._disks.alive(), parts)

    def _script_for(self, mac: str, itself: bool) -> str | None:
        decided = plan(Client(mac, Stage.IPXE), self.site)
        if decided is None:
            return None
        script = decided.profile.script or DEFAULT
        told = self._vault.told(mac) if itself else None
        return self._scripts.render(decided, self.site, script, told)

    # A reload.

    def reload(self, path: Path) -> None:
        """Take over what ``config.reloaded`` does, or say why not and change nothing."""
        if not self._ready:  # it has just read them, or ends
            return
        try:
            fresh = load(path)
            fitness.warn_of_readers(path, fresh)
            site = fresh.to_site()
            fitness.check_images(site, self._ledger)
            if site.dhcp_mode is not DhcpMode.OFF:
                fitness.check_loaders(fresh, site)
        except NetbootError as error:
            log.error("the settings stay as they are: %s", str(error).replace("\n", "; "))
            return
        self.settings, late = reloaded(self.settings, fresh)
        if late:
            log.warning("a restart is needed for [%s]", "], [".join(late))
        self.site = dataclasses.replace(
            self.site,
            profiles=site.profiles,
            hosts=site.hosts,
            unknown_profile=site.unknown_profile,
            redirect=site.redirect,
        )
        self._engine.take_over(self.site)
        self._disks.limit(self.settings.limits)
        log.info("%s: %d profiles, %d clients", path, len(site.profiles), len(site.hosts))


class Part(Protocol):
    """Whatever is started and stopped."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


def serve(path: Path, *, leave_disks: bool = False) -> int:
    """Run the service until a signal ends it; its exit code. SIGHUP reads the settings again."""
    settings = load(path)
    fitness.warn_of_readers(path, settings)
    preflight.raise_file_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(Service(settings, leave_disks=leave_disks), path))


async def _serve(service: Service, path: Path) -> int:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def end(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    loop.add_signal_handler(signal.SIGHUP, service.reload, path)
    loop.add_signal_handler(signal.SIGTERM, end, 0)
    loop.add_signal_handler(signal.SIGINT, end, 128 + signal.SIGINT)
    starting = asyncio.create_task(service.start())
    first: tuple[asyncio.Future[Any], ...] = (starting, ended)
    await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
    try:
        await starting
        preflight.freeze_what_is_loaded()
        log.info("ready: %s on %s", service.site.address, service.site.interface)
        code = await ended
        log.info("stopping")
        return code
    except asyncio.CancelledError:
        return ended.result()
    finally:
        await service.stop()
