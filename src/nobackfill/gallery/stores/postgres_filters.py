"""Filters as conditions on a jsonb column: keys and values travel as parameters."""

from __future__ import annotations

import json

from nobackfill.gallery.filters import AnyOf, Condition, Equals, Filter, Not


def filter_sql(where: Filter, column: str = "payload") -> tuple[str, list[object]]:
    """A condition in SQL and its parameters.

    Args:
        where: the filter.
        column: of payloads, as SQL; trusted.
    """
    parts: list[str] = []
    values: list[object] = []
    for condition in where:
        part, some = _condition(condition, column)
        parts.append(part)
        values += some
    return " AND ".join(parts) or "TRUE", values


def _condition(condition: Condition, column: str) -> tuple[str, list[object]]:
    if isinstance(condition, Not):
        inner, values = filter_sql(condition.conditions, column)
        return f"(({inner}) IS NOT TRUE)", values  # a missing key makes it NULL
    value = f"({column} -> %s::text)"
    if isinstance(condition, Equals):
        return f"({value} = %s::jsonb)", [condition.key, json.dumps(condition.value)]
    if isinstance(condition, AnyOf):
        return f"({value} = ANY(%s::text[]::jsonb[]))", [condition.key, [json.dumps(one) for one in condition.values]]
    bounds = [
        (sign, bound)
        for sign, bound in (
            (">" if condition.low_open else ">=", condition.low),
            ("<" if condition.high_open else "<=", condition.high),
        )
        if bound is not None
    ]
    inside = " AND ".join(f"{value}::numeric {sign} %s::numeric" for sign, _ in bounds)
    values = [each for _, bound in bounds for each in (condition.key, repr(bound))]
    return f"(CASE WHEN jsonb_typeof({value}) = 'number' THEN {inside} ELSE FALSE END)", [condition.key, *values]
