"""The decision: what this client gets now, and why.

``plan`` is called for every packet by DHCP and again by HTTP and ``explain``: it remembers
nothing, reads nothing and costs microseconds. Its law: firmware gets a loader, iPXE gets a root
path or a script but never both, an operating system gets neither. Only text that the operator or
we ourselves wrote ever reaches iPXE, which expands ``${...}`` in file names and root paths.
"""

import re
from collections.abc import Callable

from netboot.boot import firmware, profiles
from netboot.model import BootPlan, Client, Site, Stage, hyphenated

#: Option 175 sub-option 17: this iPXE was built with iSCSI.
IPXE_ISCSI = 17
#: RFC 7143 section 4.2.7.1: the most bytes of an iSCSI name.
_NAME_LIMIT = 223
#: The characters of an iSCSI name after its preparation (RFC 3722): nothing that iPXE expands.
_ISCSI_NAME = re.compile(r"[a-z0-9.:-]+")


def root_path(site: Site, mac: str, lun: int = 0) -> str:
    """Option 17 for a client's own target (RFC 4173 section 5); the LUN is hexadecimal.

    ``iscsi:<server>:<protocol>:<port>:<LUN>:<target>``; an empty protocol is TCP, an empty port
    3260. The server is always an IPv4 address: EDK2 splits at every colon, also within brackets,
    and resolves names only when they do not begin with a digit.
    """
    port = "" if site.iscsi_port == 3260 else str(site.iscsi_port)
    return f"iscsi:{site.address.ip}::{port}:{lun:x}:{site.target_name(mac)}"


def http_url(site: Site, path: str) -> str:
    """The URL of a path (with its leading slash) on our HTTP server."""
    return f"http://{site.address.ip}:{site.http_port}{path}"


def script_path(mac: str) -> str:
    """Where a client's own iPXE script lies on our HTTP server."""
    return f"/boot/{hyphenated(mac)}.ipxe"


def plan(client: Client, site: Site) -> BootPlan | None:
    """The plan for this client at this stage; None: not our machine, it gets no answer."""
    assigned = profiles.assign(client.mac, site)
    if assigned.profile is None:
        return None
    host = assigned.host
    base = BootPlan(
        client=client,
        name=profiles.name_of(client, host, site),
        profile=assigned.profile,
        initiator=(host and host.initiator) or site.initiator_name(client.mac),
        reserved=host.address if host else None,
        starts_boot=client.stage is not Stage.OS,
        why=(assigned.rule,),
    )
    return STAGES[client.stage](base, site)


def _because(base: BootPlan, *reasons: str) -> tuple[str, ...]:
    return (*base.why, *(reason for reason in reasons if reason))


def _but(
    base: BootPlan,
    *,
    why: tuple[str, ...],
    loader: str | None = None,
    loader_url: str | None = None,
    script_url: str | None = None,
    root_path: str | None = None,
) -> BootPlan:
    """``base`` with what it boots; ``dataclasses.replace`` takes as long as the whole decision."""
    return BootPlan(
        client=base.client,
        name=base.name,
        profile=base.profile,
        loader=loader,
        loader_url=loader_url,
        script_url=script_url,
        root_path=root_path,
        initiator=base.initiator,
        reserved=base.reserved,
        starts_boot=base.starts_boot,
        why=why,
    )


def _for_firmware(base: BootPlan, site: Site) -> BootPlan:
    """A PXE ROM or UEFI: the iPXE build that its architecture can run, the way it asks for it."""
    client = base.client
    row, found = firmware.of(client)
    if row is None:
        return _but(base, why=_because(base, found, "it gets an address and no boot program"))
    loader, chosen = firmware.loader_for(row, base.profile.loader)
    if loader is None:
        return _but(base, why=_because(base, found, chosen))
    if client.http or (
        row.transport is firmware.Transport.HTTP and not client.vendor_class.startswith("PXEClient")
    ):
        url = http_url(site, f"/loaders/{loader}")
        return _but(base, loader_url=url, why=_because(base, found, chosen, f"by HTTP: {url}"))
    return _but(base, loader=loader, why=_because(base, found, chosen, "by TFTP"))


def _for_ipxe(base: BootPlan, site: Site) -> BootPlan:
    """iPXE, from a ROM or loaded by us: never another iPXE, which would begin all over again."""
    client, script = base.client, base.profile.script
    already = "this is iPXE already: no loader"
    if script is not None:
        url = http_url(site, script_path(client.mac))
        chosen = f"profile {base.profile.name} wants the script {script}: {url}"
        return _but(base, script_url=url, why=_because(base, already, chosen))
    target = site.target_name(client.mac)
    if not _ISCSI_NAME.fullmatch(target) or len(target) > _NAME_LIMIT:
        return _but(
            base,
            why=_because(base, already, f"no root path: {target!r} is not an iSCSI name"),
        )
    warning = ""
    if client.features and IPXE_ISCSI not in client.features:
        warning = "warning: this iPXE was built without iSCSI, it will not find the disk"
    path = root_path(site, client.mac)
    return _but(base, root_path=path, why=_because(base, already, f"root path {path}", warning))


def _for_os(base: BootPlan, site: Site) -> BootPlan:
    """An operating system: its name and addresses, and nothing that could boot it again."""
    return _but(base, why=_because(base, "an operating system is running: nothing to boot"))


STAGES: dict[Stage, Callable[[BootPlan, Site], BootPlan]] = {
    Stage.FIRMWARE: _for_firmware,
    Stage.IPXE: _for_ipxe,
    Stage.OS: _for_os,
}
