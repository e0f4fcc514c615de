"""The socket, in a network of its own: a real solicitation gets a real advertisement."""

import os
import subprocess
import sys

from netboot.lab.namespace import unshare

PROGRAM = """
import asyncio, socket, struct
from netboot.lab import namespace
from netboot.ndp.engine import Engine
from netboot.ndp.server import RouterServer, hardware_address

namespace.ip("link", "add", "left", "type", "veth", "peer", "name", "right")
for name in ("left", "right"):
    open(f"/proc/sys/net/ipv6/conf/{name}/accept_dad", "w").write("0")
for name in ("lo", "left", "right"):
    namespace.ip("link", "set", name, "up")

async def main():
    mac = hardware_address("right")
    engine = Engine(hardware_address("left"), lambda asked: asked == mac.hex(":"))
    server = RouterServer(engine, "left")
    await server.start()
    asker = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    asker.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"right")
    asker.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("right"))
    asker.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    asker.setblocking(False)
    loop = asyncio.get_running_loop()
    for source in (b"\\x52" * 6, mac):
        asker.sendto(bytes.fromhex("8500000000000000 0101") + source, ("ff02::2", 0))
    async with asyncio.timeout(20):
        while True:
            data = await loop.sock_recv(asker, 1500)
            if data[0] == 134:
                break
    print(data[:2].hex(), data[4:16].hex(), data[-6:] == hardware_address("left"))
    print(dict(engine.counters))
    await server.stop()
    await server.stop()
    asker.close()
    nobody = RouterServer(engine, "nosuch")
    await nobody.start()
    await nobody.stop()

asyncio.run(main())
"""


def test_a_solicitation_is_answered_on_the_wire() -> None:
    command = unshare([sys.executable, "-c", PROGRAM], root=os.geteuid() == 0)
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == f"8600 {'00' * 12} True"
    assert second == "{'not ours': 1, 'answered': 1}"
