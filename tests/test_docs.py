"""The documentation is what the code says, and its links lead somewhere."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])


def test_generated_parts_are_current() -> None:
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    assert generate["stale"]() == [], "make docs"


def test_a_part_is_replaced_and_nothing_else() -> None:
    fill = runpy.run_path(str(ROOT / "docs" / "generate.py"))["fill"]
    text = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb"
    assert fill(text, {"x": lambda: "new\n"}) == text.replace("old", "new")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} points to {target}"
