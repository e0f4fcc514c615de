"""What the harness makes of the suite's output; and a quick subset of the suite itself."""

import asyncio
from pathlib import Path

import pytest

from tests.conformance.conformance import FIRST, judged, ours, suite
from tests.conformance.figures import (
    ARTEFACTS,
    FAINT,
    MOST_SKIPS,
    SKIPS,
    Outcome,
    Verdict,
    counts,
    failures,
    never_ran,
    page,
    table,
    unheld,
)
from tests.conformance.units import KINDS, LIMIT, LONG, LONG_LIMIT, LONG_SIZE, SIZE, UNITS

SUMMARY = """
Run Summary:    Type  Total    Ran Passed Failed Inactive
              suites      1      1    n/a      0        0
               tests      1      {}      {}      {}        0
             asserts    512    512    512      0      n/a
"""
PASSED, FAILED = SUMMARY.format(1, 1, 0), SUMMARY.format(1, 0, 1)
SKIPPED = "    [SKIPPED] SANITIZE is not implemented.\n"


def test_a_test_that_passed() -> None:
    assert judged(PASSED) == Outcome(Verdict.PASSED)


def test_a_test_that_skipped_itself_has_not_passed() -> None:
    outcome = judged(SKIPPED + PASSED)
    assert outcome == Outcome(Verdict.SKIPPED, "SANITIZE is not implemented.")


def test_a_failure_is_told_in_the_words_of_the_suite() -> None:
    assert judged("    [FAILED] no zeros\n" + FAILED) == Outcome(Verdict.FAILED, "no zeros")
    place = judged(FAILED.replace("\nRun", "    1. test_x.c:80  - CU_ASSERT(r)\n\nRun"))
    assert place == Outcome(Verdict.FAILED, "test_x.c:80  - CU_ASSERT(r)")
    # A failure is one also when a part of the test was skipped.
    assert judged(SKIPPED + FAILED).verdict is Verdict.FAILED


@pytest.mark.parametrize("words", ["", "Failed to connect", PASSED[:60]])
def test_a_test_that_ended_too_early_has_failed(words: str) -> None:
    assert judged(words).verdict is Verdict.FAILED


def test_a_test_that_did_not_run_has_failed() -> None:
    assert judged(SUMMARY.format(0, 0, 0)) == Outcome(Verdict.FAILED, "it did not run")


def test_the_figures_and_the_page() -> None:
    skipped, failed = Outcome(Verdict.SKIPPED, "[no] `such` thing"), Outcome(Verdict.FAILED, "bad")
    passed = Outcome(Verdict.PASSED)
    rows = {
        "a": {"thin": passed, "removable": skipped},
        "b": {"thin": skipped, "removable": skipped},
        "c": {"thin": failed, "removable": passed},
    }
    assert counts(rows, "thin") == (1, 1, 1)
    assert counts(rows, "removable") == (1, 2, 0)
    assert never_ran(rows) == ["b"]
    assert failures(rows) == [("c", "thin", "bad")]
    assert "| netboot | thin | 1 | 1 | 1 |" in table({"netboot": rows})
    text = page({"netboot": rows, "tgt": {}})
    assert "- `c`, thin: bad\n" in text and "- `b`: no such thing\n" in text
    assert text.endswith("## What never ran: tgt\n\nNothing.\n")
    assert "- when: 20" in text and "libiscsi-bin " in text and "GiB of memory" in text
    for artefact in ARTEFACTS.values():
        assert f"Shown by `{artefact.proof}`" in text


def test_only_the_artefacts_may_fail_and_only_where_they_are_said_to() -> None:
    failed, passed = Outcome(Verdict.FAILED, "bad"), Outcome(Verdict.PASSED)
    for name, artefact in ARTEFACTS.items():
        assert unheld({name: dict.fromkeys(artefact.kinds, failed)}) == []
        elsewhere = {kind.name for kind in KINDS} - artefact.kinds
        assert unheld({name: dict.fromkeys(elsewhere, passed)}) == []
        for kind in elsewhere:
            assert unheld({name: {kind: failed}}) == [f"{name} failed at {kind}: bad"]
    assert unheld({"SCSI.Read10.Simple": {"thin": failed}}) != []


def test_few_tests_may_run_at_no_unit() -> None:
    skipped, passed = Outcome(Verdict.SKIPPED, "no"), Outcome(Verdict.PASSED)
    rows = {f"t{n}": {"thin": skipped, "removable": skipped} for n in range(MOST_SKIPS)}
    assert unheld(rows) == []
    rows["one"] = {"thin": skipped, "removable": passed}
    assert unheld(rows) == []
    rows["more"] = {"thin": skipped}
    assert "6 tests ran at no unit" in unheld(rows)[0]


def test_what_we_say_of_a_skip_stands_with_us_only() -> None:
    name, skipped = next(iter(SKIPS)), Outcome(Verdict.SKIPPED, "does not support 0-blocks.")
    ours_, theirs_ = page({"netboot": {name: {"thin": skipped}}, "tgt": {}}).split("tgt\n", 1)
    assert SKIPS[name] in ours_ and SKIPS[name] not in theirs_


def test_every_kind_that_can_be_written_has_a_large_twin() -> None:
    assert [kind for kind, size in UNITS if size == SIZE] == list(KINDS)
    assert [kind for kind, size in UNITS if size == LONG_SIZE] == [
        kind for kind in KINDS if not kind.read_only
    ]


@pytest.mark.interop
def test_the_suite_has_the_tests_we_know_of() -> None:
    names = suite()
    assert len(names) == len(set(names)) > 200
    assert set(LONG) | set(ARTEFACTS) | set(SKIPS) | set(FAINT) <= set(names)
    assert names[0] == FIRST[0]
    assert "iSCSI.iSCSITMF.LogicalUnitReset" in names or "SCSI.Read10.Simple" in names


#: Of each family that asks for more than reading and writing, what runs in no time.
QUICK = [
    *(f"SCSI.ExtendedCopy.{name}" for name in ("Simple", "ParamHdr", "DescrLimits", "DescrType")),
    "SCSI.ExtendedCopy.ValidSegDescr",
    *(f"SCSI.ReceiveCopyResults.{name}" for name in ("CopyStatus", "OpParams")),
    *(f"SCSI.ReadDefectData{size}.Simple" for size in (10, 12)),
    *(f"SCSI.Sanitize.{name}" for name in ("BlockErase", "CryptoErase", "Overwrite", "Readonly")),
    *(f"SCSI.Sanitize.{name}" for name in ("ExitFailureMode", "Reservations")),
    *(f"SCSI.PreventAllow.{name}" for name in ("Simple", "Eject", "2ITNexuses")),
    "SCSI.GetLBAStatus.UnmapSingle",
    "SCSI.StartStopUnit.Simple",
]


@pytest.mark.interop
def test_a_quick_subset_passes_and_nothing_of_it_skips_itself(tmp_path: Path) -> None:
    removable = KINDS[1]
    assert removable.removable and LONG_LIMIT > LIMIT >= 60
    rows = asyncio.run(ours(tmp_path / "ours", QUICK, [removable]))
    found = {name: outcomes[removable.name] for name, outcomes in rows.items()}
    assert found == dict.fromkeys(QUICK, Outcome(Verdict.PASSED))
