"""When the loop looks for the next request before it sleeps, and when it stops doing so."""

from collections.abc import Callable

import pytest

from netboot.iscsi.spin import BUSY, EVERY, HICCUP, LOOK, NEAR, PAUSE, WORTH, Spin


class Loop:
    """A loop that does what was put off in its next round, and a clock that is wound by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.put_off: list[Callable[[], None]] = []
        self.looks: list[float] = []
        self.spin = Spin(self.put_off.append, lambda: self.now)

    def round(self, new: int = 0, passes: float = 1e-6) -> bool:
        """One round of the loop with ``new`` requests; whether it may not sleep after it."""
        self.now += passes
        for _ in range(new):
            self.spin.came += 1
            if not self.spin.came & EVERY:
                self.spin.consider()
        due, self.put_off[:] = list(self.put_off), []
        for function in due:
            function()
        return bool(self.put_off)

    def found(self, number: int, passes: float = 1e-6) -> bool:
        """One round more, in whose look ``number`` are found."""

        def look(seconds: float) -> int:
            self.looks.append(seconds)
            self.now += passes
            self.spin.came += number
            return number

        self.spin.look, before = look, self.spin.look
        awake = self.round(0)
        self.spin.look = before
        return awake

    def requests(self, number: int, pace: float) -> bool:
        """So many, each in a round of its own."""
        awake = False
        for _ in range(number):
            awake = self.round(1, pace)
        return awake


@pytest.fixture
def loop() -> Loop:
    """A loop to which nothing has come."""
    return Loop()


def awake(loop: Loop) -> Loop:
    assert loop.requests(2 * (EVERY + 1), 50e-6)
    return loop


@pytest.mark.parametrize(
    ("pace", "spins"),
    [(BUSY / 2, False), (BUSY * 1.1, True), (NEAR * 0.9, True), (NEAR * 1.1, False), (1.0, False)],
)
def test_it_is_tried_when_requests_come_neither_slowly_nor_all_the_time(
    loop: Loop, pace: float, spins: bool
) -> None:
    assert loop.requests(2 * (EVERY + 1), pace) is spins
    assert loop.spin.awake is spins


def test_a_few_requests_keep_nobody_awake(loop: Loop) -> None:
    assert not loop.requests(EVERY, 50e-6)


def test_it_goes_on_while_the_next_one_is_soon_here(loop: Loop) -> None:
    awake(loop)
    for _ in range(200):
        assert loop.round(0, 10e-6) and loop.round(1, 10e-6)


def test_a_look_finds_it_sooner_than_the_next_round(loop: Loop) -> None:
    awake(loop)
    for _ in range(200):
        assert loop.found(1, LOOK * 0.8)
    assert loop.looks == [LOOK] * 200


def test_one_found_by_a_look_and_one_by_the_loop_came_after_one_another(loop: Loop) -> None:
    awake(loop)
    for _ in range(10):
        assert loop.found(1, 10e-6) and loop.round(1, 10e-6)


def test_it_ends_when_a_look_finds_several_at_once(loop: Loop) -> None:
    awake(loop)
    assert not loop.found(2)
    assert not loop.spin.awake
    loop.now += PAUSE * 0.9
    assert not loop.requests(2 * (EVERY + 1), 50e-6)


def test_looks_that_find_nothing_are_no_reason_to_go_on(loop: Loop) -> None:
    awake(loop)
    rounds = 0
    while loop.found(0, LOOK):
        rounds += 1
    assert 0 < rounds <= NEAR / LOOK


def test_it_ends_when_nothing_comes(loop: Loop) -> None:
    awake(loop)
    assert loop.round(0, NEAR * 0.9)
    assert not loop.round(0, NEAR * 0.2)
    assert not loop.spin.awake
    assert not loop.round()  # and stays so


def test_it_ends_when_several_are_found_at_once(loop: Loop) -> None:
    awake(loop)
    assert not loop.round(2, 10e-6)
    assert not loop.spin.awake


def test_it_ends_when_what_comes_is_slow_all_the_same(loop: Loop) -> None:
    awake(loop)
    assert not loop.requests(EVERY + 1, WORTH * 1.1)
    assert not loop.spin.awake


def test_it_is_tried_again_after_a_pause(loop: Loop) -> None:
    awake(loop)
    loop.round(2)
    assert not loop.requests(4 * (EVERY + 1), 50e-6)
    loop.now += PAUSE
    assert loop.requests(3 * (EVERY + 1), 50e-6)


def test_one_late_request_is_no_reason_for_a_long_pause(loop: Loop) -> None:
    awake(loop)
    assert not loop.round(0, NEAR * 1.1)
    assert not loop.requests(int(HICCUP / 50e-6) - 1, 50e-6)
    assert loop.requests(2 * (EVERY + 1), 50e-6)


def test_a_slow_way_is_one(loop: Loop) -> None:
    awake(loop)
    assert not loop.requests(EVERY + 1, WORTH * 1.1)
    assert not loop.requests(int(PAUSE / 2 / 80e-6), 80e-6)


def test_one_look_a_round_however_often_it_was_begun(loop: Loop) -> None:
    awake(loop)
    for _ in range(5):
        loop.requests(EVERY + 1, 20e-6)
        assert len(loop.put_off) == 1
