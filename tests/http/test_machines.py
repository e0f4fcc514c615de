"""What machines fetch, and what is told of it."""

from pathlib import Path
from types import ModuleType

import pytest

from netboot.errors import ConfigError
from netboot.events import BootEvent, Phase

WS1 = "52:54:00:12:34:56"
WS2 = "52:54:00:00:00:02"
NOW = 1_700_000_000.0
SCRIPT = BootEvent(WS1, NOW, Phase.SCRIPT, "script by HTTP")
LOADER = BootEvent(WS1, NOW, Phase.LOADER, "snponly.efi by HTTP")


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    own, ours = tmp_path / "own", tmp_path / "ours"
    (ours / "sub").mkdir(parents=True)
    own.mkdir()
    (ours / "snponly.efi").write_bytes(b"loader")
    (ours / "sub" / "shim.efi").write_bytes(b"shim")
    (tmp_path / "secret").write_bytes(b"secret")
    return [own, ours]


@pytest.mark.parametrize(
    "spelling", ["52-54-00-12-34-56", "52:54:00:12:34:56", "525400123456", "52-54-00-12-34-56"]
)
def test_a_script(fakes: ModuleType, spelling: str) -> None:
    async def work(server: object) -> None:
        got = await fakes.ask(server.port, f"/boot/{spelling}.ipxe")
        assert (got.status, got.body) == (200, "#!ipxe\necho größe\n".encode())
        assert got.headers["content-type"] == "text/plain; charset=utf-8"
        assert got.headers["cache-control"] == "no-store"
        assert got.headers["content-length"] == str(len(got.body))

    assert fakes.run(work).heard == [SCRIPT]


@pytest.mark.parametrize(
    ("holder", "agent", "heard"),
    [
        (WS1, "curl/8", [SCRIPT]),  # the machine's own address
        (None, "iPXE/1.0.0+", [SCRIPT]),  # proxy mode: we know no addresses
        (None, "Mozilla/5.0", []),  # a person looks at it
        (WS2, "iPXE/1.0.0+", []),  # another machine looks at it
    ],
)
def test_only_the_machine_itself_is_booting(
    fakes: ModuleType, holder: str | None, agent: str, heard: list[BootEvent]
) -> None:
    async def work(server: object) -> None:
        path = "/boot/52-54-00-12-34-56.ipxe"
        assert (await fakes.ask(server.port, path, headers={"User-Agent": agent})).status == 200

    assert fakes.run(work, fakes.Program(mac=holder)).heard == heard


@pytest.mark.parametrize(
    ("holder", "agent", "itself"),
    [
        (WS1, "curl/8", True),
        (WS1, "iPXE/1.0.0+", True),
        (WS2, "iPXE/1.0.0+", False),
        (None, "iPXE/1.0.0+", False),  # anybody can call himself iPXE
        (None, "", False),
    ],
)
def test_secrets_are_for_who_has_the_machines_address(
    fakes: ModuleType, holder: str | None, agent: str, itself: bool
) -> None:
    program = fakes.Program(mac=holder)

    async def work(server: object) -> None:
        for method in ("GET", "HEAD"):
            path = "/boot/52-54-00-12-34-56.ipxe"
            await fakes.ask(server.port, path, method, headers={"User-Agent": agent})

    assert fakes.run(work, program).told == [(WS1, itself)] * 2


def test_head_of_a_script_is_no_boot(fakes: ModuleType) -> None:
    async def work(server: object) -> None:
        got = await fakes.ask(server.port, "/boot/52-54-00-12-34-56.ipxe", "HEAD")
        assert (got.status, got.body) == (200, b"")
        assert got.headers["content-length"] == str(len("#!ipxe\necho größe\n".encode()))

    assert fakes.run(work).heard == []


@pytest.mark.parametrize(
    "name", ["52-54-00-00-00-99.ipxe", "nonsense.ipxe", ".ipxe", "52-54-00-12-34-56", "%00.ipxe"]
)
def test_no_script(fakes: ModuleType, name: str) -> None:
    async def work(server: object) -> None:
        assert (await fakes.ask(server.port, f"/boot/{name}")).status == 404

    assert fakes.run(work).heard == []


def test_a_script_with_a_mistake_says_so(
    fakes: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(server: object) -> None:
        got = await fakes.ask(server.port, "/boot/52-54-00-12-34-56.ipxe")
        assert (got.status, got.body) == (500, b"template x, line 3: 'y' is undefined\n")

    trouble = ConfigError("template x, line 3: 'y' is undefined")
    assert fakes.run(work, fakes.Program(trouble=trouble)).heard == []
    assert "/boot/52-54-00-12-34-56.ipxe: template x, line 3: 'y' is undefined" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_loader(fakes: ModuleType, folders: list[Path]) -> None:
    async def work(server: object) -> None:
        got = await fakes.ask(server.port, "/loaders/snponly.efi")
        assert (got.status, got.body) == (200, b"loader")
        assert got.headers["content-type"] == "application/efi"
        assert (await fakes.ask(server.port, "/loaders/sub/shim.efi")).body == b"shim"

    shim = BootEvent(WS1, NOW, Phase.LOADER, "sub/shim.efi by HTTP")
    assert fakes.run(work, loaders=folders).heard == [LOADER, shim]


def test_the_operators_own_loader_goes_first(fakes: ModuleType, folders: list[Path]) -> None:
    (folders[0] / "snponly.efi").write_bytes(b"own")

    async def work(server: object) -> None:
        assert (await fakes.ask(server.port, "/loaders/snponly.efi")).body == b"own"

    fakes.run(work, loaders=folders)


def test_only_the_last_byte_of_a_loader_is_a_loader(fakes: ModuleType, folders: list[Path]) -> None:
    async def work(server: object) -> None:
        path = "/loaders/snponly.efi"
        assert (await fakes.ask(server.port, path, "HEAD")).status == 200
        part = await fakes.ask(server.port, path, headers={"Range": "bytes=0-2"})
        assert (part.status, part.body) == (206, b"loa")
        rest = await fakes.ask(server.port, path, headers={"Range": "bytes=3-"})
        assert (rest.status, rest.body) == (206, b"der")

    assert fakes.run(work, loaders=folders).heard == [LOADER]


def test_a_loader_for_somebody_we_do_not_know(fakes: ModuleType, folders: list[Path]) -> None:
    async def work(server: object) -> None:
        assert (await fakes.ask(server.port, "/loaders/snponly.efi")).status == 200

    assert fakes.run(work, fakes.Program(mac=None), loaders=folders).heard == []


@pytest.mark.parametrize(
    "path",
    [
        "/loaders/none.efi",
        "/loaders/",
        "/loaders/sub",
        "/loaders/../secret",
        "/loaders/..%2fsecret",
        "/loaders/%2e%2e/secret",
        "/loaders/sub/..%5c..%5c..%5csecret",
        "/loaders//etc/passwd",
        "/loaders/%2fetc%2fpasswd",
        "/loaders/snponly.efi%00",
        "/files/snponly.efi",
        "/autoexec.ipxe",
        "/loaders/autoexec.ipxe",
        "/favicon.ico",
    ],
)
def test_what_is_not_there(fakes: ModuleType, folders: list[Path], path: str) -> None:
    async def work(server: object) -> None:
        got = await fakes.ask(server.port, path)
        assert got.status == 404
        assert int(got.headers["content-length"]) == len(got.body) > 0
        assert b"secret" not in got.body

    assert fakes.run(work, loaders=folders).heard == []


def test_the_operators_autoexec(fakes: ModuleType, folders: list[Path]) -> None:
    (folders[0] / "autoexec.ipxe").write_bytes(b"#!ipxe\n")

    async def work(server: object) -> None:
        for path in ("/autoexec.ipxe", "/loaders/autoexec.ipxe"):
            got = await fakes.ask(server.port, path)
            assert (got.status, got.body) == (200, b"#!ipxe\n")

    fakes.run(work, loaders=folders)


def test_a_guest_is_ready(fakes: ModuleType) -> None:
    async def work(server: object) -> None:
        got = await fakes.ask(server.port, "/api/v1/ready", "POST")
        assert (got.status, got.json()) == (200, {"mac": WS1, "phase": "ready"})
        assert (await fakes.ask(server.port, "/api/v1/ready")).status == 405

    assert fakes.run(work).readied == [WS1]


def test_somebody_else_is_ready(fakes: ModuleType) -> None:
    async def work(server: object) -> None:
        got = await fakes.ask(server.port, "/api/v1/ready", "POST")
        assert got.status == 404
        assert got.json() == {"error": "no client has the address 127.0.0.1"}

    assert fakes.run(work, fakes.Program(mac=None)).readied == []
