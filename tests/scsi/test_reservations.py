"""Reservations as state: every type, every service action, who is told and who may do what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from netboot.scsi.reservations import Access, Kind, Reservations
from netboot.scsi.sense import Code

WE, EA = Kind.WRITE_EXCLUSIVE, Kind.EXCLUSIVE_ACCESS
WERO, EARO = Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY, Kind.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY
WEAR, EAAR = Kind.WRITE_EXCLUSIVE_ALL_REGISTRANTS, Kind.EXCLUSIVE_ACCESS_ALL_REGISTRANTS
ALL = list(Kind)


def registered(*ports: str) -> Reservations:
    """Ports a, b, c with keys 1, 2, 3."""
    state = Reservations()
    for port in ports:
        assert state.register(port, "abc".index(port) + 1) == []
    return state


def held(kind: Kind, *ports: str) -> Reservations:
    state = registered(*ports)
    assert state.reserve(ports[0], kind)
    return state


def test_nothing_reserved_lets_everybody_do_everything() -> None:
    state = registered("a")
    assert state.ceiling("a", object()) is Access.CHANGES
    assert state.ceiling("nobody", object()) is Access.CHANGES


@pytest.mark.parametrize(
    ("kind", "registrant", "stranger"),
    [
        (WE, Access.READS, Access.READS),
        (EA, Access.ASKS, Access.ASKS),
        (WERO, Access.CHANGES, Access.READS),
        (EARO, Access.CHANGES, Access.ASKS),
        (WEAR, Access.CHANGES, Access.READS),
        (EAAR, Access.CHANGES, Access.ASKS),
    ],
)
def test_ceilings(kind: Kind, registrant: Access, stranger: Access) -> None:
    state = held(kind, "a", "b")
    assert state.ceiling("a", object()) is Access.CHANGES
    assert state.ceiling("b", object()) is registrant
    assert state.ceiling("c", object()) is stranger


def test_reserve6_goes_by_the_nexus_not_the_port() -> None:
    state = Reservations()
    mine = object()
    state.legacy = mine
    assert state.ceiling("a", mine) is Access.CHANGES
    assert state.ceiling("a", object()) is Access.RELEASES


@pytest.mark.parametrize("kind", ALL)
def test_who_holds(kind: Kind) -> None:
    state = held(kind, "a", "b")
    assert state.holds("a")
    assert state.holds("b") == kind.held_by_all
    assert not state.holds("c")


def test_register_change_and_unregister() -> None:
    state = Reservations()
    state.register("a", 5)
    state.register("a", 6)
    assert state.keys == {"a": 6}
    assert state.generation == 2
    state.register("a", 0)
    assert state.keys == {}
    assert state.generation == 3


def test_unregistering_a_stranger_is_nothing() -> None:
    state = Reservations()
    assert state.register("a", 0) == []
    assert state.generation == 0


@pytest.mark.parametrize(
    ("kind", "told"),
    [(WE, []), (EA, []), (WERO, ["b"]), (EARO, ["b"])],
)
def test_a_holder_that_unregisters_lets_go(kind: Kind, told: list[str]) -> None:
    state = held(kind, "a", "b")
    assert state.register("a", 0) == [(port, Code.RESERVATIONS_RELEASED) for port in told]
    assert state.kind is None
    assert state.keys == {"b": 2}


@pytest.mark.parametrize("kind", [WEAR, EAAR])
def test_all_registrants_hold_until_the_last_goes(kind: Kind) -> None:
    state = held(kind, "a", "b")
    assert state.register("a", 0) == []
    assert state.kind is kind
    assert state.register("b", 0) == []
    assert state.kind is None


@pytest.mark.parametrize("kind", ALL)
def test_reserving_again_is_good_only_for_a_holder_and_the_same_type(kind: Kind) -> None:
    state = held(kind, "a", "b")
    generation = state.generation
    assert state.reserve("a", kind)
    assert state.reserve("b", kind) == kind.held_by_all
    other = WE if kind is not WE else EA
    assert not state.reserve("a", other)
    assert state.generation == generation


@pytest.mark.parametrize("kind", ALL)
def test_release(kind: Kind) -> None:
    state = held(kind, "a", "b", "c")
    if not kind.held_by_all:
        assert state.release("b") == []
        assert state.kind is kind
    told = [("b", Code.RESERVATIONS_RELEASED), ("c", Code.RESERVATIONS_RELEASED)]
    assert state.release("a") == (told if kind.for_registrants else [])
    assert state.kind is None
    assert len(state.keys) == 3
    assert state.release("a") == []


@pytest.mark.parametrize("kind", ALL)
def test_clear(kind: Kind) -> None:
    state = held(kind, "a", "b")
    generation = state.generation
    assert state.clear("b") == [("a", Code.RESERVATIONS_PREEMPTED)]
    assert (state.kind, state.keys, state.generation) == (None, {}, generation + 1)


@pytest.mark.parametrize("kind", [WE, EA, WERO, EARO])
def test_preempting_the_holder_takes_the_reservation(kind: Kind) -> None:
    state = held(kind, "a", "b", "c")
    notices = state.preempt("b", 1, WE)
    assert (state.kind, state.holder) == (WE, "b")
    assert state.keys == {"b": 2, "c": 3}
    # Of whatever type it was: who keeps a registration learns that the type is another one.
    released = [("c", Code.RESERVATIONS_RELEASED)] if kind is not WE else []
    assert notices == [("a", Code.REGISTRATIONS_PREEMPTED), *released]


def test_preempting_with_the_same_type_tells_only_those_who_lost() -> None:
    state = held(WERO, "a", "b", "c")
    assert state.preempt("b", 1, WERO) == [("a", Code.REGISTRATIONS_PREEMPTED)]


def test_preempting_a_registrant_leaves_the_reservation() -> None:
    state = held(WE, "a", "b", "c")
    assert state.preempt("b", 3, EA) == [("c", Code.REGISTRATIONS_PREEMPTED)]
    assert (state.kind, state.holder) == (WE, "a")


def test_preempting_oneself_keeps_the_registration() -> None:
    state = held(WE, "a", "b")
    assert state.preempt("a", 1, EA) == [("b", Code.RESERVATIONS_RELEASED)]
    assert (state.kind, state.holder) == (EA, "a")
    assert state.keys == {"a": 1, "b": 2}


def test_who_removes_his_own_key_and_takes_nothing_over_is_removed() -> None:
    state = held(WE, "a", "b", "c")
    state.keys["c"] = 2
    assert state.preempt("b", 2, EA) == [("c", Code.REGISTRATIONS_PREEMPTED)]
    assert (state.kind, state.holder, state.keys) == (WE, "a", {"a": 1})


def test_the_last_of_all_registrants_that_removes_itself_lets_go() -> None:
    state = held(EAAR, "a")
    assert state.preempt("a", 1, WE) == []
    assert (state.kind, state.keys) == (None, {})


def test_a_copy_changes_apart_and_is_taken_over() -> None:
    state = held(WE, "a", "b")
    state.legacy = nexus = object()
    other = state.copy()
    other.persists = True
    other.clear("a")
    assert state.keys == {"a": 1, "b": 2} and state.kind is WE and not state.persists
    other.legacy = None
    state.become(other)
    assert (state.keys, state.kind, state.persists) == ({}, None, True)
    assert state.generation == other.generation
    assert state.legacy is nexus


def test_preempting_without_a_reservation_takes_none() -> None:
    state = registered("a", "b")
    assert state.preempt("a", 2, EA) == [("b", Code.REGISTRATIONS_PREEMPTED)]
    assert state.kind is None


@pytest.mark.parametrize("kind", [WEAR, EAAR])
def test_preempting_all_registrants(kind: Kind) -> None:
    state = held(kind, "a", "b", "c")
    assert state.preempt("b", 3, WE) == [("c", Code.REGISTRATIONS_PREEMPTED)]
    assert state.kind is kind
    assert state.preempt("b", 0, WE) == [("a", Code.REGISTRATIONS_PREEMPTED)]
    assert (state.kind, state.holder, state.keys) == (WE, "b", {"b": 2})


def test_what_preempts_nothing() -> None:
    state = held(WE, "a", "b")
    assert state.preempts_nothing(9)
    assert not state.preempts_nothing(1)
    assert state.preempts_nothing(0)
    assert registered("a").preempts_nothing(0)
    assert not held(WEAR, "a").preempts_nothing(0)


def test_the_generation_wraps() -> None:
    state = Reservations(generation=0xFFFFFFFF)
    state.register("a", 1)
    assert state.generation == 0


@given(st.sampled_from(ALL))
def test_types_say_what_they_are(kind: Kind) -> None:
    assert kind.lets_others_read == kind.name.startswith("WRITE")
    assert kind.for_registrants == kind.name.endswith("REGISTRANTS") or kind in (WERO, EARO)
    assert kind.held_by_all == kind.name.endswith("ALL_REGISTRANTS")


class Life(RuleBasedStateMachine):
    """Whatever happens: a holder is registered, and nobody is told of his own deed."""

    ports = st.sampled_from("abcd")

    @initialize()
    def begin(self) -> None:
        self.state = Reservations()

    @rule(port=ports, key=st.integers(0, 3))
    def register(self, port: str, key: int) -> None:
        self.told(port, self.state.register(port, key))

    @rule(port=ports, kind=st.sampled_from(ALL))
    def reserve(self, port: str, kind: Kind) -> None:
        if port in self.state.keys:
            self.state.reserve(port, kind)

    @rule(port=ports)
    def release(self, port: str) -> None:
        self.told(port, self.state.release(port))

    @rule(port=ports)
    def clear(self, port: str) -> None:
        if port in self.state.keys:
            self.told(port, self.state.clear(port))

    @rule(port=ports, victim=st.integers(0, 3), kind=st.sampled_from(ALL))
    def preempt(self, port: str, victim: int, kind: Kind) -> None:
        if port in self.state.keys and not self.state.preempts_nothing(victim):
            mine = self.state.keys[port]
            self.told(port, self.state.preempt(port, victim, kind))
            assert port in self.state.keys or mine == victim

    def told(self, port: str, notices: list[tuple[str, Code]]) -> None:
        assert port not in [name for name, _ in notices]
        assert len(set(notices)) == len(notices)

    @invariant()
    def a_reservation_has_a_holder(self) -> None:
        if hasattr(self, "state") and self.state.kind is not None:
            assert any(self.state.holds(port) for port in self.state.keys)


TestLife = Life.TestCase
