"""Actions are plain values, equal when their parts are."""

import dataclasses
import typing

import pytest

from netboot.scsi import action
from netboot.scsi.action import Action, Check, Read, Reply, Status, Write
from netboot.scsi.sense import Key, Sense

KINDS = typing.get_args(Action)


def test_the_union_names_every_kind() -> None:
    made = {
        value
        for value in vars(action).values()
        if dataclasses.is_dataclass(value) and value is not Sense
    }
    assert made == set(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_kind_is_slotted_and_says_what_it_is(kind: type) -> None:
    assert not hasattr(kind, "__dict__") or "__slots__" in vars(kind)
    assert kind.__doc__
    assert not kind.__doc__.startswith(kind.__name__ + "(")


def test_a_reply_is_good_and_empty_unless_said_otherwise() -> None:
    assert Reply() == Reply(b"", Status.GOOD)
    assert Reply(status=Status.RESERVATION_CONFLICT).status == 0x18


def test_values_compare() -> None:
    assert Read(0, 512) == Read(0, 512)
    assert Write(0, 512) != Write(0, 512, fua=True)
    assert Check(Sense(Key.NOT_READY, 0x3A00)) == Check(Sense(Key.NOT_READY, 0x3A00))


def test_status_codes() -> None:
    assert {status.name: int(status) for status in Status} == {
        "GOOD": 0x00,
        "CHECK_CONDITION": 0x02,
        "CONDITION_MET": 0x04,
        "BUSY": 0x08,
        "RESERVATION_CONFLICT": 0x18,
        "TASK_SET_FULL": 0x28,
        "ACA_ACTIVE": 0x30,
        "TASK_ABORTED": 0x40,
    }


def test_nothing_that_changes_the_disk_is_durable_by_itself() -> None:
    """``fua`` is a promise to wait; it is asked for, never assumed."""
    changing = (action.Write, action.Store, action.Fill, action.Zero, action.Merge, action.Unmap)
    for kind in changing:
        (fua,) = (field for field in dataclasses.fields(kind) if field.name == "fua")
        assert fua.default is False
