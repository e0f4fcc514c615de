"""The example is a file that works, the documentation is current, nothing is named twice."""

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot import config, values
from netboot.cli import settings_text
from netboot.mistakes import allowed
from netboot.model import OverlayMode

ROOT = Path(__file__).parent.parent.parent
MARK = re.compile(r"<!-- settings: begin -->\n(.*?)<!-- settings: end -->", re.DOTALL)


def test_the_example_works_as_it_is() -> None:
    settings = config.parse(settings_text.example(), "example")
    assert settings.to_site().unknown_profile == "workstation"
    assert settings.dhcp.pool is not None
    assert settings.client[0].address is not None


def test_the_example_works_with_everything_in_force() -> None:
    """But for [unknown], where one of the two keys is the other's contrary."""
    text = re.sub(r"(?m)^# (\w+ = )", r"\1", settings_text.example())
    settings = config.parse(text.replace('policy = "ignore"\n', ""), "example")
    for name, model, _many in settings_text.sections():
        for table in settings_text.tables(settings, name):
            missing = {key for key in model.model_fields if table[key] is None}
            assert missing == ({"policy"} if name == "unknown" else set())


def test_the_example_names_and_explains_every_setting() -> None:
    text = settings_text.example()
    flat = " ".join(text.replace("\n#", " ").split())
    for name, model, many in settings_text.sections():
        assert settings_text.heading(name, many) in text
        for key, field in model.model_fields.items():
            assert re.search(rf"(?m)^(# )?{key} = ", text)
            assert field.description and field.description in flat
            assert allowed(field) in flat
    assert max(map(len, text.splitlines())) <= 80


def test_what_is_in_force_means_the_same() -> None:
    settings = config.parse(settings_text.example(), "example")
    again = settings_text.in_force(settings)
    assert config.parse(again, "again") == settings
    assert settings_text.in_force(config.parse(again, "again")) == again


def test_plain_is_what_toml_reads_of_what_is_in_force() -> None:
    settings = config.parse(settings_text.example(), "example")

    def without_none(value: object) -> object:
        if isinstance(value, dict):
            return {key: without_none(item) for key, item in value.items() if item is not None}
        return [without_none(item) for item in value] if isinstance(value, list) else value

    plain = without_none(settings_text.plain(settings))
    assert plain == tomllib.loads(settings_text.in_force(settings))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, "true"),
        (7, "7"),
        ('a"b\n\x7f', '"a\\"b\\n\\u007F"'),
        (Path("/x"), '"/x"'),
        (OverlayMode.EPHEMERAL, '"ephemeral"'),
        (values.Duration(3600), '"1h"'),
        (("a", 1), '["a", 1]'),
        ({}, "{}"),
        ({"a": "b", "c": "d"}, '{ a = "b", c = "d" }'),
    ],
)
def test_values_are_written_as_toml(value: object, written: str) -> None:
    assert settings_text.toml(value) == written


@given(st.text() | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.lists(st.text()))
def test_toml_reads_what_we_write(value: object) -> None:
    assert tomllib.loads(f"x = {settings_text.toml(value)}")["x"] == value


def test_the_documentation_has_a_row_for_every_setting() -> None:
    text = settings_text.documentation()
    for name, model, many in settings_text.sections():
        assert f"### `{settings_text.heading(name, many)}`" in text
        for key, field in model.model_fields.items():
            row = next(
                line
                for line in text.splitlines()
                if line.startswith(f"| `{key}` | {field.description}")
            )
            assert len(re.findall(r"(?<!\\)\|", row)) == 5
            assert allowed(field) in row


PAGES = [
    page for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")) if MARK.search(page.read_text())
]


def test_there_is_a_page_of_settings() -> None:
    assert ROOT / "docs" / "settings.md" in PAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_documentation_is_current(page: Path) -> None:
    """`netboot config show --docs` prints what belongs between the marks."""
    (found,) = MARK.findall(page.read_text())
    assert found.strip() == settings_text.documentation().strip()
