"""Who is answered, and who never hears of us."""

from netboot.ndp.engine import Engine
from netboot.ndp.wire import no_router

OURS = bytes.fromhex("525400aabbcc")
ASK = bytes.fromhex("8500 0000 00000000 0101 525400123456")


def engine() -> Engine:
    return Engine(OURS, lambda mac: mac == "52:54:00:12:34:56")


def test_a_machine_we_boot_is_answered() -> None:
    each = engine()
    assert each.receive(ASK, 255) == no_router(OURS)
    assert each.counters == {"answered": 1}


def test_everybody_else_is_not() -> None:
    each = engine()
    assert each.receive(ASK[:-1] + b"\0", 255) is None
    assert each.receive(ASK[:8], 255) is None
    assert each.receive(ASK, 64) is None
    assert each.receive(ASK[:5], 255) is None
    assert each.counters == {"not ours": 2, "forwarded": 1, "malformed": 1}
