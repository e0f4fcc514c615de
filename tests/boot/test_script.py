"""Scripts for iPXE: whose template wins, what a value may hold, and what a mistake says."""

from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.boot.plan import plan
from netboot.boot.script import FORBIDDEN, PRODUCT, VARIABLES, Scripts, harmless, variables
from netboot.errors import ConfigError
from netboot.model import BootPlan, Chap, Client, Host, Profile, Site, Stage

WS1 = "52:54:00:12:34:56"
ROOT = "iscsi:192.168.77.1:::0:iqn.2026-11.lab.netboot:52-54-00-12-34-56"
SITE = Site(
    interface="br0",
    address=IPv4Interface("192.168.77.1/24"),
    domain="lab.netboot",
    profiles={
        "work": Profile("work", "debian", script="menu.ipxe", variables={"kernel": "vmlinuz"})
    },
    hosts={WS1: Host(WS1, "ws1", "work", variables={"initrd": "initrd.img"})},
)


def made(site: Site = SITE) -> BootPlan:
    found = plan(Client(WS1, Stage.IPXE, hostname="${oops}", user_class="${oops}"), site)
    assert found is not None
    return found


def with_variables(**values: str) -> Site:
    return replace(SITE, hosts={WS1: replace(SITE.hosts[WS1], variables=values)})


def own(folder: Path, text: str, name: str = "own.ipxe.j2") -> Scripts:
    (folder / name).write_text(text)
    return Scripts([folder])


def test_the_default_script_whole() -> None:
    assert Scripts().render(made(), SITE) == (
        "#!ipxe\n"
        "set initiator-iqn iqn.2026-11.lab.netboot:client.52-54-00-12-34-56\n"
        "set hostname ws1\n"
        "echo ws1: image debian, persistent disk\n"
        f"sanboot {ROOT} || goto failed\n"
        "\n"
        ":failed\n"
        f"echo The disk of ws1 did not start: {ROOT}\n"
        "echo Press a key for iPXE's shell, or wait 15 seconds for another try.\n"
        "prompt --timeout 15000 && shell ||\n"
        "chain --replace http://192.168.77.1:8080/boot/52-54-00-12-34-56.ipxe\n"
    )


@pytest.mark.parametrize("path", sorted(PRODUCT.glob("*.j2")), ids=lambda path: path.name)
def test_every_template_of_the_product(path: Path) -> None:
    text = Scripts().render(made(), SITE, path.name)
    assert text.startswith("#!ipxe\n")
    assert text.endswith("\n")
    assert f" {ROOT} || goto failed\n" in text
    assert "{{" not in text
    assert "{#" not in text
    labels = {line[1:] for line in text.splitlines() if line.startswith(":")}
    jumps = {word.split("goto ")[1] for word in text.splitlines() if "goto " in word}
    assert jumps - {"${chosen}"} <= labels, "every goto has its label"
    assert len(labels) == sum(line.startswith(":") for line in text.splitlines())


def test_the_menus_choices_have_their_labels() -> None:
    lines = Scripts().render(made(), SITE, "menu.ipxe").splitlines()
    items = [line.split()[3] for line in lines if line.startswith("item --key")]
    assert items == ["disk", "local", "shell", "reboot"]
    assert all(f":{item}" in lines for item in items)
    assert "choose --default disk --timeout 10000 chosen || goto disk" in lines


def test_the_menu_takes_its_variable() -> None:
    site = with_variables(menu_timeout="3000")
    text = Scripts().render(made(site), site, "menu.ipxe")
    assert "choose --default disk --timeout 3000 chosen || goto disk" in text


def test_the_documented_variables_are_the_ones_that_exist() -> None:
    assert [row.name for row in VARIABLES] == list(variables(made(), SITE))
    assert all(row.help for row in VARIABLES)
    header = (PRODUCT / "boot.ipxe.j2").read_text().partition("#}")[0]
    assert [row.name for row in VARIABLES if row.name not in header] == []


def test_the_values(tmp_path: Path) -> None:
    lines = "".join(f"echo {row.name} {{{{ {row.name} }}}}\n" for row in VARIABLES)
    text = own(tmp_path, "#!ipxe\n" + lines).render(made(), SITE, "own")
    assert text == (
        "#!ipxe\n"
        "echo mac 52:54:00:12:34:56\n"
        "echo mac_hyphens 52-54-00-12-34-56\n"
        "echo name ws1\n"
        "echo profile work\n"
        "echo image debian\n"
        "echo overlay persistent\n"
        f"echo root_path {ROOT}\n"
        "echo target iqn.2026-11.lab.netboot:52-54-00-12-34-56\n"
        "echo initiator iqn.2026-11.lab.netboot:client.52-54-00-12-34-56\n"
        "echo server 192.168.77.1\n"
        "echo domain lab.netboot\n"
        "echo http http://192.168.77.1:8080\n"
        "echo script_url http://192.168.77.1:8080/boot/52-54-00-12-34-56.ipxe\n"
        "echo username \n"
        "echo password \n"
        "echo reverse_username \n"
        "echo reverse_password \n"
        "echo vars {'kernel': 'vmlinuz', 'initrd': 'initrd.img'}\n"
    )


def test_the_users_folder_is_searched_first(tmp_path: Path) -> None:
    scripts = own(tmp_path, "#!ipxe\necho mine\n", "boot.ipxe.j2")
    assert scripts.render(made(), SITE) == "#!ipxe\necho mine\n"
    assert ":menu" in scripts.render(made(), SITE, "menu.ipxe")


def test_a_changed_template_is_read_again(tmp_path: Path) -> None:
    scripts = own(tmp_path, "#!ipxe\necho one\n")
    assert "one" in scripts.render(made(), SITE, "own")
    (tmp_path / "own.ipxe.j2").unlink()
    with pytest.raises(ConfigError, match=r"own\.ipxe\.j2 is in none of the folders"):
        scripts.render(made(), SITE, "own")


@pytest.mark.parametrize("name", ["own", "own.ipxe", "own.ipxe.j2"])
def test_three_ways_to_name_a_template(tmp_path: Path, name: str) -> None:
    assert own(tmp_path, "#!ipxe\n").render(made(), SITE, name) == "#!ipxe\n"


def test_a_template_may_write_what_a_value_may_not(tmp_path: Path) -> None:
    text = "#!ipxe\necho ${net0/mac} && exit 0 || reboot\n"
    assert own(tmp_path, text).render(made(), SITE, "own") == text


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("a ${net0/mac}", "holds '${': iPXE would expand it"),
        ("a && reboot", "holds '&&': iPXE splits there"),
        ("a || reboot", "holds '||': iPXE splits there"),
        ("a\nreboot", "holds a line break or another control character"),
        ("a\rreboot", "holds a line break or another control character"),
        ("a\x00", "holds a line break or another control character"),
        ("a\u2028b", "holds a line break or another control character"),
    ],
)
def test_what_a_value_may_not_hold(tmp_path: Path, value: str, reason: str) -> None:
    site = with_variables(word=value)
    scripts = own(tmp_path, "#!ipxe\n\necho {{ vars.word }}\n")
    with pytest.raises(ConfigError) as caught:
        scripts.render(made(site), site, "own")
    place = f"template {tmp_path}/own.ipxe.j2, line 3: "
    assert str(caught.value) == f"{place}the value {value!r} {reason}"


@pytest.mark.parametrize("value", ["root=/dev/sda quiet", "$HOME", "a & b | c", "{}", "größe", ""])
def test_what_a_value_may_hold(tmp_path: Path, value: str) -> None:
    site = with_variables(word=value)
    scripts = own(tmp_path, "#!ipxe\necho {{ vars.word }}\n")
    assert scripts.render(made(site), site, "own") == f"#!ipxe\necho {value}\n"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("#!ipxe\necho {{ nothing }}\n", 2, "'nothing' is undefined"),
        ("#!ipxe\n\n\necho {{ vars.nothing }}\n", 4, "'dict object' has no attribute 'nothing'"),
        ("#!ipxe\n{% if nothing %}{% endif %}\n", 2, "'nothing' is undefined"),
        ("#!ipxe\n{% for x in y %}\n", 2, "Unexpected end of template"),
        ("#!ipxe\necho {{ name\n", 2, "unexpected end of template"),
        ("#!ipxe\n{{ 1 / 0 }}\n", 2, "division by zero"),
        ("#!ipxe\n{{ name() }}\n", 2, "'str' object is not callable"),
        ("#!ipxe\n{{ vars.__class__.__mro__ }}\n", 2, "unsafe"),
        ("#!ipxe\n{% include 'gone.j2' %}\n", 2, "gone.j2"),
        ("sanboot {{ root_path }}\n", 1, "a script begins with #!ipxe"),
        ("", 1, "a script begins with #!ipxe"),
    ],
)
def test_a_mistake_says_where_and_what(tmp_path: Path, text: str, line: int, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        own(tmp_path, text).render(made(), SITE, "own")
    assert str(caught.value).startswith(f"template {tmp_path}/own.ipxe.j2, line {line}: ")
    assert reason in str(caught.value)


def test_a_mistake_in_an_included_file_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "part.j2").write_text("echo\necho {{ nothing }}\n")
    with pytest.raises(ConfigError, match=rf"^template {tmp_path}/part\.j2, line 2: 'nothing'"):
        own(tmp_path, "#!ipxe\n{% include 'part.j2' %}\n").render(made(), SITE, "own")


def test_a_template_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "own.ipxe.j2").write_bytes(b"#!ipxe\n\xff\xfe\n")
    with pytest.raises(ConfigError, match=r"^template own cannot be read: "):
        Scripts([tmp_path]).render(made(), SITE, "own")


@pytest.mark.parametrize("name", ["gone", "../../../etc/passwd", "", "/etc/passwd", "a\0b"])
def test_a_template_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{tmp_path}, .*templates/ipxe: create it|cannot be"):
        Scripts([tmp_path]).render(made(), SITE, name)


@given(st.text())
def test_whatever_is_let_through_stays_on_its_line(value: str) -> None:
    try:
        same = harmless(value)
    except ConfigError as refused:
        assert any(sign in value for sign in FORBIDDEN) or not value.isprintable()
        assert repr(value) in str(refused)
    else:
        assert same is value
        assert len(value.splitlines()) <= 1
        assert not any(sign in value for sign in FORBIDDEN)


CHAP = Chap("52-54-00-12-34-56", "0123456789abc._f", "netboot", "fedcba9876543210")


@pytest.mark.parametrize("path", sorted(PRODUCT.glob("*.j2")), ids=lambda path: path.name)
def test_every_template_says_what_the_machine_must_prove(path: Path) -> None:
    """Before the login: the settings' names are those of ipxe.org/cfg."""
    scripts = Scripts()
    bare = scripts.render(made(), SITE, path.name)
    assert "user" not in bare
    assert "password" not in bare
    lines = scripts.render(made(), SITE, path.name, CHAP).splitlines()
    told = [line for line in lines if line not in bare.splitlines()]
    assert told == [
        "set username 52-54-00-12-34-56",
        "set password 0123456789abc._f",
        "set reverse-username netboot",
        "set reverse-password fedcba9876543210",
    ]
    login = next(at for at, line in enumerate(lines) if ROOT in line)
    assert lines.index(told[-1]) < login
    one_way = replace(CHAP, mutual_name="", mutual_secret="")
    assert "reverse" not in scripts.render(made(), SITE, path.name, one_way)
