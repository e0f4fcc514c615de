"""The store is its parts over one database, and each of them sees what the others wrote."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from netboot.errors import NetbootError
from netboot.events import BootEvent, Phase
from netboot.model import Lease, LeaseState, Overlay, OverlayMode, Secrets, Version
from netboot.state import store as parts
from netboot.state.database import Database
from netboot.state.store import Store

MAC = "52:54:00:00:00:01"


def test_every_part_works_on_one_database(store: Store, url: str) -> None:
    lease = Lease(MAC, IPv4Address("10.0.0.5"), 9.0, LeaseState.BOUND)
    version = Version("debian", 1, "/golden/1.raw", 512, "sha256:0", 1.0)
    overlay = Overlay(MAC, "debian", 1, OverlayMode.PERSISTENT, 0, "/overlays/1.qcow2")
    happened = BootEvent(MAC, 2.0, Phase.SEEN, "BIOS PXE asks", fresh=True)
    secrets = Secrets(MAC, "one secret of 16", "another of 16...", 3.0)
    store.keep([lease])
    store.add_version(version)
    store.save_overlay(overlay)
    store.add_events([happened])
    store.add_secrets(secrets)
    other = Store(url)
    assert other.leases() == [lease]
    assert other.versions() == [version]
    assert other.overlays() == [overlay]
    assert other.events() == [happened]
    assert other.seen() == [parts.Seen(MAC, 2.0, 2.0, 1, Phase.SEEN)]
    assert other.secrets(MAC) == secrets
    other.close()


def test_what_machines_wait_for_is_one_transaction(store: Store) -> None:
    lease = Lease(MAC, IPv4Address("10.0.0.5"), 9.0, LeaseState.BOUND)
    overlay = Overlay(MAC, "debian", 1, OverlayMode.EPHEMERAL, 0, "/overlays/1.qcow2")
    store.add_version(Version("debian", 1, "/golden/1.raw", 512, "sha256:0", 1.0))
    store.save_overlay(overlay)
    with pytest.raises(NetbootError, match="FOREIGN KEY"):
        store.keep([lease, replace(overlay, version=2)])
    assert (store.leases(), store.overlays()) == ([], [overlay])
    begun = replace(overlay, generation=1)
    store.keep([lease, begun])
    assert (store.leases(), store.overlays()) == ([lease], [begun])


def test_no_two_parts_have_a_method_of_the_same_name() -> None:
    """Or one would hide the other."""
    seen: dict[str, type] = {}
    for part in Store.__mro__[1:]:
        if part in (Database, object):
            continue
        for name in vars(part):
            assert name.startswith("__") or seen.setdefault(name, part) is part, name
    assert len(seen) > 20
