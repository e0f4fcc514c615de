"""What is wrong with a settings file, in words: path, value, reason, and what is allowed.

Knows pydantic models whose fields carry ``Allowed``, but no setting by name. Every mistake is
found at once: the fields by pydantic, and what does not go together by the checks that
``config`` runs over a draft in which each field that is wrong is None.
"""

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, get_args

from pydantic import BaseModel, PlainValidator, ValidationError
from pydantic.fields import FieldInfo

from netboot.values import Allowed

Where: TypeAlias = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)
#: A value longer than this is cut in the message.
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing to mend. ``where`` counts tables from 0; people are told from 1."""

    where: Where
    problem: str
    value: object = None
    allowed: str = ""

    def above(self) -> set[Where]:
        """``where`` and every table around it."""
        return {self.where[:length] for length in range(1, len(self.where) + 1)}

    def __str__(self) -> str:
        shown = "" if self.value is None else f" = {literal(self.value)}"
        allowed = f"; allowed: {self.allowed}" if self.allowed else ""
        return f"{path(self.where)}{shown}: {self.problem}{allowed}"


def path(where: Where) -> str:
    """``client#2.mac``: the second [[client]] table's mac."""
    text = ""
    for part in where:
        text += f"#{part + 1}" if isinstance(part, int) else f".{part}" if text else part
    return text


def literal(value: object) -> str:
    """A value as TOML would have it, cut when it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def nested(field: FieldInfo) -> type[BaseModel] | None:
    """The model of the table or tables that this field holds, if it holds any."""
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def repeated(field: FieldInfo) -> bool:
    """Whether the field is a list of tables: ``[[profile]]``."""
    return nested(field) is not None and field.annotation is not nested(field)


def facts(field: FieldInfo, kind: type) -> Iterator[Any]:
    """The pieces of metadata of one kind, however deep ``| None`` has buried them."""
    found = list(field.metadata)
    for argument in get_args(field.annotation):
        found.extend(getattr(argument, "__metadata__", ()))
    yield from (item for item in found if isinstance(item, kind))


def hidden(field: FieldInfo) -> bool:
    """Whether a field's value must not be shown: a secret."""
    return any(fact.hidden for fact in facts(field, Allowed))


def allowed(field: FieldInfo) -> str:
    """What a field may be, in words."""
    return next((fact.words for fact in facts(field, Allowed)), "")


def _field(model: type[BaseModel], where: Where) -> FieldInfo | None:
    """The field at ``where``, or None when there is no such."""
    found: FieldInfo | None = None
    inside: type[BaseModel] | None = model
    for part in where:
        if isinstance(part, int):
            continue
        found = inside.model_fields.get(part) if inside else None
        inside = nested(found) if found else None
    return found


def _table(model: type[BaseModel], where: Where) -> type[BaseModel]:
    field = _field(model, where)
    return (nested(field) if field else None) or model


def within(error: ValidationError, model: type[BaseModel]) -> list[Mistake]:
    """The mistakes that pydantic found, each field's own."""
    return [_translate(found, model) for found in error.errors(include_url=False)]


def _translate(found: Mapping[str, Any], model: type[BaseModel]) -> Mistake:
    where: Where = tuple(found["loc"])
    field = _field(model, where)
    words = allowed(field) if field else ""
    kind = found["type"]
    if kind == "missing":
        if field and nested(field):
            needed = [n for n, f in _table(model, where).model_fields.items() if f.is_required()]
            return Mistake(where, f"is missing: write [{path(where)}] with {', '.join(needed)}")
        about = (field.description or "").rstrip(".") if field else ""
        return Mistake(where, f"is missing ({about})", allowed=words)
    if kind == "extra_forbidden":
        known = list(_table(model, where[:-1]).model_fields)
        near = difflib.get_close_matches(str(where[-1]).lower(), known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return Mistake(where, f"there is no such setting{hint}", allowed=", ".join(known))
    if kind == "value_error":
        value = None if field and hidden(field) else found["input"]
        return Mistake(where, str(found["ctx"]["error"]), value, words)
    heading = f"[[{where[0]}]]" if field and repeated(field) else f"[{path(where)}]"
    return Mistake(where, f"is not a table; write {heading}", found["input"])


def draft(model: type[Model], data: object) -> Model:
    """``model`` from whatever of ``data`` is right; None for each field that is wrong.

    Not for use: only for checks of one field against another, which skip None.
    """
    table = data if isinstance(data, Mapping) else {}
    made: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        inside = nested(field)
        if inside and repeated(field):
            rows = table.get(name)
            made[name] = tuple(draft(inside, row) for row in (rows if type(rows) is list else ()))
        elif inside:
            made[name] = draft(inside, table.get(name, {}))
        elif name in table:
            made[name] = _value(field, table[name])
        else:
            made[name] = None if field.is_required() else field.default
    return model.model_construct(**made)


def _value(field: FieldInfo, value: object) -> object:
    for fact in facts(field, PlainValidator):
        try:
            return fact.func(value)
        except ValueError:
            return None
    return None
