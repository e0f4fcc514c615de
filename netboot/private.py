"""Unix sockets for ourselves alone: mode 0600 from their first moment, in the state folder.

Must never be there for others, not even between ``bind`` and a later ``chmod``.
"""

import os
import socket
from pathlib import Path

from netboot.errors import ConfigError


def private_socket(path: Path, kind: socket.SocketKind) -> socket.socket:
    """A socket of ``kind`` bound to ``path``; one that was left behind there is replaced.

    The caller holds the folder, so what is there is a dead one's. ConfigError when it cannot be.
    """
    sock = socket.socket(socket.AF_UNIX, kind)
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        sock.bind(str(path))
    except OSError as error:
        sock.close()
        why = error.strerror or error  # a path may be too long, which has no number
        raise ConfigError(
            f"{path}: no socket can be made there: {why}; choose another [site] state"
        ) from error
    finally:
        os.umask(before)
    return sock
