"""Nothing waits for the disk but what promises a lease, and that waits as long as it takes."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.dhcp import keeper as module
from netboot.dhcp.effects import Effect, How, Send
from netboot.dhcp.keeper import BACKLOG, TOGETHER, Keeper, Waiting
from netboot.model import Lease, LeaseState

PATIENCE = 20.0


def mac_of(number: int) -> str:
    return f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}"


def lease(number: int, last: int | None = None) -> Lease:
    address = IPv4Address("10.0.0.0") + (number if last is None else last)
    return Lease(mac_of(number), address, 9.5, LeaseState.BOUND)


def waiting(number: int, *, leases: int = 1) -> Waiting:
    return Waiting(mac_of(number), (lease(number),) * leases, ())


@dataclass
class Disk:
    """Writes when it is let; remembers what, and on which thread."""

    commits: list[list[Lease]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    ready: threading.Event = field(default_factory=threading.Event)  #: lets every write through
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    full: Callable[[Sequence[Lease]], bool] = lambda leases: False

    def persist(self, leases: Sequence[Lease]) -> None:
        self.begun.release()
        assert self.ready.wait(PATIENCE)
        if self.full(leases):
            raise OSError(28, "No space left on device")
        self.threads.add(threading.get_ident())
        self.commits.append(list(leases))

    async def busy(self) -> None:
        """Until a write has begun."""
        assert await asyncio.to_thread(self.begun.acquire, True, PATIENCE)


@dataclass
class Bench:
    disk: Disk
    keeper: Keeper
    settled: list[tuple[Waiting, Exception | None]]

    async def all(self, number: int) -> None:
        for _ in range(2000):
            if len(self.settled) >= number:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{len(self.settled)} of {number}")


def run(story: Callable[[Bench], Awaitable[None]], *, ready: bool = True) -> Bench:
    disk, settled = Disk(), []
    if ready:
        disk.ready.set()

    async def main() -> Bench:
        keeper = Keeper(disk.persist, lambda item, error: settled.append((item, error)))
        bench = Bench(disk, keeper, settled)
        keeper.start()
        try:
            await story(bench)
        finally:
            disk.ready.set()
            await keeper.stop()
        return bench

    return asyncio.run(main())


def test_what_was_added_together_is_one_commit_in_its_order() -> None:
    items = [waiting(number) for number in range(20)]

    async def story(bench: Bench) -> None:
        for item in items:
            assert bench.keeper.add(item)
        bench.keeper.go()
        await bench.all(20)

    bench = run(story)
    assert bench.disk.commits == [[lease(number) for number in range(20)]]
    assert bench.settled == [(item, None) for item in items]
    assert threading.get_ident() not in bench.disk.threads


def test_the_loop_turns_while_the_disk_is_slow_and_what_comes_is_one_commit_more() -> None:
    async def story(bench: Bench) -> None:
        bench.keeper.add(waiting(0))
        bench.keeper.go()
        await bench.disk.busy()
        for number in range(1, 31):  # each in a wake-up of its own
            bench.keeper.add(waiting(number))
            bench.keeper.go()
            await asyncio.sleep(0)
        assert bench.settled == []  # no promise before its lease is durable
        bench.disk.ready.set()
        await bench.all(31)

    bench = run(story, ready=False)
    assert [len(commit) for commit in bench.disk.commits] == [1, 30]


def test_a_machine_is_held_until_its_last_is_settled() -> None:
    async def story(bench: Bench) -> None:
        assert not bench.keeper.holds(mac_of(1))
        bench.keeper.add(waiting(1))
        bench.keeper.add(waiting(1, leases=0))
        bench.keeper.go()
        await bench.disk.busy()
        assert bench.keeper.holds(mac_of(1))
        assert not bench.keeper.holds(mac_of(2))
        bench.disk.ready.set()
        await bench.all(2)
        assert not bench.keeper.holds(mac_of(1))

    bench = run(story, ready=False)
    assert [len(item.records) for item, _ in bench.settled] == [1, 0]
    assert bench.disk.commits == [[lease(1)]]


def test_nothing_to_write_is_no_commit() -> None:
    async def story(bench: Bench) -> None:
        bench.keeper.add(waiting(1, leases=0))
        bench.keeper.go()
        await bench.all(1)
        bench.keeper.go()

    assert run(story).disk.commits == []


def test_replies_leave_in_groups_that_a_relay_can_take() -> None:
    number = 2 * TOGETHER + 5

    async def story(bench: Bench) -> None:
        for each in range(number):
            bench.keeper.add(waiting(each))
        bench.keeper.go()
        await bench.all(number)

    bench = run(story)
    assert [len(commit) for commit in bench.disk.commits] == [TOGETHER, TOGETHER, 5]
    assert [item.mac for item, _ in bench.settled] == [mac_of(each) for each in range(number)]


def test_the_disk_writes_the_next_while_we_answer() -> None:
    begun: list[bool] = []

    async def main() -> None:
        disk = Disk()
        disk.ready.set()

        def settled(item: Waiting, error: Exception | None) -> None:
            if item.mac == mac_of(0):  # of the first group, while the second is being written
                begun.append(disk.begun.acquire(timeout=PATIENCE))

        keeper = Keeper(disk.persist, settled)
        keeper.start()
        for number in range(TOGETHER + 1):
            keeper.add(waiting(number))
        keeper.go()
        await disk.busy()
        await keeper.stop()

    asyncio.run(main())
    assert begun == [True]


def test_one_bad_lease_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def story(bench: Bench) -> None:
        bench.disk.full = lambda leases: lease(2) in leases
        for number in range(5):
            bench.keeper.add(waiting(number))
        bench.keeper.go()
        await bench.all(5)

    bench = run(story)
    assert [error is None for _, error in bench.settled] == [True, True, False, True, True]
    assert bench.disk.commits == [[lease(number)] for number in (0, 1, 3, 4)]
    assert caplog.messages == [
        "5 records could not be written together: [Errno 28] No space left on device"
    ]


def test_a_full_disk_is_not_asked_for_each_lease() -> None:
    tried: list[int] = []

    async def story(bench: Bench) -> None:
        def full(leases: Sequence[Lease]) -> bool:
            tried.append(len(leases))
            return True

        bench.disk.full = full
        for number in range(50):
            bench.keeper.add(waiting(number))
        bench.keeper.add(waiting(50, leases=0))
        bench.keeper.go()
        await bench.all(51)

    bench = run(story)
    assert tried == [50, 1, 1]
    assert [error is None for _, error in bench.settled] == [False] * 50 + [True]


def test_after_a_failure_it_goes_on() -> None:
    async def story(bench: Bench) -> None:
        bench.disk.full = lambda leases: True
        bench.keeper.add(waiting(1))
        bench.keeper.go()
        await bench.all(1)
        bench.disk.full = lambda leases: False
        bench.keeper.add(waiting(1))
        bench.keeper.go()
        await bench.all(2)

    bench = run(story)
    assert [error is None for _, error in bench.settled] == [False, True]


def test_no_more_waits_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BACKLOG > TOGETHER
    monkeypatch.setattr(module, "BACKLOG", 3)

    async def story(bench: Bench) -> None:
        assert [bench.keeper.add(waiting(number)) for number in range(5)] == [True] * 3 + [
            False
        ] * 2
        assert not bench.keeper.holds(mac_of(4))
        bench.keeper.go()
        await bench.all(3)
        assert bench.keeper.add(waiting(4))
        bench.keeper.go()
        await bench.all(4)

    assert len(run(story).settled) == 4


def test_a_stop_settles_what_waits() -> None:
    async def story(bench: Bench) -> None:
        for number in range(TOGETHER + 1):
            bench.keeper.add(waiting(number))
        bench.keeper.go()
        await bench.keeper.stop()
        assert len(bench.settled) == TOGETHER + 1
        await bench.keeper.stop()

    run(story)


def test_a_disk_that_hangs_does_not_keep_us_from_stopping(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(bench: Bench) -> None:
        bench.keeper.add(waiting(1))
        bench.keeper.go()
        await bench.disk.busy()
        await bench.keeper.stop(patience=0.01)
        assert bench.settled == []

    run(story, ready=False)
    assert caplog.messages == ["the disk did not take the leases of 1 machines in time"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.booleans()), max_size=200))
def test_the_disk_and_the_machines_see_the_order_of_the_engine(
    steps: list[tuple[int, int, bool]],
) -> None:
    items: list[Waiting] = []

    async def story(bench: Bench) -> None:
        for at, (number, leases, turn) in enumerate(steps):
            effects: tuple[Effect, ...] = (
                Send(b"%d" % at, IPv4Address(1), 68, How.RELAY, mac_of(number)),
            )
            kept = tuple(lease(number, last=at) for _ in range(leases))
            items.append(Waiting(mac_of(number), kept, effects))
            bench.keeper.add(items[-1])
            if turn:
                bench.keeper.go()
                await asyncio.sleep(0)
        bench.keeper.go()
        await bench.all(len(steps))

    bench = run(story)
    assert bench.settled == [(item, None) for item in items]
    written = [each for commit in bench.disk.commits for each in commit]
    assert written == [each for item in items for each in item.records]
