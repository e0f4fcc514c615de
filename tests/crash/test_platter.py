"""The model of a power cut is as merciless as it says, and no more."""

import random

from tests.crash.platter import SECTOR, File, Folder

DICE = 400


def outcomes(thing: File | Folder) -> set[str]:
    return {repr(thing.after_power_cut(random.Random(seed))) for seed in range(DICE)}


def sectors(*letters: bytes) -> bytes:
    return b"".join(letter * SECTOR for letter in letters)


def test_each_sector_is_as_synced_or_as_any_write_since() -> None:
    file = File(sectors(b"a", b"a"))
    file.write(0, sectors(b"b", b"b"))
    file.write(SECTOR, sectors(b"c"))
    expected = {repr(sectors(x, y)) for x in (b"a", b"b") for y in (b"a", b"b", b"c")}
    assert outcomes(file) == expected
    file.sync()
    assert outcomes(file) == {repr(sectors(b"b", b"c"))}


def test_a_sector_is_never_torn() -> None:
    file = File(bytes(SECTOR))
    file.write(100, b"xy")
    file.write(300, b"z")
    once = bytes(100) + b"xy" + bytes(SECTOR - 102)
    twice = once[:300] + b"z" + once[301:]
    assert outcomes(file) == {repr(bytes(SECTOR)), repr(once), repr(twice)}


def test_sizes_are_not_certain_either() -> None:
    file = File()
    file.truncate(1000)
    assert outcomes(file) == {repr(b""), repr(bytes(1000))}
    file.sync()
    assert outcomes(file) == {repr(bytes(1000))}
    file.truncate(0)
    file.truncate(1000)
    assert outcomes(file) == {repr(b""), repr(bytes(1000))}


def test_what_is_cut_off_comes_back_as_zeros_or_as_it_was() -> None:
    file = File(sectors(b"a"))
    file.truncate(0)
    file.truncate(SECTOR)
    assert outcomes(file) == {repr(b""), repr(sectors(b"a")), repr(bytes(SECTOR))}
    file.sync()
    assert outcomes(file) == {repr(bytes(SECTOR))}


def test_a_name_is_certain_when_its_folder_is_synced() -> None:
    folder, file = Folder(), File(b"x")
    folder.put("new", file)
    folder.put("name", folder.find("new"))
    folder.put("new", None)
    assert outcomes(folder) == {
        repr(found) for found in ({}, {"new": b"x"}, {"name": b"x"}, {"new": b"x", "name": b"x"})
    }
    folder.sync()
    assert outcomes(folder) == {repr({"name": b"x"})}
    assert folder.find("new") is None and folder.find("name") is file
