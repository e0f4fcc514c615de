"""The judge of killtest misses nothing, and its two writers write the same."""

import subprocess
from pathlib import Path

import pytest

from tests.kill.records import (
    LENGTH,
    LOOSE_BLOCK,
    SLOT,
    SLOTS,
    Kind,
    Moment,
    judge,
    judge_loose,
    loose,
    pauses,
    plan,
    record,
)

WRITER = Path(__file__).with_name("writer.pl")


def files(acknowledged: int) -> tuple[bytearray, bytearray]:
    records = bytearray(b"".join(record(n) for n in range(1, acknowledged + 1)))
    slots = bytearray(SLOT * SLOTS)
    for number in range(1, acknowledged + 1):
        begin = number % SLOTS * SLOT
        slots[begin : begin + SLOT] = record(number) * 8
    return records, slots


def test_a_record_is_a_function_of_its_number() -> None:
    assert record(7) == b"00000000000007" + b"538453d7" * 61 + b" 1f3bf065\n"
    assert len(record(1)) == len(record(99999)) == LENGTH
    assert len({record(n) for n in range(1, 2000)}) == 1999


@pytest.mark.parametrize("count", [1, 60, 61, 62, 200])
def test_all_is_well(count: int) -> None:
    assert judge(*map(bytes, files(count)), count) == []


def test_what_was_not_acknowledged_may_be_there_or_not() -> None:
    records, slots = files(200)
    begin = 203 % SLOTS * SLOT
    slots[begin : begin + SLOT] = record(203) * 8
    records += record(201)[:100]
    assert judge(bytes(records), bytes(slots), 200) == []


@pytest.mark.parametrize("number", [1, 100, 200])
def test_a_missing_record_is_found(number: int) -> None:
    records, slots = files(200)
    records[(number - 1) * LENGTH : number * LENGTH] = bytes(LENGTH)
    assert judge(bytes(records), bytes(slots), 200) == [f"record {number} is wrong"]


def test_a_file_that_is_too_short_is_found() -> None:
    records, slots = files(200)
    assert judge(bytes(records[:-1]), bytes(slots), 200) == ["record 200 is wrong"]


@pytest.mark.parametrize("older", [139, 78, 199, 203])
def test_a_slot_that_is_stale_is_found(older: int) -> None:
    records, slots = files(200)
    begin = 200 % SLOTS * SLOT
    slots[begin : begin + SLOT] = record(older) * 8
    assert judge(bytes(records), bytes(slots), 200) == ["the slot of record 200 is wrong"]


@pytest.mark.parametrize("newer", [139, 261])
def test_a_torn_slot_is_found(newer: int) -> None:
    records, slots = files(200)
    begin = 200 % SLOTS * SLOT
    slots[begin : begin + 512] = record(newer)
    assert judge(bytes(records), bytes(slots), 200) == ["the slot of record 200 is wrong"]


def test_unsynced_blocks() -> None:
    content = loose(17) + loose(2)
    assert len(loose(3)) == LOOSE_BLOCK
    assert judge_loose(content, {0: 17, 1: 2}) == []
    assert judge_loose(content, {0: 17, 1: 18}) == ["unsynced block 1 is not write 18"]
    assert judge_loose(content, {2: 3}) == ["unsynced block 2 is not write 3"]


def test_the_plan_is_the_seed_s() -> None:
    blows = plan(1, 20, 20, 3)
    assert blows == plan(1, 20, 20, 3) != plan(2, 20, 20, 3)
    kinds = [blow.kind for blow in blows]
    assert [kinds.count(kind) for kind in Kind] == [20, 20, 3]
    assert {blow.moment for blow in blows} == set(Moment)
    assert blows[0].moment is Moment.ANY


def test_a_pause_is_that_of_the_blow_before_it() -> None:
    acknowledged = [0.0, 1.0, 2.0, 5.0, 6.0, 8.0, 8.5, 9.5]
    fallen = [(2.1, Kind.DISK), (6.5, Kind.CONTROL), (8.1, Kind.DISK)]
    assert pauses(acknowledged, fallen) == {Kind.DISK: [3.0, 1.0], Kind.CONTROL: [2.0]}
    # The answer that was on its way when the blow fell; and two blows into one pause.
    assert pauses(acknowledged, [(1.9, Kind.BOTH)]) == {Kind.BOTH: [3.0]}
    twice = [(3.0, Kind.DISK), (4.0, Kind.CONTROL)]
    assert pauses(acknowledged, twice) == {Kind.DISK: [3.0], Kind.CONTROL: [3.0]}
    # The pause of the next blow is not ours.
    assert pauses(acknowledged, [(0.5, Kind.CONTROL), (2.5, Kind.DISK)])[Kind.CONTROL] == [1.0]
    assert pauses(acknowledged, [(9.9, Kind.DISK)]) == {Kind.DISK: [0.0]}


@pytest.mark.interop
def test_perl_writes_the_same_and_judges_the_same(tmp_path: Path) -> None:
    def perl(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["perl", str(WRITER), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=50)

    folder, stop, line = str(tmp_path), tmp_path / "stop", tmp_path / "line"
    command = ["perl", str(WRITER), folder, "1", str(stop), str(line)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while not (line.exists() and "rec-done 130\n" in line.read_text()):
        assert writer.poll() is None
    stop.touch()
    count = int(writer.communicate(timeout=20)[0])
    expected = [f"rec-{verb} {n}" for n in range(1, count + 1) for verb in ("sync", "done")]
    assert line.read_text().splitlines() == expected

    records, slots = tmp_path / "records", tmp_path / "slots"
    assert judge(records.read_bytes(), slots.read_bytes(), count) == []
    assert perl(folder, str(count)).stdout == f"{count} records, 0 wrong\n"
    # Records that nobody acknowledged do no harm.
    assert perl(folder, str(count - 3)).returncode == 0

    content = bytearray(records.read_bytes())
    content[700] ^= 1
    records.write_bytes(content)
    held = bytearray(slots.read_bytes())
    begin = count % SLOTS * SLOT
    held[begin : begin + SLOT] = record(count - SLOTS) * 8
    slots.write_bytes(held)
    wrong = ["record 2 is wrong", f"the slot of record {count} is wrong"]
    assert judge(bytes(content), bytes(held), count) == wrong
    done = perl(folder, str(count))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [*wrong, f"{count} records, 2 wrong"]
