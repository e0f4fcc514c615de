"""What was found out for one request holds for all like it that are read in the same breath.

In a storm machines of one kind ask for one file with the same bytes, hundreds within
milliseconds; each would have them parsed, the file looked for and the options judged. A
``Moment`` does so once. It must never outlive the call that reads the requests: by then somebody
may have put another file there.
"""

from collections.abc import Sequence
from pathlib import Path

from netboot.rooted import resolve
from netboot.tftp import options
from netboot.tftp.engine import admit
from netboot.tftp.options import Limits, Terms
from netboot.tftp.wire import Request


class Moment:
    """Answers like ``admit``, ``resolve`` and ``negotiate``, and remembers what they answered."""

    __slots__ = ("_folders", "_paths", "_requests", "_terms")

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._requests: dict[bytes, Request] = {}
        self._paths: dict[str, Path | None] = {}
        self._terms: dict[tuple[object, ...], Terms] = {}

    def admit(self, data: bytes) -> Request | bytes | None:
        """See ``engine.admit``."""
        known = self._requests.get(data)
        if known is not None:
            return known
        request = admit(data)
        if isinstance(request, Request):
            self._requests[data] = request
        return request

    def resolve(self, name: str) -> Path | None:
        """See ``rooted.resolve``."""
        if name not in self._paths:
            self._paths[name] = resolve(self._folders, name)
        return self._paths[name]

    def negotiate(self, request: Request, limits: Limits) -> Terms:
        """See ``options.negotiate``."""
        key = (limits, *request.options.items())
        terms = self._terms.get(key)
        if terms is None:
            terms = self._terms[key] = options.negotiate(request.options, limits)
        return terms
