"""Filters in Qdrant, exact for any key and value.

Qdrant's own conditions take a list's values one by one, split keys at dots and (in local mode) mix up `true` and 1. So
a point carries what filters need in a form of its own: `tokens`, one text for each scalar of the payload, and
`numbers`, its numbers under safe keys.
"""

from __future__ import annotations

import json
from types import ModuleType
from typing import TYPE_CHECKING

from nobackfill.gallery.filters import AnyOf, Condition, Equals, Not
from nobackfill.gallery.filters import Filter as Where
from nobackfill.gallery.stores.base import Payload

if TYPE_CHECKING:
    from qdrant_client.models import Filter


def searchable(payload: Payload) -> dict[str, object]:
    """What a point carries besides its payload, for filters."""
    scalars = {key: value for key, value in payload.items() if value is None or isinstance(value, str | int | float)}
    numbers = {
        _key(key): float(value)
        for key, value in payload.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return {"tokens": [_token(key, value) for key, value in scalars.items()], "numbers": numbers}


def qdrant_filter(models: ModuleType, where: Where, generation: int | None = None) -> Filter:
    """Qdrant's form of a filter, of items of one generation (None: of all)."""
    must = [_condition(models, condition) for condition in where]
    if generation is not None:
        must.append(models.FieldCondition(key="generation", match=models.MatchValue(value=generation)))
    return models.Filter(must=must)


def _condition(models: ModuleType, condition: Condition) -> object:
    if isinstance(condition, Not):
        if not condition.conditions:  # that nothing holds is never true
            return models.HasIdCondition(has_id=[])
        return models.Filter(must_not=[qdrant_filter(models, condition.conditions)])
    if isinstance(condition, Equals):
        return _any(models, [_token(condition.key, condition.value)])
    if isinstance(condition, AnyOf):
        if not condition.values:
            return models.HasIdCondition(has_id=[])
        return _any(models, [_token(condition.key, value) for value in condition.values])
    low, high = condition.low, condition.high
    bounds = {"gt" if condition.low_open else "gte": low, "lt" if condition.high_open else "lte": high}
    return models.FieldCondition(key=f"numbers.{_key(condition.key)}", range=models.Range(**bounds))


def _any(models: ModuleType, tokens: list[str]) -> object:
    return models.FieldCondition(key="tokens", match=models.MatchAny(any=tokens))


def _token(key: str, value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1.0 is 1
    return json.dumps([key, value])


def _key(key: str) -> str:
    return "k" + key.encode().hex()
