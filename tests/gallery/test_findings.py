"""What first users and attacks found, where no other test stands for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.gallery.galleries import COUNT, IDS, NEW, NEW_VECTORS, OLD, SECOND, embed, fresh, unit, upgraded, vectors

from nobackfill.errors import GalleryError
from nobackfill.gallery import Embedded, Gallery, Generation, open_store, parse_filter


def test_vectors_that_have_nothing_to_do_with_the_stored_ones_are_refused(tmp_path: Path) -> None:
    store = open_store(f"faiss:{tmp_path / 'store'}")
    gallery = fresh(store)
    random = vectors(NEW, 77)

    def stranger(ids: list[str]) -> Embedded:
        return Embedded(ids, random[[IDS.index(name) for name in ids]], {})

    with pytest.raises(GalleryError, match="vectors of second do not fit those of first") as caught:
        gallery.upgrade(SECOND, stranger)
    assert "--unchecked" in str(caught.value)
    assert gallery.manifest.generations[-1].name == "first"
    gallery.upgrade(SECOND, stranger, unchecked=True)
    store.close()


def test_an_upgrade_beside_another_one_and_its_backfill_is_refused_in_one_line(tmp_path: Path) -> None:
    store = open_store(f"faiss:{tmp_path / 'store'}")
    gallery, rival = fresh(store), SECOND.model_copy(update={"name": "rival", "fingerprint": "r" * 64})

    def late(ids: list[str]) -> Embedded:
        other = Gallery.open(store)
        other.upgrade(SECOND, embed)
        other.backfill(embed, fingerprint=SECOND.fingerprint)
        return embed(ids)

    with pytest.raises(GalleryError, match="rival was not trained to be compatible with second, of which the gallery"):
        gallery.upgrade(rival, late)
    store.close()


def damaged(store: Any, change: str, *values: object) -> None:
    """Item 3 of a folder, as a fault of the disk would have it."""
    with store.db.changing() as (connection, changed):
        connection.execute(f"UPDATE items SET {change}, changed = ? WHERE seq = 3", (*values, changed))


@pytest.mark.parametrize(
    ("change", "values", "problem"),
    [
        ("vector = ?", (np.full(OLD, np.nan, np.float32).tobytes(),), "its vector has norm nan, expected 1"),
        ("vector = ?", (np.full(OLD, np.inf, np.float32).tobytes(),), "its vector has norm inf, expected 1"),
        ("generation = 99", (), "1 item of generation 99, which the manifest lacks"),
        ("generation = -1", (), "1 item of generation -1, which the manifest lacks"),
    ],
)
def test_verify_names_values_that_cannot_be(
    tmp_path: Path, change: str, values: tuple[object, ...], problem: str
) -> None:
    store = open_store(f"faiss:{tmp_path / 'store'}")
    gallery = upgraded(store)
    damaged(store, change, *values)
    (found,) = gallery.verify()
    assert found.endswith(problem)
    store.close()


@pytest.mark.parametrize("payload", ["x{", "", "[1]", "[" * 20_000])
def test_a_damaged_payload_is_one_line(tmp_path: Path, payload: str) -> None:
    store = open_store(f"faiss:{tmp_path / 'store'}")
    gallery = upgraded(store)
    damaged(store, "payload = ?", payload)
    where = parse_filter({"label": 2})
    for action in (
        lambda: store.fetch(IDS),
        lambda: store.payloads(IDS),
        lambda: store.counts(where),
        lambda: list(store.ids(1, 10, where)),
        lambda: gallery.search(NEW_VECTORS[:1], COUNT, SECOND.fingerprint),
        lambda: gallery.search(NEW_VECTORS[:1], 3, SECOND.fingerprint, where={"label": 2}),
    ):
        with pytest.raises(GalleryError, match="is no JSON object; write the item again") as caught:
            action()
        assert "\n" not in str(caught.value)
    gallery.upsert([IDS[2]], unit(vectors(NEW, 1)[2:3]), fingerprint=SECOND.fingerprint)
    assert len(gallery.search(NEW_VECTORS[:1], COUNT, SECOND.fingerprint)[0]) == COUNT
    store.close()


def test_a_rollback_keeps_the_newer_generation_known(tmp_path: Path) -> None:
    store = open_store(f"faiss:{tmp_path / 'store'}")
    gallery = upgraded(store)
    gallery.backfill(embed, fingerprint=SECOND.fingerprint)  # old vectors are kept without asking for it
    gallery.rollback("first")
    assert gallery.store.counts() == {1: COUNT}
    assert len(gallery.search(NEW_VECTORS[:1], COUNT, SECOND.fingerprint)[0]) == COUNT
    gallery.rollback("first", forget=True)
    with pytest.raises(GalleryError, match="is not of this gallery's lineage"):
        gallery.search(NEW_VECTORS[:1], COUNT, SECOND.fingerprint)
    gallery.add_generation(Generation.named("again", NEW).model_copy(update={"compatible_with": ("a" * 64,)}),
                           NEW_VECTORS)  # fmt: skip
    store.close()


@pytest.mark.parametrize("name", ["", " \n"])
def test_a_model_without_a_name_is_refused(name: str) -> None:
    with pytest.raises(GalleryError, match="is empty; expected one that its clients know"):
        Generation.named(name, NEW)
