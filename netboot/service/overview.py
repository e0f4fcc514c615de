"""What people and programs see of the running service: clients, images, overlays, health.

Everything is put together anew for each question, from the settings, the timelines, the leases,
the counters of the disks and the store. Nothing is remembered or changed here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from netboot.boot import profiles
from netboot.boot.timeline import Timelines
from netboot.http.views import ClientView, ImageView, OverlayView, StepView
from netboot.model import Counters, Lease, Overlay, Site, Version
from netboot.service import ledger
from netboot.state.store import Store


@dataclass(frozen=True, slots=True)
class Overview:
    """``site`` and ``counters`` are asked anew each time: both change while we run."""

    site: Callable[[], Site]
    store: Store
    timelines: Timelines
    lease_of: Callable[[str], Lease | None]
    counters: Callable[[], Mapping[str, Counters]]

    def clients(self) -> list[ClientView]:
        """Every machine that is named in the settings or was ever seen, by MAC."""
        seen = (client.mac for client in self.store.seen())
        macs = {*self.site().hosts, *self.timelines.macs(), *seen}
        overlays, versions = self.store.overlays(), self.store.versions()
        counters = self.counters()
        return [self._client(mac, overlays, versions, counters) for mac in sorted(macs)]

    def images(self) -> list[ImageView]:
        """Every version of every image, and who stands on it."""
        return image_views(self.store.versions(), self.store.overlays())

    def overlays(self) -> list[OverlayView]:
        """Every overlay."""
        return [overlay_view(overlay) for overlay in self.store.overlays()]

    def _client(
        self,
        mac: str,
        overlays: Sequence[Overlay],
        versions: Sequence[Version],
        counters: Mapping[str, Counters],
    ) -> ClientView:
        site = self.site()
        assigned = profiles.assign(mac, site)
        profile, lease = assigned.profile, self.lease_of(mac)
        timeline = self.timelines.of(mac)
        mine = [o for o in overlays if o.mac == mac and profile and o.image == profile.image]
        overlay = next((o for o in mine if profile and o.mode == profile.overlay), None)
        numbers = [v.number for v in versions if profile and v.image == profile.image]
        reserved = assigned.host.address if assigned.host else None
        address = lease.address if lease else reserved
        named = assigned.host.name if assigned.host else (lease.hostname if lease else "")
        return ClientView(
            mac=mac,
            name=named or profiles.made_name(mac),
            address=str(address) if address else None,
            profile=profile.name if profile else None,
            image=profile.image if profile else None,
            version=overlay.version if overlay else max(numbers, default=None),
            phase=timeline.phase,
            timeline=tuple(
                StepView(step.phase, step.at, step.after, step.detail) for step in timeline.steps
            ),
            counters=counters.get(mac),
            overlay=overlay_view(overlay) if overlay else None,
        )


def overlay_view(overlay: Overlay) -> OverlayView:
    """An overlay, and the room it takes."""
    return OverlayView(
        path=overlay.path,
        mode=overlay.mode.value,
        generation=overlay.generation,
        allocated=ledger.allocated(overlay),
        mac=overlay.mac,
        image=overlay.image,
        version=overlay.version,
        trouble=overlay.trouble,
        troubled=overlay.troubled,
    )


def image_views(versions: Iterable[Version], overlays: Iterable[Overlay]) -> list[ImageView]:
    """The versions in the order given; the last one of each image is the current one."""
    listed = list(versions)
    current = {version.image: version.number for version in listed}
    users: dict[tuple[str, int], list[str]] = {}
    for overlay in overlays:
        users.setdefault((overlay.image, overlay.version), []).append(overlay.mac)
    return [
        ImageView(
            name=version.image,
            version=version.number,
            size=version.size,
            digest=version.digest,
            created=version.created,
            origin=version.origin,
            current=current[version.image] == version.number,
            used_by=tuple(dict.fromkeys(users.get((version.image, version.number), ()))),
        )
        for version in listed
    ]
