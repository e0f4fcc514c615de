"""What follows when a command had to look at the disk before it could decide. Pure.

VERIFY wants the range readable, COMPARE AND WRITE and VERIFY with data want it equal, ORWRITE
wants it combined (SBC-3 sections 5.3, 5.33 and 5.15).
"""

from netboot.scsi.action import Action, Check, Compare, Merge, Reply, Store, Verify
from netboot.scsi.sense import miscompare


def after_reading(action: Verify | Compare | Merge, here: bytes) -> Action:
    """The next Action, now that the range of ``action`` is known to hold ``here``."""
    match action:
        case Verify():
            return Reply()
        case Compare():
            if here == action.data:
                return action.then or Reply()
            return Check(miscompare(first_difference(here, action.data)))
        case Merge():
            both = int.from_bytes(here, "big") | int.from_bytes(action.data, "big")
            return Store(action.offset, both.to_bytes(len(here), "big"), action.fua)


def first_difference(a: bytes, b: bytes) -> int:
    """The first offset at which two different strings differ."""
    low, high = 0, min(len(a), len(b))
    while low < high:  # a[:low] == b[:low], a[:high] != b[:high] or high is the end
        middle = (low + high) // 2
        if a[low : middle + 1] == b[low : middle + 1]:
            low = middle + 1
        else:
            high = middle
    return low
