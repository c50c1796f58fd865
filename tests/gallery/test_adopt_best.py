"""A search of an adopted table is one statement: it finds what a search of each generation finds, and says as much."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.gallery.applications import NAME, SECOND, Application, backfilled
from tests.gallery.galleries import COUNT, NEW, NEW_VECTORS, OLD, OLD_VECTORS, vectors

from nobackfill.evaluation.rule_choice import RuleChoice
from nobackfill.evaluation.scoring_rules import ScoringRule
from nobackfill.gallery import Gallery, renewing
from nobackfill.gallery.expected import paired_samples
from nobackfill.gallery.searching import Hit
from nobackfill.gallery.stores import adopted_answers
from nobackfill.gallery.stores.adopted_layout import Layout

FILTERS: list[dict[str, Any] | None] = [
    None,
    {"lang%": "en"},
    {"year": {">=": 2010}, "not": {"draft": True}},
    {"no": 1},
]
QUERIES = vectors(NEW, 11, 5)


@pytest.fixture
def application(server: str) -> Iterator[Application]:
    made = Application(server, scale=3.0)
    yield made
    made.close()


def mixed(application: Application, layout: Layout, *, index: bool, slope: float, intercept: float) -> Gallery:
    """A third is new; old scores are compared by this line."""
    if not index:
        application.run("DROP INDEX {schema}.by_vector")
    gallery = application.adopt(layout=layout)
    rule = ScoringRule("calibrated", slope, intercept)
    gallery.add_generation(SECOND, NEW_VECTORS, rules={1: RuleChoice(rule, {}, None)})
    backfilled(gallery, application, COUNT // 3)
    application.write(2, OLD_VECTORS[3])  # old again
    return gallery


def both_ways(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch, k: int, where: dict[str, Any] | None, fingerprint: str
) -> tuple[list[list[Hit]], list[list[Hit]]]:
    queries = QUERIES if fingerprint == SECOND.fingerprint else OLD_VECTORS[:5]
    one = gallery.search(queries, k, fingerprint, where=where)
    with monkeypatch.context() as patch:
        patch.setattr(gallery.store, "best", lambda *_: None)
        return one, gallery.search(queries, k, fingerprint, where=where)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.6, -0.2)])
@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize(
    ("layout", "widths"), [("new-column", (100, 5000)), ("same-column", (100, 5000)), ("same-column", (3, 9))]
)
def test_one_statement_finds_what_a_search_of_each_generation_finds(
    application: Application,
    monkeypatch: pytest.MonkeyPatch,
    layout: Layout,
    index: bool,
    slope: float,
    intercept: float,
    widths: tuple[int, int],
) -> None:
    monkeypatch.setattr(adopted_answers, "WIDTHS", widths)
    gallery = mixed(application, layout, index=index, slope=slope, intercept=intercept)
    for fingerprint in (SECOND.fingerprint, f"name:{NAME}"):
        for where in FILTERS:
            for k in (1, 7, COUNT + 5):
                one, other = both_ways(gallery, monkeypatch, k, where, fingerprint)
                for found, wanted in zip(one, other, strict=True):
                    assert [hit.id for hit in found] == [hit.id for hit in wanted]
                    np.testing.assert_allclose(
                        [hit.score for hit in found], [hit.score for hit in wanted], rtol=0, atol=1e-6
                    )
                    assert [(hit.generation, hit.payload) for hit in found] == [
                        (hit.generation, hit.payload) for hit in wanted
                    ]


@pytest.mark.parametrize("layout", ["new-column", "same-column"])
def test_a_search_asks_the_server_twice(
    application: Application, monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    gallery = mixed(application, layout, index=False, slope=1.0, intercept=0.0)
    gallery.search(QUERIES[:1], 3, SECOND.fingerprint)
    store: Any = gallery.store
    sent: list[int] = []
    answers = store.db.answers

    def counted(statements: list[Any]) -> Any:
        sent.append(len(statements))
        return answers(statements)

    def refuse(*_: Any) -> Any:
        raise AssertionError("takes another way to the server")

    monkeypatch.setattr(store.db, "answers", counted)
    monkeypatch.setattr(store.db, "transaction", refuse)
    assert len(gallery.search(QUERIES[:1], 3, SECOND.fingerprint)[0]) == 3
    assert sent == [1, 1]  # the manifest, and the search with payloads
    sent.clear()
    assert len(gallery.search(QUERIES, 3, SECOND.fingerprint)) == 5
    assert sent == [1, 5]


def test_columns_that_come_and_go_are_seen_at_once(application: Application) -> None:
    gallery = mixed(application, "new-column", index=False, slope=1.0, intercept=0.0)
    before = gallery.search(QUERIES[:1], 1, SECOND.fingerprint)[0][0]
    assert "colour" not in before.payload
    application.run("ALTER TABLE {schema}.{table} ADD COLUMN colour text DEFAULT 'red'")
    after = gallery.search(QUERIES[:1], 1, SECOND.fingerprint)[0][0]
    assert after.payload == {**before.payload, "colour": "red"}
    application.run("ALTER TABLE {schema}.{table} DROP COLUMN colour, DROP COLUMN price")
    last = gallery.search(QUERIES, 1, SECOND.fingerprint)[0][0]  # of the queries sent together, each one fails
    assert last.payload == {key: each for key, each in before.payload.items() if key != "price"}


def test_after_a_switch_items_that_are_old_are_not_found(application: Application) -> None:
    gallery = mixed(application, "same-column", index=False, slope=1.0, intercept=0.0)
    gallery.switch(leave_old=True)
    found = gallery.search(QUERIES, COUNT, SECOND.fingerprint)
    assert {hit.generation for line in found for hit in line} == {"second"}
    assert {len(line) for line in found} == {COUNT // 3 - 1}


def test_rules_are_renewed_by_the_vectors_that_the_column_holds(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, seen = mixed(application, "same-column", index=False, slope=1.0, intercept=0.0), []

    def looked(*arguments: Any) -> Any:
        seen.append(arguments[-1])
        return paired_samples(*arguments)

    monkeypatch.setattr(renewing, "paired_samples", looked)
    assert gallery.renew_rules(application.embed)
    (rows,) = seen
    assert not rows[:, OLD:].any()
    assert np.allclose(np.linalg.norm(rows, axis=1), 1)
