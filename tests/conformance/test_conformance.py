"""What the harness makes of the suite's output; and a quick subset of the suite itself."""

import asyncio
from pathlib import Path

import pytest

from tests.conformance.conformance import (
    FIRST,
    KINDS,
    LIMIT,
    Outcome,
    Verdict,
    counts,
    failures,
    judged,
    never_ran,
    ours,
    page,
    suite,
    table,
)

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


@pytest.mark.interop
def test_the_suite_has_the_tests_we_know_of() -> None:
    names = suite()
    assert len(names) == len(set(names)) > 200
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
    assert removable.removable and LIMIT >= 60
    rows = asyncio.run(ours(tmp_path / "ours", QUICK, [removable]))
    found = {name: outcomes[removable.name] for name, outcomes in rows.items()}
    assert found == dict.fromkeys(QUICK, Outcome(Verdict.PASSED))
