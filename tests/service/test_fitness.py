"""Do the settings fit: images, boot programs, resolvers. What needs a network is in test_app."""

from pathlib import Path

import pytest

from netboot import config
from netboot.errors import ConfigError, ImageError
from netboot.model import Version
from netboot.service import fitness, preflight
from netboot.service.ledger import Ledger
from netboot.state.store import Store

SETTINGS = """
[site]
interface = "br0"
address = "192.168.77.1/24"
state = "{state}"
[dhcp]
pool = "192.168.77.50-192.168.77.99"
[tftp]
loaders = ["{loaders}"]
[[profile]]
name = "workstation"
image = "debian"
"""


def settings(tmp_path: Path, more: str = "") -> config.Settings:
    text = SETTINGS.format(state=tmp_path, loaders=tmp_path / "loaders")
    return config.parse(text + more, "test")


@pytest.mark.parametrize(
    ("lines", "more", "expected"),
    [
        ("nameserver 9.9.9.9\nnameserver 192.168.77.1\nsearch x\n", "", ["9.9.9.9"]),
        (
            "# nameserver 1.1.1.1\nnameserver fe80::1%eth0\nnameserver ::1\nnameserver\n",
            "",
            ["::1"],
        ),
        ("nameserver 9.9.9.9\n", "[dns]\nupstreams = []\n", []),
        (
            "nameserver 9.9.9.9\n",
            '[dns]\nupstreams = ["1.1.1.1", "8.8.8.8"]\n',
            ["1.1.1.1", "8.8.8.8"],
        ),
        (None, "", []),
    ],
)
def test_other_names_are_asked_of(
    tmp_path: Path, lines: str | None, more: str, expected: list[str]
) -> None:
    file = tmp_path / "resolv.conf"
    if lines is not None:
        file.write_text(lines)
    assert fitness.resolvers(settings(tmp_path, more), file) == expected


def test_every_profile_has_its_image(tmp_path: Path) -> None:
    site = settings(tmp_path).to_site()
    store = Store(f"sqlite:///{tmp_path}/db")
    book = Ledger(store, tmp_path)
    with pytest.raises(ImageError, match="profile workstation: there is no image debian: netboot"):
        fitness.check_images(site, book)
    raw = tmp_path / "1.raw"
    store.add_version(Version("debian", 1, str(raw), 512, "sha256:0", 1.0))
    with pytest.raises(ImageError, match=r"1\.raw of image debian is gone"):
        fitness.check_images(site, book)
    raw.write_bytes(bytes(512))
    fitness.check_images(site, book)
    store.close()


def test_common_firmware_and_profiles_find_their_boot_programs(tmp_path: Path) -> None:
    given = settings(tmp_path)
    (tmp_path / "loaders").mkdir()
    (tmp_path / "loaders" / "undionly.kpxe").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"snponly\.efi for x64 UEFI machines is in none of"):
        fitness.check_loaders(given, given.to_site())
    (tmp_path / "loaders" / "snponly.efi").write_bytes(b"x")
    fitness.check_loaders(given, given.to_site())


CLIENT = '[[client]]\nmac = "52:54:00:00:00:01"\nname = "ws1"\nprofile = "workstation"\n'


@pytest.mark.parametrize(
    ("more", "mode", "warned"),
    [
        ("", 0o644, False),
        (CLIENT, 0o644, False),
        (CLIENT + 'chap_secret = "its-own-secret"\n', 0o644, True),
        (CLIENT + 'chap_secret = "its-own-secret"\n', 0o640, True),
        (CLIENT + 'chap_secret = "its-own-secret"\n', 0o600, False),
        ('[iscsi]\ndiscovery_secret = "let-me-look-1"\n', 0o604, True),
    ],
)
def test_secrets_that_others_may_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, more: str, mode: int, warned: bool
) -> None:
    file = tmp_path / "netboot.toml"
    file.touch(mode)
    file.chmod(mode)
    fitness.warn_of_readers(file, settings(tmp_path, more))
    told = [f"{file} holds secrets and others may read it: chmod 600 {file}"]
    assert caplog.messages == (told if warned else [])


def test_settings_that_have_gone_meanwhile(tmp_path: Path) -> None:
    more = '[iscsi]\ndiscovery_secret = "let-me-look-1"\n'
    fitness.warn_of_readers(tmp_path / "none", settings(tmp_path, more))


@pytest.mark.parametrize(
    ("more", "cores", "processes"),
    [("", 1, 1), ("", 3, 3), ("", 64, 4), ("processes = 1", 8, 1), ("processes = 9", 2, 9)],
)
def test_how_many_disk_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, cores: int, processes: int
) -> None:
    monkeypatch.setattr(preflight, "cores", lambda: cores)
    assert fitness.disk_processes(settings(tmp_path, f"[iscsi]\n{more}")) == processes
