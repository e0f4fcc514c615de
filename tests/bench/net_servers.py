"""The servers that `make bench-net` compares, each as its own documentation sets it up.

    python -m tests.bench.net_servers dhcp FOLDER     ours, by itself, until it is ended

Everything happens inside namespaces that ``bench_net`` has made: each DHCP on a veth pair,
TFTP and HTTP on loopback. A server is ended by its process id when the block that runs it is left.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import uvloop

from netboot.boot.plan import plan
from netboot.dhcp.engine import Engine
from netboot.dhcp.server import DhcpServer
from netboot.http.server import HttpServer
from netboot.model import DhcpMode, Profile, Site
from netboot.service.preflight import freeze_what_is_loaded
from netboot.state.store import Store
from netboot.tftp.server import TftpServer

LINK = "veth0"
ADDRESS = IPv4Interface("10.77.0.1/16")
POOL = (IPv4Address("10.77.1.0"), IPv4Address("10.77.200.255"))
LEASE = 3600
TFTP_PORTS = {"dnsmasq": 69, "tftpd-hpa": 6969, "netboot": 6970}
HTTP_PORTS = {"nginx": 8081, "netboot": 8082}


def command(service: str, side: str, folder: Path) -> list[str]:
    """What starts ``side``; ``folder`` is its own, and what it serves is in ``files`` beside it."""
    return _COMMANDS[service, side](folder, folder.parent / "files")


def _ours(service: str) -> Callable[[Path, Path], list[str]]:
    module = "tests.bench.net_servers"
    return lambda own, files: [sys.executable, "-m", module, service, str(own), str(files)]


def _dnsmasq(*words: str) -> list[str]:
    common = ["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--bind-interfaces"]
    return ["dnsmasq", *common, "--user=root", "--pid-file=", "--log-facility=/dev/null", *words]


def _dnsmasq_dhcp(own: Path, files: Path) -> list[str]:
    return _dnsmasq(
        f"--interface={LINK}",
        f"--dhcp-range={POOL[0]},{POOL[1]},{LEASE}",
        f"--dhcp-leasefile={own}/leases",
        *("--no-ping", "--quiet-dhcp", "--dhcp-lease-max=60000", "--dhcp-authoritative"),
        "--dhcp-boot=snponly.efi",
    )


def _kea(own: Path, files: Path) -> list[str]:
    settings = {
        "Dhcp4": {
            "interfaces-config": {"interfaces": [LINK]},
            "lease-database": {"type": "memfile", "persist": True, "name": f"{own}/leases.csv"},
            "valid-lifetime": LEASE,
            "subnet4": [
                {
                    "subnet": str(ADDRESS.network),
                    "pools": [{"pool": f"{POOL[0]} - {POOL[1]}"}],
                    "next-server": str(ADDRESS.ip),
                    "boot-file-name": "snponly.efi",
                }
            ],
            "loggers": [{"name": "kea-dhcp4", "severity": "ERROR"}],
        }
    }
    (own / "kea.json").write_text(json.dumps(settings))
    return ["kea-dhcp4", "-c", f"{own}/kea.json"]


def _dnsmasq_tftp(own: Path, files: Path) -> list[str]:
    # Its default is 50 transfers at once, which 300 clients would not fit into.
    words = ("--enable-tftp", f"--tftp-root={files}", "--tftp-max=1000")
    return _dnsmasq("--listen-address=127.0.0.1", *words)


def _tftpd_hpa(own: Path, files: Path) -> list[str]:
    listen = f"127.0.0.1:{TFTP_PORTS['tftpd-hpa']}"
    return ["in.tftpd", "--foreground", "--user", "root", "--address", listen, "-s", str(files)]


def _nginx(own: Path, files: Path) -> list[str]:
    (own / "nginx.conf").write_text(
        f"daemon off; user root; worker_processes auto; pid {own}/pid; error_log /dev/null;\n"
        "events { worker_connections 1024; }\n"
        "http { sendfile on; tcp_nopush on; access_log off;\n"
        "  default_type application/octet-stream;\n"
        f"  client_body_temp_path {own}/body; proxy_temp_path {own}/proxy;\n"
        f"  fastcgi_temp_path {own}/fastcgi; uwsgi_temp_path {own}/uwsgi;\n"
        f"  scgi_temp_path {own}/scgi;\n"
        f"  server {{ listen 127.0.0.1:{HTTP_PORTS['nginx']}; root {files}; }} }}\n"
    )
    return ["nginx", "-c", f"{own}/nginx.conf", "-p", str(own), "-e", "/dev/null"]


_COMMANDS: dict[tuple[str, str], Callable[[Path, Path], list[str]]] = {
    ("dhcp", "dnsmasq"): _dnsmasq_dhcp,
    ("dhcp", "Kea"): _kea,
    ("dhcp", "netboot"): _ours("dhcp"),
    ("tftp", "dnsmasq"): _dnsmasq_tftp,
    ("tftp", "tftpd-hpa"): _tftpd_hpa,
    ("tftp", "netboot"): _ours("tftp"),
    ("http", "nginx"): _nginx,
    ("http", "netboot"): _ours("http"),
}


@contextmanager
def running(
    service: str, side: str, folder: Path, ready: Callable[[], bool], enter: Sequence[str] = ()
) -> Iterator[int]:
    """``side``'s process id, once it answers; RuntimeError when it does not within 20 s.

    ``enter`` are words before its own that lead it elsewhere, and do not fork.
    """
    own = folder / f"{service}-{side}"
    own.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "KEA_PIDFILE_DIR": str(own), "KEA_LOCKFILE_DIR": str(own)}
    with (own / "log").open("ab") as log:
        process = subprocess.Popen(
            [*enter, *command(service, side, own)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
        )
    try:
        for _ in range(200):
            if process.poll() is not None or ready():
                break
            time.sleep(0.1)
        if process.poll() is not None or not ready():
            raise RuntimeError(f"{side} does not serve {service}; see {own}/log")
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


#: Forks a process for each transfer and never asks what became of it: its CPU is nowhere to read.
FORKING = "tftpd-hpa"


def cpu(pid: int) -> float:
    """Seconds that a server's processes have run: its own threads and its children."""
    total, left = 0, [pid]
    while left:
        tasks: list[Path] = []
        with contextlib.suppress(OSError):  # it has just ended
            tasks = list(Path(f"/proc/{left.pop()}/task").iterdir())
        for task in tasks:
            with contextlib.suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0])
                left += [int(child) for child in (task / "children").read_text().split()]
    return total / 1e9


def _server(service: str, own: Path, files: Path) -> Any:
    if service == "tftp":
        return TftpServer("127.0.0.1", [files], lambda event: None, port=TFTP_PORTS["netboot"])
    if service == "http":
        views = cast(Any, SimpleNamespace(mac_of=lambda address: None))  # files need no more
        return HttpServer(views, "127.0.0.1", HTTP_PORTS["netboot"], loaders=[], files=[files])
    site = Site(
        interface=LINK,
        address=ADDRESS,
        domain="bench.netboot",
        dhcp_mode=DhcpMode.FULL,
        profiles={"workstation": Profile("workstation", "debian")},
        hosts={},
        unknown_profile="workstation",
    )
    store = Store(f"sqlite:///{own}/netboot.sqlite")
    store.prepare()
    engine = Engine(
        site, POOL, LEASE, lambda client: plan(client, site), leases=store.leases(), probe=False
    )
    return DhcpServer(
        engine,
        LINK,
        ADDRESS.ip,
        persist=store.keep,
        publish=lambda event: None,
    )


def main() -> None:
    """Serve until SIGTERM."""
    service, own, files = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])

    async def serve() -> None:
        await _server(service, own, files).start()
        freeze_what_is_loaded()  # as ``netboot serve`` does
        await asyncio.Event().wait()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()
