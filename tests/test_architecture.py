"""The law of imports, the ceiling of 400 lines and a twin test for every module.

Read the code itself, as text: nothing is imported, nothing is run.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "netboot"
CEILING = 400

#: First match wins. A lower rung never imports a higher one.
RUNGS: tuple[tuple[str, int], ...] = (
    ("netboot.__main__", 7),
    ("netboot.cli", 6),
    ("netboot.app", 5),
    # What the composition root is made of besides itself.
    ("netboot.disk_process", 5),
    ("netboot.service", 5),
    ("netboot.dashboard", 4),
    ("netboot.lab", 4),
    ("*.server", 4),
    ("netboot.disks.handing", 4),
    ("netboot.disks.keeper", 4),
    ("netboot.disks.listening", 4),
    ("netboot.disks.supervisor", 4),
    ("netboot.dhcp.link", 4),
    ("netboot.dhcp.keeper", 4),
    ("netboot.tftp.link", 4),
    ("netboot.tftp.crowd", 4),
    ("netboot.tftp.roll", 4),
    ("netboot.iscsi.outlet", 4),
    ("netboot.iscsi.peer", 4),
    ("netboot.iscsi.portal", 4),
    ("netboot.iscsi.open_targets", 4),
    ("netboot.iscsi.passing", 4),
    ("netboot.iscsi.reading", 4),
    ("netboot.iscsi.compare", 3),
    ("netboot.iscsi.express", 3),
    ("netboot.iscsi.ending", 3),
    ("netboot.iscsi.jobs", 3),
    ("netboot.iscsi.lun", 3),
    ("netboot.iscsi.management", 3),
    ("netboot.iscsi.working", 3),
    ("netboot.config", 3),
    ("*.engine", 3),
    ("*.routes", 3),
    ("netboot.boot", 3),
    ("netboot.storage", 3),
    ("netboot.scsi", 3),
    ("netboot.state", 3),
)
#: Packages whose modules speak a protocol: what is neither server nor engine there is wire or
#: table, or a pure part of the engine.
BASE = {"binary", "model", "events", "errors", "checksum", "private", "rooted", "sparing"}
BANNED = {"asyncio", "socket", "os", "time", "random", "threading", "subprocess", "uvloop"}
#: No protocol's package: what is drawn or tried out there may ask anything to its right.
CONSUMERS = {"lab", "dashboard"}
PROTOCOLS = {"dhcp", "tftp", "dns", "ndp", "iscsi", "disks"}
SIBLINGS = {
    ("iscsi", "scsi"): "iSCSI carries SCSI",
    ("iscsi.server", "storage.disk"): "the edge, where an Action meets a Disk",
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def compiled() -> list[Path]:
    """What is written for Cython, for who can build it; without it all is the same, but slower."""
    return sorted(PACKAGE.rglob("*.pyx"))


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Every module that ``path`` imports, also inside functions, but not for types only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it leads"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rung(name: str) -> int:
    parts = name.split(".")
    if len(parts) < 2 or parts[1] in BASE:
        return 1
    for pattern, value in RUNGS:
        if pattern.startswith("*."):
            if len(parts) == 3 and parts[2] == pattern[2:]:
                return value
        elif name == pattern or name.startswith(pattern + "."):
            return value
    return 2


def ours(path: Path) -> list[str]:
    """The modules of this product that ``path`` imports."""
    known = {dotted(module) for module in modules()}
    return sorted({name for name in imports(path) if name in known and name != "netboot"})


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_arrows_point_right_only(path: Path) -> None:
    here = dotted(path)
    package = here.split(".")[1] if "." in here else ""
    for name in ours(path):
        there = name.split(".")[1]
        assert rung(name) <= rung(here) or there == package, f"{here} imports {name}, a rung above"
        if there == package or rung(name) == 1 or rung(here) >= 5 or package in CONSUMERS:
            continue
        allowed = any(
            (here.startswith(f"netboot.{a}") and name.startswith(f"netboot.{b}"))
            for a, b in SIBLINGS
        )
        assert allowed or not ((PACKAGE / package).is_dir() and (PACKAGE / there).is_dir()), (
            f"{here} imports its sibling {name}"
        )


def pure(path: Path) -> bool:
    name = dotted(path)
    if name.startswith(("netboot.scsi", "netboot.boot")):
        return True
    if rung(name) in (2, 3) and name.split(".")[1] in PROTOCOLS:
        return True
    return name in (
        "netboot.model",
        "netboot.events",
        "netboot.binary",
        "netboot.sparing",
        "netboot.http.routes",
    )


@pytest.mark.parametrize("path", [path for path in modules() if pure(path)], ids=dotted)
def test_pure_parts_do_not_touch_the_world(path: Path) -> None:
    found = {name.split(".")[0] for name in imports(path)} & BANNED
    assert not found, f"{dotted(path)} is pure; clock, randomness and sockets are arguments"


@pytest.mark.parametrize("path", sorted((PACKAGE / "storage").rglob("*.py")), ids=dotted)
def test_storage_never_awaits(path: Path) -> None:
    awaited = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert not any(isinstance(node, awaited) for node in ast.walk(ast.parse(path.read_text())))


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_no_module_is_over_the_ceiling(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= CEILING


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_every_module_has_its_twin(path: Path) -> None:
    """A package's ``__init__`` and ``__main__`` hold no behaviour of their own."""
    if path.name in ("__init__.py", "__main__.py") and len(path.read_text().splitlines()) < 40:
        return
    inside = path.relative_to(PACKAGE)
    name = inside.parent.name if path.name == "__init__.py" else inside.stem
    twin = ROOT / "tests" / inside.parent / f"test_{name}.py"
    assert twin.is_file(), f"{dotted(path)} has no twin test at {twin.relative_to(ROOT)}"


@pytest.mark.parametrize("path", compiled(), ids=dotted)
def test_what_is_compiled_is_short_and_has_its_twin(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= CEILING
    inside = path.relative_to(PACKAGE)
    assert (ROOT / "tests" / inside.parent / f"test_{inside.stem}.py").is_file()
    assert path.with_suffix(".pyi").is_file(), "mypy wants to know what is in it"
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    built = {one["name"]: one for one in settings["tool"]["setuptools"]["ext-modules"]}
    assert built[dotted(path)]["optional"], "without a compiler the installation must go on"


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{dotted(path)} has no docstring"


def test_no_utils() -> None:
    assert not [path for path in modules() if path.stem in ("utils", "util", "helpers", "misc")]
