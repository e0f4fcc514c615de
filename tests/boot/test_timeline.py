"""Events become one timeline per boot: in order, never back, begun again when a boot begins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.boot.timeline import HINTS, QUIET, Step, Timeline, Timelines
from netboot.events import BootEvent, Phase

MAC = "52:54:00:12:34:56"


def event(
    phase: Phase, at: float, detail: str = "", *, fresh: bool = False, mac: str = MAC
) -> BootEvent:
    return BootEvent(mac, at, phase, detail, fresh)


def folded(*events: BootEvent) -> Timeline:
    timeline = Timeline(MAC)
    for item in events:
        timeline.add(item)
    return timeline


def test_a_whole_boot_of_a_chained_ipxe() -> None:
    timeline = folded(
        event(Phase.SEEN, 100.0, "x86 BIOS", fresh=True),
        event(Phase.OFFERED, 100.1, "192.168.77.21"),
        event(Phase.LOADER, 101.0, "undionly.kpxe"),
        event(Phase.SEEN, 103.0, "iPXE", fresh=True),  # of the same boot
        event(Phase.OFFERED, 103.1),
        event(Phase.LOGIN, 104.0),
        event(Phase.READING, 104.1),
        event(Phase.OS, 110.0, "DHCP"),
        event(Phase.LOGIN, 111.0),  # the kernel's own session
        event(Phase.READY, 130.5),
    )
    assert timeline.steps == [
        Step(Phase.SEEN, 100.0, 0.0, "x86 BIOS"),
        Step(Phase.OFFERED, 100.1, pytest.approx(0.1), "192.168.77.21"),
        Step(Phase.LOADER, 101.0, 1.0, "undionly.kpxe"),
        Step(Phase.LOGIN, 104.0, 4.0),
        Step(Phase.READING, 104.1, pytest.approx(4.1)),
        Step(Phase.OS, 110.0, 10.0, "DHCP"),
        Step(Phase.READY, 130.5, 30.5),
    ]
    assert timeline.phase is Phase.READY
    assert timeline.began == 100.0
    assert timeline.last == 130.5
    assert timeline.boots == 1


@pytest.mark.parametrize(
    ("reached", "quiet", "new"),
    [
        (Phase.SEEN, 4.0, False),
        (Phase.SEEN, QUIET, False),
        (Phase.SEEN, QUIET + 1, True),
        (Phase.LOADER, 4.0, False),
        (Phase.SCRIPT, 4.0, False),
        (Phase.SCRIPT, QUIET + 1, True),
        (Phase.LOGIN, 0.5, True),
        (Phase.READING, 0.5, True),
        (Phase.OS, 0.5, True),
        (Phase.READY, 0.5, True),
    ],
)
def test_when_a_fresh_packet_is_a_new_boot(reached: Phase, quiet: float, new: bool) -> None:
    timeline = folded(event(Phase.SEEN, 0.0, fresh=True), event(reached, 10.0))
    at = timeline.last + quiet
    news = timeline.add(event(Phase.SEEN, at, fresh=True))
    assert news is new
    assert timeline.boots == (2 if new else 1)
    assert timeline.began == (at if new else 0.0)


def test_a_packet_that_is_not_fresh_never_begins_again() -> None:
    timeline = folded(event(Phase.SEEN, 0.0, fresh=True), event(Phase.READY, 60.0))
    assert not timeline.add(event(Phase.OS, 90_000.0, "renewed"))
    assert timeline.phase is Phase.READY
    assert timeline.last == 90_000.0


def test_a_boot_that_we_saw_only_the_end_of() -> None:
    timeline = folded(event(Phase.OS, 50.0, "DHCP"))
    assert timeline.steps == [Step(Phase.OS, 50.0, 0.0, "DHCP")]
    assert timeline.boots == 1


def test_a_clock_that_was_set_back_gives_no_negative_seconds() -> None:
    timeline = folded(event(Phase.SEEN, 100.0, fresh=True), event(Phase.LOGIN, 90.0))
    assert [step.after for step in timeline.steps] == [0.0, 0.0]
    assert timeline.last == 100.0


def test_an_empty_timeline() -> None:
    timeline = Timeline(MAC)
    assert (timeline.phase, timeline.began, timeline.stuck(1e9)) == (None, None, None)


@pytest.mark.parametrize("phase", list(Phase))
def test_the_hint_for_a_machine_that_goes_no_further(phase: Phase) -> None:
    timeline = folded(event(phase, 10.0))
    assert timeline.stuck(20.0, patience=120.0) is None
    hint = timeline.stuck(130.0, patience=120.0)
    assert hint == (None if phase is Phase.READY else HINTS[phase])


def test_every_phase_but_the_last_has_its_own_hint() -> None:
    assert list(HINTS) == list(Phase)[:-1]
    assert len(set(HINTS.values())) == len(HINTS)


def test_each_client_has_its_own() -> None:
    other = "52:54:00:00:00:99"
    timelines = Timelines([event(Phase.SEEN, 1.0), event(Phase.SEEN, 2.0, mac=other)])
    timelines.add(event(Phase.OFFERED, 3.0))
    assert timelines.of(MAC).phase is Phase.OFFERED
    assert timelines.of(other).phase is Phase.SEEN
    assert timelines.macs() == [other, MAC]
    timelines.forget(other)
    timelines.forget(other)
    assert timelines.of(other).steps == []
    assert timelines.macs() == [MAC]


def test_invented_machines_do_not_fill_the_memory() -> None:
    timelines = Timelines(limit=3)
    for number in range(10):
        timelines.add(event(Phase.SEEN, 1.0, mac=f"mac{number}"))
        timelines.add(event(Phase.SEEN, 1.0, mac="busy"))
    assert timelines.macs() == ["mac8", "mac9", "busy"]


EVENTS = st.builds(
    BootEvent,
    mac=st.just(MAC),
    at=st.floats(0, 1e6),
    phase=st.sampled_from(Phase),
    fresh=st.booleans(),
)


@given(st.lists(EVENTS, min_size=1))
def test_a_timeline_only_ever_goes_forward(events: list[BootEvent]) -> None:
    timeline = Timeline(MAC)
    for item in events:
        before = (timeline.boots, list(timeline.steps))
        news = timeline.add(item)
        assert news is ((timeline.boots, timeline.steps) != before)
        phases = [step.phase for step in timeline.steps]
        assert phases == sorted(set(phases))
        assert timeline.steps[0].after == 0.0
        assert all(step.after >= 0.0 for step in timeline.steps)
    assert timeline.last == max(item.at for item in events)
    assert 1 <= timeline.boots <= len(events)
