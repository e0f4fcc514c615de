"""The settings as people read them: an example file, the file in force, the documentation.

All of it comes from the fields of ``config``: no setting is named here.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from textwrap import wrap

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from netboot.config import Settings
from netboot.mistakes import allowed, hidden, nested, repeated
from netboot.values import Pool

_WIDTH = 78
#: What stands for a secret in ``--json``.
_UNSHOWN = "set, and not shown"


def toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Enum):
        return toml(value.value)
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key} = {toml(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple) and not isinstance(value, Pool):
        return f"[{', '.join(toml(item) for item in value)}]"
    if type(value) in (bool, int):
        return json.dumps(value)
    # TOML's basic strings are JSON's, but for DEL.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007F")


def sections() -> Iterator[tuple[str, type[BaseModel], bool]]:
    """Each table of the file: its name, its model, and whether it may be repeated."""
    for name, field in Settings.model_fields.items():
        model = nested(field)
        assert model is not None, f"{name} is a setting outside any table"
        yield name, model, repeated(field)


def tables(settings: Settings, name: str) -> Sequence[Mapping[str, object]]:
    """The tables of one name that the settings hold: one, or as many as there are."""
    found = getattr(settings, name)
    return [dict(table) for table in (found if isinstance(found, tuple) else (found,))]


def heading(name: str, many: bool) -> str:
    return f"[[{name}]]" if many else f"[{name}]"


def example() -> str:
    """A whole file with every setting, commented; what has no default and may stay out is not
    in force."""
    lines = ["# netboot.toml: all settings. `netboot config check FILE` tells every mistake."]
    for name, model, many in sections():
        lines += ["", *_comment(model.__doc__ or ""), heading(name, many)]
        for key, field in model.model_fields.items():
            lines += _comment(f"{field.description} Allowed: {allowed(field)}.")
            inert = field.default is None or field.default == {}
            mark = "# " if inert and not _chosen(name, key) else ""
            lines.append(f"{mark}{key} = {toml((field.examples or [None])[0])}")
    return "\n".join(lines) + "\n"


def _chosen(section: str, key: str) -> bool:
    """Optional settings that the example has in force: without them it would do nothing."""
    return (section, key) in {("dhcp", "pool"), ("client", "address"), ("unknown", "profile")}


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in wrap(" ".join(text.split()), _WIDTH, break_on_hyphens=False)]


def in_force(settings: Settings) -> str:
    """The settings as they are, defaults and all, as a file that means the same; but secrets."""
    lines: list[str] = []
    for name, model, many in sections():
        secret = _secret(model)
        for table in tables(settings, name):
            lines += ["", heading(name, many)]
            lines += [
                f"# {key} is set, and not shown" if key in secret else f"{key} = {toml(value)}"
                for key, value in table.items()
                if value is not None
            ]
    return "\n".join(lines[1:]) + "\n"


def plain(settings: Settings) -> dict[str, object]:
    """The same for ``--json``."""
    made: dict[str, object] = {}
    for name, model, many in sections():
        secret = _secret(model)
        found = [
            {
                key: _UNSHOWN if key in secret and value is not None else _json(value)
                for key, value in row.items()
            }
            for row in tables(settings, name)
        ]
        made[name] = found if many else found[0]
    return made


def _secret(model: type[BaseModel]) -> set[str]:
    return {key for key, field in model.model_fields.items() if hidden(field)}


def _json(value: object) -> object:
    if value is None or type(value) in (bool, int):
        return value
    if isinstance(value, list | tuple) and not isinstance(value, Pool):
        return [_json(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    return str(value.value if isinstance(value, Enum) else value)


def documentation() -> str:
    """The tables of the documentation, in Markdown: one for each section."""
    lines: list[str] = []
    for name, model, many in sections():
        lines += ["", f"### `{heading(name, many)}`", "", " ".join((model.__doc__ or "").split())]
        lines += ["", "| key | what it is | allowed | default |", "|---|---|---|---|"]
        lines += [
            f"| {' | '.join(_row(key, field))} |" for key, field in model.model_fields.items()
        ]
    return "\n".join(lines[1:]) + "\n"


def _row(key: str, field: FieldInfo) -> tuple[str, str, str, str]:
    if field.is_required():
        default = "**must be given**"
    else:
        default = "–" if field.default is None else f"`{toml(field.default)}`"
    return f"`{key}`", field.description or "", allowed(field), default
