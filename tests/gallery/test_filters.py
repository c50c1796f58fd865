"""Filters: their form, and every store's answer against the plain reading of it."""

from __future__ import annotations

import json
import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gallery.galleries import FIRST, OLD, vectors

from nobackfill.errors import GalleryError
from nobackfill.gallery import Gallery, Store, parse_filter
from nobackfill.gallery.filters import AnyOf, Equals, Not, Within, matches

KEYS = ("lang", "a.b", "q\"'%s", "x[]", "☃", "not")
SCALARS: list[Any] = ["en", "", "1", "true", 'a"b', True, False, None, 0, 1, -3, 1.0, 2.5, 0.1, 1e-7, 2**53 - 1, "ü\\n"]
VALUES: list[Any] = [*SCALARS, ["en", 1], {"en": 1}, [], {}, 2**60]
scalars = st.sampled_from(SCALARS)
bounds = st.sampled_from([value for value in SCALARS if isinstance(value, int | float) and not isinstance(value, bool)])
payloads = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=4)


def ranges(low: Any, high: Any, above: str, below: str) -> dict[str, Any]:
    return {key: each for key, each in ((above, low), (below, high)) if each is not None}


conditions = st.one_of(
    scalars,
    st.builds(lambda values: {"in": values}, st.lists(scalars, max_size=3)),
    st.builds(ranges, bounds, bounds | st.none(), st.sampled_from([">=", ">"]), st.sampled_from(["<=", "<"])),
)
plain = st.dictionaries(st.sampled_from(KEYS[:-1]), conditions, max_size=2)
filters = st.builds(lambda both, inner: both if inner is None else {**both, "not": inner}, plain, plain | st.none())


def naive(where: dict[str, Any], payload: dict[str, Any]) -> bool:
    """The definition, word for word."""

    def equal(one: Any, other: Any) -> bool:
        if isinstance(one, list | dict):
            return False
        return json.dumps(one) == json.dumps(other) or (
            type(one) in (int, float) and type(other) in (int, float) and one == other
        )

    for key, condition in where.items():
        if key == "not" and isinstance(condition, dict):
            if naive(condition, payload):
                return False
            continue
        if key not in payload:
            return False
        value = payload[key]
        for sign, each in (condition if isinstance(condition, dict) else {"==": condition}).items():
            number = type(value) in (int, float)
            if sign == "==":
                holds = equal(value, each)
            elif sign == "in":
                holds = any(equal(value, one) for one in each)
            else:
                compare = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}[sign]
                holds = number and compare(value, each)
            if not holds:
                return False
    return True


@given(filters, payloads)
def test_matches_is_the_plain_reading(where: dict[str, Any], payload: dict[str, Any]) -> None:
    assert matches(parse_filter(where), payload) == naive(where, payload)
    assert parse_filter(json.dumps(where)) == parse_filter(where)


def test_the_form() -> None:
    text = '{"lang": "en", "year": {">=": 2020, "<": 2024}, "tag": {"in": ["a", 1]}, "not": {"draft": true}}'
    assert parse_filter(text) == (
        Equals("lang", "en"),
        Within("year", 2020, 2024, low_open=False, high_open=True),
        AnyOf("tag", ("a", 1)),
        Not((Equals("draft", True),)),
    )
    assert parse_filter({}) == ()
    assert not matches(parse_filter({"a": 1}), {"a": True})
    assert not matches(parse_filter({"a": 1}), {})
    assert matches(parse_filter({"not": {"a": 1}}), {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "expected an object"),
        ({"a": [1]}, "key 'a': expected text, a number, true, false or null, found [1]"),
        ({"a": {}}, "found nothing"),
        ({"a": {"=>": 1}}, "expected a value, or an object with >=, >, <=, < or in; found '=>'"),
        ({"a": {">=": "x"}}, ">= expects a number, found 'x'"),
        ({"a": {">=": True}}, ">= expects a number, found True"),
        ({"a": {">=": 1, ">": 0}}, "at most one lower and one upper bound"),
        ({"a": {"in": "abc"}}, '"in" expects a list'),
        ({"a": float("nan")}, "not finite"),
        ({"a": 2**53}, "too large"),
        ({"a": "\0"}, "no store can hold"),
        ({"a": "\udce9"}, "no store can hold"),
        ("[" * 100_000, "not JSON"),
        ('{"not": ' * 400 + "{}" + "}" * 400, '"not" within "not", more than 20 deep'),
        ({"a": 10**400}, "too large"),
        ({"a": {"<": float("inf")}}, "not finite"),
    ],
)
def test_other_forms_are_refused_in_one_line(given: Any, message: str) -> None:
    with pytest.raises(GalleryError) as caught:
        parse_filter(given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_store_answers_as_the_plain_reading_does(store: Store) -> None:
    random = np.random.default_rng(0)
    rows = vectors(OLD, 3, 120)
    items: list[dict[str, Any]] = [
        {KEYS[key]: VALUES[random.integers(len(VALUES))] for key in random.permutation(len(KEYS))[: 1 + place % 4]}
        for place in range(len(rows))
    ]
    names = [f"item {place}" for place in range(len(rows))]
    gallery = Gallery.create(store, FIRST, [(names, rows, items)])
    query = vectors(OLD, 4, 1)
    order = [names[place] for place in np.argsort(-(query @ rows.T)[0])]

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(filters)
    def check(where: dict[str, Any]) -> None:
        right = {name for name, payload in zip(names, items, strict=True) if naive(where, payload)}
        assert gallery.count(where) == len(right)
        (hits,) = gallery.search(query, 10, FIRST.fingerprint, where=where)
        assert [hit.id for hit in hits] == [name for name in order if name in right][:10]
        found = [name for ids in store.ids(1, 50, parse_filter(where)) for name in ids]
        assert found == [name for name in names if name in right]

    check()
    assert store.payloads(names) == dict(zip(names, items, strict=True))
