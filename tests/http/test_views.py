"""Values turn into plain JSON, and nothing turns into something surprising."""

import json
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.events import BootEvent, Phase
from netboot.http.views import (
    ClientView,
    Health,
    ImageView,
    OverlayView,
    StepView,
    event_dict,
    jsonable,
)
from netboot.model import Chap, Counters, Host, Secrets

MAC = "52:54:00:12:34:56"


def test_a_whole_client() -> None:
    view = ClientView(
        mac=MAC,
        name="ws1",
        address="192.168.77.21",
        profile="workstation",
        image="debian",
        version=3,
        phase=Phase.READING,
        timeline=(StepView(Phase.SEEN, 100.0, 0.0, "BIOS"), StepView(Phase.LOGIN, 104.5, 4.5)),
        counters=Counters(MAC, sessions=1, reads=2, read_bytes=1024),
        overlay=OverlayView("/srv/ws1.qcow2", "persistent", 0, 8192, MAC, "debian", 3),
    )
    assert jsonable(view) == {
        "mac": MAC,
        "name": "ws1",
        "address": "192.168.77.21",
        "profile": "workstation",
        "image": "debian",
        "version": 3,
        "phase": "reading",
        "timeline": [
            {"phase": "seen", "at": 100.0, "after": 0.0, "detail": "BIOS"},
            {"phase": "login", "at": 104.5, "after": 4.5, "detail": ""},
        ],
        "counters": {
            "mac": MAC,
            "sessions": 1,
            "reads": 2,
            "read_bytes": 1024,
            "writes": 0,
            "write_bytes": 0,
            "flushes": 0,
            "errors": 0,
        },
        "overlay": {
            "path": "/srv/ws1.qcow2",
            "mode": "persistent",
            "generation": 0,
            "allocated": 8192,
            "mac": MAC,
            "image": "debian",
            "version": 3,
            "trouble": "",
            "troubled": None,
        },
    }


def test_a_client_that_was_only_seen_has_nulls() -> None:
    assert jsonable(ClientView(MAC, "ws1")) == {
        "mac": MAC,
        "name": "ws1",
        "timeline": [],
        **dict.fromkeys(["address", "profile", "image", "version", "phase", "counters", "overlay"]),
    }


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (1, 1),
        (1.5, 1.5),
        ("a", "a"),
        (Phase.OS, "os"),
        (Colour.RED, "red"),
        (IPv4Address("192.0.2.1"), "192.0.2.1"),
        (IPv4Interface("192.0.2.1/24"), "192.0.2.1/24"),
        (Path("/srv/a"), "/srv/a"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ((1, (2, 3)), [1, [2, 3]]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ({1: Phase.SEEN}, {"1": "seen"}),
        (Health(True, {"dhcp": "well"}), {"ok": True, "parts": {"dhcp": "well"}}),
        (
            ImageView("debian", 1, 512, "sha256:00", 1.0, used_by=(MAC,)),
            {
                "name": "debian",
                "version": 1,
                "size": 512,
                "digest": "sha256:00",
                "created": 1.0,
                "origin": "",
                "current": True,
                "used_by": [MAC],
            },
        ),
    ],
)
def test_plain(value: object, plain: object) -> None:
    assert jsonable(value) == plain


@pytest.mark.parametrize("value", [b"bytes", bytearray(1), object(), Health])
def test_what_has_no_plain_form_is_a_bug(value: object) -> None:
    with pytest.raises(TypeError, match="has no plain form"):
        jsonable(value)


@pytest.mark.parametrize(
    "value",
    [
        Chap("ws1", "hush-secret-of-12", "netboot", "hush-other-secret", mark="hush"),
        Secrets(MAC, "hush-secret-of-12", "hush-other-secret", 1.0),
        Host(MAC, "ws1", "work", chap_secret="hush-secret-of-12", chap_mutual_secret="hush"),
    ],
)
def test_secrets_have_no_plain_form(value: object) -> None:
    plain = jsonable([{"deep": (value,)}])
    assert "ws1" in str(plain) or MAC in str(plain)
    assert "hush" not in str(plain)


def test_an_event() -> None:
    event = BootEvent(MAC, 12.25, Phase.SCRIPT, "boot.ipxe", fresh=False)
    assert event_dict(event) == {
        "mac": MAC,
        "at": 12.25,
        "phase": "script",
        "detail": "boot.ipxe",
        "fresh": False,
    }


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(Phase),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(TREES)
def test_the_plain_form_is_json_and_stays_what_it_is(tree: object) -> None:
    plain = jsonable(tree)
    assert json.loads(json.dumps(plain)) == plain
    assert jsonable(plain) == plain
