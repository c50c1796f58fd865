"""The best items of an adopted table by one way to the server and back: what is known of the table is asked along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nobackfill.errors import GalleryError
from nobackfill.gallery.filters import Filter
from nobackfill.gallery.stores.adopted_best import WIDTHS, Statement, asked, best_of, best_statement
from nobackfill.gallery.stores.adopted_layout import Table
from nobackfill.gallery.stores.adopted_table import parsed_table, table_statement
from nobackfill.gallery.stores.base import Best, Floats, Scales, UnreachableError
from nobackfill.gallery.stores.postgres_connection import PostgresConnection

TRIES = 3  # the table may change again and again
TOGETHER = 64  # queries sent at once


@dataclass(frozen=True)
class _Known:
    """The table, and the hash of it."""

    stamp: str
    table: Table


class Answers:
    """Of one table.

    Args:
        db: connections to its server.
        side: the gallery's schema beside it.
    """

    def __init__(self, db: PostgresConnection, side: str) -> None:
        self.db, self.side = db, side
        self._known: _Known | None = None

    def best(
        self, queries: Mapping[int, Floats], k: int, where: Filter | None, scales: Scales
    ) -> list[list[Best]] | None:
        """See `Store.best`; also None where something is wrong, which `Store.search` knows how to say."""
        results: list[list[Best]] = []
        count = len(next(iter(queries.values()), ()))
        for start in range(0, count, TOGETHER):
            places = range(start, min(start + TOGETHER, count))
            some = self._some(queries, k, where, scales, places, WIDTHS[0])
            if some is not None and None in some:
                some = self._some(queries, k, where, scales, places, WIDTHS[1])
            if some is None or None in some:
                return None
            results += [each or [] for each in some]
        return results

    def _some(
        self,
        queries: Mapping[int, Floats],
        k: int,
        where: Filter | None,
        scales: Scales,
        places: range,
        width: int,
    ) -> list[list[Best] | None] | None:
        """Answers to some of the queries, None for those that take more; None if this is not the way."""
        for _ in range(TRIES):
            known = self._known
            if known is None or not set(queries) <= {1, *known.table.adoption.newer}:
                known = self._known = self._look()
            if known is None:
                return None
            found = [asked(known.table, queries, scales, place) for place in places]
            sent = [query for query in found if query is not None]
            if len(sent) < len(found):
                return None
            statements = [_with_stamp(self.side, best_statement(known.table, query, k, where, width)) for query in sent]
            try:
                answers = self.db.answers(statements)
            except UnreachableError:
                raise
            except GalleryError:  # such as a column that is gone
                self._known = None
                return None
            if all(rows and rows[0][0] == known.stamp for rows in answers):
                return [
                    best_of(known.table, query, k, [row[1:] for row in rows if row[1] is not None])
                    for query, rows in zip(sent, answers, strict=True)
                ]
            self._known = None
        return None

    def _look(self) -> _Known | None:
        try:
            ((*found,),) = self.db.answers([table_statement(self.side)])
            return _Known(found[0][2], parsed_table(found[0], self.db.url)) if found else None
        except UnreachableError:
            raise
        except GalleryError:
            return None


def _with_stamp(side: str, best: Statement) -> Statement:
    """The statement, and before each row a hash of what the table is now; one row at least."""
    now, values = table_statement(side)
    return f"SELECT now.stamp, best.* FROM ({now}) now LEFT JOIN ({best[0]}) best ON TRUE", [*values, *best[1]]
