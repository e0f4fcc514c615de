"""What one session can make us hold: an initiator that means harm, memory measured, others served.

Every limit of ``docs/iscsi.md`` on memory has its scene here; those of single PDUs are in
``test_engine`` and ``test_text``.
"""

import asyncio
import contextlib
import struct
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from netboot.iscsi import engine as parser
from netboot.iscsi.peer import HIGH_WATER
from netboot.iscsi.session import (
    FEW_TASKS,
    GATHERED_LIMIT,
    HELD_LIMIT,
    READING_LIMIT,
    WRITE,
    Session,
    Task,
    Transfer,
)
from netboot.iscsi.target import Identity
from netboot.model import Admission
from tests.iscsi import test_portal
from tests.iscsi.test_portal import TARGET, Client, House

play = test_portal.play  # the fixture
MIB = 1 << 20
KEYS = (f"TargetName={TARGET}", "SessionType=Normal", "ImmediateData=Yes", "InitialR2T=No")
BIG = (*KEYS, "FirstBurstLength=262144", "MaxRecvDataSegmentLength=262144")
TASK_SET_FULL = 0x28


class Meter:
    """Bytes that Python objects took more than at the beginning, at the worst moment."""

    def __init__(self) -> None:
        self._base = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()

    @property
    def peak(self) -> int:
        return tracemalloc.get_traced_memory()[1] - self._base


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


async def enter(house: House, number: int, *keys: str) -> Client:
    client = house.client(struct.pack(">HI", 2, number))
    assert await client.login(house.port, *(keys or BIG)) == 0
    return await client.ready()


async def flood(client: Client, chunk: bytes, count: int) -> int:
    """Send ``chunk`` over and over until nobody takes it any more; how many were taken."""
    client.writer.transport.set_write_buffer_limits(len(chunk))
    for number in range(count):
        client.writer.write(chunk)
        try:
            await asyncio.wait_for(client.writer.drain(), 0.5)
        except TimeoutError:
            return number
    return count


def test_who_asks_for_everything_and_reads_nothing(play: Any, traced: None) -> None:
    async def scene(house: House) -> None:
        bad, good = await enter(house, 1), await enter(house, 2)
        meter = Meter()
        bad.writer.write(b"".join(bad.initiator.read(0, 2048) for _ in range(120)))
        await house.until(lambda: len(house.disks[0].calls) > 3)
        for _ in range(20):
            assert (await good.say(good.initiator.read(0, 8))).opcode == 0x25
        assert meter.peak < HIGH_WATER + 4 * MIB  # and not 120

    play(scene)


def test_who_asks_for_cold_blocks_and_reads_nothing(play: Any, traced: None) -> None:
    """What workers have read must wait somewhere until it is sent: no more is read meanwhile."""

    async def scene(house: House) -> None:
        bad, good = await enter(house, 1), await enter(house, 2)
        house.disks[0].cold = True
        meter = Meter()
        bad.writer.write(b"".join(bad.initiator.read(0, 2048) for _ in range(120)))
        ping = bad.initiator.request(0x00, word20=0xFFFFFFFF)
        bad.writer.write(ping)
        await house.until(lambda: len(house.disks[0].calls) > 16)
        for _ in range(20):
            assert (await good.say(good.initiator.read(0, 8))).opcode == 0x25
        await asyncio.sleep(0.1)
        assert meter.peak < HIGH_WATER + READING_LIMIT + 8 * MIB  # and not 120
        received, pong = 0, False
        while received < 120 * MIB or not pong:  # once it reads, everything comes
            pdu = await bad.answer()
            received, pong = received + len(pdu.data), pong or pdu.opcode == 0x20
        assert received == 120 * MIB

    play(scene)


def test_a_ping_does_not_wait_for_cold_blocks(play: Any) -> None:
    """Linux ends a session whose pings are not answered: they pass commands that wait."""

    async def scene(house: House) -> None:
        client = await enter(house, 1)
        gate = asyncio.Event()
        loop = asyncio.get_running_loop()
        disk = house.disks[0]
        disk.cold, read = True, disk.read

        def slow(offset: int, length: int) -> Any:
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(20)
            return read(offset, length)

        disk.read = slow
        client.writer.write(b"".join(client.initiator.read(0, 2048) for _ in range(40)))
        pong = await client.say(client.initiator.request(0x00, word20=0xFFFFFFFF))
        assert pong.opcode == 0x20
        gate.set()
        got = 0
        while got < 40 * MIB:
            got += len((await client.answer()).data)

    play(scene)


def test_who_begins_writes_and_never_ends_them(play: Any, traced: None) -> None:
    """Immediate data of 255 KiB each, and the last KiB never comes."""

    async def scene(house: House) -> None:
        bad, good = await enter(house, 1), await enter(house, 2)
        meter = Meter()
        tags = []
        data = bytes(255 << 10)
        for _ in range(100):
            tags.append(bad.initiator.itt + 1)
            bad.writer.write(bad.initiator.write(0, 512, data, flags=0x21))
            await bad.writer.drain()
        for _ in range(20):
            assert (await good.say(good.initiator.write(0, 1, b"g" * 512))).byte3 == 0
        await asyncio.sleep(0.05)
        assert meter.peak < HELD_LIMIT + 8 * MIB  # and not 25
        last = bytes(1024)
        for tag, status in ((tags[-1], TASK_SET_FULL), (tags[0], 0)):
            answer = await bad.say(bad.initiator.data_out(tag, 0xFFFFFFFF, 0, len(data), last))
            assert (answer.opcode, answer.itt, answer.byte3) == (0x21, tag, status)

    play(scene)


def test_who_has_much_compared_at_once(play: Any, traced: None) -> None:
    """VERIFY with BYTCHK 01b wants all of its data before it is done."""

    async def scene(house: House) -> None:
        bad, good = await enter(house, 1), await enter(house, 2)
        meter = Meter()
        verify = struct.pack(">BBIBHB", 0x2F, 0x02, 0, 0, 2048, 0)
        for _ in range(100):
            bad.writer.write(bad.initiator.command(verify, MIB, flags=0xA1))
        full, asked = 0, 0
        while full < 100 - GATHERED_LIMIT // MIB:
            answer = await bad.answer()
            if answer.opcode == 0x31:
                asked += 1
                piece = bytes(answer.word44 // 2)  # half, and no more
                bad.writer.write(
                    bad.initiator.data_out(
                        answer.itt, answer.word20, 0, answer.word40, piece, final=False
                    )
                )
            else:
                assert (answer.opcode, answer.byte3) == (0x21, TASK_SET_FULL)
                full += 1
        assert asked and full == 100 - GATHERED_LIMIT // MIB
        assert (await good.say(good.initiator.read(0, 8))).opcode == 0x25
        assert meter.peak < GATHERED_LIMIT + 8 * MIB

    play(scene)


def test_who_pings_and_reads_nothing(play: Any, traced: None) -> None:
    async def scene(house: House) -> None:
        bad, good = await enter(house, 1), await enter(house, 2)
        ping = bad.initiator.request(0x00, word20=0xFFFFFFFF, data=bytes(8192), immediate=True)
        meter = Meter()
        assert await flood(bad, ping * 8, 4000) < 4000
        assert (await good.say(good.initiator.read(0, 8))).opcode == 0x25
        assert meter.peak < HIGH_WATER + 4 * MIB

    play(scene)


def test_who_talks_on_before_the_login_is_answered(play: Any, traced: None) -> None:
    async def scene(house: House) -> None:
        asked = asyncio.Event()

        async def never(knock: Any) -> Admission:
            await asked.wait()
            return house.admission

        house.portal._admit = never
        bad = await house.client().connect(house.port)
        meter = Meter()
        login = bad.initiator.login(0x87, "InitiatorName=iqn.a", f"TargetName={TARGET}")
        bad.writer.write(login + bytes(MIB))
        with contextlib.suppress(OSError):
            await bad.writer.drain()
        assert await bad.gone()
        assert meter.peak < 4 * MIB
        asked.set()

    play(scene)


def test_many_events_that_wait_stop_the_reading(play: Any, traced: None) -> None:
    """Task management is immediate and no task, so that no window bounds it."""

    async def scene(house: House) -> None:
        bad, good = await enter(house, 1), await enter(house, 2)
        disk, gate = house.disks[0], asyncio.Event()
        loop, read = asyncio.get_running_loop(), disk.read
        disk.cold = True

        def slow(offset: int, length: int) -> Any:
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(20)
            return read(offset, length)

        disk.read = slow
        bad.writer.write(b"".join(bad.initiator.read(0, 2048) for _ in range(40)))
        meter = Meter()
        abort = bad.initiator.request(0x02, 0x81, word20=0x77, immediate=True)
        assert await flood(bad, abort * 1000, 4000) < 4000
        assert (await good.say(good.initiator.write(0, 1, b"g" * 512))).byte3 == 0
        gate.set()
        assert meter.peak < READING_LIMIT + 16 * MIB

    play(scene)


# The sums themselves.


def session() -> Session:
    made = Session(Identity("iqn.a", b"123456", "iqn.t"))
    made.parameters.first_burst = 1 << 18
    return made


def task(itt: int, data: int = 0, edtl: int = 1 << 20) -> Task:
    return Task(itt, 0, WRITE, edtl, bytes(16), bytes(data), False)


def test_few_tasks_are_never_too_much() -> None:
    full = session()
    full.tasks = {n: task(n, 1 << 18) for n in range(FEW_TASKS)}
    assert not full.laden()
    full.tasks[99] = task(99, 1)
    assert full.laden()
    del full.tasks[5]
    assert not full.laden()


def test_what_may_still_come_unasked_counts_as_if_it_were_here() -> None:
    full = session()
    for number in range(FEW_TASKS + 1):
        full.tasks[number] = task(number)
    assert not full.laden()  # all of it is asked for, in its turn
    for pending in full.tasks.values():
        pending.transfer = Transfer(True, bytearray())
    assert full.laden()
    for pending in full.tasks.values():
        pending.edtl = 4096
    assert not full.laden()
    for pending in full.tasks.values():
        pending.transfer = Transfer(False, bytearray(1 << 18))
    assert full.laden()


def test_one_may_always_gather_and_ended_ones_do_not_count() -> None:
    open_ = session()
    first, second, third = task(1), task(2), task(3)
    assert open_.may_gather(first, 2 * GATHERED_LIMIT)
    open_.tasks[1] = first
    assert not open_.may_gather(second, 1)
    open_.drop(first)
    assert open_.may_gather(second, GATHERED_LIMIT)
    open_.tasks[2] = second
    assert not open_.may_gather(third, 1)
    open_.tasks[2] = task(2)  # another one of the same tag
    assert open_.may_gather(third, 1) and set(open_.gathered) == {third}


def test_the_limits_are_those_of_the_documentation() -> None:
    assert (HELD_LIMIT, GATHERED_LIMIT, READING_LIMIT) == (16 * MIB, 32 * MIB, 16 * MIB)
    assert (parser.EARLY_LIMIT, parser.HELD_LIMIT) == (MIB, 16 << 10)
