"""Each failure that is called the suite's own, shown to be that; and what is not the suite's own.

The suite talks to our disk process through a relay, which writes down what was asked and what
was answered, and can hold back an answer or change a request.
"""

import asyncio
import struct
from pathlib import Path

import pytest

from tests.conformance.conformance import SUITE, at, judged, serving
from tests.conformance.figures import ARTEFACTS, PROOFS, Outcome, Verdict
from tests.conformance.relay import (
    COMMAND,
    LOGOUT,
    MANAGEMENT,
    MANAGEMENT_RESPONSE,
    RESPONSE,
    Change,
    Held,
    Relay,
    Seen,
    relay,
)
from tests.conformance.units import KINDS, SIZE, UNITS
from tests.iscsi.dialogue import Dialogue

pytestmark = pytest.mark.interop

UNMAP_SINGLE = "SCSI.GetLBAStatus.UnmapSingle"
LUN_RESET = "iSCSI.iSCSITMF.LUNResetSimpleAsync"


def lun(kind: str) -> int:
    (number,) = [n for n, (each, size) in enumerate(UNITS) if (each.name, size) == (kind, SIZE)]
    return number


def nothing_held(seen: Seen, before: list[Seen]) -> bool:
    return False


def as_it_came(seen: Seen, before: list[Seen]) -> bytes:
    return seen.pdu


async def played(
    port: int, test: str, kind: str, held: Held = nothing_held, change: Change = as_it_came
) -> tuple[str, Relay]:
    """What the suite says of one test at one unit, and what went over the wire for it."""
    async with relay(port, held, change) as between:
        command = [SUITE, "-d", "-n", "-V", "-t", test, at(between.port, lun(kind))]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        async with asyncio.timeout(60):
            words, _ = await process.communicate()
        return words.decode(errors="replace"), between


def alone(folder: Path, test: str, kind: str, **meddling: Held | Change) -> tuple[str, Relay]:
    async def main() -> tuple[str, Relay]:
        async with serving(folder / "ours") as port:
            return await played(port, test, kind, **meddling)  # type: ignore[arg-type]
        raise AssertionError

    return asyncio.run(main())


# LOGICAL UNIT RESET.


def test_lun_reset_simple_async_judges_before_it_is_answered(tmp_path: Path) -> None:
    """While no answer to its reset reaches it, it fails, and takes its leave.

    A test that waited would wait here for its five seconds, and would log out after those.
    """

    def until_it_leaves(seen: Seen, before: list[Seen]) -> bool:
        left = any(each.opcode == LOGOUT and each.connection for each in before)
        return seen.opcode in (RESPONSE, MANAGEMENT_RESPONSE) and asked(before) and not left

    def asked(before: list[Seen]) -> bool:
        return any(each.opcode == MANAGEMENT for each in before)

    words, between = alone(tmp_path, LUN_RESET, "thin", held=until_it_leaves)
    (request,), (answer,) = between.of(MANAGEMENT), between.of(MANAGEMENT_RESPONSE)
    logout = next(seen for seen in between.of(LOGOUT) if seen.connection)
    order = [between.seen.index(seen) for seen in (request, logout, answer)]
    assert order == sorted(order), "it has left before it was answered"
    assert request.pdu[1] & 0x7F == 5, "LOGICAL UNIT RESET"
    # What came late was what the test wants, also by its own words.
    assert (answer.pdu[2], answer.itt) == (0, request.itt)
    assert "LU RESET: TMF response 0" in words and "LU RESET completed" in words
    # Of its assertions one has failed: that a variable was set, which the callback sets.
    assert words.count("CU_ASSERT") == 1 and "CU_ASSERT_EQUAL(reconnect_succeeded,1)" in words


def test_the_reset_of_that_test_with_patience(tmp_path: Path) -> None:
    """The same as it wants: a WRITE(10), a LOGICAL UNIT RESET behind it, and both answers."""

    async def main() -> None:
        async with serving(tmp_path / "ours") as port:
            await asyncio.to_thread(patient, port)

    def patient(port: int) -> None:
        from tests.conformance.conformance import NAME

        with Dialogue(port, NAME, "ImmediateData=Yes") as session:
            i = session.initiator
            session.send(
                i.write(0, 8, bytes(4096), itt=7), i.request(2, 0x85, itt=8, immediate=True)
            )
            written, reset = session.read(), session.read()
            assert written is not None and reset is not None
            assert (written.opcode, written.itt, written.byte3) == (0x21, 7, 0)
            assert (reset.opcode, reset.itt, reset.byte2) == (0x22, 8, 0)
            assert session.attention() == 0x2903 and session.attention() == 0

    asyncio.run(main())


# GET LBA STATUS.


def statuses(between: Relay) -> list[tuple[int, int, int]]:
    """Of each GET LBA STATUS: the block asked for, the block and status answered first."""
    answers = {seen.itt: seen.data for seen in between.seen if seen.answer and seen.data}
    return [
        (
            int.from_bytes(seen.cdb[2:10], "big"),
            *struct.unpack_from(">Q4xB", answers[seen.itt], 8),
        )
        for seen in between.of(COMMAND)
        if seen.cdb[:2] == b"\x9e\x12"
    ]


def unmapped(seen: list[Seen]) -> list[tuple[int, int]]:
    """First block and number of each UNMAP, of one range each."""
    return [
        struct.unpack_from(">QI", each.data, 8)
        for each in seen
        if each.opcode == COMMAND and each.cdb[0] == 0x42
    ]


@pytest.mark.parametrize("kind", sorted(ARTEFACTS[UNMAP_SINGLE].kinds))
def test_unmap_single_asks_for_one_block_and_wants_another(tmp_path: Path, kind: str) -> None:
    """It fails over an answer that begins where it was asked to, and passes with one that lies.

    In its second part it unmaps ``i`` blocks from the first on, asks for block ``i + 1``, and
    wants an answer that begins at ``i`` plus the blocks of a physical block.
    """
    physical = 1 << next(each.exponent for each in KINDS if each.name == kind)

    def lie(seen: Seen, before: list[Seen]) -> bytes:
        asked = [each for each in before if each.opcode == COMMAND and each.itt == seen.itt]
        if not seen.answer or not asked or asked[-1].cdb[:2] != b"\x9e\x12":
            return seen.pdu
        block = int.from_bytes(asked[-1].cdb[2:10], "big")
        start, count = unmapped(before)[-1]
        if (start, count + 1) != (0, block):
            return seen.pdu
        wanted = struct.pack(">Q", count + physical)
        return seen.pdu[:56] + wanted + seen.pdu[64:]

    async def main() -> tuple[str, Relay, str]:
        async with serving(tmp_path / "ours") as port:
            words, between = await played(port, UNMAP_SINGLE, kind)
            content, _ = await played(port, UNMAP_SINGLE, kind, change=lie)
            return words, between, content
        raise AssertionError

    words, between, content = asyncio.run(main())
    found = statuses(between)
    assert len(found) > 2 and all(asked == answered for asked, answered, _ in found)
    # The first turn of the second part: one physical block is unmapped, the next is mapped.
    assert unmapped(between.seen)[-1] == (0, physical)
    assert found[-1] == (physical + 1, physical + 1, 0)
    assert judged(words).verdict is Verdict.FAILED
    assert "lba offset in first descriptor does not" in words
    assert judged(content) == Outcome(Verdict.PASSED)


def test_unmap_single_passes_where_the_two_are_one(tmp_path: Path) -> None:
    (kind,) = [each.name for each in KINDS if each.exponent == 0]
    assert kind not in ARTEFACTS[UNMAP_SINGLE].kinds
    words, between = alone(tmp_path, UNMAP_SINGLE, kind)
    assert judged(words) == Outcome(Verdict.PASSED)
    assert all(asked == answered for asked, answered, _ in statuses(between))


# What is not the suite's own.


@pytest.mark.parametrize("name", ["iSCSICmdSnTooLow", "iSCSICmdSnTooHigh"])
def test_the_suite_sees_a_target_that_takes_a_wrong_cmdsn(tmp_path: Path, name: str) -> None:
    """Its tests of CmdSN pass with us because we ignore what is outside the window.

    With a relay that makes the wrong number right, so that it is answered, they fail.
    """
    last: dict[int, int] = {}

    def rightly_numbered(seen: Seen, before: list[Seen]) -> bytes:
        if seen.opcode != COMMAND:
            return seen.pdu
        number = last.get(seen.connection, seen.word(24) - 1) + 1
        last[seen.connection] = number
        return seen.pdu[:24] + struct.pack(">I", number & 0xFFFFFFFF) + seen.pdu[28:]

    test = f"iSCSI.iSCSIcmdsn.{name}"

    async def main() -> tuple[str, str]:
        async with serving(tmp_path / "ours") as port:
            words, _ = await played(port, test, "thin")
            meddled, _ = await played(port, test, "thin", change=rightly_numbered)
            return words, meddled
        raise AssertionError

    words, meddled = asyncio.run(main())
    assert judged(words) == Outcome(Verdict.PASSED)
    assert judged(meddled).verdict is Verdict.FAILED
    assert "We got a response from the target" in meddled


def test_every_artefact_has_its_proof() -> None:
    assert (Path(__file__).parents[2] / PROOFS).samefile(__file__)
    for name, artefact in ARTEFACTS.items():
        assert callable(globals().get(artefact.proof)), name
        assert artefact.kinds < {kind.name for kind in KINDS}, name
