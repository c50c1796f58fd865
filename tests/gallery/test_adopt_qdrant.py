"""A collection of Qdrant that an application made and goes on using, as a gallery."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.gallery.galleries import COUNT, NEW, NEW_VECTORS, OLD, OLD_VECTORS, SECOND, padded, unit, vectors

from nobackfill.cli.app import run
from nobackfill.errors import GalleryError
from nobackfill.gallery import Embedded, Gallery, ItemBatch, open_store, parse_filter
from nobackfill.gallery.adopting import abandon, plan_adoption
from nobackfill.gallery.filters import matches

qdrant_client = pytest.importorskip("qdrant_client")
models = qdrant_client.models
NAME, NEWER = "minilm", SECOND.model_copy(update={"compatible_with": ("name:minilm",)})
OTHER = unit(np.random.default_rng(9).standard_normal((COUNT, OLD)))
QUERIES = vectors(NEW, 2, 5)
PAYLOADS: list[dict[str, Any]] = [
    {"year": 2000 + place % 9, "lang": ["en", "de"][place % 2], "n": [1, True, [1], None, 1.0, "1"][place % 6]}
    for place in range(COUNT)
]


class Application:
    """A collection `items` with a vector `text`; the gallery's client does what the application's would."""

    def __init__(self, folder: Path, kind: str = "int") -> None:
        self.url = f"qdrant:{folder / 'store'}#items"
        self.points = [10 * place if kind == "int" else str(uuid.uuid5(uuid.NAMESPACE_DNS, str(place)))
                       for place in range(COUNT)]  # fmt: skip
        self.ids = [str(point) for point in self.points]
        self.client = qdrant_client.QdrantClient(path=str(folder / "store"))
        self.client.create_collection("items", vectors_config={"text": params(OLD)})
        self.client.upsert("items", [self.point(place, 3 * OLD_VECTORS[place]) for place in range(COUNT)])

    def point(self, place: int, vector: Any) -> Any:
        return models.PointStruct(
            id=self.points[place], vector={"text": vector.tolist()}, payload=dict(PAYLOADS[place])
        )

    def state(self) -> Any:
        points, _ = self.client.scroll("items", limit=1000, with_payload=True, with_vectors=True)
        own = {point.id: np.round(unit(np.array([point.vector["text"]])), 4) for point in points}
        rows = [[point.id, point.payload, sorted(point.vector), own[point.id]] for point in points]
        return json.dumps([str(self.client.get_collection("items").config.params), rows], default=np.ndarray.tolist)

    def adopt(self) -> Gallery:
        self.client.close()
        gallery = Gallery.adopt(self.url, NAME)
        self.client = gallery.store.client  # type: ignore[attr-defined]
        return gallery

    def embed(self, ids: list[str]) -> Embedded:
        return Embedded(ids, 2.0 * NEW_VECTORS[[self.ids.index(name) for name in ids]], {})

    def change(self, place: int, vector: Any) -> None:
        self.client.update_vectors("items", [models.PointVectors(id=self.points[place], vector={"text": vector})])


def params(dim: int, distance: str = "Cosine") -> Any:
    return models.VectorParams(size=dim, distance=models.Distance(distance))


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    made = Application(tmp_path)
    yield made
    made.client.close()


def backfilled(gallery: Gallery, application: Application, target: Any = "all") -> None:
    gallery.backfill(application.embed, fingerprint=NEWER.fingerprint, target=target, order="oldest", batch_size=16)


def check(gallery: Gallery, application: Application, new: set[int]) -> None:
    """Searches by both models equal those of one padded index."""
    rows = padded(set())
    for place in new:
        rows[place] = NEW_VECTORS[place]
    for hits, scores in zip(gallery.search(QUERIES, COUNT, NEWER.fingerprint), QUERIES @ rows.T, strict=True):
        found = {hit.id: hit.score for hit in hits}
        assert found == pytest.approx(dict(zip(application.ids, scores.tolist(), strict=True)), abs=1e-5)
    assert gallery.store.counts() == {
        number: count for number, count in {1: COUNT - len(new), 2: len(new)}.items() if count
    }
    best = gallery.search(3.0 * OLD_VECTORS[:1], 1, f"name:{NAME}", where={"year": 2000})[0][0]
    assert (best.id, best.payload) == (application.ids[0], PAYLOADS[0])
    assert gallery.verify() == []


@pytest.mark.parametrize("kind", ["int", "uuid"])
def test_the_whole_life_of_an_adopted_collection(tmp_path: Path, kind: str) -> None:
    application = Application(tmp_path, kind)
    before, files = application.state(), names(tmp_path)
    gallery = application.adopt()
    assert gallery.status().items == (COUNT,)
    assert application.state() == before
    gallery.upgrade(NEWER, application.embed, sample=20, rule="plain")
    check(gallery, application, set())
    backfilled(gallery, application, 20)
    order = [application.ids.index(name) for some in gallery.store.ids(2) for name in some]
    assert len(order) == 20
    check(gallery, application, set(order))
    backfilled(gallery, application)
    gallery.store.close()
    gallery = Gallery.open(application.url)  # after a restart
    application.client = gallery.store.client  # type: ignore[attr-defined]
    check(gallery, application, set(range(COUNT)))
    gallery.switch()
    with pytest.raises(GalleryError, match="no longer served"):
        gallery.search(OLD_VECTORS[:1], 1, f"name:{NAME}")
    gallery.rollback(NAME)
    check(gallery, application, set())
    backfilled(gallery, application, "25%")
    gallery.compact()
    abandon(gallery.store)
    assert application.state() == before
    gallery.store.close()
    assert names(tmp_path) == files
    with pytest.raises(GalleryError, match="no gallery there"):
        Gallery.open(application.url)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} - {"store/.lock"}


def test_what_the_application_does_counts_at_once(application: Application) -> None:
    gallery = application.adopt()
    gallery.upgrade(NEWER, application.embed, sample=20, rule="plain")
    backfilled(gallery, application)
    client = application.client
    application.change(3, OTHER[3].tolist())
    application.change(4, (7 * OLD_VECTORS[4]).tolist())  # the same direction
    client.upsert("items", [application.point(5, OTHER[5])])
    client.delete("items", [application.points[6]])
    client.delete_vectors("items", ["text"], [application.points[7]])
    client.upsert("items", [models.PointStruct(id=7777, vector={"text": OTHER[0].tolist()}, payload={})])
    client.overwrite_payload("items", {"year": 1}, [application.points[8]])
    assert gallery.store.counts() == {1: 3, 2: COUNT - 4}
    assert gallery.store.counts(parse_filter({"year": 1})) == {2: 1}
    assert {name for some in gallery.store.ids(1) for name in some} == {"30", "50", "7777"}
    assert gallery.store.fetch([application.ids[7], "60", "007", "x", "-1", "9" * 30]) == []
    for place in (3, 5):
        best = gallery.search(OTHER[place : place + 1], 1, f"name:{NAME}")[0][0]
        assert (best.id, best.generation) == (application.ids[place], NAME)
        hits = {hit.id: hit for hit in gallery.search(NEW_VECTORS[place][None], COUNT, NEWER.fingerprint)[0]}
        score = float(NEW_VECTORS[place, :OLD] @ OTHER[place])
        assert hits[application.ids[place]].score == pytest.approx(score, abs=1e-5)
    assert gallery.verify() == []
    client.delete("items", [7777])
    backfilled(gallery, application)
    assert gallery.store.counts() == {2: COUNT - 2}


def test_a_vector_of_an_older_content_is_not_written(application: Application) -> None:
    gallery = application.adopt()
    gallery.upgrade(NEWER, application.embed, sample=20)
    store, ids = gallery.store, ["10", "20", "30", "40"]
    read = store.versions([*ids, "gone"])
    application.change(2, OTHER[2].tolist())
    application.client.delete("items", [30])
    real = application.client.update_vectors

    def late(*arguments: Any, **options: Any) -> Any:  # between our reading and our writing
        real("items", [models.PointVectors(id=40, vector={"text": OTHER[4].tolist()})])
        return real(*arguments, **options)

    application.client.update_vectors = late
    items = ItemBatch(ids, 2, NEW_VECTORS[1:5], [], [read[name] for name in ids])
    assert store.replace(items, keep_old=True) == ["20", "30", "40"]
    assert store.counts() == {1: COUNT - 2, 2: 1}
    application.client.update_vectors = real


def test_filters_are_exact(application: Application) -> None:
    gallery = application.adopt()
    for where in ({"n": 1}, {"n": True}, {"n": None}, {"n": "1"}, {"n": {"in": [1, "1"]}}, {"n": {">=": 0}},
                  {"not": {"lang": "de"}, "year": {">": 2003, "<": 2006}}, {"lang": {"in": ["de", "x"]}},
                  {"a.b[]": 1}):  # fmt: skip
        wanted = {name for name, payload in zip(application.ids, PAYLOADS, strict=True) if holds(where, payload)}
        (hits,) = gallery.search(OLD_VECTORS[:1], COUNT, f"name:{NAME}", where=where)
        assert {hit.id for hit in hits} == wanted
        assert gallery.count(where) == len(wanted)
        few = [hit.id for hit in gallery.search(OLD_VECTORS[:1], 3, f"name:{NAME}", where=where)[0]]
        assert few == [hit.id for hit in hits][:3]


def holds(where: Any, payload: Any) -> bool:
    return matches(parse_filter(where), payload)


@pytest.mark.parametrize(
    ("config", "scale", "message"),
    [
        (lambda: params(OLD), 1, "its vectors have no name"),
        (lambda: {"text": params(OLD, "Euclid")}, 1, "compared by Euclid; expected Cosine"),
        (lambda: {"text": params(OLD, "Dot")}, 3, "a vector has norm 3.000; expected 1"),
        (lambda: {"text": params(OLD), "image": params(3)}, 1, "choose one with --vector-column: text, image"),
        (lambda: {"nobackfill_2": params(OLD)}, 1, "an earlier gallery left"),
    ],
)
def test_collections_that_cannot_be_adopted(tmp_path: Path, config: Any, scale: int, message: str) -> None:
    client, made = qdrant_client.QdrantClient(path=str(tmp_path / "store")), config()
    client.create_collection("items", vectors_config=made)
    row = (scale * OLD_VECTORS[0]).tolist()
    client.upsert(
        "items", [models.PointStruct(id=1, vector={next(iter(made)): row} if isinstance(made, dict) else row)]
    )
    client.close()
    with pytest.raises(GalleryError, match=message) as caught:
        plan_adoption(f"qdrant:{tmp_path / 'store'}#items", NAME)
    assert "\n" not in str(caught.value)


def test_an_adopted_collection_is_not_replaced(application: Application) -> None:
    gallery = application.adopt()
    gallery.upgrade(NEWER, application.embed, sample=20, rule="plain")
    backfilled(gallery, application)
    with pytest.raises(GalleryError, match="is adopted already; `gallery abandon` ends that"):
        Gallery.create(gallery.store, NEWER, [(["1"], NEW_VECTORS[:1], [{}])], replace=True)
    check(gallery, application, set(range(COUNT)))


def test_a_collection_of_the_application_is_not_replaced(application: Application) -> None:
    before = application.state()
    application.client.close()
    with pytest.raises(GalleryError, match=r"exists"):
        Gallery.create(application.url, NEWER, replace=True)
    application.client = qdrant_client.QdrantClient(path=application.url.partition(":")[2].partition("#")[0])
    assert application.state() == before


def test_what_is_refused(application: Application, tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="can only be new-column"):
        plan_adoption(application.url, NAME, layout="same-column")
    with pytest.raises(GalleryError, match="id column 'sku': a collection has its own ids; leave it out"):
        plan_adoption(application.url, NAME, id_column="sku")
    with pytest.raises(GalleryError, match="no collection 'items'"):
        plan_adoption(f"qdrant:{tmp_path / 'none'}#items", NAME)
    assert not (tmp_path / "none").exists()
    gallery = application.adopt()
    with pytest.raises(GalleryError, match="belong to the application"):
        gallery.upsert(["1"], OLD_VECTORS[:1], fingerprint=f"name:{NAME}")
    with pytest.raises(GalleryError, match="belong to the application"):
        gallery.delete(["10"])
    gallery.store.close()
    with pytest.raises(GalleryError, match="is a gallery already"):
        plan_adoption(application.url, NAME)


def test_the_verbs_show_then_do(application: Application, capsys: pytest.CaptureFixture[str]) -> None:
    application.client.close()
    before = names(Path(application.url.partition(":")[2].partition("#")[0]))
    adopt = ["gallery", "adopt", application.url, "--generation", NAME, "--payload-columns", "year"]
    assert run([*adopt, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "PUT /collections/items__nobackfill_adopted;" in shown
    assert "PUT /collections/items/vectors/nobackfill_2 " in shown
    assert names(Path(application.url.partition(":")[2].partition("#")[0])) == before
    assert run(adopt) == 0
    assert f"a gallery of {COUNT} items" in capsys.readouterr().out
    gallery = Gallery.open(application.url)
    gallery.upgrade(NEWER, application.embed, sample=20)
    backfilled(gallery, application, 20)
    assert gallery.store.payloads(["10"]) == {"10": {"year": 2001}}
    gallery.store.close()
    assert run(["gallery", "abandon", application.url, "--dry-run"]) == 0
    assert "DELETE /collections/items/vectors/nobackfill_2_of;" in capsys.readouterr().out
    assert run(["gallery", "abandon", application.url, "--leave-new", "--yes"]) == 0
    application.client = qdrant_client.QdrantClient(path=str(open_store(application.url).connection.folder))  # type: ignore[attr-defined]
    assert set(application.client.get_collection("items").config.params.vectors) == {"text", "nobackfill_2"}
