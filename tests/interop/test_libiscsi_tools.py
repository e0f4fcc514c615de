"""iscsi-ls, iscsi-inq, iscsi-perf and libiscsi's own suite against a running target."""

import re
import subprocess
from typing import Any

import pytest

from netboot.model import Chap

pytestmark = pytest.mark.interop

NAME = "iqn.2026-11.lab.netboot:52-54-00-12-34-56"


def run(*command: str, expect: int | None = 0) -> str:
    """The words of a program; it must end with ``expect``."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    words = done.stdout + done.stderr
    assert expect is None or done.returncode == expect, words
    return words


def test_iscsi_ls_discovers_the_target_and_its_lun(iscsi: Any) -> None:
    words = run("iscsi-ls", "-s", f"iscsi://127.0.0.1:{iscsi.port}")
    assert f"Target:{NAME} Portal:127.0.0.1:{iscsi.port},1" in words
    assert re.search(r"Lun:0 +Type:DIRECT_ACCESS \(Size:3[12]M\)", words)
    discovery, normal = iscsi.knocks
    assert discovery.discovery and not normal.discovery
    assert normal.target == NAME


def test_iscsi_inq(iscsi: Any) -> None:
    words = run("iscsi-inq", iscsi.url())
    assert "Peripheral Device Type:DIRECT_ACCESS" in words and "Vendor:NETBOOT" in words
    assert "Version Descriptor:0960 iSCSI" in words
    serial = run("iscsi-inq", "-e", "1", "-c", "128", iscsi.url())
    assert "Unit Serial Number:[525400123456]" in serial
    pages = run("iscsi-inq", "-e", "1", "-c", "0", iscsi.url())
    for page in ("0x00", "0x80", "0x83", "0xb0", "0xb1", "0xb2"):
        assert f"Page:{page}" in pages


def test_a_lun_that_does_not_exist(iscsi: Any) -> None:
    words = run("iscsi-inq", iscsi.url(lun=7), expect=None)
    assert "DISCONNECTED" in words or "NOT_SUPPORTED" in words or "failed" in words.lower()


def test_the_names_and_secrets_of_chap(iscsi: Any) -> None:
    """libiscsi speaks MD5, and mutual CHAP when the URL names the target's secret."""
    iscsi.protect(Chap("ws1", "a-secret-of-12", "lab", "another-secret"))
    assert "NETBOOT" in run("iscsi-inq", iscsi.url(user="ws1%a-secret-of-12"))
    mutual = "?target_user=lab&target_password=another-secret"
    assert "NETBOOT" in run("iscsi-inq", iscsi.url(user="ws1%a-secret-of-12") + mutual)
    for user in ("", "ws1%wrong-secret-12", "ws2%a-secret-of-12"):
        words = run("iscsi-inq", iscsi.url(user=user), expect=None)
        assert "NETBOOT" not in words
        assert "Authentication" in words or "failed" in words.lower()


def test_many_commands_at_once(iscsi: Any) -> None:
    words = run("iscsi-perf", "-r", "-m", "32", "-b", "8", "-t", "1", iscsi.url())
    assert "iops average" in words and "finished" in words
    counters = iscsi.call(iscsi.disks.refresh())["52:54:00:12:34:56"]
    assert counters.reads > 100 and counters.errors == 0
    # Random places near the end of the disk make some reads shorter.
    assert 0.9 < counters.read_bytes / (counters.reads * 4096) <= 1


#: What libiscsi's suite asks of a target itself, and of moving data.
FAMILIES = [
    "iSCSI",
    "Inquiry",
    "Mandatory",
    "NoMedia",
    "Read6",
    "Read10",
    "Read12",
    "Read16",
    "ReadCapacity10",
    "ReadCapacity16",
    "ReadOnly",
    "TestUnitReady",
    "Unmap",
    "Verify10",
    "Verify16",
    "Write10",
    "Write12",
    "Write16",
]


@pytest.mark.parametrize("family", FAMILIES)
def test_libiscsis_suite(iscsi: Any, family: str) -> None:
    prefix = "" if family == "iSCSI" else "SCSI."
    words = run("iscsi-test-cu", "-d", "-n", f"--test={prefix}{family}", iscsi.url(), expect=None)
    (row,) = re.findall(r"tests +(\d+) +(\d+) +(\d+) +(\d+)", words)
    total, ran, passed, failed = map(int, row)
    assert total == ran == passed > 0 and failed == 0, words


def test_two_sessions_see_each_others_writes_and_reservations(iscsi: Any) -> None:
    words = run(
        "iscsi-test-cu", "-d", "-n", "--test=SCSI.Prin*", iscsi.url(), iscsi.url(), expect=None
    )
    assert re.search(r"asserts +\d+ +\d+ +\d+ +0 ", words), words
