"""libiscsi itself as the initiator: a reservation that is made to last outlives kill -9.

The library is called directly, as none of its programs makes a persistent reservation.
"""

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.interop.conftest import NAME, IscsiTarget

pytestmark = pytest.mark.interop

LIBRARY = ctypes.CDLL("libiscsi.so.7")
NORMAL, NO_DIGEST = 2, 0
REGISTER, RESERVE, RELEASE = 0, 1, 2
EXCLUSIVE_ACCESS = 3
GOOD, CONFLICT = 0x00, 0x18


class Parameters(ctypes.Structure):
    """``struct scsi_persistent_reserve_out_basic``."""

    _fields_ = (
        ("key", ctypes.c_uint64),
        ("argument", ctypes.c_uint64),
        ("spec_i_pt", ctypes.c_uint8),
        ("all_tg_pt", ctypes.c_uint8),
        ("aptpl", ctypes.c_uint8),
    )


for _name in ("iscsi_create_context", "iscsi_persistent_reserve_out_sync", "iscsi_read10_sync"):
    getattr(LIBRARY, _name).restype = ctypes.c_void_p
LIBRARY.iscsi_get_error.restype = ctypes.c_char_p


class Initiator:
    """One session of libiscsi's; the status of each command."""

    def __init__(self, port: int, name: str, isid: int) -> None:
        self._context = ctypes.c_void_p(LIBRARY.iscsi_create_context(name.encode()))
        LIBRARY.iscsi_set_isid_random(self._context, isid, 0)
        LIBRARY.iscsi_set_targetname(self._context, NAME.encode())
        LIBRARY.iscsi_set_session_type(self._context, NORMAL)
        LIBRARY.iscsi_set_header_digest(self._context, NO_DIGEST)
        portal = f"127.0.0.1:{port}".encode()
        if LIBRARY.iscsi_full_connect_sync(self._context, portal, 0):
            raise AssertionError(LIBRARY.iscsi_get_error(self._context))

    def _status(self, task: int | None) -> int:
        assert task, LIBRARY.iscsi_get_error(self._context)
        status = ctypes.cast(task, ctypes.POINTER(ctypes.c_int))[0]
        LIBRARY.scsi_free_scsi_task(ctypes.c_void_p(task))
        return status

    def out(self, action: int, key: int, argument: int = 0, kind: int = 0) -> int:
        """PERSISTENT RESERVE OUT with APTPL."""
        parameters = Parameters(key, argument, 0, 0, 1)
        return self._status(
            LIBRARY.iscsi_persistent_reserve_out_sync(
                self._context, 0, action, 0, kind, ctypes.byref(parameters)
            )
        )

    def read(self) -> int:
        return self._status(LIBRARY.iscsi_read10_sync(self._context, 0, 0, 512, 512, *[0] * 5))

    def close(self) -> None:
        LIBRARY.iscsi_destroy_context(self._context)


@contextmanager
def initiator(target: IscsiTarget, isid: int) -> Iterator[Initiator]:
    made = Initiator(target.port, "iqn.2026-11.lab.netboot:cluster", isid)
    try:
        yield made
    finally:
        made.close()


def test_a_reservation_outlives_the_disk_process(iscsi: IscsiTarget) -> None:
    with initiator(iscsi, 1) as one, initiator(iscsi, 2) as two:
        assert one.out(REGISTER, 0, 0xA1) == GOOD
        assert one.out(RESERVE, 0xA1, kind=EXCLUSIVE_ACCESS) == GOOD
        assert (one.read(), two.read()) == (GOOD, CONFLICT)
        assert iscsi.disks.pid is not None
        old = iscsi.disks.pid
        os.kill(old, signal.SIGKILL)
        for _ in range(600):
            if iscsi.disks.pid not in (None, old):
                break
            time.sleep(0.05)
    # As after a reboot of both machines: new connections, the same ports.
    with initiator(iscsi, 2) as two, initiator(iscsi, 1) as one:
        assert (two.read(), one.read()) == (CONFLICT, GOOD)
        assert one.out(RELEASE, 0xA1, kind=EXCLUSIVE_ACCESS) == GOOD
        assert two.read() == GOOD
