"""Each kind of name: what it takes, what it makes of it, and why it refuses the rest."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot import names
from netboot.storage.recipe import NAME
from netboot.values import Allowed

Reader = Callable[[object], object]

RIGHT: list[tuple[Reader, object, object]] = [
    (names.mac, "52:54:00:12:34:56", "52:54:00:12:34:56"),
    (names.mac, "5254.00AB.cdef", "52:54:00:ab:cd:ef"),
    (names.mac, "52-54-00-12-34-56", "52:54:00:12:34:56"),
    (names.label, "WS-1", "ws-1"),
    (names.label, "1", "1"),
    (names.label, "a" * 63, "a" * 63),
    (names.domain, "Lab.Netboot.", "lab.netboot"),
    (names.domain, "lan", "lan"),
    (names.name, "debian-12.5_x", "debian-12.5_x"),
    (names.image, "debian-12.5_x", "debian-12.5_x"),
    (names.interface, "br0", "br0"),
    (names.interface, "eth0.100@x:y", "eth0.100@x:y"),
    (names.iqn, "iqn.2026-11.lab.netboot", "iqn.2026-11.lab.netboot"),
    (names.iqn, "iqn.2026-01.com.example:room:b-12", "iqn.2026-01.com.example:room:b-12"),
    (names.initiator, "eui.02004567A425678D", "eui.02004567A425678D"),
    (names.initiator, "naa.52004567BA64678D", "naa.52004567BA64678D"),
    (names.initiator, "iqn.2010-04.org.ipxe:ws1", "iqn.2010-04.org.ipxe:ws1"),
    (names.file_name, "efi/boot.efi", "efi/boot.efi"),
]

WRONG: list[tuple[Reader, object, str]] = [
    (names.mac, "52:54:00:12:34", "is not a MAC address"),
    (names.mac, "52:54:00:12:34:5g", "is not a MAC address"),
    (names.mac, "ff:ff:ff:ff:ff:ff", "multicast or broadcast"),
    (names.mac, "01:00:5e:00:00:01", "multicast or broadcast"),
    (names.mac, "00:00:00:00:00:00", "the address of no machine"),
    (names.label, "ws_1", "is not a DNS label"),
    (names.label, "-ws", "is not a DNS label"),
    (names.label, "ws.lab", "is not a DNS label"),
    (names.label, "a" * 64, "is not a DNS label"),
    (names.domain, "lab..netboot", "'' is not a DNS label"),
    (names.domain, "lab.net_boot", "'net_boot' is not a DNS label"),
    (names.domain, ".".join(["abcdefghi"] * 21), "longer than 200"),
    (names.name, "../x", "is not a plain name"),
    (names.name, ".hidden", "is not a plain name"),
    (names.name, "a/b", "is not a plain name"),
    (names.image, "Debian", "cannot be the name of an image"),
    (names.image, "../debian", "cannot be the name of an image"),
    (names.image, "a" * 64, "cannot be the name of an image"),
    (names.interface, "a" * 16, "cannot be the name"),
    (names.interface, "br0/x", "cannot be the name"),
    (names.interface, "..", "cannot be the name"),
    (names.iqn, "IQN.2026-11.lab", "capital letters"),
    (names.iqn, "iqn.2026-13.lab", "not an iSCSI qualified name"),
    (names.iqn, "iqn.26-11.lab", "not an iSCSI qualified name"),
    (names.iqn, "iqn.2026-11", "not an iSCSI qualified name"),
    (names.iqn, "iqn.2026-11.lab.", "not an iSCSI qualified name"),
    (names.iqn, "iqn.2026-11.lab..x", "not an iSCSI qualified name"),
    (names.iqn, "iqn.2026-11.lab:", "not an iSCSI qualified name"),
    (names.iqn, "iqn.2026-11.lab:a b", "not an iSCSI qualified name"),
    (names.iqn, "eui.02004567A425678D", "capital letters"),
    (names.iqn, "iqn.2026-11." + "a" * 190, "longer than 198"),
    (names.initiator, "ws1", "is not an iSCSI name"),
    (names.initiator, "eui.02", "is not an iSCSI name"),
    (names.file_name, "/etc/passwd", "below our folders"),
    (names.file_name, "../x", "below our folders"),
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


@given(st.text("abZ0._-/", max_size=66))
def test_the_library_takes_the_same_image_names(given: str) -> None:
    try:
        taken = bool(names.image(given))
    except ValueError:
        taken = False
    assert taken == bool(NAME.fullmatch(given))


def test_every_type_says_what_it_allows() -> None:
    kinds = [kind for kind in vars(names).values() if hasattr(kind, "__metadata__")]
    assert len(kinds) > 8
    for kind in kinds:
        words = [fact.words for fact in kind.__metadata__ if isinstance(fact, Allowed)]
        assert len(words) == 1 and words[0]


@given(st.from_regex(r"\A([a-z0-9-]{1,8}\.){0,3}[a-z0-9-]{1,8}\Z"))
def test_a_domain_is_read_as_it_is_written(text: str) -> None:
    try:
        once = names.domain(text)
    except ValueError:
        return
    assert names.domain(once) == once
