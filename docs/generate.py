"""Write the generated parts of the documentation anew, from the code that they describe.

A part stands between ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``. ``--check`` writes
nothing and fails when a part is not what the code says.
"""

import ast
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from netboot.cli import settings_text
from netboot.http import metrics
from netboot.iscsi import keys
from netboot.scsi import commands, inquiry, logs, modes

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # what the tests hold us to is a table of theirs

from tests.iscsi import mistakes as wrong  # noqa: E402
from tests.iscsi.promises import PROMISES  # noqa: E402


def first_words(path: Path) -> str:
    """The first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return text.splitlines()[0] if text else ""


def tree() -> str:
    """The package, a line a module or folder, in their own words."""
    package = ROOT / "netboot"
    rows = [
        (path.name, first_words(path))
        for path in sorted(package.glob("*.py"))
        if not path.name.startswith("__")
    ]
    rows += [
        (f"{path.parent.name}/", first_words(path))
        for path in sorted(package.glob("*/__init__.py"))
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"    {name:<{width}}  {words}" for name, words in rows]
    return "\n".join(["```text", "netboot/", *lines, "```"])


def login_keys() -> str:
    """The table of login keys."""
    rows = [
        f"| {row.name} | {row.rule} | {row.default} | {row.ours} | {row.use} | {row.ref} |"
        for row in keys.KEYS.values()
    ]
    head = "| key | rule | default | ours | stage | RFC 7143 |"
    return "\n".join([head, "|---" * 6 + "|", *rows])


def figures() -> str:
    """The table of metrics."""
    rows = [
        f"| `{row.name}` | {row.type} | {row.help} | "
        f"{', '.join(f'`{label}`' for label in row.labels)} |"
        for row in metrics.METRICS
    ]
    return "\n".join(["| name | type | what it is | labels |", "|---" * 4 + "|", *rows])


def promises() -> str:
    """What is done of RFC 7143, and the tests that hold it."""
    rows = [
        f"| {each.section} | {each.promise} | {', '.join(f'`{_short(t)}`' for t in each.tests)} |"
        for each in PROMISES
    ]
    return "\n".join(["| RFC 7143 | what we do | held by |", "|---" * 3 + "|", *rows])


def _short(test: str) -> str:
    file, function = test.split("::")
    return f"{Path(file).stem}::{function}"


def mistakes() -> str:
    """What an initiator must not do, section by section."""
    rows = [
        f"| {each.section} | {each.demand} | {len(each.rows)} |"
        for each in (*wrong.FULL, *wrong.DISCOVERY, *wrong.LOGINS)
    ]
    return "\n".join(["| RFC 7143 | what comes of it | rows |", "|---" * 3 + "|", *rows])


def scsi_pages() -> str:
    """The pages that INQUIRY, MODE SENSE and LOG SENSE have."""
    vital = [(f"VPD `{row.code:02X}`", row.name, row.reference) for row in inquiry.PAGES]
    mode = [
        (
            f"mode `{row.code:02X}`",
            f"{row.name}; changeable: {', '.join(knob.name for knob in row.knobs) or 'nothing'}",
            row.reference,
        )
        for row in modes.PAGES
    ]
    log = [
        ("log `00`, `00/FF`", "Supported Log Pages, and Subpages", "SPC-4 7.3.18"),
        *((f"log `{row.code:02X}`", row.name, row.reference) for row in logs.PAGES),
    ]
    rows = [f"| {code} | {name} | {reference} |" for code, name, reference in vital + mode + log]
    return "\n".join(["| Page | What | Reference |", "|---" * 3 + "|", *rows])


PARTS: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "README.md": {"settings": settings_text.documentation, "tree": tree},
    "docs/iscsi.md": {"keys": login_keys, "promises": promises, "mistakes": mistakes},
    "docs/metrics.md": {"metrics": figures},
    "docs/scsi.md": {"commands": commands.markdown, "pages": scsi_pages},
    "docs/settings.md": {"settings": settings_text.documentation},
}


def fill(text: str, parts: Mapping[str, Callable[[], str]]) -> str:
    """``text`` with each part between its marks replaced."""
    for name, make in parts.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, rest = text.split(begin)
        text = before + begin + make().strip() + "\n" + end + rest.split(end)[1]
    return text


def stale() -> list[Path]:
    """The files whose generated parts are not what the code says."""
    return [
        ROOT / name
        for name, parts in PARTS.items()
        if (ROOT / name).read_text() != made(name, parts)
    ]


def made(name: str, parts: Mapping[str, Callable[[], str]]) -> str:
    """What a file would be if it were written now."""
    return fill((ROOT / name).read_text(), parts)


def main() -> int:
    if "--check" in sys.argv:
        for path in stale():
            print(f"{path.relative_to(ROOT)} is not current: make docs", file=sys.stderr)
        return int(bool(stale()))
    for name, parts in PARTS.items():
        (ROOT / name).write_text(made(name, parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
