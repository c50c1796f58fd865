"""Documents, hits and locks of a gallery in Qdrant: points of a collection beside that of the items."""

from __future__ import annotations

import base64
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote

from nobackfill.errors import GalleryError
from nobackfill.gallery.stores.address import Address
from nobackfill.gallery.stores.folder_lock import folder_lock
from nobackfill.gallery.stores.qdrant_connection import QdrantConnection, point_id, translated
from nobackfill.gallery.stores.qdrant_lease import lease
from nobackfill.gallery.stores.qdrant_writes import BATCH

if TYPE_CHECKING:
    from qdrant_client import QdrantClient


class QdrantDocuments:
    """The part of a store that does not depend on how its items lie.

    Attributes:
        models: Qdrant's module of that name.
        connection: to the server or folder.
        url: without credentials.
        name: of the collection of items; `documents` of that of documents and hits.
    """

    SUFFIX: ClassVar[str] = "__nobackfill"

    def __init__(self, address: Address) -> None:
        try:
            from qdrant_client import models
        except ImportError as error:
            raise GalleryError("qdrant: needs its extra: pip install 'nobackfill[qdrant]'") from error
        self.models: ModuleType = models
        self.connection: QdrantConnection = QdrantConnection(address)
        self.url: str = address.url
        self.name: str = address.name or "gallery"
        self.documents: str = self.name + self.SUFFIX

    @property
    def client(self) -> QdrantClient:
        """Opened when it is first used."""
        return self.connection.client()

    @translated
    def read(self, name: str) -> bytes | None:
        """See `Store.read`; a folder that is not there is not made."""
        folder = self.connection.folder
        if (folder and not folder.is_dir()) or not self.client.collection_exists(self.documents):
            return None
        points = self.client.retrieve(self.documents, [point_id(name)], with_payload=True)
        return base64.b64decode(points[0].payload["data"]) if points else None

    @translated
    def write(self, name: str, data: bytes | None) -> None:
        """See `Store.write`."""
        if data is None:
            self.client.delete(self.documents, [point_id(name)], wait=True)
            return
        self.write_point(point_id(name), {"name": name, "data": base64.b64encode(data).decode()})

    @translated
    def exchange(self, name: str, before: bytes | None, after: bytes | None) -> bool:
        """Replace a document if it is what it was before (None: if there is none); whether that was done.

        The server compares and writes at once.
        """
        modes, point = self.models.UpdateMode, point_id(name)
        conditions = [self.models.HasIdCondition(has_id=[point])]
        if before is not None:
            text = self.models.MatchValue(value=base64.b64encode(before).decode())
            conditions.append(self.models.FieldCondition(key="data", match=text))
        same = self.models.Filter(must=conditions)
        if after is None:
            self.client.delete(self.documents, self.models.FilterSelector(filter=same), wait=True)
            return self.read(name) is None
        made = self.models.PointStruct(
            id=point, vector=[1.0], payload={"name": name, "data": base64.b64encode(after).decode()}
        )
        self.client.upsert(
            self.documents,
            [made],
            wait=True,
            update_mode=modes.INSERT_ONLY if before is None else modes.UPDATE_ONLY,
            update_filter=None if before is None else same,
        )
        return self.read(name) == after

    def make_documents(self) -> None:
        """The collection for them."""
        self.client.create_collection(
            self.documents, vectors_config=self.models.VectorParams(size=1, distance=self.models.Distance.DOT)
        )

    @translated
    def count_hits(self, hits: Mapping[str, int]) -> None:
        """See `Store.count_hits`."""
        # A new point for each count: nothing is read and written back, so none is lost.
        self.write_point(str(uuid.uuid4()), {"hits": [[name, count] for name, count in hits.items()]})

    def hits(self) -> Iterator[tuple[str, int]]:
        """See `Store.hits`."""
        missing = self.models.IsEmptyCondition(is_empty=self.models.PayloadField(key="hits"))
        total: Counter[str] = Counter()
        for points in self.connection.scroll(
            self.documents, BATCH, self.models.Filter(must_not=[missing]), with_vectors=False
        ):
            for point in points:
                for name, count in point.payload["hits"]:
                    total[name] += count
        yield from ((name, count) for name, count in total.most_common() if count > 0)

    def lock(self, name: str = "gallery") -> AbstractContextManager[Callable[[], None]]:
        """Local mode: a lock on the folder. A server: a lease that its owner renews, and that ends with it."""
        if not self.connection.folder:
            return lease(self, f"lease-{name}")
        file = quote(f"{self.name}-{name}", safe="")
        return folder_lock(self.connection.folder / f"nobackfill-{file}.lock", self.url)

    def close(self) -> None:
        """See `Store.close`."""
        self.connection.close()

    def write_point(self, point: str, payload: dict[str, object]) -> None:
        """A document or a count."""
        made = self.models.PointStruct(id=point, vector=[1.0], payload=payload)
        self.client.upsert(self.documents, [made], wait=True)
