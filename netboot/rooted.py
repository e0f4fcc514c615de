"""A file name from the network → a file below one of our folders, never outside them.

TFTP and HTTP serve the same loaders through this one door. A name is relative whatever it
begins with; ``..``, NUL, and links that lead out of the folder end in "there is no such file",
which is also all that the asker is told.
"""

from collections.abc import Sequence
from pathlib import Path


def resolve(folders: Sequence[Path], name: str) -> Path | None:
    """The regular file that ``name`` means in the first folder that has it, or None.

    Backslashes count as slashes: old PXE ROMs and WinPE ask with them.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts or ".." in parts or "\0" in name:
        return None
    for folder in folders:
        root = folder.resolve()
        try:
            path = root.joinpath(*parts).resolve()
            if path.is_relative_to(root) and path.is_file():
                return path
        except (OSError, RuntimeError):  # a name too long for the file system; a loop of links
            continue
    return None
