"""The expressions of SQL in which an adopted table is a gallery; the table goes by `t` in all of them.

Identifiers are quoted by psycopg, and their % is doubled: every statement is executed with parameters.
"""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Callable, Sequence
from functools import partial

from nobackfill.gallery.filters import AnyOf, Condition, Equals, Filter, Scalar, Within
from nobackfill.gallery.stores.adopted_layout import Adoption, Table, column, stamp_column, writer_column

WHOLE = {"smallint": 2**15, "integer": 2**31, "bigint": 2**63}
TEXT = ("text", "character varying")
OPERATORS = {"cosine": "<=>", "ip": "<#>", "l2": "<->"}


@functools.lru_cache(maxsize=1024)
def quoted(*parts: str) -> str:
    """An identifier, with its schema if there are two parts."""
    from psycopg import sql

    name: str = sql.Identifier(*(part.replace("%", "%%") for part in parts)).as_string(None)
    return name


def plain(statement: str) -> str:
    """A statement as an administrator types it."""
    return statement.replace("%%", "%")


def table_of(adoption: Adoption) -> str:
    """The application's table."""
    return quoted(adoption.namespace, adoption.table)


def own(table: Table) -> str:
    """The application's vector."""
    return f"t.{quoted(table.adoption.vector_column)}"


def item_id(table: Table) -> str:
    """The id as the gallery knows it."""
    return f"t.{quoted(table.adoption.id_column)}::text"


def key(table: Table) -> str:
    """The id as the table has it."""
    return f"t.{quoted(table.adoption.id_column)}"


def vector(table: Table, number: int) -> str:
    """What holds a generation's vectors."""
    first = number == 1 or table.adoption.layout == "same-column"
    return own(table) if first else f"t.{quoted(column(number))}"


def stamp(table: Table, number: int, *, without_newer: bool = False) -> str:
    """The hash of all older vectors of a row, NULL if there are none: what a generation's vector was made for."""
    sent = [f"{table.kind}_send({own(table)})"]
    if table.adoption.layout == "new-column" and not without_newer:
        newer = [each for each in table.adoption.newer if each < number]
        sent += [f"{table.kind}_send(t.{quoted(column(each))})" for each in newer]
    if len(sent) == 1:
        return f"sha256({sent[0]})"
    parts = " || ".join(f"coalesce({each}, '')" for each in sent)
    return f"sha256(nullif({parts}, ''))"


def version(table: Table) -> str:
    """A number that changes with the vectors from which the newest generation's is made."""
    numbers = table.adoption.newer
    bits = f"substr(encode({stamp(table, max(numbers, default=2))}, 'hex'), 1, 15)"
    return f"coalesce(('x' || {bits})::bit(60)::bigint, 0)"


def source(table: Table) -> str:
    """The rows, with what the side schema says of each."""
    if table.adoption.layout == "new-column":
        return f"{table_of(table.adoption)} t"
    side = quoted(table.adoption.side, "generations")
    unchanged = f"CASE WHEN t.xmin = s.writer THEN TRUE ELSE s.stamp = {stamp(table, 2)} END"
    return f"{table_of(table.adoption)} t LEFT JOIN {side} s ON s.id = {key(table)} AND {unchanged}"


def noted_generation(table: Table) -> str:
    """Same column: the generation of a row of which `n` knows the key and the transaction that wrote it."""
    side = quoted(table.adoption.side, "generations")
    hashed = f"SELECT {stamp(table, 2)} FROM {table_of(table.adoption)} t WHERE {key(table)} = n.key"
    unchanged = f"CASE WHEN s.writer = n.writer THEN TRUE ELSE s.stamp = ({hashed}) END"
    return f"coalesce((SELECT s.generation FROM {side} s WHERE s.id = n.key AND {unchanged}), 1)"


def generation(table: Table) -> str:
    """The number of the item's generation, NULL for a row that has no vector; of rows of `source`."""
    if table.adoption.layout == "same-column":
        return f"CASE WHEN {own(table)} IS NOT NULL THEN coalesce(s.generation, 1) END"
    numbers = (*reversed(table.adoption.newer), 1)
    return f"CASE {''.join(f'WHEN {has_vector(table, number)} THEN {number} ' for number in numbers)}END"


def of_generation(table: Table, number: int) -> str:
    """Whether the item is of this generation; cheapest test first."""
    if table.adoption.layout == "same-column":
        noted = "s.id IS NULL" if number == 1 else f"s.generation = {int(number)}"
        return f"{own(table)} IS NOT NULL AND {noted}"
    newer = [f"NOT {has_vector(table, each)}" for each in table.adoption.newer if each > number]
    return " AND ".join([has_vector(table, number), *newer])


def payload(table: Table) -> str:
    """The payload columns as one object."""
    if not table.columns:
        return "'{}'::jsonb"
    columns = ", ".join(f"t.{quoted(name)}" for name in table.columns)
    return f"(SELECT to_jsonb(p) FROM (SELECT {columns}) p)"


def condition(table: Table, where: Filter | None) -> tuple[str, list[object]]:
    """A filter on the payload columns, and its parameters; NULL where it does not hold, or false."""
    texts, values = [], []
    for each in where or ():
        text, some = _condition(table, each)
        texts.append(text)
        values += some
    return " AND ".join(texts) or "TRUE", values


def canonical(table: Table, ids: Sequence[str]) -> list[str]:
    """Those of these ids that the id column could hold, as it would write them."""
    accepted: Callable[[str], bool] = _is_text
    if table.id_type in WHOLE:
        accepted = partial(_is_whole, limit=WHOLE[table.id_type])
    if table.id_type == "uuid":
        accepted = _is_uuid
    return [name for name in ids if accepted(name)]


def has_vector(table: Table, number: int) -> str:
    """New column: whether the row has a vector of this generation, made for the older ones it has now."""
    if number == 1:
        return f"{own(table)} IS NOT NULL"
    hashed = f"t.{stamp_column(number)} IS NOT DISTINCT FROM {stamp(table, number)}"
    # Of a CASE the planner expects that it often holds; of an OR it does not, and then it leaves vector indexes alone.
    return (
        f"(t.{column(number)} IS NOT NULL AND CASE WHEN t.xmin = t.{writer_column(number)} THEN TRUE ELSE {hashed} END)"
    )


def _condition(table: Table, each: Condition) -> tuple[str, list[object]]:
    if isinstance(each, Equals | AnyOf | Within):
        if each.key not in table.columns:
            return "FALSE", []
        name, kind = f"t.{quoted(each.key)}", table.columns[each.key].partition("(")[0]
        if isinstance(each, Equals):
            return _equal(name, kind, each.value)
        if isinstance(each, AnyOf):
            return _any_of(name, kind, each.values)
        return _within(name, kind, each)
    text, values = condition(table, each.conditions)
    return f"({text}) IS NOT TRUE", values


def _equal(name: str, kind: str, value: Scalar) -> tuple[str, list[object]]:
    """Native where an index may serve, of the JSON value otherwise."""
    if value is None:
        return f"coalesce(to_jsonb({name}) = 'null'::jsonb, TRUE)", []
    if isinstance(value, bool) and kind == "boolean":
        return f"({name} IS {'TRUE' if value else 'FALSE'})", []
    if _is_native(kind, value):
        return f"{name} = %s::{kind}", [value]
    return f"to_jsonb({name}) = %s::jsonb", [json.dumps(value)]


def _any_of(name: str, kind: str, values: tuple[Scalar, ...]) -> tuple[str, list[object]]:
    if values and all(_is_native(kind, value) for value in values):
        return f"{name} = ANY(%s::{kind}[])", [list(values)]
    parts = [_equal(name, kind, value) for value in values]
    return f"({' OR '.join(text for text, _ in parts) or 'FALSE'})", [each for _, some in parts for each in some]


def _within(name: str, kind: str, each: Within) -> tuple[str, list[object]]:
    number, texts, values = name, [f"{name} IS NOT NULL"], list[object]()
    if kind not in WHOLE:  # of a float, NaN is text in JSON; of jsonb, anything may come
        number = f"to_jsonb({name})"
        texts = [f"jsonb_typeof({number}) IS NOT DISTINCT FROM 'number'"]
    for bound, sign in (
        (each.low, ">" if each.low_open else ">="),
        (each.high, "<" if each.high_open else "<="),
    ):
        if bound is not None:
            texts.append(f"{number} {sign} %s::{'numeric' if kind in WHOLE else 'jsonb'}")
            values.append(json.dumps(bound))
    return " AND ".join(texts), values


def _is_native(kind: str, value: Scalar) -> bool:
    if kind in WHOLE:
        limit = WHOLE[kind]
        return isinstance(value, int) and not isinstance(value, bool) and -limit <= value < limit
    return kind in ("text", "character varying") and isinstance(value, str)


def _is_whole(name: str, limit: int) -> bool:
    digits = name.removeprefix("-")
    short = digits.isascii() and digits.isdecimal() and len(digits) < 20
    return short and str(int(name)) == name and -limit <= int(name) < limit


def _is_uuid(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False


def _is_text(name: str) -> bool:
    return "\0" not in name
