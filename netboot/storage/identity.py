"""What a golden file was when its digest was taken, kept beside it as ``<image>.raw.id``.

Hashing gigabytes at each attach is too dear. Size, inode and time of change tell the same
against everything but malice: a file that was written to, replaced or restored is refused until
somebody has hashed it again.
"""

import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from netboot.errors import ImageError
from netboot.storage.raw import Golden


@dataclass(frozen=True, slots=True)
class Identity:
    """What a golden file was when its digest was taken."""

    digest: str
    size: int
    inode: int
    mtime_ns: int

    @classmethod
    def of(cls, digest: str, stat: os.stat_result) -> "Identity":
        """The identity of a file that was just hashed."""
        return cls(digest, stat.st_size, stat.st_ino, stat.st_mtime_ns)


def identity_path(golden: str) -> Path:
    """Where the identity of a golden file is kept."""
    return Path(golden + ".id")


def write_identity(golden: str, identity: Identity) -> None:
    """Keep ``identity``, whole or not at all; several may do so at once, each for itself."""
    path = identity_path(golden)
    new = path.with_name(f"{path.name}.{threading.get_native_id()}.new")
    with new.open("w") as file:
        json.dump(asdict(identity), file)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


def check_identity(golden: Golden, digest: str) -> None:
    """ImageError unless the file is what it was when ``digest`` was taken.

    A file that nobody kept an identity of (it does not come from the library) gets one now,
    where its folder can be written to.
    """
    path = identity_path(golden.path)
    now = Identity.of(digest, golden.stat)
    try:
        kept = Identity(**json.loads(path.read_text()))
    except FileNotFoundError:
        try:
            write_identity(golden.path, now)
        except OSError:
            return
    except (OSError, TypeError, ValueError) as problem:
        raise ImageError(
            f"{path}: not readable ({problem}); `netboot image show IMAGE --verify` makes it anew"
        ) from problem
    else:
        if kept.digest != digest:
            raise ImageError(f"{golden.path}: is {kept.digest}, but {digest} is wanted")
        if kept != now:
            raise ImageError(
                f"{golden.path}: changed since it was added; put the original back, and have "
                "`netboot image show IMAGE --verify` say so. No overlay was touched"
            )
