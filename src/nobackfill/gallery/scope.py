"""A gallery held to some of its items: those whose payload has certain values, such as one tenant's."""

from __future__ import annotations

from collections.abc import Mapping

from nobackfill.errors import GalleryError
from nobackfill.gallery.filters import Equals, Filter, Scalar, matches, parse_filter, same
from nobackfill.gallery.stores.base import Payload

Scope = Mapping[str, Scalar]


def checked_scope(scope: Mapping[str, object] | None) -> dict[str, Scalar]:
    """A scope; raises `GalleryError` unless its values are text, numbers, true, false or null."""
    conditions = parse_filter(scope or {})
    if not all(isinstance(condition, Equals) for condition in conditions):
        raise GalleryError(f"scope {dict(scope or {})!r}: expected a value for each key, such as {{'tenant': 'a'}}")
    return {condition.key: condition.value for condition in conditions if isinstance(condition, Equals)}


def same_scope(one: Scope, other: Scope) -> bool:
    """Whether two scopes hold to the same items: `true` is not 1."""
    return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())


def scope_filter(scope: Scope, where: str | Mapping[str, object] | None = None) -> Filter | None:
    """The filter that holds to a scope and, if given, to a filter besides; None: all items."""
    conditions = tuple(Equals(key, value) for key, value in scope.items())
    return (*conditions, *(() if where is None else parse_filter(where))) or None


def stamped(scope: Scope, name: str, payload: Payload) -> Payload:
    """A payload with the values of the scope; raises `GalleryError` if it has others."""
    for key, value in scope.items():
        if key in payload and not same(payload[key], value):
            raise GalleryError(f"item {name!r}: its {key!r} is {payload[key]!r}, but this gallery is held to {value!r}")
    return {**payload, **scope}


def inside(scope: Scope, payloads: Mapping[str, Payload]) -> list[str]:
    """Those of these items that are in the scope."""
    where = scope_filter(scope) or ()
    return [name for name, payload in payloads.items() if matches(where, payload)]
