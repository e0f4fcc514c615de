"""Paths, values and reasons in words; drafts that keep what is right."""

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from netboot.mistakes import Mistake, allowed, draft, literal, nested, path, repeated, within
from netboot.names import Label
from netboot.values import Port


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Box(Closed):
    label: Label = Field(description="What is written on it.")
    port: Port | None = Field(default=None, description="A number.")


class Shelf(Closed):
    top: Box
    box: tuple[Box, ...] = ()
    spare: Box = Field(default_factory=lambda: Box(label="x"))


def told(data: object) -> list[str]:
    try:
        Shelf.model_validate(data)
    except ValidationError as error:
        return [str(mistake) for mistake in within(error, Shelf)]
    return []


@pytest.mark.parametrize(
    ("where", "written"),
    [(("a",), "a"), (("a", "b"), "a.b"), (("a", 0, "b"), "a#1.b"), (("a", 11), "a#12")],
)
def test_paths_count_as_people_do(where: tuple[str | int, ...], written: str) -> None:
    assert path(where) == written


def test_a_mistake_is_one_line_with_everything() -> None:
    whole = Mistake(("a", 1, "b"), "is odd", "x\ny", "even ones")
    assert str(whole) == 'a#2.b = "x\\ny": is odd; allowed: even ones'
    assert str(Mistake(("a",), "is missing")) == "a: is missing"
    assert whole.above() == {("a",), ("a", 1), ("a", 1, "b")}


def test_values_are_shown_as_toml_would_and_cut() -> None:
    assert [literal(v) for v in ("a", 1, True, ["x"], {"k": 1})] == [
        '"a"',
        "1",
        "true",
        '["x"]',
        '{"k": 1}',
    ]
    assert len(literal("x" * 500)) == 60
    assert literal("x" * 500).endswith("…")


def test_fields_know_their_shape() -> None:
    fields = Shelf.model_fields
    assert [nested(fields[n]) for n in ("top", "box")] == [Box, Box]
    assert [repeated(fields[n]) for n in ("top", "box", "spare")] == [False, True, False]
    assert nested(Box.model_fields["port"]) is None
    assert allowed(Box.model_fields["port"]) == "a number, 1 to 65535"
    assert allowed(fields["top"]) == ""


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"top": {"label": "a"}}, []),
        ({}, ["top: is missing: write [top] with label"]),
        (
            {"top": {}},
            [
                "top.label: is missing (What is written on it); allowed: "
                "1 to 63 letters, digits and hyphens, no hyphen at either end"
            ],
        ),
        (
            {"top": {"label": "a", "prt": 1}},
            ["top.prt: there is no such setting; did you mean port?; allowed: label, port"],
        ),
        (
            {"top": {"label": "a", "zzz": 1}},
            ["top.zzz: there is no such setting; allowed: label, port"],
        ),
        (
            {"top": {"label": "a"}, "Boxx": []},
            ["Boxx: there is no such setting; did you mean box?; allowed: top, box, spare"],
        ),
        (
            {
                "top": {"label": "a", "port": 0},
                "box": [{"label": "b"}, {"label": "c", "port": 99999}],
            },
            [
                "top.port = 0: is not a port number; allowed: a number, 1 to 65535",
                "box#2.port = 99999: is not a port number; allowed: a number, 1 to 65535",
            ],
        ),
        ({"top": 3}, ["top = 3: is not a table; write [top]"]),
        ({"top": {"label": "a"}, "box": {}}, ["box = {}: is not a table; write [[box]]"]),
        ({"top": {"label": "a"}, "box": [3]}, ["box#1 = 3: is not a table; write [[box]]"]),
    ],
)
def test_what_people_are_told(data: object, expected: list[str]) -> None:
    assert told(data) == expected


def test_a_draft_of_what_is_right_is_the_thing_itself() -> None:
    data = {"top": {"label": "a", "port": 5}, "box": [{"label": "b"}], "spare": {"label": "s"}}
    assert draft(Shelf, data) == Shelf.model_validate(data)


def test_a_draft_keeps_the_good_and_drops_the_bad() -> None:
    made = draft(Shelf, {"top": {"label": "_", "port": 5}, "box": [{}, {"label": "b", "port": 0}]})
    facts: list[Any] = [made.top.label, made.top.port]
    facts += [(row.label, row.port) for row in made.box]
    assert facts == [None, 5, (None, None), ("b", None)]


@pytest.mark.parametrize(
    "data", [None, [], 3, {"top": 3}, {"box": {"a": 1}}, {"box": 3}, {"box": [3, None]}]
)
def test_a_draft_is_made_of_anything(data: object) -> None:
    made = draft(Shelf, data)
    assert isinstance(made.box, tuple)
