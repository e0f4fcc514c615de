"""Every scenario runs in namespaces of its own: a child pytest, for one test, inside them.

So a scenario is an ordinary test function that may build a lab, and whatever it leaves behind
ends with its namespaces. The golden image is borrowed from the library, and built first where it
is not there yet.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from netboot.cli.image import ensure
from netboot.cli.options import Place, place
from netboot.lab import namespace
from netboot.lab.run import borrow
from netboot.model import Version

IMAGE = "debian"
#: Seconds. A Debian boots in 30-80 s under TCG; no scenario has more than four boots in a row.
LIMIT = 900


def library() -> Place:
    state = os.environ.get("NETBOOT_STATE")
    return place(Path(state) if state else None, None)


@pytest.fixture(scope="session")
def version() -> Version:
    """The golden image under test; outside, where packages can be fetched, built if need be."""
    return borrow(IMAGE, library().folder) if namespace.inside() else ensure(library(), IMAGE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.qemu)
        item.add_marker(pytest.mark.timeout(LIMIT))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Outside: run this one test inside namespaces, and take over its verdict."""
    if namespace.inside() or pyfuncitem.get_closest_marker("outside"):
        return None
    test = f"{pyfuncitem.path}::{pyfuncitem.name}"
    folder = tempfile.mkdtemp(prefix="netboot-qemu-")
    command = [sys.executable, "-m", "pytest", "-x", "-s", "-p", "no:cacheprovider"]
    command += [f"--basetemp={folder}/of", test]
    done = subprocess.run(
        namespace.unshare(command, root=os.geteuid() == 0),
        cwd=pyfuncitem.config.rootpath,
        env={**os.environ, namespace.MARK: "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    if done.returncode:
        said = f"{done.stdout}\n{done.stderr}\nall logs: {folder}"
        pytest.fail(f"inside its namespaces:\n{said}", pytrace=False)
    shutil.rmtree(folder, ignore_errors=True)
    return True
