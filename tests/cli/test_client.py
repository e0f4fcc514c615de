"""``netboot client``: who there is and how far they came, whether the service runs or not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from netboot.cli.entry import group
from netboot.errors import ConfigError
from netboot.events import BootEvent, Phase
from netboot.model import OverlayMode, Version
from netboot.service.ledger import Ledger
from netboot.state.store import Store
from netboot.storage import locks

MAC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
SETTINGS = """
[site]
interface = "br0"
address = "192.168.77.1/24"
state = "{state}"
[dhcp]
pool = "192.168.77.50-192.168.77.99"
[[profile]]
name = "p"
image = "debian"
[[client]]
mac = "52:54:00:00:00:01"
name = "ws1"
profile = "p"
address = "192.168.77.21"
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    (tmp_path / "netboot.toml").write_text(SETTINGS.format(state=folder))
    return folder


@pytest.fixture
def store(state: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{state}/netboot.sqlite")
    yield made
    made.close()


def run(state: Path, *words: object) -> Result:
    config = ["--config", str(state.parent / "netboot.toml")]
    return CliRunner().invoke(group, ["client", *map(str, words), *config])


def works(state: Path, *words: object) -> str:
    done = run(state, *words)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def boot(store: Store) -> None:
    store.add_events(
        [
            BootEvent(MAC, 100.0, Phase.SEEN, "BIOS asks", fresh=True),
            BootEvent(MAC, 101.5, Phase.OFFERED, "192.168.77.21"),
            BootEvent(OTHER, 102.0, Phase.SEEN, "UEFI asks", fresh=True),
        ]
    )


def test_machines_are_listed(state: Path, store: Store) -> None:
    boot(store)
    lines = works(state, "list").splitlines()
    assert lines[0].split()[:4] == ["NAME", "MAC", "ADDRESS", "PROFILE"]
    assert lines[1].split()[:7] == ["ws1", MAC, "192.168.77.21", "p", "debian", "-", "offered"]
    assert lines[2].split()[:4] == ["client-525400000002", OTHER, "-", "-"]
    told = json.loads(works(state, "list", "--json"))
    assert [(view["mac"], view["phase"]) for view in told] == [(MAC, "offered"), (OTHER, "seen")]


def test_one_machine_is_shown_phase_by_phase(state: Path, store: Store) -> None:
    boot(store)
    store.add_version(Version("debian", 1, "/1.raw", 512, "sha256:1", 1.0))
    Ledger(store, state).overlay_of(MAC, "debian", OverlayMode.PERSISTENT)
    shown = works(state, "show", "ws1")
    assert "image      debian version 1\n" in shown
    assert "(persistent, generation 0, 0 B)" in shown
    assert "phases         0.0 s  seen     BIOS asks\n" in shown
    assert "               1.5 s  offered  192.168.77.21\n" in shown
    assert "stuck?     it was offered a boot program and did not fetch it" in shown
    assert "read " not in shown  # no service, no counters
    told = json.loads(works(state, "show", MAC, "--json"))
    assert told["timeline"][1] == {
        "phase": "offered",
        "at": 101.5,
        "after": 1.5,
        "detail": "192.168.77.21",
    }
    assert told["hint"].startswith("it was offered")


def test_a_machine_that_never_spoke_is_shown_too(state: Path) -> None:
    shown = works(state, "show", "ws1")
    assert "phases" not in shown
    assert json.loads(works(state, "show", "ws1", "--json"))["hint"] is None


@pytest.mark.parametrize(
    ("machine", "told"),
    [
        ("ws9", "'ws9' is not a MAC address such as 52:54:00:12:34:56, nor is it one of the"),
        ("52:54:00:00:00:77", "52:54:00:00:00:77 is in no [[client]], and was never seen"),
    ],
)
def test_a_machine_that_is_not_there_is_one_line(state: Path, machine: str, told: str) -> None:
    done = run(state, "show", machine)
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception).startswith(told)


def test_a_running_service_adds_its_counters(
    state: Path, store: Store, beside_a_service: Any
) -> None:
    row = {"mac": MAC, "sessions": 1, "reads": 7, "read_bytes": 4096, "writes": 2}
    told: list[Result] = []
    answer = {MAC: {**row, "write_bytes": 1024}}
    beside_a_service(state, "counters", answer, lambda: told.append(run(state, "show", "ws1")))
    assert "read     4.0 KiB in 7 commands\n" in told[0].stdout
    assert "written  1.0 KiB in 2 commands\n" in told[0].stdout


def test_a_service_that_does_not_answer_costs_only_the_counters(
    state: Path, beside_a_service: Any
) -> None:
    told: list[Result] = []
    beside_a_service(state, "reset", None, lambda: told.append(run(state, "show", "ws1")))
    assert told[0].exit_code == 0
    assert "without counters: this service cannot counters" in told[0].stderr
    assert "name     ws1" in told[0].stdout


# Secrets.


def secrets(state: Path, *words: str) -> dict[str, str]:
    told = json.loads(works(state, "secret", "ws1", "--json", *words))
    assert told["mac"] == MAC
    return dict(told["chap"])


def test_a_secret_is_made_once_and_printed_to_be_typed(state: Path, store: Store) -> None:
    told = secrets(state)
    kept = store.secrets(MAC)
    assert kept is not None
    assert told == {
        "user": "52-54-00-00-00-01",
        "secret": kept.secret,
        "our user": "netboot",
        "our secret": kept.reverse,
    }
    lines = works(state, "secret", MAC).splitlines()
    assert [line.split() for line in lines] == [
        ["user", "52-54-00-00-00-01"],
        ["secret", kept.secret],
        ["our", "user", "netboot"],
        ["our", "secret", kept.reverse],
    ]


def test_show_says_no_secret_unless_asked_and_makes_none(state: Path, store: Store) -> None:
    assert json.loads(works(state, "show", "ws1", "--json", "--secrets"))["chap"] is None
    assert store.secrets(MAC) is None
    told = secrets(state)
    for words in (("show", "ws1"), ("show", "ws1", "--json"), ("list",), ("list", "--json")):
        text = works(state, *words)
        assert told["secret"] not in text
        assert told["our secret"] not in text
    assert json.loads(works(state, "show", "ws1", "--json", "--secrets"))["chap"] == told
    assert told["secret"] in works(state, "show", "ws1", "--secrets")


def test_renewed_while_no_service_runs(state: Path, store: Store) -> None:
    before = secrets(state)
    after = secrets(state, "--renew")
    assert before["secret"] != after["secret"]
    assert before["our secret"] != after["our secret"]
    assert secrets(state) == after


def test_not_renewed_under_a_running_machine(state: Path, store: Store) -> None:
    before = secrets(state)
    store.add_version(Version("debian", 1, "/golden/1.raw", 512, "sha256:0", 1.0))
    path = Ledger(store, state).overlay_of(MAC, "debian", OverlayMode.PERSISTENT).path
    with Path(path).open("w+") as held:
        assert locks.own(held.fileno())
        done = run(state, "secret", "ws1", "--renew")
        assert isinstance(done.exception, ConfigError)
        assert "is logged in" in str(done.exception)
        assert "--force" in str(done.exception)
        assert secrets(state) == before
        assert secrets(state, "--renew", "--force") != before
        done = run(state, "secret", "ws1", "--force")
        assert isinstance(done.exception, SystemExit) or done.exit_code == 2
        assert "--force is of use only with --renew" in done.output


def test_a_machines_own_secret_is_shown_and_changed_in_the_settings(
    state: Path, store: Store
) -> None:
    with (state.parent / "netboot.toml").open("a") as settings:
        settings.write('chap_secret = "its-own-secret"\n')
    assert secrets(state) == {"user": "52-54-00-00-00-01", "secret": "its-own-secret"}
    done = run(state, "secret", "ws1", "--renew")
    assert str(done.exception) == "ws1 brings its own secret: change its chap_secret"
    assert store.secrets(MAC) is None
    explained = CliRunner().invoke(
        group, ["explain", "ws1", "--config", str(state.parent / "netboot.toml")]
    )
    assert "CHAP as user 52-54-00-00-00-01, with the machine's own" in explained.output
    assert "its-own-secret" not in explained.output
