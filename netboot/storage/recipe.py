"""Recipes: a folder that says how a golden image is made.

    <name>/image.toml   name, description, size ("2GiB"), packages of the build host, build
    <name>/build OUT    writes the raw disk OUT; lines "<percent> <text>" on stdout, all else on
                        stderr; exit 0 only when OUT is complete

The program gets NETBOOT_SIZE (bytes of the disk) and NETBOOT_CACHE (a folder it may keep
downloads in). It runs in a process group of its own: when we are interrupted it is asked to end
(SIGTERM), has a while to clean up, and is then ended.
"""

import os
import re
import shutil
import signal
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from netboot.errors import ImageError
from netboot.storage.convert import SECTOR, Progress

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SIZE = re.compile(r"\s*(\d+)\s*([KMGT]i?B?|B?)\s*", re.IGNORECASE)
_PROGRESS = re.compile(r"(\d{1,3})\s+(.*)")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+:-]+")
_PATIENCE = 30.0  # seconds that a recipe has to clean up


@dataclass(frozen=True, slots=True)
class Recipe:
    """What image.toml says; ``program`` is absolute and executable."""

    name: str
    program: Path
    size: int  #: bytes
    description: str = ""
    packages: tuple[str, ...] = ()


def parse_size(text: str) -> int:
    """Bytes, for "2GiB", "512M" or a plain number; units are powers of 1024. ValueError else."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no size such as 2GiB")
    unit = match[2][:1].upper()
    return int(match[1]) << (10 * " KMGT".index(unit) if unit in tuple("KMGT") else 0)


def load_recipe(folder: Path) -> Recipe:
    """Read and check a recipe; ImageError names the file and the key."""
    path = folder / "image.toml"
    try:
        found = tomllib.loads(path.read_text())
    except OSError as problem:
        raise ImageError(f"{path}: {problem.strerror}") from problem
    except ValueError as problem:
        raise ImageError(f"{path}: {problem}") from problem
    unknown = found.keys() - {"name", "description", "size", "packages", "build"}
    if unknown:
        raise ImageError(f"{path}: {', '.join(sorted(unknown))}: no such key")
    name, packages = found.get("name"), found.get("packages", [])
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ImageError(f"{path}: name: {name!r}, allowed are lower-case letters, digits, . _ -")
    if not isinstance(packages, list) or not all(
        isinstance(package, str) and _PACKAGE.fullmatch(package) for package in packages
    ):
        raise ImageError(f"{path}: packages: not a list of Debian packages")
    try:
        size = parse_size(str(found["size"]))
    except (KeyError, ValueError) as problem:
        raise ImageError(f"{path}: size: {problem}") from problem
    if not size or size % SECTOR:
        raise ImageError(f"{path}: size: {size} bytes, not a multiple of {SECTOR}")
    program = (folder / str(found.get("build", "build"))).absolute()
    if not os.access(program, os.X_OK):
        raise ImageError(f"{path}: build: {program} is not an executable file")
    return Recipe(name, program, size, str(found.get("description", "")), tuple(packages))


def missing_packages(recipe: Recipe) -> list[str]:
    """Those of the recipe's packages that this Debian host has not installed."""
    if not recipe.packages or not shutil.which("dpkg-query"):
        return []
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *recipe.packages],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    there = {line.split()[0] for line in done.stdout.splitlines() if line.endswith(" installed")}
    return [package for package in recipe.packages if package not in there]


def run_recipe(recipe: Recipe, out: Path, cache: Path, log: Path, progress: Progress) -> None:
    """Have ``out`` made; ImageError when a package is missing or the program failed."""
    missing = missing_packages(recipe)
    if missing:
        raise ImageError(
            f"image {recipe.name}: packages are missing on this machine: "
            f"apt-get install {' '.join(missing)}"
        )
    cache.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ, NETBOOT_SIZE=str(recipe.size), NETBOOT_CACHE=str(cache))
    with (
        log.open("w") as errors,
        _child([str(recipe.program), str(out)], environment, errors) as (process),
    ):
        assert process.stdout
        for line in process.stdout:
            if match := _PROGRESS.fullmatch(line.strip()):
                progress(min(int(match[1]), 100), match[2])
    if process.returncode:
        words = log.read_text(errors="replace").strip().splitlines()
        raise ImageError(
            f"image {recipe.name}: its recipe failed with status {process.returncode}: "
            f"{words[-1] if words else 'it said nothing'} (all of it: {log})"
        )
    size = out.stat().st_size if out.is_file() else 0
    if not size or size % SECTOR:
        raise ImageError(f"image {recipe.name}: its recipe said it was done, but made no disk")


@contextmanager
def _child(
    command: list[str], environment: dict[str, str], errors: IO[str]
) -> Iterator[subprocess.Popen[str]]:
    """A program in its own process group, which ends with this block whatever happens."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
            env=environment,
            process_group=0,
        )
    except OSError as problem:
        raise ImageError(f"{command[0]}: {problem.strerror}") from problem
    with process:
        try:
            yield process
            process.wait()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)
            # A program that will not end, or children that did not hear while they began.
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
