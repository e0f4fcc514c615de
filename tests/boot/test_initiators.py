"""Who logs in, by the ISID."""

import pytest

from netboot.boot.initiators import INITIATORS, initiator_of
from netboot.model import Stage


@pytest.mark.parametrize(
    ("isid", "name", "stage"),
    [
        ("400027233cce", "iPXE", Stage.IPXE),  # seen from Debian's ROM in QEMU
        ("00023d010000", "open-iscsi", Stage.OS),  # seen from a Debian 12 kernel
        ("400001370000", "Microsoft", Stage.OS),
    ],
)
def test_makers_we_know(isid: str, name: str, stage: Stage) -> None:
    found = initiator_of(isid)
    assert found is not None
    assert (found.name, found.stage) == (name, stage)


@pytest.mark.parametrize("isid", ["", "4000", "80ab00000000", "400027240000"])
def test_makers_we_do_not(isid: str) -> None:
    assert initiator_of(isid) is None


def test_no_row_hides_another() -> None:
    prefixes = [row.prefix for row in INITIATORS]
    assert not any(a != b and a.startswith(b) for a in prefixes for b in prefixes)
    assert all(row.story for row in INITIATORS)
