"""What a machine would get, at each stage and why — as data and as text — and nothing is sent.

It asks ``plan`` exactly as DHCP and HTTP do, with clients of its own making (``PROBES``), and
looks up what the state knows. It never makes an overlay, a lease or an event. A template that
does not render is part of the answer, not an error.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from netboot.boot import admission, chap, profiles
from netboot.boot.plan import plan, root_path
from netboot.boot.script import Scripts
from netboot.errors import ConfigError
from netboot.model import (
    BootPlan,
    Client,
    Lease,
    Overlay,
    OverlayMode,
    Profile,
    Site,
    Stage,
    Version,
)


class Probe(NamedTuple):
    """One kind of request that a machine may send on its way up."""

    label: str
    stage: Stage
    arch: tuple[int, ...] = ()
    vendor_class: str = ""


PROBES: tuple[Probe, ...] = (
    Probe("BIOS (PXE)", Stage.FIRMWARE, (0,), "PXEClient:Arch:00000:UNDI:002001"),
    Probe("UEFI x64 (PXE)", Stage.FIRMWARE, (7,), "PXEClient:Arch:00007:UNDI:003000"),
    Probe("UEFI x64 (HTTP)", Stage.FIRMWARE, (16,), "HTTPClient:Arch:00016:UNDI:003000"),
    Probe("UEFI ARM64 (PXE)", Stage.FIRMWARE, (11,), "PXEClient:Arch:00011:UNDI:003000"),
    Probe("iPXE", Stage.IPXE, (0,), "PXEClient:Arch:00000:UNDI:002001"),
    Probe("operating system", Stage.OS),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one probe gets: ``sends`` names the field of the BootPlan and its value."""

    probe: str
    sends: str
    value: str
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Disk:
    """From the client's LUN down to the golden bytes; ``note`` says what is not there yet."""

    root_path: str
    target: str
    initiator: str
    serial: str
    proof: str  #: what its login must prove, in words
    image: str
    version: int | None
    golden: str | None
    mode: OverlayMode
    overlay: str | None
    generation: int
    note: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The whole answer for one MAC; without a profile the machine is ignored, and that is all."""

    mac: str
    rule: str
    name: str | None = None
    profile: str | None = None
    address: str | None = None
    answers: tuple[Answer, ...] = ()
    script: str | None = None
    script_error: str | None = None
    disk: Disk | None = None


def explain(
    mac: str,
    site: Site,
    scripts: Scripts,
    *,
    lease_of: Callable[[str], Lease | None],
    version_of: Callable[[str], Version | None],
    existing_overlay: Callable[[str, str], Overlay | None],
    version_at: Callable[[str, int], Version | None] | None = None,
) -> Explanation:
    """Everything that would happen to the machine with this canonical MAC.

    ``existing_overlay(mac, image)`` finds an overlay and never makes one.
    """
    assigned = profiles.assign(mac, site)
    if assigned.profile is None:
        return Explanation(mac, assigned.rule)
    plans = [(probe, _asked(mac, probe, site)) for probe in PROBES]
    answers = tuple(_answer(probe, made) for probe, made in plans if made is not None)
    booting = next(made for probe, made in plans if probe.stage is Stage.IPXE)
    assert booting is not None, "a machine with a profile has a plan"
    script, trouble = _script(booting, site, scripts)
    return Explanation(
        mac=mac,
        rule=assigned.rule,
        name=booting.name,
        profile=assigned.profile.name,
        address=_address(booting, lease_of(mac)),
        answers=answers,
        script=script,
        script_error=trouble,
        disk=_disk(booting, site, version_of, version_at, existing_overlay),
    )


def _asked(mac: str, probe: Probe, site: Site) -> BootPlan | None:
    http = probe.vendor_class.startswith("HTTPClient")
    return plan(Client(mac, probe.stage, probe.arch, http, vendor_class=probe.vendor_class), site)


def _answer(probe: Probe, made: BootPlan) -> Answer:
    for field in ("loader", "loader_url", "script_url", "root_path"):
        value = getattr(made, field)
        if value is not None:
            return Answer(probe.label, field, value, made.why)
    return Answer(probe.label, "", "", made.why)


def _script(made: BootPlan, site: Site, scripts: Scripts) -> tuple[str | None, str | None]:
    """The rendered script where the profile wants one, or what is wrong with it."""
    if made.profile.script is None:
        return None, None
    try:
        return scripts.render(made, site, made.profile.script), None
    except ConfigError as error:
        return None, str(error)


def _address(made: BootPlan, lease: Lease | None) -> str | None:
    if made.reserved is not None:
        return f"{made.reserved} (reserved)"
    return f"{lease.address} ({lease.state.value})" if lease is not None else None


def _disk(
    made: BootPlan,
    site: Site,
    version_of: Callable[[str], Version | None],
    version_at: Callable[[str, int], Version | None] | None,
    existing_overlay: Callable[[str, str], Overlay | None],
) -> Disk:
    mac, profile = made.client.mac, made.profile
    current = version_of(profile.image)
    overlay = existing_overlay(mac, profile.image)
    golden, note = current, _note(profile, current, overlay)
    if overlay is not None and (current is None or overlay.version != current.number):
        golden = version_at(profile.image, overlay.version) if version_at else None
        if golden is None:
            note = f"its overlay stands on version {overlay.version}, which is gone"
    return Disk(
        root_path=root_path(site, mac),
        target=site.target_name(mac),
        initiator=made.initiator or site.initiator_name(mac),
        serial=admission.serial(mac),
        proof=chap.in_words(mac, site),
        image=profile.image,
        version=golden.number if golden else None,
        golden=golden.path if golden else None,
        mode=profile.overlay,
        overlay=overlay.path if overlay else None,
        generation=overlay.generation if overlay else 0,
        note=note,
    )


def _note(profile: Profile, current: Version | None, overlay: Overlay | None) -> str:
    if current is None:
        return f"the image is not there yet: netboot image build {profile.image}"
    if overlay is None:
        return "no overlay yet: the first login makes it"
    if overlay.version != current.number:
        return f"the newest version is {current.number}; its overlay keeps the one it stands on"
    return ""


def as_text(explanation: Explanation) -> str:
    """The same for people, as lines that end in a newline."""
    lines = [
        f"{explanation.mac}  {explanation.name or 'ignored'}",
        f"  rule     {explanation.rule}",
    ]
    if explanation.profile is None:
        return "\n".join([*lines, "  answer   none, at any stage", ""])
    lines.append(f"  profile  {explanation.profile}")
    lines.append(f"  address  {explanation.address or 'none yet'}")
    for answer in explanation.answers:
        sent = f"{answer.sends} {answer.value}" if answer.sends else "nothing to boot"
        lines += ["", f"{answer.probe}: {sent}", *(f"  - {reason}" for reason in answer.why[1:])]
    if explanation.script is not None:
        lines += ["", "script:", *(f"  | {line}" for line in explanation.script.splitlines())]
    if explanation.script_error is not None:
        lines += ["", f"script: does not render: {explanation.script_error}"]
    return "\n".join([*lines, *_disk_text(explanation.disk), ""])


def _disk_text(disk: Disk | None) -> list[str]:
    if disk is None:
        return []
    version = f"version {disk.version}" if disk.version is not None else "no version"
    mode = f"{disk.mode.value}, generation {disk.generation}"
    lines = [
        "",
        "disk:",
        f"  target     {disk.target}, LUN 0, serial {disk.serial}",
        f"  initiator  {disk.initiator}",
        f"  proof      {disk.proof}",
        f"  overlay    {disk.overlay or 'none'} ({mode})",
        f"  golden     {disk.golden or 'none'} ({disk.image}, {version})",
    ]
    return [*lines, f"  note       {disk.note}"] if disk.note else lines
