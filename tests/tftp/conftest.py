"""Whatever reads sockets or answers ACKs is tested twice: as Python, and compiled."""

from collections.abc import Callable
from typing import Any

import pytest

from netboot.tftp import crowd, ready, roll, rollcall

ROLLS: dict[str, type[roll.Roll[Any]]] = {"python": roll.Roll, "compiled": rollcall.Roll}
READIES: dict[str, Callable[[], ready.Ready]] = {
    "python": ready.Ready,
    "compiled": rollcall.Ready,
}


@pytest.fixture(params=ROLLS.values(), ids=ROLLS)
def used(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[roll.Roll[Any]]:
    """The roll that a crowd calls."""
    monkeypatch.setattr(crowd, "Roll", request.param)
    kind: type[roll.Roll[Any]] = request.param
    return kind
