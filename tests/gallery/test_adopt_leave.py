"""What `gallery abandon --leave-new` leaves to the application: the vectors of the newest model that has any."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.gallery.applications import LAST, NAME, SECOND, TABLE
from tests.gallery.applications import Application as Table
from tests.gallery.galleries import COUNT, THIRD, vectors

from nobackfill.gallery import Embedded, Gallery
from nobackfill.gallery.adopting import abandon

Left = Callable[[], set[str]]
COLUMNS = "SELECT attname FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE relname = %s AND NOT attisdropped"


@pytest.fixture(params=["postgresql", "qdrant", "milvus"])
def adopted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Any, Gallery, Left]]:
    """An application, its gallery, and what there is of ours."""
    if request.param == "postgresql":
        table = Table(request.getfixturevalue("server"))
        gallery = table.adopt()
        rows = table.connection.execute
        yield table, gallery, lambda: {name for (name,) in rows(COLUMNS, (TABLE,)) if name.startswith("nobackfill")}
        table.close()
        return
    if request.param == "qdrant":
        pytest.importorskip("qdrant_client")
        from tests.gallery.test_adopt_qdrant import Application as Points

        points = Points(tmp_path)
        points.client.close()
        gallery = Gallery.adopt(points.url, NAME)
        client = gallery.store.client  # type: ignore[attr-defined]
        yield points, gallery, lambda: set(client.get_collection("items").config.params.vectors) - {"text"}
        gallery.store.close()
        return
    pytest.importorskip("milvus_lite")
    from tests.gallery.milvus_applications import Application as Rows

    collection = Rows(tmp_path)
    gallery = Gallery.adopt(collection.url, NAME)
    beside = "items__nobackfill_adopted__g"
    list_of = collection.client.list_collections
    yield collection, gallery, lambda: {name.replace(beside, "nobackfill_") for name in list_of()} - {"items"}
    gallery.store.close()
    collection.client.close()


@pytest.mark.parametrize(
    ("done", "forgotten", "left"),
    [
        ([SECOND], False, {"nobackfill_2"}),  # the third model was announced only
        ([SECOND], True, {"nobackfill_2"}),
        ([SECOND, LAST], False, {"nobackfill_3"}),
        ([], False, set()),
    ],
)
def test_the_newest_model_that_has_vectors_keeps_them(
    adopted: tuple[Any, Gallery, Left], done: list[Any], forgotten: bool, left: set[str]
) -> None:
    application, gallery, there = adopted
    newest = vectors(THIRD, 3)

    def embed(ids: list[str]) -> Embedded:
        return Embedded(ids, newest[[application.ids.index(name) for name in ids]], {})

    for model, embedder in ((SECOND, application.embed), (LAST, embed)):
        gallery.upgrade(model, embedder, unchecked=True)
        if model in done:
            gallery.backfill(embedder, fingerprint=model.fingerprint)
            assert gallery.store.counts() == {len(gallery.manifest.generations): COUNT}
    if forgotten:
        gallery.rollback(SECOND.name, forget=True)
    abandon(gallery.store, leave_new=True)
    assert there() == left
