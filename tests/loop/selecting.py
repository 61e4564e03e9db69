"""Label and field selectors, read as strictly as the API server reads them."""

from __future__ import annotations

import re
from typing import Any

from tests.loop.store import JSON, LABEL_VALUE, Kind, Refused, Selector

_TERM = re.compile(r"((?:[^\\,]|\\.)*)(,|$)")
_LABEL = re.compile(r"(?P<name>[A-Za-z0-9./_-]+)((?P<sign>==|!=|=)(?P<value>.*))?")


def by_fields(kind: Kind, text: str) -> Selector:
    """`a.b=c,d!=e`; a comma, an equals sign and a backslash in a value are escaped by a backslash."""
    supported = ("metadata.name", "metadata.namespace", *kind.fields)
    terms = []
    for term in _split(text):
        name, sign, value = _operator(term)
        if name not in supported:
            raise Refused(400, "BadRequest", f'field label "{name}" not supported for {kind.name}')
        terms.append((name.split("."), sign, _unescaped(value)))
    return lambda body: all((_at(body, path) == value) is (sign != "!=") for path, sign, value in terms)


def by_labels(text: str) -> Selector:
    """`a`, `a=b` and `a!=b`; the other forms are refused because nobody here uses them."""
    terms = []
    for term in text.split(",") if text else ():
        match = _LABEL.fullmatch(term)
        if match is None or not LABEL_VALUE.fullmatch(match["value"] or "") or len(match["value"] or "") > 63:
            raise Refused(400, "BadRequest", f"unable to parse requirement: {term}")
        terms.append((match["name"], match["sign"], match["value"]))

    def selects(body: JSON) -> bool:
        labels = body["metadata"].get("labels") or {}
        return all(
            name in labels if sign is None else (labels.get(name) == value) is (sign != "!=")
            for name, sign, value in terms
        )

    return selects


def _split(text: str) -> list[str]:
    return [match[1] for match in _TERM.finditer(text) if match[1]]


def _operator(term: str) -> tuple[str, str, str]:
    for index in range(len(term)):
        for sign in ("!=", "==", "="):
            if term.startswith(sign, index):
                return term[:index], sign, term[index + len(sign) :]
    raise Refused(400, "BadRequest", f"invalid selector: '{term}'; can't understand '{term}'")


def _unescaped(value: str) -> str:
    if re.fullmatch(r"([^\\,=]|\\[\\,=])*", value) is None:
        raise Refused(400, "BadRequest", f"invalid field selector: unescaped character in value: {value}")
    return re.sub(r"\\(.)", r"\1", value)


def _at(body: Any, path: list[str]) -> str:
    for part in path:
        body = body.get(part) if isinstance(body, dict) else None
    return "" if body is None else str(body)
