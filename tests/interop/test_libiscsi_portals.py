"""libiscsi's programs at several portals, over IPv6, and sent elsewhere by a drained server."""

import asyncio
import re
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from netboot.disks.listening import listen
from netboot.iscsi.portal import Kind, Portals, Report
from netboot.model import Admission, Chap, DiskSpec, Knock, Lun, Portal, SessionLimits
from tests.interop.conftest import MAC, NAME
from tests.iscsi.conftest import Memory

pytestmark = pytest.mark.interop

BOTH = (Portal("127.0.0.1", 0, 1), Portal("::1", 0, 7))


def run(*command: str, expect: int | None = 0) -> str:
    """The words of a program; it must end with ``expect``."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=50)
    words = done.stdout + done.stderr
    assert expect is None or done.returncode == expect, words
    return words


@pytest.fixture
def both(iscsi_with: Callable[..., Any]) -> Any:
    return iscsi_with(portals=BOTH)


@pytest.mark.parametrize("number", [0, 1])
def test_iscsi_ls_finds_both_portals_at_either(both: Any, number: int) -> None:
    """With -s it logs in at each portal that it was told of."""
    four, six = both.portals
    words = run("iscsi-ls", "-s", f"iscsi://{both.portals[number].endpoint}")
    found = re.findall(r"Target:(\S+) Portal:(\S+)", words)
    assert sorted(found) == [(NAME, f"127.0.0.1:{four.port},1"), (NAME, f"[::1]:{six.port},7")]
    assert len(re.findall(r"Lun:0 +Type:DIRECT_ACCESS", words)) == 2
    normal = [knock.address for knock in both.knocks if not knock.discovery]
    assert sorted(normal) == ["127.0.0.1", "::1"]


def test_one_disk_over_ipv4_and_ipv6(both: Any) -> None:
    four, six = (f"iscsi://{portal.endpoint}/{NAME}/0" for portal in both.portals)
    run("qemu-io", "-f", "raw", "-c", "write -P 0x66 1M 64k", "-c", "flush", six)
    words = run("qemu-io", "-f", "raw", "-c", "read -P 0x66 1M 64k", four)
    assert "read 65536/65536 bytes" in words and "Pattern verification failed" not in words


def test_the_target_port_is_the_portal_group(both: Any) -> None:
    for portal in both.portals:
        words = run("iscsi-inq", "-e", "1", "-c", "131", f"iscsi://{portal.endpoint}/{NAME}/0")
        assert f"{NAME},t,0x{portal.group:04x}" in words


def test_a_drained_server_sends_libiscsi_to_another(
    iscsi: Any, iscsi_with: Callable[..., Any]
) -> None:
    other = iscsi_with()
    iscsi.drain(f"127.0.0.1:{other.port}")
    assert "NETBOOT" in run("iscsi-inq", iscsi.url())
    run("qemu-io", "-f", "raw", "-c", "write -P 0x44 0 4k", iscsi.url())
    assert len(other.knocks) == len(iscsi.knocks) == 2
    assert not iscsi.overlay.exists() and other.overlay.exists()
    assert {knock.target for knock in other.knocks} == {NAME}


def test_a_redirect_asks_for_no_secret_and_the_other_one_does(
    iscsi: Any, iscsi_with: Callable[..., Any]
) -> None:
    other = iscsi_with()
    other.protect(Chap("ws1", "a-secret-of-12"))
    iscsi.drain(f"127.0.0.1:{other.port}")
    assert "NETBOOT" in run("iscsi-inq", iscsi.url(user="ws1%a-secret-of-12"))
    assert "NETBOOT" not in run("iscsi-inq", iscsi.url(user="ws1%wrong-secret-12"), expect=None)


def test_redirected_over_ipv6(iscsi: Any, iscsi_with: Callable[..., Any]) -> None:
    other = iscsi_with(portals=(Portal("::1", 0),))
    iscsi.drain(f"[::1]:{other.port}")
    assert "NETBOOT" in run("iscsi-inq", iscsi.url())
    assert [knock.address for knock in other.knocks] == ["::1"]


def test_limits_are_taken_over_by_a_running_disk_process(iscsi: Any) -> None:
    """A session of another initiator holds the only place: libiscsi is told so, and comes in
    when there is room."""
    iscsi.call(_later(lambda: iscsi.disks.limit(SessionLimits(1, 1))))
    held = subprocess.Popen(
        ["iscsi-perf", "-i", "iqn.2000-01.com.example:busy", "-t", "30", iscsi.url()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _until(lambda: any(event.kind == "reading" for event in iscsi.events))
        words = run("iscsi-inq", iscsi.url(), expect=None)
        assert "NETBOOT" not in words and "resources" in words.lower(), words
        iscsi.call(_later(lambda: iscsi.disks.limit(SessionLimits(2, 2))))
        assert "NETBOOT" in run("iscsi-inq", iscsi.url())
        assert held.poll() is None
    finally:
        held.send_signal(signal.SIGKILL)
        held.wait(10)


async def _later(do: Callable[[], None]) -> None:
    do()


def _until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_libiscsi_logs_out_when_it_is_asked_and_comes_back() -> None:
    """Its library does as RFC 7143 section 11.9.1 has it, so that here QEMU may stand for an
    operating system: nothing fails, and nobody's connection is cut off."""

    async def main() -> tuple[str, list[tuple[str, str]]]:
        reports: list[Report] = []
        spec = DiskSpec("/golden.raw", 1 << 20, "sha256:x")
        welcome = Admission(0, MAC, NAME, (Lun(0, spec, "525400123456"),))
        disk = Memory()

        async def admit(knock: Knock) -> Admission:
            return welcome

        portals = Portals(lambda _: disk, admit, reports.append, lambda isid: True)
        (here,) = await portals.start(listen([Portal("127.0.0.1", 0)]))
        try:
            words = ["write -P 0x33 0 64k", "sleep 2000", "read -P 0x33 0 64k", "flush"]
            io = await asyncio.create_subprocess_exec(
                *("qemu-io", "-f", "raw", *(part for word in words for part in ("-c", word))),
                f"iscsi://{here.endpoint}/{NAME}/0",
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            async with asyncio.timeout(30):
                while disk.data[0] != 0x33:
                    await asyncio.sleep(0.02)
                await portals.close(MAC, politely=True)
                said, _ = await io.communicate()
            assert io.returncode == 0
        finally:
            await portals.stop()
        return said.decode(), [(report.kind, report.detail) for report in reports]

    said, happened = asyncio.run(main())
    assert "read 65536/65536" in said and "failed" not in said.lower(), said
    around = [(kind, detail) for kind, detail in happened if kind != Kind.READING]
    assert around == [(Kind.LOGIN, ""), (Kind.LOGOUT, "logout")] * 2
