"""A connection to Qdrant, a server or its local mode, whose errors are one line without address or key."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np

from nobackfill.errors import GalleryError
from nobackfill.gallery.stores.address import Address
from nobackfill.gallery.stores.base import ItemBatch, UnreachableError

if TYPE_CHECKING:
    from qdrant_client import QdrantClient
    from qdrant_client.models import ExtendedPointId as PointId
    from qdrant_client.models import Filter, OrderBy, Record

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")
NAMESPACE = uuid.UUID("6c1f8f0e-53a5-4a52-9a0b-0f5a7c1d2e3b")  # point ids are made of item ids by it


def translated(method: Callable[Arguments, Value]) -> Callable[Arguments, Value]:
    """Of a store's method: errors of the server in one line, without address or key."""

    @functools.wraps(method)
    def call(*arguments: Arguments.args, **options: Arguments.kwargs) -> Value:
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        url = getattr(arguments[0], "url", "qdrant")
        connection = getattr(arguments[0], "connection", arguments[0])
        try:
            with getattr(connection, "guard", contextlib.nullcontext()):
                return method(*arguments, **options)
        except ResponseHandlingException as error:
            raise UnreachableError(f"{url}: {' '.join(str(error.source).split())[:160]}") from None
        except UnexpectedResponse as error:
            kind = UnreachableError if error.status_code in (429, 502, 503, 504) else GalleryError
            raise kind(f"{url}: answered {error.status_code} {error.reason_phrase}") from None

    return call


class QdrantConnection:
    """Opened when it is first used.

    Attributes:
        folder: of local mode; None for a server.
    """

    def __init__(self, address: Address) -> None:
        self.address: Address = address
        self.url: str = address.url
        self.folder: Path | None = Path(address.location) if address.scheme == "qdrant" else None
        self._client: QdrantClient | None = None
        self._owner = os.getpid()
        # Local mode is of no use to two threads at once; a server is.
        self.guard: contextlib.AbstractContextManager[object] = (
            threading.RLock() if self.folder else contextlib.nullcontext()
        )

    @property
    def opened(self) -> bool:
        """Whether this object has it open already."""
        return self._client is not None

    def client(self) -> QdrantClient:
        """The client; raises `GalleryError` for an address that cannot be read, or a folder that is in use."""
        if self._client is None or (self.folder is None and self._owner != os.getpid()):  # a forked process has its own
            self._owner = os.getpid()
            self._client = self._local() if self.folder else self._remote()
        return self._client

    def close(self) -> None:
        """Another use opens it again."""
        if self._client is not None:
            self._client.close()
            self._client = None

    @translated
    def page(self, collection: str, wanted: Filter, order: OrderBy, size: int) -> list[Record]:
        """The first points that are wanted, in an order, without their vectors."""
        points, _ = self.client().scroll(collection, wanted, limit=size, order_by=order, with_payload=True)
        return list(points)

    def scroll(
        self, collection: str, size: int, wanted: Filter | None, *, with_vectors: bool | list[str]
    ) -> Iterator[list[Record]]:
        """All points that are wanted, `size` at a time."""
        offset = None
        while True:
            points, offset = self._scrolled(collection, size, wanted, offset, with_vectors)
            if points:
                yield points
            if offset is None:
                return

    @translated
    def _scrolled(
        self, collection: str, size: int, wanted: Filter | None, offset: PointId | None, with_vectors: bool | list[str]
    ) -> tuple[list[Record], PointId | None]:
        points, following = self.client().scroll(
            collection, wanted, limit=size, offset=offset, with_payload=True, with_vectors=with_vectors
        )
        return points, following

    def _local(self) -> QdrantClient:
        from qdrant_client import QdrantClient

        try:
            return QdrantClient(path=str(self.folder), force_disable_check_same_thread=True)
        except RuntimeError as error:
            raise GalleryError(
                f"{self.url}: another process has it open; local mode allows only one at a time"
            ) from error

    def _remote(self) -> QdrantClient:
        from qdrant_client import QdrantClient

        try:
            parts = urlsplit(self.address.server)
            port = parts.port or 6333
        except ValueError:  # its message would quote what may be the key
            raise GalleryError(
                f"{self.url}: this address cannot be read; write special characters of the key as %XX"
            ) from None
        return QdrantClient(
            url=f"{parts.scheme.removeprefix('qdrant+')}://{parts.hostname}",
            port=port,
            api_key=unquote(parts.password or parts.username or "") or os.environ.get("QDRANT_API_KEY"),
            prefix=parts.path.strip("/") or None,
            timeout=60,
            check_compatibility=False,
        )


def point_id(name: str) -> str:
    """The id of the point that holds an item or a document."""
    return str(uuid.uuid5(NAMESPACE, name))


def grouped(points: Sequence[Record], *, payloads: bool = True) -> list[ItemBatch]:
    """Points as items, a batch for each generation, in the order of insertion."""
    groups: dict[int, list[Record]] = {}
    for point in sorted(points, key=lambda point: int(point.payload["seq"])):
        groups.setdefault(int(point.payload["generation"]), []).append(point)
    return [
        ItemBatch(
            [point.payload["id"] for point in group],
            number,
            np.array([point.vector[f"g{number}"] for point in group], np.float32),
            [point.payload["payload"] for point in group] if payloads else [],
            [int(point.payload["version"]) for point in group],
        )
        for number, group in sorted(groups.items())
    ]
