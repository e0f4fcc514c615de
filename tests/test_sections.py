"""The tables of the settings file: whole rows of help and example, and the nouns they make."""

import pytest
from pydantic import ValidationError

from netboot import sections
from netboot.config import Settings
from netboot.mistakes import allowed, nested
from netboot.model import Host, Profile

FIELDS = [
    (name, key)
    for name, field in Settings.model_fields.items()
    for model in [nested(field)]
    if model
    for key in model.model_fields
]


@pytest.mark.parametrize(("section", "key"), FIELDS, ids=".".join)
def test_every_field_has_help_an_example_and_words_for_what_it_allows(
    section: str, key: str
) -> None:
    model = nested(Settings.model_fields[section])
    assert model and model.__doc__
    field = model.model_fields[key]
    assert field.description and field.description.endswith(".")
    assert field.examples and len(field.examples) == 1
    assert allowed(field)


def test_rows_are_the_nouns_field_by_field() -> None:
    assert set(sections.ProfileSection.model_fields) == set(Profile.__dataclass_fields__)
    assert set(sections.ClientSection.model_fields) == set(Host.__dataclass_fields__)


def test_a_table_is_frozen_and_knows_its_keys() -> None:
    table = sections.IscsiSection()
    with pytest.raises(ValidationError, match="frozen"):
        table.port = 1
    with pytest.raises(ValidationError, match="Extra inputs"):
        sections.IscsiSection.model_validate({"prot": 3260})


def test_every_table_of_the_file_is_declared_here() -> None:
    declared = {kind for kind in vars(sections).values() if isinstance(kind, type)}
    used = {nested(field) for field in Settings.model_fields.values()}
    tables = {kind for kind in declared if kind.__name__.endswith("Section")} - {sections.Section}
    assert used == tables
