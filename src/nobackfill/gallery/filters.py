"""Conditions on payloads, in one small form that every store answers exactly.

    {"lang": "en", "year": {">=": 2020, "<": 2024}, "tag": {"in": ["a", "b"]}, "not": {"draft": true}}

All conditions hold at once. Keys are top-level keys of the payload. A key that is missing fulfils no condition, so
`not` of that condition holds. `true` is not 1; 1 is 1.0. A value that is a list or an object equals nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from nobackfill.errors import GalleryError

Scalar = str | bool | int | float | None
EXACT = 2**53  # numbers below this are the same in every store
DEEPEST = 20
RANGES = (">=", ">", "<=", "<")


@dataclass(frozen=True)
class Equals:
    """The payload has this value under the key."""

    key: str
    value: Scalar


@dataclass(frozen=True)
class Within:
    """The payload has a number between two bounds; None is no bound, an open end leaves the bound itself out."""

    key: str
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False


@dataclass(frozen=True)
class AnyOf:
    """The payload has one of these values under the key."""

    key: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Not:
    """The conditions do not all hold."""

    conditions: Filter


Condition = Equals | Within | AnyOf | Not
Filter = tuple[Condition, ...]


def parse_filter(given: str | Mapping[str, object], depth: int = 0) -> Filter:
    """A filter from JSON text or the object it stands for; see the module.

    Args:
        given: the filter.
        depth: how many `not` it stands in.

    Raises:
        GalleryError: if it is not of that form.
    """
    if depth > DEEPEST:
        raise GalleryError(f'filter: "not" within "not", more than {DEEPEST} deep')
    tree: object = given
    if isinstance(given, str):
        try:
            tree = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise GalleryError(f"filter {given[:80]!r}: not JSON ({str(error).lower()[:80]})") from None
    if not isinstance(tree, Mapping):
        raise GalleryError(f'filter {str(given)[:80]!r}: expected an object such as {{"lang": "en"}}')
    return tuple(condition for key, value in tree.items() for condition in _conditions(key, value, depth))


def matches(where: Filter, payload: Mapping[str, object]) -> bool:
    """Whether a payload fulfils all conditions: what every store's translation has to agree with."""
    return all(_holds(condition, payload) for condition in where)


def same(one: object, other: object) -> bool:
    """Equality of JSON scalars: `true` is not 1, and 1 is 1.0; lists and objects equal nothing."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if _number(one) and _number(other):
        return one == other
    return type(one) is type(other) and isinstance(one, str | None) and one == other


def _holds(condition: Condition, payload: Mapping[str, object]) -> bool:
    if isinstance(condition, Not):
        return not matches(condition.conditions, payload)
    if condition.key not in payload:
        return False
    value = payload[condition.key]
    if isinstance(condition, Equals):
        return same(value, condition.value)
    if isinstance(condition, AnyOf):
        return any(same(value, each) for each in condition.values)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    low, high = condition.low, condition.high
    above = low is None or (value > low if condition.low_open else value >= low)
    below = high is None or (value < high if condition.high_open else value <= high)
    return above and below


def _conditions(key: object, value: object, depth: int) -> Filter:
    if not isinstance(key, str):
        raise GalleryError(f"filter: key {key!r}: expected text")
    _check_text(key)
    if not isinstance(value, Mapping):
        return (Equals(key, _scalar(key, value)),)
    if key == "not":
        return (Not(parse_filter(value, depth + 1)),)
    unknown = [name for name in value if name not in (*RANGES, "in")]
    if unknown or not value:
        found = ", ".join(map(repr, unknown)) or "nothing"
        raise GalleryError(
            f"filter: key {key!r}: expected a value, or an object with >=, >, <=, < or in; found {found}"
        )
    conditions: list[Condition] = []
    if "in" in value:
        values = value["in"]
        if not isinstance(values, list | tuple):
            raise GalleryError(f'filter: key {key!r}: "in" expects a list, found {values!r}')
        conditions.append(AnyOf(key, tuple(_scalar(key, each) for each in values)))
    bounds = {name: _bound(key, name, value[name]) for name in RANGES if name in value}
    if {">=", ">"} <= set(bounds) or {"<=", "<"} <= set(bounds):
        raise GalleryError(f"filter: key {key!r}: expected at most one lower and one upper bound")
    if bounds:
        low, high = bounds.get(">=", bounds.get(">")), bounds.get("<=", bounds.get("<"))
        conditions.append(Within(key, low, high, ">" in bounds, "<" in bounds))
    return tuple(conditions)


def _scalar(key: str, value: object) -> Scalar:
    if isinstance(value, str):
        _check_text(value)
        return value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _exact(key, value)
    raise GalleryError(f"filter: key {key!r}: expected text, a number, true, false or null, found {value!r}")


def _bound(key: str, name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise GalleryError(f"filter: key {key!r}: {name} expects a number, found {value!r}")
    return _exact(key, value)


def _exact(key: str, value: float) -> float:
    if not abs(value) < EXACT:  # nor is NaN
        raise GalleryError(f"filter: key {key!r}: {value!r:.40} is not finite or too large; expected less than 2**53")
    return value


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_text(text: str) -> None:
    if "\0" in text or (not text.isprintable() and any("\ud800" <= sign <= "\udfff" for sign in text)):
        raise GalleryError(f"filter: {text[:80]!r}: holds a character that no store can hold")
