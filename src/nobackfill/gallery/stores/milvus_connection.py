"""How a Milvus is reached, and its collections: named, made, read in pages; what it says in one line."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from nobackfill.errors import GalleryError, one_line
from nobackfill.gallery.stores.address import Address
from nobackfill.gallery.stores.base import UnreachableError

if TYPE_CHECKING:
    from pymilvus import MilvusClient

Row = dict[str, Any]
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,200}")
SUFFIX = re.compile(r"documents|hits|g[0-9]+")
BATCH = 1000  # rows a request; Milvus answers with at most 16,384
SPACE = uuid.UUID("6f0f4f1e-2f0b-5d0c-9a43-0d9c3c9b8a11")  # of the keys made from ids


class MilvusConnection:
    """One client, opened when it is first used and shared by all threads.

    Args:
        address: `milvus:FILE.db[#collection]` or `milvus+http(s)://host:port#collection`.

    Raises:
        GalleryError: if the name is not one that Milvus allows, or the extra is missing.
    """

    def __init__(self, address: Address) -> None:
        try:
            import pymilvus
        except ImportError as error:
            raise GalleryError("milvus: needs its extra: pip install 'nobackfill[milvus]'") from error
        self.library: ModuleType = pymilvus
        self.url: str = address.url
        self.name: str = address.name or "gallery"
        self.folder: Path | None = Path(address.location) if address.scheme == "milvus" else None
        self._server = address.server.partition("+")[2]
        self._client: MilvusClient | None = None
        self._opening = threading.Lock()
        self._loaded: set[str] = set()
        if self.folder and self.folder.suffix != ".db":
            raise GalleryError(f"{self.url}: expected a path that ends in .db (Milvus's rule)")
        if not NAME.fullmatch(self.name):
            raise GalleryError(f"{self.url}: collection {self.name!r}: expected letters, digits and _ (Milvus's rule)")

    @property
    def client(self) -> MilvusClient:
        """The client; use it inside `translated`."""
        with self._opening:
            if self._client is None:
                # Each refusal is logged with a traceback, beside the error that says the same.
                logging.getLogger("pymilvus.decorators").setLevel(logging.CRITICAL)
                if self.folder:  # its server lacks a call that the client can do without, and both log that each time
                    logging.getLogger("grpc._server").setLevel(logging.CRITICAL)
                    logging.getLogger("pymilvus.client.iterator.query_iterator").setLevel(logging.ERROR)
                login, _, _ = self._server.partition("://")[2].rpartition("@")
                token = unquote(login) or os.environ.get("MILVUS_TOKEN", "")
                server = self._server.replace(f"{login}@", "", 1) if login else self._server
                self._client = self.library.MilvusClient(str(self.folder) if self.folder else server, token=token)
            return self._client

    def close(self) -> None:
        """Another use opens it again."""
        with self._opening:
            if self._client is not None:
                self._client.close()
                self._client = None
                self._loaded.clear()

    def collection(self, suffix: object) -> str:
        """Name of one of the gallery's collections."""
        return f"{self.name}__{suffix}"

    def loaded(self, suffix: object) -> str:
        """The same, of one that can be read."""
        return self.readable(self.collection(suffix))

    def readable(self, name: str) -> str:
        """A collection's own name; loads it, for milvus-lite forgets at its start what was loaded."""
        if name not in self._loaded:
            with self.translated():
                self.client.load_collection(name)
            self._loaded.add(name)
        return name

    def there(self, suffix: object) -> bool:
        """Whether there is such a collection; makes no file where there is none."""
        if self.folder and not self.folder.exists():
            return False
        with self.translated():
            return bool(self.client.has_collection(self.collection(suffix)))

    def beside(self) -> list[str]:
        """Suffixes of the collections whose names are those of a gallery's; makes no file where there is none."""
        if self.folder and not self.folder.exists():
            return []
        start = self.collection("")
        with self.translated():
            names = self.client.list_collections()
        found = sorted(name.removeprefix(start) for name in names if name.startswith(start))
        return [suffix for suffix in found if SUFFIX.fullmatch(suffix)]

    def make(self, suffix: object, fields: Sequence[tuple[str, str]], dim: int) -> None:
        """A collection with a text key `pk`, these fields (name and type), and vectors compared exactly."""
        types = self.library.DataType
        with self.translated():
            schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("pk", types.VARCHAR, is_primary=True, max_length=64)
            for name, kind in fields:
                options = {"max_length": 65535} if kind == "VARCHAR" else {}
                schema.add_field(name, types[kind], **options)
            schema.add_field("vector", types.FLOAT_VECTOR, dim=dim)
            index = self.client.prepare_index_params()
            index.add_index("vector", index_type="FLAT", metric_type="IP")
            self.client.create_collection(
                self.collection(suffix), schema=schema, index_params=index, consistency_level="Strong"
            )

    def remove(self, suffix: object) -> None:
        """A collection with all it holds, if it is there."""
        if self.there(suffix):
            self._loaded.discard(self.collection(suffix))
            with self.translated():
                self.client.drop_collection(self.collection(suffix))

    def get(self, suffix: object, keys: Sequence[str], fields: Sequence[str]) -> list[Row]:
        """Rows by key; unknown ones are left out."""
        rows: list[Row] = []
        with self.translated():
            for start in range(0, len(keys), BATCH):
                some = list(keys[start : start + BATCH])
                rows += map(dict, self.client.get(self.loaded(suffix), some, output_fields=list(fields)))
        return rows

    def put(self, suffix: object, rows: Sequence[Row]) -> None:
        """Add rows, or replace those of the same key."""
        with self.translated():
            for start in range(0, len(rows), BATCH):
                self.client.upsert(self.collection(suffix), list(rows[start : start + BATCH]))

    def delete(self, suffix: object, keys: Sequence[str]) -> None:
        """Remove rows by key."""
        with self.translated():
            for start in range(0, len(keys), BATCH):
                self.client.delete(self.collection(suffix), ids=list(keys[start : start + BATCH]))

    def count(self, suffix: object, where: str) -> int:
        """Rows that fulfil a condition."""
        with self.translated():
            return int(self.client.query(self.loaded(suffix), filter=where, output_fields=["count(*)"])[0]["count(*)"])

    def pages(self, suffix: object, where: str, fields: Sequence[str], size: int) -> Iterator[list[Row]]:
        """Rows that fulfil a condition, at most `size` at a time."""
        with self.translated():
            iterator = self.client.query_iterator(
                self.loaded(suffix), batch_size=min(size, BATCH), filter=where, output_fields=list(fields)
            )
            try:
                while rows := iterator.next():
                    yield list(map(dict, rows))
            finally:
                iterator.close()

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """What Milvus or its transport says, as one line without credentials."""
        import grpc

        try:
            yield
        except grpc.RpcError as error:
            raise UnreachableError(f"{self.url}: {one_line(error, 120)}") from error
        except self.library.MilvusException as error:
            text = one_line(error, 160)
            if "fail connecting" in text.lower() or "unavailable" in text.lower():
                raise UnreachableError(f"{self.url}: does not answer") from error
            if "open local milvus failed" in text.lower():
                text = "another process has this file open (a file serves one process), or it is damaged"
            raise GalleryError(f"{self.url}: {text}") from error


def key_of(name: str) -> str:
    """The key of an item or document: Milvus's keys are short texts."""
    return uuid.uuid5(SPACE, name).hex
