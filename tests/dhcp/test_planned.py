"""Planned once for the DISCOVER and its REQUEST, and anew for whatever else is said."""

from dataclasses import replace

import pytest

from netboot.dhcp import planned as module
from netboot.dhcp.planned import Planned
from netboot.model import BootPlan, Client, Profile, Stage

PROFILE = Profile("workstation", "debian")


class Planner:
    """Counts what it is asked; machines whose MAC ends in ``ff`` are not ours."""

    def __init__(self) -> None:
        self.asked: list[Client] = []

    def __call__(self, client: Client) -> BootPlan | None:
        self.asked.append(client)
        if client.mac.endswith("ff"):
            return None
        return BootPlan(client, f"plan-{len(self.asked)}", PROFILE)


def client(number: int) -> Client:
    return Client(f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}", Stage.FIRMWARE, arch=(7,))


def name_of(plan: BootPlan | None) -> str:
    assert plan is not None
    return plan.name


def test_what_is_said_again_is_planned_once() -> None:
    planner = Planner()
    planned = Planned(planner)
    assert [name_of(planned.of(client(1))) for _ in range(3)] == ["plan-1"] * 3
    assert planner.asked == [client(1)]


@pytest.mark.parametrize(
    "change",
    [{"stage": Stage.IPXE}, {"arch": (0,)}, {"wants": frozenset({12})}, {"hostname": "ws-1"}],
)
def test_another_program_of_the_machine_has_its_own(change: dict[str, object]) -> None:
    planner = Planner()
    planned = Planned(planner)
    other = replace(client(1), **change)  # type: ignore[arg-type]
    assert name_of(planned.of(client(1))) == "plan-1"
    found = planned.of(other)
    assert found is not None
    assert (found.name, found.client) == ("plan-2", other)
    assert name_of(planned.of(client(1))) == "plan-3"  # the latest alone is kept


def test_each_machine_has_its_own() -> None:
    planned = Planned(Planner())
    assert [name_of(planned.of(client(number))) for number in (1, 2, 1, 2)] == [
        "plan-1",
        "plan-2",
        "plan-1",
        "plan-2",
    ]


def test_after_a_change_of_the_settings_all_is_planned_anew() -> None:
    planned = Planned(Planner())
    assert name_of(planned.of(client(1))) == "plan-1"
    planned.forget()
    assert name_of(planned.of(client(1))) == "plan-2"


def test_who_is_not_ours_is_asked_about_each_time() -> None:
    planner = Planner()
    planned = Planned(planner)
    assert planned.of(client(255)) is None
    assert planned.of(client(255)) is None
    assert len(planner.asked) == 2


def test_no_more_are_remembered_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    planner = Planner()
    planned = Planned(planner)
    for number in (1, 2, 3, 2, 3, 1):
        planned.of(client(number))
    assert [asked.mac[-1] for asked in planner.asked] == ["1", "2", "3", "1"]
