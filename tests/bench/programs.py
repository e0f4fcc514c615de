"""The C programs of this folder, built outside git when they are needed."""

import subprocess
from pathlib import Path

from netboot.errors import NetbootError

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "bench"


def compiled(name: str) -> Path:
    """A program, built when its source, or what it may include, is newer.

    NetbootError says what the compiler says.
    """
    source, program = HERE / f"{name}.c", BUILD / name
    BUILD.mkdir(parents=True, exist_ok=True)
    newest = max(path.stat().st_mtime for path in (source, *HERE.glob("*.h")))
    if not program.exists() or program.stat().st_mtime < newest:
        command = ["cc", "-O2", "-Wall", "-Wextra", "-o", str(program), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise NetbootError(f"{source.name} cannot be compiled: {done.stderr.strip()}")
    return program
