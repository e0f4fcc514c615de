"""What a disk process remembers while nobody can be asked."""

from dataclasses import replace

import pytest

from netboot.disks.engine import UNAVAILABLE, Memory, owner
from netboot.model import Admission, DiskSpec, Knock, Lun

MAC, TARGET = "52:54:00:12:34:56", "iqn.2026-11.lab.netboot:52-54-00-12-34-56"
KNOCK = Knock("iqn.a", TARGET, "192.168.77.50", "400027230001")


def admission(generation: int = 0, mac: str = MAC) -> Admission:
    spec = DiskSpec("/g.raw", 4096, "sha256:x", "/o.qcow2", generation)
    return Admission(0, mac, TARGET, (Lun(0, spec, "s"),))


def test_a_client_has_one_owner_whatever_it_says_and_wherever_it_is() -> None:
    """The figures are part of the interface: processes of two releases must agree on them."""
    same = [
        KNOCK,
        replace(KNOCK, address="fd00::9", isid="00023d000001"),
        replace(KNOCK, target=TARGET.upper(), initiator="iqn.other"),
        replace(KNOCK, target="iqn.2030-01.elsewhere:52-54-00-12-34-56"),
    ]
    for processes, number in ((1, 0), (2, 1), (3, 0), (4, 1), (64, 37)):
        assert [owner(knock, processes) for knock in same] == [number] * len(same)


def test_a_discovery_has_the_owner_of_its_initiator() -> None:
    found = [Knock(f"iqn.a:{n}", "", "10.0.0.9", discovery=True) for n in range(64)]
    assert {owner(knock, 4) for knock in found} == {0, 1, 2, 3}
    assert owner(Knock("", "", ""), 4) in range(4)
    assert owner(Knock("\udcff", "", ""), 4) in range(4)


def test_clients_are_shared_out_evenly() -> None:
    for processes in (2, 3, 4):
        count = [0] * processes
        for n in range(1000):
            target = f"iqn.t:52-54-00-00-{n >> 8:02x}-{n & 255:02x}"
            count[owner(replace(KNOCK, target=target), processes)] += 1
        assert min(count) > 0.8 * 1000 / processes


def test_nobody_is_known_at_first() -> None:
    answer = Memory().answer(KNOCK)
    assert answer.status == UNAVAILABLE == 0x0301
    assert "try again" in answer.detail


def test_who_was_admitted_is_admitted_again() -> None:
    memory = Memory()
    memory.learn(KNOCK, admission())
    assert memory.answer(KNOCK) == admission()


def test_an_ipxe_comes_back_with_another_isid() -> None:
    memory = Memory()
    memory.learn(KNOCK, admission())
    assert memory.answer(replace(KNOCK, isid="400027239999")) == admission()


@pytest.mark.parametrize(
    "other",
    [
        replace(KNOCK, initiator="iqn.b"),
        replace(KNOCK, target="iqn.else"),
        replace(KNOCK, address="192.168.77.51"),
        replace(KNOCK, discovery=True),
    ],
)
def test_a_stranger_is_not(other: Knock) -> None:
    memory = Memory()
    memory.learn(KNOCK, admission())
    assert memory.answer(other).status == UNAVAILABLE


def test_a_refusal_is_not_remembered_and_forgets() -> None:
    memory = Memory()
    memory.learn(KNOCK, admission())
    memory.learn(KNOCK, Admission(0x0202, detail="not any more"))
    assert memory.answer(KNOCK).status == UNAVAILABLE
    assert len(memory) == 0


def test_the_newest_disk_counts_for_every_name_of_a_client() -> None:
    """The firmware and the OS log in under different names, to the same overlay."""
    memory = Memory()
    os = replace(KNOCK, initiator="iqn.os")
    memory.learn(os, admission(1))
    memory.learn(KNOCK, admission(2))
    assert memory.answer(os) == admission(2)


def test_where_to_go_instead_is_remembered() -> None:
    """A server that is drained stays so while its control process is away."""
    memory = Memory()
    away = Admission(0x0101, MAC, TARGET, redirect="10.0.0.2:3260")
    memory.learn(KNOCK, admission())
    memory.learn(KNOCK, away)
    assert memory.answer(KNOCK) == away
    memory.forget(MAC)
    assert memory.answer(KNOCK).status == UNAVAILABLE


def test_a_discovery_does_not_change_the_disk() -> None:
    memory = Memory()
    memory.learn(KNOCK, admission(1))
    memory.learn(replace(KNOCK, target="", discovery=True), Admission(0, MAC, TARGET))
    assert memory.answer(KNOCK) == admission(1)


def test_forgetting_a_client() -> None:
    memory = Memory()
    other = replace(KNOCK, initiator="iqn.else")
    memory.learn(KNOCK, admission())
    memory.learn(other, admission(mac="52:54:00:00:00:02"))
    memory.forget(MAC)
    assert memory.answer(KNOCK).status == UNAVAILABLE
    assert memory.answer(other).status == 0


def test_it_does_not_grow_without_bound() -> None:
    memory = Memory(limit=3)
    knocks = [replace(KNOCK, initiator=f"iqn.{n}") for n in range(4)]
    for number, knock in enumerate(knocks):
        memory.learn(knock, admission(mac=f"52:54:00:00:00:0{number}"))
        memory.learn(knocks[0], admission(mac="52:54:00:00:00:00"))  # always there again
    assert len(memory) == 3
    assert memory.answer(knocks[0]).status == 0
    assert memory.answer(knocks[1]).status == UNAVAILABLE
