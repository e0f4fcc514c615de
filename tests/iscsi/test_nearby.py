"""What is fetched ahead: every line of what was named, and never anything by being there."""

import gc
import mmap
import weakref
from typing import Any

import pytest

from netboot.iscsi import server
from netboot.iscsi.nearby import Nearby
from tests.iscsi.conftest import Bench

LINE = 64


class Bare:
    """Of one line, or of two when it lies across their border."""

    __slots__ = ("__weakref__", "one", "two")


class Full:
    """Its attributes are apart from it."""

    def __init__(self) -> None:
        self.one = self.two = 1


def test_an_object_is_fetched_with_all_its_lines() -> None:
    class Long:
        __slots__ = tuple(f"a{number}" for number in range(100))

    lines = 8 * 100 // LINE
    assert lines <= len(Nearby(Long())) <= lines + 2
    assert len(Nearby(Bare())) in (1, 2)
    assert len(Nearby()) == 0


def test_attributes_and_the_table_of_a_dict_are_fetched_too() -> None:
    assert len(Nearby(Full())) >= len(Nearby(Bare())) + 232 // LINE - 1
    table: dict[int, int] = {1: 2}
    assert len(Nearby(table)) >= 192 // LINE + 1


def test_what_is_named_twice_is_fetched_once() -> None:
    things = [Bare() for _ in range(50)]
    assert len(Nearby(*things, *things)) == len(Nearby(*things)) <= 100
    assert len(Nearby(None, None, 5)) == len(Nearby(None, 5))


def test_nothing_is_kept_alive_and_what_is_gone_does_no_harm() -> None:
    kept = [Bare() for _ in range(1000)]
    far = mmap.mmap(-1, 1 << 20)
    gone = weakref.ref(kept[0])
    nearby = Nearby(far, *kept)
    before = len(nearby)
    nearby.fetch()
    far.close()
    del kept, far
    gc.collect()
    assert gone() is None
    for _ in range(3):
        nearby.fetch()
    assert len(nearby) == before >= 100


class Noted:
    """Takes Nearby's place, and counts."""

    def __init__(self, *objects: object) -> None:
        self.objects = objects
        self.fetched = 0

    def fetch(self) -> None:
        self.fetched += 1


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "Nearby", Noted)


EAGER = ("ImmediateData=Yes",)


@pytest.mark.usefixtures("noted")
def test_a_session_names_what_a_read_of_it_touches() -> None:
    bench = Bench(1 << 20)
    session = bench.session(*EAGER)
    found: Any = session.edge.nearby("more")
    engine, views = session.engine, session.edge.nexus.views
    wanted: list[object] = [session.edge.lane, engine, engine.session]
    wanted += [engine.answers, views, views[0], views[0].unit]
    wanted += [bench.volume, bench.volume.tasks, bench.volume.tally, bench.volume.disk, "more"]
    for thing in wanted:
        assert any(thing is other for other in found.objects)
    assert not any(thing is session.edge for thing in found.objects)  # the lane knows what to do


@pytest.mark.usefixtures("noted")
def test_who_never_takes_the_lane_fetches_nothing() -> None:
    assert Bench(1 << 20).session("HeaderDigest=CRC32C").edge.nearby() is None


def test_where_it_was_not_built_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "Nearby", None)
    session = Bench(1 << 20).session(*EAGER)
    assert session.edge.nearby() is None


def test_that_it_was_built_is_what_sessions_take() -> None:
    found = Bench(1 << 20).session(*EAGER).edge.nearby()
    assert isinstance(found, Nearby) and len(found) > 40
