"""A name from the network never leaves the folders."""

from pathlib import Path

import pytest

from netboot.rooted import resolve


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        (folder / "sub").mkdir(parents=True)
    (first / "a.efi").write_bytes(b"1")
    (second / "a.efi").write_bytes(b"2")
    (second / "sub" / "b.efi").write_bytes(b"3")
    (tmp_path / "secret").write_bytes(b"no")
    (first / "out").symlink_to(tmp_path / "secret")
    (first / "loop").symlink_to(first / "loop")
    (first / "in").symlink_to(first / "a.efi")
    return [first, second]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.efi", b"1"),
        ("/a.efi", b"1"),
        ("//./a.efi", b"1"),
        ("sub/b.efi", b"3"),
        ("\\sub\\b.efi", b"3"),
        ("in", b"1"),
    ],
)
def test_finds_the_first_match(folders: list[Path], name: str, content: bytes) -> None:
    path = resolve(folders, name)
    assert path is not None
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "name",
    [
        *("", "/", ".", "sub", "none", "a.efi/more", "out", "loop", "a.efi\0x", "x" * 5000),
        *("../secret", "sub/../../secret", "sub\\..\\..\\secret"),
    ],
)
def test_everything_else_does_not_exist(folders: list[Path], name: str) -> None:
    assert resolve(folders, name) is None
