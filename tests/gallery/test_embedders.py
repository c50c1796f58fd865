"""Embedders: items in, vectors or an error for each item out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.gallery.galleries import COUNT, FIRST, IDS, NEW_VECTORS, OLD_VECTORS, SECOND, fresh

import nobackfill
from nobackfill.cli.gallery import items as cli_items
from nobackfill.errors import DataError, GalleryError
from nobackfill.gallery import ArrayEmbedder, Embedded, FunctionEmbedder, RunFolderEmbedder
from nobackfill.gallery.stores.registry import open_store


class TextModel:
    """A run of texts that notes by which prompt it is asked."""

    def __init__(self, modality: str = "text") -> None:
        self.spec = SimpleNamespace(modality=modality, dim=2, generation="texts", fingerprint="f" * 64, prefixes=())
        self.asked: list[object] = []

    def encode(self, samples: list[str], workers: int = 0, role: str | None = None) -> np.ndarray:
        self.asked.append(role if self.spec.modality == "text" else workers)
        return np.ones((len(samples), 2), np.float32)


@pytest.mark.train
def test_items_of_a_text_run_are_documents_and_queries_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    model = TextModel()
    embedder = RunFolderEmbedder("run", ["a", "b"], encoder=model)  # type: ignore[arg-type]
    assert next(embedder.embed([["0", "1"]])).ids == ["0", "1"]
    items = cli_items.DataItems(["0", "1"], ["a", "b"], [{}, {}], 3)
    assert len(list(cli_items.embedded_batches(model, items))) == 1  # type: ignore[arg-type]
    monkeypatch.setattr(cli_items, "load_encoder", lambda _: model)
    assert len(cli_items.query_vectors(["a"], Path("run"), None, None)[1]) == 1
    assert model.asked == ["document", "document", "query"]
    images = TextModel("image")
    list(cli_items.embedded_batches(images, items))  # type: ignore[arg-type]
    assert images.asked == [3]


@pytest.mark.train
def test_of_texts_only_those_at_fault_are_named() -> None:
    from nobackfill.models.sentence_encoder import FunctionEncoder, check_texts

    class Strict(TextModel):
        def encode(self, samples: list[str], workers: int = 0, role: str | None = None) -> np.ndarray:
            if "fail" in check_texts(samples):
                raise DataError("it fails")
            return super().encode(samples, workers, role)

    made = embedded(Strict(), ["one", None, "two"])
    assert (made.ids, made.errors) == (["0", "2"], {"1": "expected a string, found NoneType"})
    with pytest.raises(DataError, match="it fails"):
        embedded(Strict(), ["one", "fail"])
    function = FunctionEncoder(lambda texts: [[float("o" in text), 0.0] for text in texts], "o")
    made = embedded(function, ["one", "a", None])
    assert (made.ids, np.asarray(made.vectors).tolist()) == (["0"], [[1.0, 0.0]])
    assert made.errors == {"1": "its vector is zero or not finite", "2": "expected a string, found NoneType"}


def embedded(encoder: object, samples: list[Any]) -> Embedded:
    embedder = RunFolderEmbedder("run", samples, encoder=encoder)  # type: ignore[arg-type]
    return next(embedder.embed([[str(position) for position in range(len(samples))]]))


def test_an_id_that_comes_twice_has_no_one_vector() -> None:
    with pytest.raises(GalleryError, match="id 'a': comes twice"):
        ArrayEmbedder(["a", "b", "a"], np.ones((3, 2)), "f")


def test_an_upgrade_and_a_backfill_by_an_array(tmp_path: Path) -> None:
    gallery = fresh(open_store(f"faiss:{tmp_path / 'store'}"))
    embedder = ArrayEmbedder(IDS[:50], NEW_VECTORS, SECOND.fingerprint)
    added = gallery.upgrade(SECOND, embedder)
    assert added.scales[FIRST.fingerprint] == pytest.approx(np.linalg.norm(NEW_VECTORS[:50, :6], axis=1).mean())
    assert added.curve is not None  # the items have labels
    assert added.curve.fractions == (0, 0.25, 0.5, 0.75, 1)
    assert added.curve.queries == 50
    job = gallery.backfill(embedder)
    assert job.errors == dict.fromkeys(IDS[50:], "not among the ids")
    assert gallery.status().items == (COUNT - 50, 50)
    assert gallery.status().fraction == pytest.approx(50 / COUNT)


@pytest.mark.parametrize("kind", ["function", "array"])
def test_an_item_without_a_usable_vector_keeps_its_old_one_and_is_listed(tmp_path: Path, kind: str) -> None:
    gallery = fresh(open_store(f"faiss:{tmp_path / 'store'}"))
    rows = NEW_VECTORS.astype(np.float64)
    rows[3], rows[7, 2], rows[9, 0] = 0, np.nan, -np.inf
    embedder = ArrayEmbedder(IDS, rows, SECOND.fingerprint)
    by_function = FunctionEmbedder(lambda ids: rows[[IDS.index(name) for name in ids]], SECOND.fingerprint)
    chosen = embedder if kind == "array" else by_function
    gallery.upgrade(SECOND, chosen)
    assert len(gallery.renew_rules(chosen)) == 1
    job = gallery.backfill(chosen, batch_size=1)
    assert job.errors == dict.fromkeys([IDS[3], IDS[7], IDS[9]], "its vector is zero or not finite")
    assert gallery.status().items == (3, COUNT - 3)
    assert gallery.verify() == []
    with pytest.raises(GalleryError, match=r"new vectors: expected floats \[n, 9\], found float64 \[\]"):
        gallery.backfill(lambda _: 1.0, fingerprint=SECOND.fingerprint)


def test_the_curve_of_an_upgrade_is_that_of_its_sample(tmp_path: Path) -> None:
    from nobackfill.evaluation import backfilling_curve

    gallery = fresh(open_store(f"faiss:{tmp_path / 'store'}"))
    curve = gallery.upgrade(SECOND, ArrayEmbedder(IDS, NEW_VECTORS, SECOND.fingerprint)).curve
    labels = np.arange(COUNT) % 7
    wanted = backfilling_curve(
        NEW_VECTORS, OLD_VECTORS, NEW_VECTORS, labels, labels, exclude_self=True, fractions=(0.0, 0.25, 0.5, 0.75, 1.0)
    )
    assert curve is not None
    assert curve.top1 == wanted.scores["top1"]
    assert curve.mean_ap == wanted.scores["mean_ap"]


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    gallery = fresh(open_store(f"faiss:{tmp_path / 'store'}"))
    with pytest.raises(GalleryError, match="the embedder's model has fingerprint aaaaaaaaaaaa…, expected bbbb"):
        gallery.upgrade(SECOND, ArrayEmbedder(IDS, OLD_VECTORS, FIRST.fingerprint))
    with pytest.raises(GalleryError, match=r"none of 60 sampled items could be embedded by second \(.*: not among the"):
        gallery.upgrade(SECOND, ArrayEmbedder(["other"], NEW_VECTORS[:1], SECOND.fingerprint))
    with pytest.raises(GalleryError, match="expected one vector for each of 60 items, found 1"):
        gallery.upgrade(SECOND, lambda ids: NEW_VECTORS[:1])
    with pytest.raises(GalleryError, match="the model of a function is unknown"):
        gallery.backfill(lambda ids: NEW_VECTORS)


def test_a_stream_that_ends_early_is_refused(tmp_path: Path) -> None:
    gallery = fresh(open_store(f"faiss:{tmp_path / 'store'}"))
    gallery.add_generation(SECOND, NEW_VECTORS)

    class Short(FunctionEmbedder):
        def embed(self, batches):  # type: ignore[no-untyped-def]
            yield Embedded(next(iter(batches)), NEW_VECTORS[:10])

    short = Short(lambda ids: [], SECOND.fingerprint)
    with pytest.raises(GalleryError, match="the embedder ended after 10 of 60 items"):
        gallery.backfill(short, batch_size=10, order="oldest")
    assert gallery.status().items == (50, 10)


def test_a_run_folder_embeds_by_id(runs: dict[str, Path]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    embedder = RunFolderEmbedder(runs["bt2"], pixels, list("abcde"))
    assert embedder.generation.fingerprint == embedder.fingerprint
    first, none = embedder.embed([["d", "x", "a"], ["y"]])
    assert (list(first.ids), dict(first.errors)) == (["d", "a"], {"x": "not in the data"})
    np.testing.assert_allclose(
        np.asarray(first.vectors, np.float32), nobackfill.load(runs["bt2"]).encode(pixels[[3, 0]]), atol=1e-5
    )
    assert (list(none.ids), dict(none.errors)) == ([], {"y": "not in the data"})


WITHOUT_MODELS = """
import sys
import numpy as np

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "timm", "sklearn", "accelerate"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import nobackfill.gallery
from nobackfill.gallery import ArrayEmbedder, Gallery, Generation

random = np.random.default_rng(0)
ids, old, new = [str(n) for n in range(40)], random.standard_normal((40, 4)), random.standard_normal((40, 6))
gallery = Gallery.create("faiss:g", Generation.named("v1", 4), [(ids, old, [{} for _ in ids])])
embed = ArrayEmbedder(ids, new, "name:v2")
gallery.upgrade(Generation.named("v2", 6, gallery.manifest.generations), embed, unchecked=True)
gallery.backfill(lambda names: new[[int(name) for name in names]], fingerprint="name:v2", target="25%")
gallery.backfill(embed)
hits = gallery.search(new[3:4], 1, "name:v2")[0]
print(hits[0].id, gallery.verify(), gallery.status().items)
"""


def test_vectors_need_no_library_of_models(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MODELS], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "3 [] (0, 40)"
