"""Power cuts, in small: the same as ``make crashtest``, with its controls."""

from collections import Counter

import pytest

from tests.crash import crashtest

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("seed", range(10))
def test_power_cuts(seed: int) -> None:
    outcome = crashtest.run(seed, images=20)
    assert outcome.faults == []
    assert outcome.images == 20
    assert outcome.checked > 0 and outcome.compared > 0
    assert sum(outcome.verbs.values()) - outcome.verbs["full"] == crashtest.STEPS


@pytest.mark.parametrize("broken", crashtest.CONTROLS)
def test_what_is_broken_below_is_caught(broken: str) -> None:
    name, images, fault = crashtest.control((50, broken))
    assert name == broken
    assert images > 0 and fault


def test_the_traces_hold_every_verb() -> None:
    """Those of issue 3, and what else happens to an overlay, with a control for each order."""
    verbs: Counter[str] = Counter()
    for seed in range(118, 126):
        verbs += crashtest.run(seed, images=1).verbs
    assert set(verbs) >= {
        *("write", "fua", "flush", "unmap", "same", "zero", "resize", "reset", "atomic"),
        *("kill", "stop", "renew", "move", "full"),
    }
    assert len(crashtest.CONTROLS) == 11


def test_a_trace_is_the_same_for_the_same_seed() -> None:
    first, again = crashtest.run(3, images=8), crashtest.run(3, images=8)
    assert first == again
    assert first.calls > 50
