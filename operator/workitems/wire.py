"""How a Job and the operator write each other JSON, at the cost of the standard library.

A run waits for its runner's Python, and importing pydantic would take most of that start. So what the two sides say to
each other are plain dataclasses, written and, where their writer is trusted, read here. Where it is not, the same
declarations, with the `Limit`s beside the types, are what pydantic enforces: imported only by whoever calls `strictly`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from enum import Enum
from typing import Any, ClassVar, Self

ACRONYMS = {"usd": "USD"}


def json_name(name: str) -> str:
    """`left_out_total` as `leftOutTotal`, `cost_usd` as `costUSD`."""
    first, *rest = name.split("_")
    return first + "".join(ACRONYMS.get(word) or word.capitalize() for word in rest)


@dataclasses.dataclass(frozen=True)
class Limit:
    """Beside a type in `Annotated`: what a strict reader accepts. `longest` counts characters, or entries of a list."""

    longest: int | None = None
    pattern: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Pydantic's own way to ask an annotation; called by pydantic alone."""
        wanted = {"max_length": self.longest, "pattern": self.pattern}
        return {**handler(source), **{key: value for key, value in wanted.items() if value is not None}}


class UnreadableError(ValueError):
    """Not the JSON that was expected. Its message names the field, never its value, which may be anybody's text."""


@dataclasses.dataclass(frozen=True)
class Message:
    """A frozen value with camelCase JSON names; unknown names of a newer version are ignored, not refused."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "alias_generator": json_name,
        "populate_by_name": True,
        "extra": "ignore",
    }

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dict: absent instead of null, except inside of lists, where null has its place in the order."""
        values = {json_name(field.name): getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: _written(value) for name, value in values.items() if value is not None}

    def dumps(self) -> str:
        """JSON in one line, without spaces."""
        return json.dumps(self.to_json(), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def loads(cls, text: str | bytes) -> Self:
        """Read what a trusted writer wrote: types are checked, limits are not. Raises UnreadableError."""
        try:
            body = json.loads(text)
        except ValueError as error:  # json's own message quotes nothing, but a UnicodeDecodeError does
            raise UnreadableError("no JSON") from error
        except RecursionError as error:
            raise UnreadableError("nested too deeply") from error
        return _message(cls, body, "")

    @classmethod
    def strictly(cls, text: str) -> Self:
        """Read what a stranger may have written. Raises pydantic.ValidationError for all that exceeds its limits."""
        # mypy takes the __hash__ of the instances for that of their class.
        return _adapter(cls).validate_json(text)  # type: ignore[arg-type,no-any-return]


def _written(value: Any) -> Any:
    match value:
        case Message():
            return value.to_json()
        case tuple():
            return [_written(entry) for entry in value]
        case Enum():
            return value.value
        case _:
            return value


M = typing.TypeVar("M", bound=Message)


def _message(kind: type[M], body: Any, where: str) -> M:
    if not isinstance(body, dict):
        raise UnreadableError(where or "no object")
    hints = typing.get_type_hints(kind)
    values = {}
    for field in dataclasses.fields(kind):
        name = json_name(field.name)
        if name in body:
            values[field.name] = _read(hints[field.name], body[name], f"{where}.{name}".lstrip("."))
        elif field.default is dataclasses.MISSING:
            raise UnreadableError(f"{where}.{name}".lstrip("."))
    return kind(**values)


def _read(kind: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        inner = next(entry for entry in typing.get_args(kind) if entry is not types.NoneType)
        return None if value is None else _read(inner, value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(typing.get_args(kind)[0], entry, f"{where}.{n}") for n, entry in enumerate(value))
    if isinstance(kind, type) and issubclass(kind, Message):
        return _message(kind, value, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        try:
            return kind(value)
        except ValueError as error:
            raise UnreadableError(where) from error
    # Exactly: a bool is an int for isinstance.
    if type(value) is not kind:
        raise UnreadableError(where)
    return value


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter  # noqa: PLC0415 - see the module's docstring

    return TypeAdapter(kind)
