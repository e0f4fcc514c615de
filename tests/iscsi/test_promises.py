"""The tests that a promise names are there, and run."""

import ast
from pathlib import Path

import pytest

from tests.iscsi.promises import PROMISES, Promise

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("promise", PROMISES, ids=[each.section for each in PROMISES])
def test_what_is_promised_is_tested(promise: Promise) -> None:
    assert promise.tests
    for test in promise.tests:
        file, function = test.split("::")
        body = ast.parse((TESTS / file).read_text()).body
        assert function in {each.name for each in body if isinstance(each, ast.FunctionDef)}, test


def test_a_section_is_promised_once() -> None:
    sections = [each.section for each in PROMISES]
    assert len(sections) == len(set(sections))
