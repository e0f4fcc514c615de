"""Each thing that can be wrong with the machine is one line, and says what to do."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from netboot.errors import ConfigError
from netboot.service import preflight

LOOPBACK = IPv4Interface("127.0.0.1/8")


def complaint(call: object, *arguments: object) -> str:
    assert callable(call)
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The interface.


def test_an_interface_with_our_address_is_fit() -> None:
    preflight.interface("lo", LOOPBACK)


def test_a_missing_interface_is_named_beside_those_there_are() -> None:
    text = complaint(preflight.interface, "nosuch0", LOOPBACK)
    assert text.startswith("site.interface: there is no nosuch0 on this machine, only ")
    assert "lo" in text
    assert "ip link add nosuch0" in text


def test_an_address_that_is_not_ours_is_refused() -> None:
    text = complaint(preflight.interface, "lo", IPv4Interface("192.0.2.77/24"))
    assert text == (
        "site.address: 192.0.2.77 is not an address of this machine: "
        "ip address add 192.0.2.77/24 dev lo"
    )


def test_an_address_of_another_interface_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_owner", lambda _address: "eth7")
    text = complaint(preflight.interface, "lo", LOOPBACK)
    assert text.startswith("site.address: 127.0.0.1 belongs to eth7, not to lo: ")


def test_the_owner_of_a_subnet_is_read_from_the_routes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    routes = tmp_path / "route"
    routes.write_text(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "br0\t004DA8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    monkeypatch.setattr(preflight, "_ROUTES", routes)
    assert preflight._owner(IPv4Interface("192.168.77.1/24")) == "br0"
    assert preflight._owner(IPv4Interface("192.168.77.1/25")) is None
    assert preflight._owner(IPv4Interface("10.0.0.1/24")) is None
    routes.unlink()
    assert preflight._owner(IPv4Interface("192.168.77.1/24")) is None


# Ports.


@pytest.fixture
def taken() -> Iterator[dict[str, int]]:
    """A port of each kind that somebody has."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        udp.bind(("127.0.0.1", 0))
        yield {"tcp": tcp.getsockname()[1], "udp": udp.getsockname()[1]}


@pytest.mark.parametrize(("kind", "tool"), [("tcp", "ss -ltnp"), ("udp", "ss -lunp")])
def test_a_port_in_use_says_how_to_find_who_has_it(
    taken: dict[str, int], kind: str, tool: str
) -> None:
    number = taken[kind]
    text = complaint(preflight.port, kind, "127.0.0.1", number, "http.port")
    assert text == (
        f"{kind.upper()} port {number} on 127.0.0.1 is in use by another program "
        f"({tool} 'sport = :{number}' names it): stop it, or set http.port"
    )


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_free_port_is_fit_and_stays_free(kind: str) -> None:
    with socket.socket(socket.AF_INET, preflight._KINDS[kind]) as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    preflight.port(kind, "127.0.0.1", number, "http.port")
    preflight.port(kind, "127.0.0.1", number, "http.port")


def test_a_port_that_is_not_allowed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: socket.socket, _address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    for text in (
        complaint(preflight.port, "udp", "127.0.0.1", 69, "tftp.port"),
        complaint(preflight.dhcp_port, "lo", 67),
    ):
        assert "may not be opened: run as root, or grant CAP_NET_BIND_SERVICE" in text


def test_an_address_that_is_gone_says_so() -> None:
    text = complaint(preflight.port, "udp", "192.0.2.77", 6900, "tftp.port")
    assert text.startswith("UDP port 6900 on 192.0.2.77 cannot be opened: ")


def test_dhcp_asks_for_its_port_on_one_interface_only() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
        other.bind(("", 0))
        number = other.getsockname()[1]
        text = complaint(preflight.dhcp_port, "lo", number)
    assert text.startswith(f"UDP port {number} on lo is in use")
    assert 'set dhcp.mode = "off"' in text
    preflight.dhcp_port("lo", number)


# Boot programs.


def test_boot_programs_are_found_in_any_folder(tmp_path: Path) -> None:
    for folder, name in (("a", "undionly.kpxe"), ("b", "snponly.efi")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(b"x")
    wanted = [("undionly.kpxe", "BIOS"), ("snponly.efi", "UEFI")]
    preflight.loaders([tmp_path / "none", tmp_path / "a", tmp_path / "b"], wanted)


def test_a_missing_boot_program_says_who_wants_it(tmp_path: Path) -> None:
    text = complaint(preflight.loaders, [tmp_path], [("undionly.kpxe", "x86 BIOS machines")])
    assert text == (
        f"the boot program undionly.kpxe for x86 BIOS machines is in none of {tmp_path}: "
        "apt-get install ipxe, or put it there"
    )


# The state folder.


def test_a_state_folder_is_made_and_ours_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "state"
    ours = preflight.StateFolder(folder)
    text = complaint(preflight.StateFolder, folder)
    assert text == (
        f"site.state: another netboot serve (process {os.getpid()}) uses {folder}: stop it, or "
        "choose another folder"
    )
    assert preflight.running(folder) == os.getpid()
    ours.release()
    ours.release()
    assert preflight.running(folder) is None
    preflight.StateFolder(folder).release()


def test_a_killed_service_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import sys, os, pathlib; from netboot.service import preflight; "
        "preflight.StateFolder(pathlib.Path(sys.argv[1])); print('held', flush=True); "
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        # The child drops its StateFolder object, and yet holds the lock: it never released it.
        assert other.stdout and other.stdout.readline() == "held\n"
        assert preflight.running(tmp_path) == other.pid
        assert f"(process {other.pid})" in complaint(preflight.StateFolder, tmp_path)
        other.kill()
    preflight.StateFolder(tmp_path).release()


def test_no_state_folder_is_no_running_service(tmp_path: Path) -> None:
    assert preflight.running(tmp_path / "none") is None


def test_a_state_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    text = complaint(preflight.StateFolder, tmp_path / "file" / "state")
    assert text.startswith(f"site.state: {tmp_path}/file/state cannot be written to (")
    assert "run as root, or choose another folder" in text


def test_a_read_only_state_folder_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(preflight.tempfile, "TemporaryFile", refuse)
    assert "cannot be written to (Permission denied)" in complaint(preflight.StateFolder, tmp_path)


# Open files.


def test_the_limit_of_open_files_is_raised_for_children_too() -> None:
    code = (
        "import resource, subprocess, sys\n"
        "from netboot.service import preflight\n"
        "_, most = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, most))\n"
        "assert preflight.raise_file_limit() == most\n"
        "ask = 'import resource; print(*resource.getrlimit(resource.RLIMIT_NOFILE))'\n"
        "told = subprocess.run([sys.executable, '-c', ask], capture_output=True, check=True)\n"
        "assert told.stdout.split() == [str(most).encode()] * 2, told\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_loaded_is_not_collected_again() -> None:
    code = (
        "import gc\n"
        "from netboot.service import preflight\n"
        "kept = [[number] for number in range(1000)]\n"
        "preflight.freeze_what_is_loaded()\n"
        "assert gc.get_freeze_count() > 1000\n"
        "assert len(gc.get_objects()) < 100\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_cores_that_we_may_use() -> None:
    """Not those that the machine has: a container may be given fewer."""
    code = (
        "import os\n"
        "from netboot.service import preflight\n"
        "assert preflight.cores() == len(os.sched_getaffinity(0))\n"
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "assert preflight.cores() == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
