"""Each kind of value: what it takes, what it makes of it, and why it refuses the rest."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot import values
from netboot.model import DhcpMode, OverlayMode
from netboot.values import Duration, Pool

Reader = Callable[[object], object]

RIGHT: list[tuple[Reader, object, object]] = [
    (values.text, "a b", "a b"),
    (values.switch, False, False),
    (values.port, 1, 1),
    (values.port, 65535, 65535),
    (values.address, "192.168.77.1", IPv4Address("192.168.77.1")),
    (values.interface_address, "10.0.0.2/30", IPv4Interface("10.0.0.2/30")),
    (values.interface_address, "10.0.0.2/255.255.255.0", IPv4Interface("10.0.0.2/24")),
    (values.pool, "10.0.0.2 - 10.0.0.9", Pool(IPv4Address("10.0.0.2"), IPv4Address("10.0.0.9"))),
    (values.pool, "10.0.0.2-10.0.0.2", Pool(IPv4Address("10.0.0.2"), IPv4Address("10.0.0.2"))),
    (values.size, "1M", 1 << 20),
    (values.size, "100G", 100 << 30),
    (values.size, "16T", 16 << 40),
    (values.size, values.Size(512), 512),
    (values.duration, "30s", 30),
    (values.duration, "90m", 5400),
    (values.duration, "1h", 3600),
    (values.duration, "365d", 365 * 86400),
    (values.duration, Duration(77), 77),
    (values.folder, "/srv/x", Path("/srv/x")),
    (values.folders, ["/a", "/b"], (Path("/a"), Path("/b"))),
    (values.folders, [], ()),
    (values.addresses, ["10.0.0.1"], (IPv4Address("10.0.0.1"),)),
    (values.variables, {"room_1": "b 12"}, {"room_1": "b 12"}),
    (values.overlay_mode, "ephemeral", OverlayMode.EPHEMERAL),
    (values.dhcp_mode, "proxy", DhcpMode.PROXY),
    (values.policy, "ignore", "ignore"),
    (values.database, "postgresql+psycopg://u:p@h/db", "postgresql+psycopg://u:p@h/db"),
]

WRONG: list[tuple[Reader, object, str]] = [
    (values.text, 3, "is not a string"),
    (values.text, "  ", "is empty"),
    (values.text, "a\nb", "holds control characters"),
    (values.switch, "yes", "is neither true nor false"),
    (values.switch, 1, "is neither true nor false"),
    (values.port, 0, "is not a port number"),
    (values.port, 65536, "is not a port number"),
    (values.port, "80", "is not a whole number"),
    (values.port, True, "is not a whole number"),
    (values.port, 80.0, "is not a whole number"),
    (values.address, "192.168.77", "is not an IPv4 address"),
    (values.address, "fe80::1", "is not an IPv4 address"),
    (values.address, "0.0.0.0", "one machine can have"),
    (values.address, "255.255.255.255", "one machine can have"),
    (values.address, "224.0.0.1", "one machine can have"),
    (values.interface_address, "10.0.0.2", "has no prefix length"),
    (values.interface_address, "10.0.0.2/33", "with a prefix length"),
    (values.interface_address, "10.0.0.2/31", "no room for clients"),
    (values.interface_address, "10.0.0.0/24", "network's own or its broadcast"),
    (values.interface_address, "10.0.0.255/24", "network's own or its broadcast"),
    (values.pool, "10.0.0.2", "is not a range"),
    (values.pool, "10.0.0.9-10.0.0.2", "ends before it begins"),
    (values.pool, "10.0.0.2-9", "is not an IPv4 address"),
    (values.size, "100", "number with a unit"),
    (values.size, "100g", "number with a unit"),
    (values.size, "1.5G", "number with a unit"),
    (values.size, 5, "not a string"),
    (values.size, "0G", "smaller than 1M or larger than 16T"),
    (values.size, "17T", "smaller than 1M or larger than 16T"),
    (values.duration, "1", "number with a unit"),
    (values.duration, "1 h", "number with a unit"),
    (values.duration, "-1h", "number with a unit"),
    (values.duration, "1.5h", "number with a unit"),
    (values.duration, 3600, "is not a string"),
    (values.duration, "29s", "shorter than 30s"),
    (values.duration, "366d", "longer than 365d"),
    (values.folder, "var/lib", "is not an absolute path"),
    (values.folders, "/a", "is not a list"),
    (values.folders, ["/a", "b"], "is not an absolute path"),
    (values.addresses, "10.0.0.1", "is not a list"),
    (values.variables, [], "is not a table"),
    (values.variables, {"Room": "x"}, "'Room'"),
    (values.variables, {"room": 1}, "is not a string"),
    (values.overlay_mode, "persistant", "is not one of the words"),
    (values.dhcp_mode, [], "is not one of the words"),
    (values.policy, "drop", "is no policy"),
    (values.database, "netboot.sqlite", "is not a database URL"),
]


@pytest.mark.parametrize(("read", "given", "expected"), RIGHT)
def test_takes(read: Reader, given: object, expected: object) -> None:
    assert read(given) == expected


@pytest.mark.parametrize(("read", "given", "reason"), WRONG)
def test_refuses(read: Reader, given: object, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        read(given)
    assert reason in str(caught.value)


READERS = sorted({row[0] for row in RIGHT}, key=lambda read: read.__name__)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(READERS), ANYTHING)
def test_anything_else_is_refused_in_words(read: Reader, given: object) -> None:
    try:
        read(given)
    except ValueError as error:
        assert str(error)


@given(st.integers(30, 365 * 86400))
def test_a_duration_is_written_as_it_is_read(seconds: int) -> None:
    assert values.duration(str(Duration(seconds))) == seconds


@pytest.mark.parametrize(
    ("seconds", "written"), [(90, "90s"), (120, "2m"), (5400, "90m"), (86400, "1d"), (0, "0s")]
)
def test_a_duration_is_written_short(seconds: int, written: str) -> None:
    assert str(Duration(seconds)) == written


@given(st.integers(1, 16 << 20).map(lambda number: number << 20))
def test_a_size_is_written_as_it_is_read(size: int) -> None:
    assert values.size(str(values.Size(size))) == size


@pytest.mark.parametrize(
    ("size", "written"),
    [(1 << 20, "1M"), (3 << 29, "1536M"), (100 << 30, "100G"), (2 << 40, "2T"), (7, "7"), (0, "0")],
)
def test_a_size_is_written_short(size: int, written: str) -> None:
    assert str(values.Size(size)) == written


def test_a_pool_holds_both_ends_and_nothing_else() -> None:
    pool = values.pool("10.0.0.2-10.0.0.4")
    inside = [n for n in range(256) if IPv4Address(f"10.0.0.{n}") in pool]
    assert inside == [2, 3, 4]
    assert "10.0.0.3" not in pool
    assert str(pool) == "10.0.0.2-10.0.0.4"


def test_every_type_says_what_it_allows() -> None:
    kinds = [kind for kind in vars(values).values() if hasattr(kind, "__metadata__")]
    assert len(kinds) > 12
    for kind in kinds:
        words = [fact.words for fact in kind.__metadata__ if isinstance(fact, values.Allowed)]
        assert len(words) == 1 and words[0]
