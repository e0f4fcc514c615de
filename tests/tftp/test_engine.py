"""One transfer, packet by packet; and whole files over networks that lose, double and reorder."""

import copy
import functools
import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.tftp import wire
from netboot.tftp.engine import AHEAD, RETRIES, Outcome, Packet, Transfer, admit
from netboot.tftp.options import Limits, Terms, negotiate
from netboot.tftp.ready import PIECES, Ready, Shelf
from netboot.tftp.wire import Ack, Data, Error, ErrorCode, OptionAck, Request
from tests.tftp.conftest import READIES

each = pytest.mark.parametrize("make", READIES.values(), ids=READIES)
Make = Callable[[], Ready]


def source(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: data[offset : offset + length]


def transfer(data: bytes, ready: Ready | None = None, **options: int) -> Transfer:
    asked = {name: str(value) for name, value in options.items()}
    return Transfer(source(data), negotiate(asked, Limits(size=len(data))), ready=ready)


def seen(packets: Iterable[Packet]) -> list[wire.Packet]:
    return [wire.parse(head + bytes(body)) for head, body in packets]


def ack(block: int) -> bytes:
    return wire.encode(Ack(block & 0xFFFF))


# -- the door ------------------------------------------------------------------------------


def test_a_read_request_is_let_in() -> None:
    request = admit(b"\0\1a.efi\0OCTET\0tsize\x000\0")
    assert request == Request(wire.Opcode.RRQ, "a.efi", "octet", {"tsize": "0"})
    assert isinstance(admit(b"\0\1a\0netascii\0"), Request)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\0\2a\0octet\0", ErrorCode.ACCESS_VIOLATION),
        (b"\0\1a\0mail\0", ErrorCode.ILLEGAL_OPERATION),
        (b"\0\1a\0nonsense\0", ErrorCode.ILLEGAL_OPERATION),
        (ack(1), ErrorCode.UNKNOWN_TID),
        (b"\0\3\0\1abc", ErrorCode.UNKNOWN_TID),
        (b"\0\6\0\0", ErrorCode.UNKNOWN_TID),
    ],
)
def test_who_is_sent_away_with_which_error(data: bytes, code: ErrorCode) -> None:
    answer = admit(data)
    assert isinstance(answer, bytes)
    error = wire.parse(answer)
    assert isinstance(error, Error)
    assert error.code == code
    assert error.message


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\1", b"\0\1a", b"\0\x09ab", b"\0\5\0\5x\0"])
def test_garbage_and_errors_get_silence(data: bytes) -> None:
    assert admit(data) is None


@given(st.binary(max_size=300))
def test_the_door_never_raises(data: bytes) -> None:
    answer = admit(data)
    assert answer is None or isinstance(answer, Request | bytes)


# -- lock-step, RFC 1350 -------------------------------------------------------------------


def test_a_file_of_two_blocks_whole() -> None:
    data = bytes(range(256)) * 3
    run = transfer(data)
    assert seen(run.start(0)) == [Data(1, data[:512])]
    assert run.started
    assert not run.progressed
    assert run.deadline == 1.0
    assert seen(run.receive(ack(1), 0.1)) == [Data(2, data[512:])]
    assert run.progressed
    assert run.delivered == 512
    assert run.receive(ack(2), 0.2) == []
    assert (run.outcome, run.delivered, run.deadline) == (Outcome.DONE, 768, None)


def test_an_empty_file_is_one_empty_block() -> None:
    run = transfer(b"")
    assert seen(run.start(0)) == [Data(1, b"")]
    run.receive(ack(1), 0)
    assert (run.outcome, run.delivered) == (Outcome.DONE, 0)


def test_whole_blocks_end_with_an_empty_one() -> None:
    run = transfer(b"x" * 1024)
    run.start(0)
    run.receive(ack(1), 0)
    assert seen(run.receive(ack(2), 0)) == [Data(3, b"")]
    run.receive(ack(3), 0)
    assert (run.outcome, run.delivered) == (Outcome.DONE, 1024)


def test_no_sorcerers_apprentice() -> None:
    run = transfer(b"x" * 2000)
    run.start(0)
    assert len(run.receive(ack(1), 0.1)) == 1
    assert run.receive(ack(1), 0.2) == []
    assert run.receive(ack(0), 0.2) == []
    assert run.ignored == 2
    assert seen(run.receive(ack(2), 0.3)) == [Data(3, b"x" * 512)]


def test_an_ack_of_what_was_never_sent_means_nothing() -> None:
    run = transfer(b"x" * 2000)
    run.start(0)
    for block in (2, 100, 0x8000, 0xFFFF):
        assert run.receive(ack(block), 0) == []
    assert (run.ignored, run.delivered) == (4, 0)


def test_silence_is_answered_with_the_same_block_at_growing_distances() -> None:
    run = transfer(b"x" * 2000)
    run.start(0)
    now, waits = 0.0, []
    for _ in range(RETRIES):
        assert run.deadline is not None
        assert run.tick(run.deadline - 0.001) == []
        waits.append(run.deadline - now)
        now = run.deadline
        assert seen(run.tick(now)) == [Data(1, b"x" * 512)]
    assert waits == [1, 2, 4, 8, 8, 8]
    assert run.resent == RETRIES
    assert run.deadline is not None
    assert run.tick(run.deadline) == []
    assert (run.outcome, run.detail) == (Outcome.FAILED, "the client does not answer")
    assert run.tick(1e9) == []
    assert run.receive(ack(1), 1e9) == []


def test_progress_forgives_earlier_silence() -> None:
    run = transfer(b"x" * 2000)
    run.start(0)
    run.tick(1)
    run.tick(3)
    run.receive(ack(1), 3.5)
    assert run.deadline == 4.5


def test_the_timeout_that_was_asked_for_does_not_grow() -> None:
    run = transfer(b"x" * 2000, timeout=3)
    assert seen(run.start(0)) == [OptionAck({"timeout": "3"})]
    run.receive(ack(0), 0)
    for round_ in range(1, 4):
        assert run.deadline == 3.0 * round_
        run.tick(run.deadline)


def test_only_the_last_ack_missing_counts_as_done() -> None:
    run = transfer(b"x" * 600)
    run.start(0)
    run.receive(ack(1), 0)
    while run.outcome is None:
        assert run.deadline is not None
        run.tick(run.deadline)
    assert (run.outcome, run.delivered) == (Outcome.DONE, 512)
    assert "not acknowledged" in run.detail


def test_only_the_last_window_missing_counts_as_done_if_the_client_ever_answered() -> None:
    run = windowed(b"x" * 30, 16)
    run.receive(ack(0), 0)
    run.abandon("gone")
    assert (run.outcome, run.delivered) == (Outcome.DONE, 0)
    assert "not acknowledged" in run.detail
    run = windowed(b"x" * 300, 16)
    run.receive(ack(0), 0)
    run.abandon("gone")
    assert (run.outcome, run.detail) == (Outcome.FAILED, "gone")
    run = transfer(b"x" * 30)
    run.start(0)
    run.abandon("never said a word")
    assert (run.outcome, run.detail) == (Outcome.FAILED, "never said a word")


def test_block_numbers_roll_over_to_zero() -> None:
    size, blocks = 8, 65536 * 2 + 5
    data = random.Random(1).randbytes(size * blocks - 3)
    run = transfer(data, blksize=size)
    run.start(0)
    packets, got = run.receive(ack(0), 0), bytearray()
    expected = 1
    while packets:
        (packet,) = (head + bytes(body) for head, body in packets)
        assert packet[:4] == wire.data_header(expected)
        got += packet[4:]
        packets = run.receive(ack(expected), 0)
        expected += 1
    assert run.outcome is Outcome.DONE
    assert expected == blocks + 1
    assert bytes(got) == data


# -- options, RFC 2347 ---------------------------------------------------------------------


def test_an_oack_waits_for_ack_0() -> None:
    run = transfer(b"x" * 3000, blksize=1468, tsize=0)
    assert seen(run.start(0)) == [OptionAck({"blksize": "1468", "tsize": "3000"})]
    assert not run.started
    assert run.receive(ack(1), 0) == []
    assert seen(run.receive(ack(0), 0)) == [Data(1, b"x" * 1468)]
    assert run.started
    assert run.progressed


def test_an_oack_is_sent_again() -> None:
    run = transfer(b"x", tsize=0)
    first = run.start(0)
    assert run.tick(1) == first
    assert run.repeat(1.5) == first
    run.receive(ack(0), 2)
    assert run.repeat(2) == []


def test_a_repeated_request_gets_the_first_block_again_until_there_is_progress() -> None:
    run = transfer(b"x" * 600)
    first = run.start(0)
    assert run.repeat(0.1) == first
    run.receive(ack(1), 0.2)
    assert run.repeat(0.3) == []


@pytest.mark.parametrize("code", [0, 8])
def test_asking_for_the_size_only_is_a_probe(code: int) -> None:
    run = transfer(b"x" * 3000, tsize=0)
    run.start(0)
    run.receive(wire.encode(Error(code, "TFTP Aborted")), 0)
    assert run.outcome is Outcome.PROBE
    assert run.detail == f"the client stopped: error {code} TFTP Aborted"
    assert run.deadline is None


def test_an_error_in_the_middle_is_a_failure() -> None:
    run = transfer(b"x" * 3000)
    run.start(0)
    run.receive(ack(1), 0)
    run.receive(wire.encode(Error(3, "disk full")), 0)
    assert (run.outcome, run.detail) == (Outcome.FAILED, "the client stopped: error 3 disk full")


def test_nonsense_in_the_middle_is_ignored() -> None:
    run = transfer(b"x" * 3000)
    run.start(0)
    for data in (b"", b"\0", b"\0\4\0", b"\0\1a\0octet\0", b"\0\3\0\1x", b"\0\6\0\0", b"\xff" * 9):
        assert run.receive(data, 0) == []
    assert run.ignored == 7
    assert run.outcome is None


def test_a_file_that_cannot_be_read_is_an_error_to_the_client_and_a_reason_to_us() -> None:
    def read(offset: int, length: int) -> bytes:
        if offset:
            raise OSError("it was changed")
        return b"x" * length

    run = Transfer(read, Terms(blksize=AHEAD))
    run.start(0)
    (error,) = seen(run.receive(ack(1), 0))
    assert error == Error(0, "the file cannot be read")
    assert (run.outcome, run.detail) == (
        Outcome.FAILED,
        "the file cannot be read: it was changed",
    )


# -- the short cut through lock-step -------------------------------------------------------


def test_the_short_cut_answers_the_one_ack_that_is_expected() -> None:
    run = transfer(bytes(range(256)) * 8)
    run.start(5.0)
    for said in (ack(0), ack(2), ack(1) + b"\0", b"", b"\0\5\0\1x\0"):
        assert run.ready.answer(said, 6.0) is None
    assert (run.deadline, run.delivered, run.ignored) == (6.0, 0, 0)
    assert run.ready.answer(ack(1), 6.0) == wire.encode(Data(2, bytes(range(256)) * 2))
    assert (run.deadline, run.delivered, run.progressed) == (7.0, 512, True)
    assert run.ready.answer(ack(1), 6.5) is None


def test_the_short_cut_is_not_for_what_was_sent_twice_nor_for_the_end() -> None:
    run = transfer(b"x" * 1024)
    run.start(0)
    run.tick(1.0)
    assert run.ready.answer(ack(1), 1.5) is None
    assert blocks(run.receive(ack(1), 1.5)) == [2]
    assert run.ready.answer(ack(2), 2) == wire.encode(Data(3, b""))
    assert run.ready.answer(ack(3), 2) is None
    assert run.abandon("it left") == []
    assert run.outcome is Outcome.DONE


def test_the_short_cut_is_not_for_windows() -> None:
    run = windowed(b"x" * 64, 2)
    run.receive(ack(0), 0)
    assert run.ready.answer(ack(2), 0) is None


def test_a_file_that_is_known_to_its_end_is_not_done_before_its_last_block_was_sent() -> None:
    run = transfer(b"x" * 2000)
    run.start(0)
    run.ready.answer(ack(1), 0)
    run.abandon("it left")
    assert (run.outcome, run.delivered) == (Outcome.FAILED, 512)


def pair(data: bytes, make: Make, **options: int) -> tuple[Transfer, Transfer]:
    """The same transfer twice: one that will take the short cut where it can, one that never."""
    both = transfer(data, make(), **options), transfer(data, **options)
    assert both[0].start(0) == both[1].start(0)
    return both


def same(short: Transfer, long: Transfer, said: bytes | int, now: float) -> None:
    """Both hear ``said``, or time passes (-1), or the request is repeated (-2): they agree."""
    answers: tuple[list[Packet], list[Packet]]
    if said == -1:
        answers = short.tick(now), long.tick(now)
    elif said == -2:
        answers = short.repeat(now), long.repeat(now)
    else:
        assert isinstance(said, bytes)
        packet = short.ready.answer(said, now)
        first: list[Packet] = [(packet, b"")] if packet is not None else short.receive(said, now)
        answers = first, long.receive(said, now)
    one, two = ([head + bytes(body) for head, body in packets] for packets in answers)
    assert one == two
    for name in ("deadline", "heard", "outcome", "detail", "resent", "ignored"):
        assert getattr(short, name) == getattr(long, name), name
    assert (short.started, short.progressed) == (long.started, long.progressed)
    assert short.delivered == long.delivered


@functools.cache
def near_the_roll_over(make: Make) -> tuple[Transfer, Transfer]:
    short, long = pair(random.Random(4).randbytes(8 * 65560 + 3), make, blksize=8)
    for block in range(65520):
        same(short, long, ack(block), 0)
    return short, long


#: Mostly the next ACK; else one around it, nonsense, a pause or the request again.
SAID = st.one_of(
    st.just(("next", 0)),
    st.just(("next", 0)),
    st.tuples(st.just("near"), st.integers(-3, 3)),
    st.tuples(st.just("late"), st.floats(0, 9)),
    st.just(("again", 0)),
    st.tuples(st.just("raw"), st.binary(max_size=8)),
)


@each
@settings(deadline=None)
@given(
    steps=st.lists(SAID, max_size=90),
    kind=st.sampled_from(["plain", "options", "large", "whole blocks", "roll-over"]),
)
def test_the_short_cut_answers_byte_for_byte_like_the_long_way(
    make: Make, steps: list[tuple[str, float | bytes]], kind: str
) -> None:
    if kind == "roll-over":
        short, long = copy.deepcopy(near_the_roll_over(make))
    else:
        size, asked = {
            "plain": (512 * 50 + 7, {}),
            "options": (8 * 30, {"blksize": 8, "timeout": 3}),
            "large": (AHEAD * 5, {"blksize": AHEAD}),
            "whole blocks": (512 * 32, {"tsize": 0}),
        }[kind]
        short, long = pair(random.Random(size).randbytes(size), make, **asked)
    now = 0.0
    for what, much in steps:
        said: bytes | int
        if what == "late":
            now += float(much)
            said = -1
        elif what == "again":
            said = -2
        elif what == "raw":
            assert isinstance(much, bytes)
            said = much
        else:
            # What the client has is what was sent last: of the long way, which both must follow.
            said = ack(long.delivered // (long._size or 1) + 1 + int(much))
        same(short, long, said, now)
        now += 0.01


@each
def test_the_short_cut_over_two_roll_overs_with_losses_doubles_and_delays(make: Make) -> None:
    dice = random.Random(5)
    short, long = pair(dice.randbytes(8 * (65536 * 2 + 9)), make, blksize=8)
    same(short, long, ack(0), 0)
    block, now = 1, 0.0
    while long.outcome is None:
        now += 0.001
        chance = dice.random()
        if chance < 0.01:  # lost: until the deadline, and then once more
            assert long.deadline is not None
            now = long.deadline
            same(short, long, -1, now)
        elif chance < 0.03:
            same(short, long, ack(block - dice.randrange(3)), now)
            block = max(block, long.delivered // 8 + 1)
            continue
        same(short, long, ack(block), now)
        block += 1
    assert long.outcome is Outcome.DONE
    assert long.delivered == 8 * (65536 * 2 + 9)
    assert long.resent > 500


def fetched(run: Transfer) -> bytes:
    """The whole file, in order, however its packets were made."""
    got, packets = bytearray(), run.start(0)
    while packets:
        (packet,) = (head + bytes(body) for head, body in packets)
        got += packet[4:]
        packets = run.receive(wire.encode(Ack(int.from_bytes(packet[2:4]))), 0)
    assert run.outcome is Outcome.DONE
    return bytes(got)


@pytest.mark.parametrize("size", [0, 7, 512, 512 * 32, 512 * 33, 512 * 100 + 1])
def test_what_one_has_read_the_others_only_send(size: int) -> None:
    data, reads = random.Random(size).randbytes(size), []

    def read(offset: int, length: int) -> bytes:
        reads.append(offset)
        return data[offset : offset + length]

    shelf = Shelf()
    assert fetched(Transfer(read, Terms(), shelf)) == data
    once = len(reads)
    runs = [Transfer(read, Terms(), shelf) for _ in range(3)]
    assert [fetched(run) for run in runs] == [data] * 3
    assert [run.delivered for run in runs] == [size] * 3
    assert len(reads) == once


def test_a_shelf_does_not_grow_with_the_file() -> None:
    data = random.Random(6).randbytes(AHEAD * (PIECES + 2))
    shelf, terms = Shelf(), Terms(blksize=AHEAD)
    assert fetched(Transfer(source(data), terms, shelf)) == data
    kept = [first for first in range(PIECES + 3) if shelf.get(first) is not None]
    assert kept == list(range(3, PIECES + 3))
    assert fetched(Transfer(source(data), terms, shelf)) == data


# -- windows, RFC 7440 ---------------------------------------------------------------------


def windowed(data: bytes, window: int) -> Transfer:
    run = transfer(data, blksize=8, windowsize=window)
    run.start(0)
    return run


def blocks(packets: list[Packet]) -> list[int]:
    return [packet.block for packet in seen(packets) if isinstance(packet, Data)]


def test_windows_of_sixteen() -> None:
    data = random.Random(2).randbytes(8 * 40 + 3)
    run = windowed(data, 16)
    first = run.receive(ack(0), 0)
    assert blocks(first) == list(range(1, 17))
    second = run.receive(ack(16), 0)
    assert blocks(second) == list(range(17, 33))
    third = run.receive(ack(32), 0)
    assert blocks(third) == list(range(33, 42))
    assert b"".join(bytes(body) for _, body in first + second + third) == data
    run.receive(ack(41), 0)
    assert (run.outcome, run.delivered) == (Outcome.DONE, len(data))


def test_an_ack_inside_the_window_begins_the_next_one_there() -> None:
    run = windowed(b"x" * 8 * 100, 8)
    run.receive(ack(0), 0)
    assert blocks(run.receive(ack(5), 0)) == list(range(6, 14))
    # The rest of the lost window may make the client say the same again.
    assert run.receive(ack(5), 0) == []
    assert blocks(run.receive(ack(13), 0)) == list(range(14, 22))


def test_a_lost_first_block_is_sent_again_at_once_and_only_once() -> None:
    run = windowed(b"x" * 8 * 100, 8)
    run.receive(ack(0), 0)
    run.receive(ack(8), 0)
    assert blocks(run.receive(ack(8), 0)) == list(range(9, 17))
    for _ in range(6):
        assert run.receive(ack(8), 0) == []
    # That window was sent twice, so its end may be acknowledged twice.
    assert blocks(run.receive(ack(16), 0)) == list(range(17, 25))
    assert run.receive(ack(16), 0) == []
    assert blocks(run.receive(ack(24), 0)) == list(range(25, 33))
    assert blocks(run.receive(ack(24), 0)) == list(range(25, 33))


def test_an_oack_sent_twice_explains_a_second_ack_0() -> None:
    run = windowed(b"x" * 8 * 100, 8)
    run.tick(1)
    assert len(run.receive(ack(0), 1)) == 8
    assert run.receive(ack(0), 1) == []
    assert run.resent == 1


def test_a_window_over_the_roll_over() -> None:
    data = random.Random(3).randbytes(8 * 65550)
    run = windowed(data, 64)
    packets, acked, got = run.receive(ack(0), 0), 0, bytearray()
    while packets:
        got += b"".join(bytes(body) for _, body in packets)
        acked += len(packets)
        packets = run.receive(ack(acked), 0)
    assert run.outcome is Outcome.DONE
    assert bytes(got) == data


def test_whole_windows_end_with_an_empty_block() -> None:
    run = windowed(b"x" * 32, 4)
    assert blocks(run.receive(ack(0), 0)) == [1, 2, 3, 4]
    assert seen(run.receive(ack(4), 0)) == [Data(5, b"")]
    run.receive(ack(5), 0)
    assert run.outcome is Outcome.DONE


@given(st.lists(st.binary(max_size=10) | st.integers(0, 70000).map(ack), max_size=60))
def test_whatever_the_client_says_nothing_raises_and_no_answer_is_over_a_window(
    said: list[bytes],
) -> None:
    run = windowed(b"x" * 8 * 70, 4)
    for now, data in enumerate(said):
        packets = run.receive(data, now) + run.tick(now)
        assert len(packets) <= 8


# -- over a bad network --------------------------------------------------------------------


@dataclass
class Client:
    """A client after RFC 1350 and RFC 7440, written from its side of the page."""

    window: int
    size: int
    got: bytearray = field(default_factory=bytearray)
    last: int = 0  # the last block in order
    unacked: int = 0
    complained: int = -1
    done: bool = False

    def receive(self, data: bytes) -> list[bytes]:
        packet = wire.parse(data)
        if isinstance(packet, OptionAck):
            return [ack(0)] if self.last == 0 else []
        assert isinstance(packet, Data)
        if self.done:  # RFC 1350 section 6: "the host acknowledging the final DATA may dally"
            return [ack(self.last)]
        if packet.block != (self.last + 1) & 0xFFFF:
            if self.complained == self.last:
                return []
            self.complained = self.last
            return [ack(self.last)]
        self.last += 1
        self.unacked += 1
        self.got += packet.payload
        self.done = len(packet.payload) < self.size
        if self.done or self.unacked == self.window:
            self.unacked = 0
            return [ack(self.last)]
        return []

    def impatient(self) -> list[bytes]:
        self.unacked = 0
        return [ack(self.last)]


Fate = Callable[[random.Random], list[float]]


@dataclass
class Network:
    """A discrete simulation: ``fate`` gives the delays of the copies that arrive of a packet."""

    run: Transfer
    client: Client
    fate: Fate
    chance: random.Random
    now: float = 0.0
    sent: int = 0
    queue: list[tuple[float, int, bool, bytes]] = field(default_factory=list)

    def carry(self, packets: Iterable[bytes], to_client: bool) -> None:
        for data in packets:
            for delay in self.fate(self.chance):
                self.sent += 1
                heapq.heappush(self.queue, (self.now + delay, self.sent, to_client, data))

    def carry_all(self, packets: list[Packet]) -> None:
        self.carry([head + bytes(body) for head, body in packets], True)

    def play(self, limit: int = 50_000) -> None:
        self.carry_all(self.run.start(self.now))
        patience = 2.5
        for _ in range(limit):
            if self.run.outcome is not None:
                return
            deadline = self.run.deadline
            assert deadline is not None
            if self.queue and self.queue[0][0] <= min(deadline, patience):
                self.now, _, to_client, data = heapq.heappop(self.queue)
                if to_client:
                    before = self.client.last
                    self.carry(self.client.receive(data), False)
                    if self.client.last > before:
                        patience = self.now + 2.5
                else:
                    self.carry_all(self.run.receive(data, self.now))
            elif deadline <= patience:
                self.now = deadline
                self.carry_all(self.run.tick(self.now))
            else:
                self.now = patience
                patience += 2.5
                if not self.client.done:
                    self.carry(self.client.impatient(), False)
        raise AssertionError("the transfer does not come to an end")


def network(seed: int, length: int, window: int, fate: Fate) -> tuple[Network, bytes]:
    chance = random.Random(seed)
    data = chance.randbytes(length)
    options = {"blksize": 16, "windowsize": window} if window > 1 else {"blksize": 16}
    return Network(transfer(data, **options), Client(window, 16), fate, chance), data


seeds = st.integers(0, 2**32)
lengths = st.integers(0, 1500)
windows = st.sampled_from([1, 2, 4, 16])


def clean(_chance: random.Random) -> list[float]:
    return [0.01]


def jitter(chance: random.Random) -> list[float]:
    return [chance.uniform(0.001, 0.4)]


def doubling(_chance: random.Random) -> list[float]:
    return [0.01, 0.011]


def bad(chance: random.Random) -> list[float]:
    """One in ten lost, one in ten doubled, all of them out of order."""
    copies = chance.choices([0, 1, 2], [1, 8, 1])[0]
    return [chance.uniform(0.001, 0.5) for _ in range(copies)]


def terrible(chance: random.Random) -> list[float]:
    copies = chance.choices([0, 1, 2], [5, 4, 1])[0]
    return [chance.uniform(0.001, 3) for _ in range(copies)]


@given(seeds, lengths, windows)
@settings(max_examples=50)
def test_over_a_clean_network_nothing_is_sent_twice(seed: int, length: int, window: int) -> None:
    net, data = network(seed, length, window, clean)
    net.play()
    assert bytes(net.client.got) == data
    assert (net.run.outcome, net.run.resent) == (Outcome.DONE, 0)


@given(seeds, lengths, windows, st.sampled_from([jitter, doubling, bad]))
@settings(max_examples=150, deadline=None)
def test_the_file_arrives_whole(seed: int, length: int, window: int, fate: Fate) -> None:
    net, data = network(seed, length, window, fate)
    net.play()
    assert net.run.outcome is Outcome.DONE
    assert bytes(net.client.got) == data
    assert net.run.delivered == length or net.run.detail


@given(seeds, lengths, windows)
@settings(max_examples=100, deadline=None)
def test_over_a_terrible_network_it_ends_and_never_lies(
    seed: int, length: int, window: int
) -> None:
    net, data = network(seed, length, window, terrible)
    net.play()
    assert data.startswith(bytes(net.client.got))
    if net.run.outcome is Outcome.DONE and not net.run.detail:
        assert bytes(net.client.got) == data


@given(seeds, lengths, windows)
@settings(max_examples=50, deadline=None)
def test_a_network_that_doubles_everything_does_not_double_for_ever(
    seed: int, length: int, window: int
) -> None:
    net, _ = network(seed, length, window, doubling)
    net.play()
    needed = length // 16 + 1
    assert net.run.resent <= (0 if window == 1 else needed + window)
