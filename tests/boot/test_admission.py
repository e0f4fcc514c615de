"""Who may log in to which disk, and what is behind it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.boot.admission import (
    MOVED,
    NOT_AUTHORIZED,
    NOT_FOUND,
    UNAVAILABLE,
    WELCOME,
    admit,
    mac_of_target,
    serial,
)
from netboot.errors import ImageError, NetbootError
from netboot.model import (
    Admission,
    Chap,
    ChapMode,
    DhcpMode,
    DiskSpec,
    Host,
    Knock,
    Lease,
    LeaseState,
    Lun,
    Overlay,
    OverlayMode,
    Profile,
    Secrets,
    Site,
    Version,
    hyphenated,
)

WS1 = "52:54:00:12:34:56"
WS2 = "52:54:00:00:00:02"
OTHER = "52:54:00:00:00:99"
IQN = "iqn.2026-11.lab.netboot"
OWN_NAME = "iqn.1991-05.com.example:ws2"
SITE = Site(
    interface="br0",
    address=IPv4Interface("192.168.77.1/24"),
    domain="lab.netboot",
    profiles={
        "work": Profile("work", "debian"),
        "kiosk": Profile("kiosk", "debian", overlay=OverlayMode.EPHEMERAL),
        "unbuilt": Profile("unbuilt", "fedora"),
    },
    hosts={
        WS1: Host(WS1, "ws1", "work", IPv4Address("192.168.77.21")),
        WS2: Host(WS2, "ws2", "kiosk", initiator=OWN_NAME),
    },
    unknown_profile="work",
)
GOLDEN = Version("debian", 3, "/lib/debian/3.raw", 1 << 30, "sha256:33", 0.0)
OLDER = replace(GOLDEN, number=2, path="/lib/debian/2.raw", digest="sha256:22", size=1 << 29)


def lease(mac: str, address: str, state: LeaseState = LeaseState.BOUND) -> Lease:
    return Lease(mac, IPv4Address(address), 0.0, state)


@dataclass
class State:
    """What the door asks, in memory; remembers whether an overlay was asked for."""

    leases: dict[str, Lease] = field(default_factory=dict)
    versions: dict[str, Version] = field(default_factory=lambda: {"debian": GOLDEN})
    stands_on: int = 3
    trouble: Exception | None = None
    asked: list[str] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)  #: whose secrets were asked for
    locked: Exception | None = None

    def secrets_of(self, mac: str) -> Secrets:
        self.drawn.append(mac)
        if self.locked:
            raise self.locked
        return Secrets(mac, "secret-of-the-machine", "secret-of-ours", 1.0)

    def overlay_of(self, mac: str, image: str, mode: OverlayMode) -> Overlay:
        self.asked.append(mac)
        if self.trouble:
            raise self.trouble
        generation = 7 if mode is OverlayMode.EPHEMERAL else 0
        path = f"/overlays/{hyphenated(mac)}.qcow2"
        return Overlay(mac, image, self.stands_on, mode, generation, path)


def knock(
    mac: str = WS1, address: str = "192.168.77.21", initiator: str | None = None, **more: str
) -> Knock:
    name = f"{IQN}:client.{hyphenated(mac)}" if initiator is None else initiator
    return Knock(name, more.get("target", f"{IQN}:{hyphenated(mac)}"), address)


def answer(
    request: Knock,
    state: State | None = None,
    site: Site = SITE,
    version_at: Callable[[str, int], Version | None] | None = None,
    mac_of: Callable[[str], str | None] | None = None,
    mark: str = "",
) -> Admission:
    state = state or State()
    return admit(
        request,
        site,
        lease_of=state.leases.get,
        version_of=state.versions.get,
        overlay_of=state.overlay_of,
        secrets_of=state.secrets_of,
        version_at=version_at,
        mac_of=mac_of,
        mark=mark,
    )


def test_a_fresh_disk_is_as_large_as_the_profile_says() -> None:
    (lun,) = answer(knock()).luns
    assert lun.disk.room == 0
    large = replace(SITE, profiles={**SITE.profiles, "work": Profile("work", "debian", disk=9)})
    (grown,) = answer(knock(), site=large).luns
    assert grown.disk.room == 9
    assert grown == lun  # the same disk: nobody is thrown out when the setting changes


def test_welcome_by_reservation() -> None:
    assert answer(knock()) == Admission(
        status=WELCOME,
        mac=WS1,
        target=f"{IQN}:52-54-00-12-34-56",
        luns=(
            Lun(
                number=0,
                disk=DiskSpec(
                    golden="/lib/debian/3.raw",
                    size=1 << 30,
                    digest="sha256:33",
                    overlay="/overlays/52-54-00-12-34-56.qcow2",
                ),
                serial="NB525400123456",
            ),
        ),
    )


def test_an_ephemeral_disk_says_so_with_its_generation() -> None:
    state = State({WS2: lease(WS2, "192.168.77.60")})
    welcome = answer(knock(WS2, "192.168.77.60", OWN_NAME), state)
    assert welcome.status == WELCOME
    assert welcome.luns[0].disk.ephemeral
    assert welcome.luns[0].disk.generation == 7
    assert not welcome.luns[0].disk.read_only


@pytest.mark.parametrize("state", LeaseState)
def test_a_lease_opens_the_door_unless_it_was_declined(state: LeaseState) -> None:
    records = State({OTHER: lease(OTHER, "192.168.77.99", state)})
    status = answer(knock(OTHER, "192.168.77.99"), records).status
    assert status == (NOT_AUTHORIZED if state is LeaseState.DECLINED else WELCOME)


def test_a_reserved_machine_may_still_have_an_older_lease() -> None:
    state = State({WS1: lease(WS1, "192.168.77.50")})
    for address in ("192.168.77.21", "192.168.77.50", "::ffff:192.168.77.50"):
        assert answer(knock(WS1, address), state).status == WELCOME


@pytest.mark.parametrize(
    ("request_", "detail"),
    [
        (
            knock(WS1, initiator=f"{IQN}:client.{hyphenated(OTHER)}"),
            f"this target belongs to initiator {IQN}:client.52-54-00-12-34-56",
        ),
        (
            knock(WS1, initiator=""),
            f"this target belongs to initiator {IQN}:client.52-54-00-12-34-56",
        ),
        (
            knock(WS2, "192.168.77.60"),
            f"this target belongs to initiator {OWN_NAME}",
        ),
        (
            knock(WS1, "192.168.77.22"),
            f"{WS1} has the address 192.168.77.21 from us, this is 192.168.77.22",
        ),
        (
            knock(WS1, "127.0.0.1"),
            f"{WS1} has the address 192.168.77.21 from us, this is 127.0.0.1",
        ),
        (
            knock(WS1, "fe80::1"),
            f"{WS1} has the address 192.168.77.21 from us, this is fe80::1; over IPv6 it must "
            "prove itself (iscsi.chap)",
        ),
        (
            knock(WS1, "nonsense"),
            f"{WS1} has the address 192.168.77.21 from us, this is nonsense",
        ),
        (
            knock(OTHER, "192.168.77.99"),
            f"{OTHER} has no address from us, so nobody can be it",
        ),
    ],
)
def test_strangers_are_refused_and_nothing_is_made_for_them(request_: Knock, detail: str) -> None:
    state = State()
    refused = answer(request_, state)
    assert refused.status == NOT_AUTHORIZED == 0x0202
    assert refused.luns == ()
    who = f"{request_.initiator or 'nobody'} from {request_.address} to {request_.target}"
    assert refused.detail == f"{who}: {detail}"
    assert state.asked == []


def test_both_addresses_are_named() -> None:
    state = State({WS1: lease(WS1, "192.168.77.50")})
    detail = answer(knock(WS1, "192.168.77.9"), state).detail
    assert "has the address 192.168.77.21 or 192.168.77.50 from us" in detail


@pytest.mark.parametrize("mode", [DhcpMode.PROXY, DhcpMode.OFF])
def test_where_addresses_are_not_ours_the_name_alone_counts(mode: DhcpMode) -> None:
    site = replace(SITE, dhcp_mode=mode)
    assert answer(knock(WS1, "10.1.2.3"), site=site).status == WELCOME
    assert answer(knock(OTHER, "10.1.2.3"), site=site).status == WELCOME
    wrong = knock(WS1, initiator=f"{IQN}:client.{hyphenated(OTHER)}")
    assert answer(wrong, site=site).status == NOT_AUTHORIZED


@pytest.mark.parametrize(
    "target",
    [
        "",
        "iqn.2026-11.lab.other:52-54-00-12-34-56",
        f"{IQN}:",
        IQN,
        f"{IQN}:ws1",
        f"{IQN}:52:54:00:12:34:56",
        f"{IQN}:525400123456",
        f"{IQN}:52-54-00-12-34-56:1",
        f"{IQN}:client.52-54-00-12-34-56",
    ],
)
def test_a_target_that_nobody_has(target: str) -> None:
    refused = answer(knock(target=target))
    assert refused.status == NOT_FOUND == 0x0203
    assert refused.detail.endswith(f"to {target or 'no target'}: no target of ours has this name")


def test_capital_letters_are_the_same_letters() -> None:
    request = Knock(f"{IQN}:CLIENT.52-54-00-12-34-56", f"{IQN}:52-54-00-12-34-56".upper(), "")
    site = replace(SITE, dhcp_mode=DhcpMode.OFF)
    assert answer(request, site=site).target == f"{IQN}:52-54-00-12-34-56"


def test_a_machine_that_is_ignored_has_no_target() -> None:
    refused = answer(knock(OTHER), site=replace(SITE, unknown_profile=None))
    assert refused.status == NOT_FOUND
    assert refused.detail.endswith("no client has this MAC, and unknown machines are ignored")


def test_an_image_that_is_not_there_yet_is_worth_another_try() -> None:
    site = replace(SITE, hosts={WS1: replace(SITE.hosts[WS1], profile="unbuilt")})
    state = State()
    refused = answer(knock(), state, site)
    assert refused.status == UNAVAILABLE == 0x0301
    assert refused.detail.endswith(
        "image 'fedora' of profile 'unbuilt' is not there yet: build it with "
        "`netboot image build fedora`, or see `netboot image list`"
    )
    assert state.asked == []


def test_an_overlay_that_cannot_be_had_says_why() -> None:
    refused = answer(knock(), State(trouble=ImageError("the golden file changed")))
    assert refused.status == UNAVAILABLE
    assert refused.detail.endswith(": the golden file changed")


def test_a_bug_of_ours_is_not_hidden() -> None:
    with pytest.raises(KeyError):
        answer(knock(), State(trouble=KeyError("bug")))


def test_a_kept_overlay_stays_on_its_own_version() -> None:
    state = State(stands_on=2)
    found = {("debian", 2): OLDER}
    welcome = answer(knock(), state, version_at=lambda image, number: found.get((image, number)))
    disk = welcome.luns[0].disk
    assert (disk.golden, disk.size, disk.digest) == (OLDER.path, OLDER.size, OLDER.digest)
    assert welcome.luns[0].serial == answer(knock()).luns[0].serial


@pytest.mark.parametrize("version_at", [None, lambda image, number: None])
def test_an_overlay_whose_version_is_gone(
    version_at: Callable[[str, int], Version | None] | None,
) -> None:
    refused = answer(knock(), State(stands_on=2), version_at=version_at)
    assert refused.status == UNAVAILABLE
    assert refused.detail.endswith(
        f"the overlay of {WS1} stands on version 2 of image 'debian', which is gone: bring that "
        f"version back, or throw the overlay away with `netboot overlay reset {WS1}`"
    )


def discovery(initiator: str, address: str) -> Knock:
    return Knock(initiator, "", address, discovery=True)


@pytest.mark.parametrize(
    ("initiator", "address", "mac"),
    [
        (f"{IQN}:client.{hyphenated(WS1)}", "192.168.77.21", WS1),
        ("iqn.1993-08.org.debian:01:abc", "192.168.77.21", WS1),  # by its reservation
        ("iqn.1993-08.org.debian:01:abc", "192.168.77.60", WS2),  # by its lease
        (OWN_NAME, "192.168.77.60", WS2),
        (f"{IQN}:client.{hyphenated(WS1)}", "192.168.77.60", WS2),  # the name is not its own
        (f"{IQN}:client.{hyphenated(WS1)}", "10.0.0.1", None),
        ("iqn.1993-08.org.debian:01:abc", "10.0.0.1", None),
        ("", "", None),
    ],
)
def test_discovery_shows_the_askers_own_target(
    initiator: str, address: str, mac: str | None
) -> None:
    state = State({WS2: lease(WS2, "192.168.77.60")})
    holders = {"192.168.77.60": WS2}
    shown = answer(discovery(initiator, address), state, mac_of=holders.get)
    assert shown.status == WELCOME
    assert shown.luns == ()
    assert shown.mac == (mac or "")
    assert shown.target == (f"{IQN}:{hyphenated(mac)}" if mac else "")
    assert state.asked == []


def test_discovery_without_our_addresses_goes_by_name() -> None:
    site = replace(SITE, dhcp_mode=DhcpMode.PROXY)
    by_name = answer(discovery(f"{IQN}:client.{hyphenated(WS1)}", "10.0.0.1"), site=site)
    assert by_name.mac == WS1
    assert answer(discovery("iqn.x:y", "192.168.77.21"), site=site).mac == ""
    seen = answer(discovery("iqn.x:y", "10.0.0.7"), site=site, mac_of={"10.0.0.7": WS2}.get)
    assert seen.mac == WS2
    stranger = discovery(f"{IQN}:client.{hyphenated(OTHER)}", "10.0.0.1")
    assert answer(stranger, site=replace(site, unknown_profile=None)).mac == ""


def test_a_serial_for_each_client() -> None:
    assert serial(WS1) == "NB525400123456"
    assert serial("aa:bb:cc:dd:ee:ff") == "NBAABBCCDDEEFF"


@given(st.text())
def test_only_a_name_of_ours_is_a_name_of_ours(text: str) -> None:
    for name in (text, f"{IQN}:{text}"):
        mac = mac_of_target(name, SITE)
        assert mac is None or SITE.target_name(mac) == name.lower()


@given(initiator=st.text(), target=st.text(), address=st.text(), discovery=st.booleans())
def test_no_knock_raises_or_opens(
    initiator: str, target: str, address: str, discovery: bool
) -> None:
    state = State()
    for name in (target, SITE.target_name(WS1)):
        result = answer(Knock(initiator, name, address, discovery=discovery), state)
        assert (result.status == WELCOME) is discovery
        assert result.luns == ()
    assert state.asked == []


# What must be proved.

ONE_WAY = Chap("52-54-00-12-34-56", "secret-of-the-machine", mark="beef")
MUTUAL = replace(ONE_WAY, mutual_name="netboot", mutual_secret="secret-of-ours")


@pytest.mark.parametrize(
    ("mode", "proof"), [(ChapMode.OFF, None), (ChapMode.CHAP, ONE_WAY), (ChapMode.MUTUAL, MUTUAL)]
)
def test_what_the_site_wants_proved(mode: ChapMode, proof: Chap | None) -> None:
    state = State()
    found = answer(knock(), state, replace(SITE, chap=mode), mark="beef")
    assert (found.status, found.chap) == (WELCOME, proof)
    assert found.luns
    assert state.drawn == ([WS1] if proof else [])


def test_the_digests_of_the_site() -> None:
    found = answer(knock(), site=replace(SITE, chap=ChapMode.CHAP, algorithms=(7,)))
    assert found.chap is not None
    assert found.chap.algorithms == (7,)


def test_a_machine_with_its_own_secret_proves_it_whatever_the_site_wants() -> None:
    host = replace(SITE.hosts[WS1], chap_name="me", chap_secret="its-own-secret")
    for mode in ChapMode:
        state = State()
        site = replace(SITE, hosts={**SITE.hosts, WS1: host}, chap=mode)
        assert answer(knock(), state, site).chap == Chap("me", "its-own-secret")
        assert state.drawn == [], "and none is made for it"


def test_nobody_has_a_secret_made_by_knocking_at_a_strangers_door() -> None:
    state, site = State(), replace(SITE, chap=ChapMode.MUTUAL)
    assert answer(knock(address="192.168.77.99"), state, site).status == NOT_AUTHORIZED
    assert answer(knock(OTHER, "192.168.77.99"), state, site).status == NOT_AUTHORIZED
    assert answer(knock(target="iqn.x:nobody"), state, site).status == NOT_FOUND
    assert state.drawn == []


def test_secrets_that_cannot_be_read_mean_later_and_not_never() -> None:
    state = State(locked=NetbootError("the database is locked"))
    found = answer(knock(), state, replace(SITE, chap=ChapMode.CHAP))
    assert (found.status, found.luns, found.chap) == (UNAVAILABLE, (), None)
    assert "the database is locked" in found.detail
    assert state.asked == [], "and no overlay is made"


def test_discovery_proves_itself_where_it_must() -> None:
    wanted = Chap("discovery", "secret-of-discovery")
    site = replace(SITE, discovery=wanted)
    mine = replace(knock(), target="", discovery=True)
    stranger = Knock("iqn.2000-01.com.example:x", "", "192.168.77.200", discovery=True)
    for asker in (mine, stranger):
        assert answer(asker, site=site, mark="beef").chap == replace(wanted, mark="beef")
        assert answer(asker).chap is None
    assert answer(knock(), site=site).chap is None, "a disk is another matter"


def test_a_server_that_is_drained_sends_its_machines_away() -> None:
    """Strangers are told nothing, and no overlay is made here for what will be written there."""
    state, site = State(), replace(SITE, redirect="192.168.77.2:3260")
    moved = answer(knock(), state, site)
    assert (moved.status, moved.redirect) == (MOVED, "192.168.77.2:3260")
    assert moved.mac == WS1 and "192.168.77.2:3260" in moved.detail
    assert state.asked == state.drawn == []
    assert answer(knock(address="192.168.77.99"), state, site).status == NOT_AUTHORIZED
    away = replace(knock(), target="", discovery=True)
    assert answer(away, state, site) == answer(away, state)


@pytest.mark.parametrize("address", ["fd00:77::5", "fd00::5054:ff:fe12:3456", "fe80::1%br0"])
def test_over_ipv6_a_machine_must_prove_itself(address: str) -> None:
    """Nobody has an IPv6 address from us, and anybody can make one out of somebody's MAC."""
    here = knock(address=address)
    refused = answer(here)
    assert refused.status == NOT_AUTHORIZED
    assert f"from us, this is {address}; over IPv6 it must prove itself" in refused.detail
    proving = answer(here, site=replace(SITE, chap=ChapMode.CHAP))
    assert proving.status == WELCOME and proving.chap is not None
    host = replace(SITE.hosts[WS1], chap_secret="its own secret 123")
    own = answer(here, site=replace(SITE, hosts={WS1: host}))
    assert own.status == WELCOME and own.chap is not None
    assert answer(here, site=replace(SITE, dhcp_mode=DhcpMode.PROXY)).status == WELCOME
    wrong = knock(address=address, initiator="iqn.2000-01.com.example:x")
    assert answer(wrong, site=replace(SITE, chap=ChapMode.CHAP)).status == NOT_AUTHORIZED
