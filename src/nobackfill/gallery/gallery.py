"""A gallery: stored vectors of several generations, answered by queries of any of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nobackfill.errors import GalleryError
from nobackfill.gallery.lineage import Curve, Floats, Generation, Manifest, read_manifest, unit_rows
from nobackfill.gallery.opening import open_store
from nobackfill.gallery.store import Found, Items, Payload, Store

MANIFEST, HITS = "manifest", "hits"
NORM_TOLERANCE = 1e-3  # half precision in a store moves a norm by less


@dataclass(frozen=True)
class Hit:
    """One answer.

    Attributes:
        score: inner product, or its calibrated form; comparable within one query's answers.
        generation: name of the model that made the item's vector.
    """

    id: str
    score: float
    generation: str
    payload: Payload


class Gallery:
    """Opened by `Gallery.open`, made by `Gallery.create`."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store, self.manifest = store, manifest

    @classmethod
    def open(cls, store: Store | str) -> Gallery:
        """The gallery in a store, or behind its URL; raises `GalleryError` if there is none."""
        store = open_store(store) if isinstance(store, str) else store
        data = store.read(MANIFEST)
        if data is None:
            raise GalleryError(
                f"{store.url}: no gallery there, or its creation was cut short; make it by `gallery create`"
            )
        return cls(store, read_manifest(data, store.url))

    @classmethod
    def create(
        cls,
        store: Store | str,
        generation: Generation,
        batches: Iterable[tuple[list[str], Any, list[Payload]]],
        source: str | None = None,
    ) -> Gallery:
        """Fill an empty store.

        Args:
            store: where to put it, or its URL.
            generation: the model of all vectors.
            batches: ids, vectors floats [n, dim] of any norm but zero, payloads.
            source: where the items came from, for later backfills.

        Raises:
            GalleryError: if there is something in the store, an id comes twice, or a vector is not usable.
        """
        store = open_store(store) if isinstance(store, str) else store
        store.create()
        with store.lock():
            store.add_generation(1, generation.dim)
            for ids, vectors, payloads in batches:
                rows = unit_rows(vectors, generation.dim, f"vectors of {generation.name}")
                if len(ids) != len(rows) or len(payloads) != len(rows):
                    raise GalleryError(
                        f"expected an id and a payload for each of {len(rows)} vectors, found {len(ids)} ids"
                    )
                for name in ids:
                    _check_id(name)
                store.insert(Items(ids, 1, rows, payloads))
            store.compact()
            gallery = cls(store, Manifest(generations=(generation,), source=source))
            gallery._save(gallery.manifest)
        return gallery

    def upgrade(
        self,
        generation: Generation,
        sample: Any,
        curve: Curve | None = None,
        calibration: dict[int, tuple[float, float]] | None = None,
    ) -> Generation:
        """Add a generation: its queries work from now on; no vector is touched.

        Args:
            generation: the new model, compatible with every generation whose vectors are stored.
            sample: some of its vectors, floats [n, dim], from which γ is measured.
            curve: what backfilling to it is worth, if known.
            calibration: see `Manifest`; it takes the place of an earlier one.

        Raises:
            GalleryError: if it is in the lineage already, or not compatible with a generation in use.
        """
        with self.store.lock():
            manifest = self.manifest = Gallery.open(self.store).manifest
            if any(known.fingerprint == generation.fingerprint for known in manifest.generations):
                raise GalleryError(f"{self.store.url}: {generation.name} is a generation of this gallery already")
            rows = unit_rows(sample, generation.dim, f"sample of {generation.name}")
            if not len(rows):
                raise GalleryError(f"sample of {generation.name}: no vector in it; its scale cannot be measured")
            scales = {}
            for number, older in enumerate(manifest.generations, start=1):
                if older.fingerprint not in generation.answers:
                    if self.store.counts().get(number):
                        raise GalleryError(
                            f"{generation.name} was not trained to be compatible with {older.name}, of which the "
                            f"gallery holds {self.store.counts()[number]} vectors, but with "
                            f"{_names(generation.answers)}; train it with that run as `old` (`fit`: as --old-name)"
                        )
                    continue
                if older.dim > generation.dim:
                    raise GalleryError(
                        f"{generation.name} has {generation.dim} values, fewer than the {older.dim} of {older.name}, "
                        "which it should answer with its first ones"
                    )
                scales[older.fingerprint] = scale = float(np.linalg.norm(rows[:, : older.dim], axis=1).mean())
                if scale == 0:
                    raise GalleryError(
                        f"sample of {generation.name}: its first {older.dim} values, which should answer {older.name}, "
                        "are all zero"
                    )
            added = generation.model_copy(update={"scales": scales, "curve": curve})
            self.store.add_generation(manifest.newest + 1, generation.dim)
            update = {"generations": (*manifest.generations, added), "calibration": calibration or {}}
            self._save(manifest.model_copy(update=update))
        return added

    def search(self, queries: Any, k: int, fingerprint: str, *, remember: bool = False) -> list[list[Hit]]:
        """The best k items for each query, of whatever generation their vectors are.

        Args:
            queries: floats [n, dim] of the model with this fingerprint.
            k: answers wanted.
            fingerprint: of the model that made the queries.
            remember: count the answers, for `backfill --order queried`.

        Raises:
            GalleryError: for queries of an unknown model, misshapen or not finite.
        """
        manifest = Gallery.open(self.store).manifest  # another process may have upgraded it
        asked = manifest.number(fingerprint)
        rows = unit_rows(queries, manifest.generations[asked - 1].dim, "queries")
        # Empty generations too: a backfill may fill one before the store is looked at.
        compared = [number for number in range(1, manifest.newest + 1) if self._compares(manifest, asked, number)]
        found = self.store.search({number: manifest.query_vectors(rows, asked, number) for number in compared}, k)
        calibration = manifest.calibration if asked == manifest.newest else {}
        best = [merged(found, query, k, calibration) for query in range(len(rows))]
        if remember:
            self._remember([name for answers in best for name, _, _ in answers])
        payloads = self.store.payloads(sorted({name for answers in best for name, _, _ in answers}))
        names = {number: generation.name for number, generation in enumerate(manifest.generations, start=1)}
        return [
            [Hit(name, score, names[number], payloads.get(name, {})) for name, score, number in answers]
            for answers in best
        ]

    def rollback(self, name: str) -> None:
        """Back to an older generation, whose vectors were kept; newer generations leave the lineage.

        Raises:
            GalleryError: if there is no such generation, or vectors of it were not kept.
        """
        with self.store.lock():
            manifest = Gallery.open(self.store).manifest
            names = [generation.name for generation in manifest.generations]
            if name not in names:
                raise GalleryError(f"{self.store.url}: no generation {name!r}; there are {', '.join(names)}")
            number = names.index(name) + 1
            self._rewind_job()  # first: killed after the restore, a later backfill must not count its batches as done
            missing = self.store.restore(number)
            if missing:
                raise GalleryError(
                    f"{self.store.url}: {missing} items have no kept vector of {name} or older; only a backfill with "
                    "--keep-old can be rolled back"
                )
            self.store.write("job", None)
            update = {"generations": manifest.generations[:number], "calibration": {}}  # it was for newer queries
            self._save(manifest.model_copy(update=update))

    def compact(self) -> None:
        """Give back the space of superseded vectors (they cannot be rolled back to any more) and rebuild indexes."""
        with self.store.lock():
            self.store.compact()

    def verify(self) -> list[str]:
        """What is wrong, a line each: generations, sizes, norms, ids that come twice, counts.

        Raises:
            GalleryError: if items are exchanged meanwhile: what the scan then sees is of no one moment.
        """
        manifest, problems = Gallery.open(self.store).manifest, []
        seen: set[str] = set()
        counts: dict[int, int] = {}
        before = self.store.counts()
        for items in self.store.scan(4096):
            counts[items.generation] = counts.get(items.generation, 0) + len(items.ids)
            twice = seen.intersection(items.ids)
            problems += [f"item {name!r} comes twice" for name in sorted(twice)]
            seen.update(items.ids)
            if not 1 <= items.generation <= manifest.newest:
                problems.append(f"{len(items.ids)} items of generation {items.generation}, which the manifest lacks")
                continue
            dim = manifest.generations[items.generation - 1].dim
            if items.vectors.shape[1] != dim:
                problems.append(f"generation {items.generation}: vectors of {items.vectors.shape[1]} values, not {dim}")
                continue
            norms = np.linalg.norm(items.vectors, axis=1)
            for place in np.flatnonzero(~(np.abs(norms - 1) <= NORM_TOLERANCE)).tolist():
                problems.append(f"item {items.ids[place]!r}: its vector has norm {norms[place]:.4f}, not 1")
        if self.store.counts() != before:
            raise GalleryError(
                f"{self.store.url}: items were exchanged while it was looked through; verify after the backfill"
            )
        if counts != before:
            problems.append(f"the store counts {before} items by generation, a scan finds {counts}")
        return problems

    def _compares(self, manifest: Manifest, asked: int, stored: int) -> bool:
        """Whether these generations compare; refused if they do not and there are vectors of the stored one."""
        newer, older = manifest.generations[max(asked, stored) - 1], manifest.generations[min(asked, stored) - 1]
        if asked == stored or older.fingerprint in newer.scales:
            return True
        if self.store.counts().get(stored):
            raise GalleryError(
                f"vectors of {newer.name} and {older.name} do not compare; the gallery holds vectors of "
                f"{manifest.generations[stored - 1].name}: backfill, or search with another model"
            )
        return False

    def _remember(self, names: list[str]) -> None:
        import json  # noqa: PLC0415

        hits: dict[str, int] = json.loads(self.store.read(HITS) or b"{}")
        for name in names:
            hits[name] = hits.get(name, 0) + 1
        self.store.write(HITS, json.dumps(hits).encode())

    def _rewind_job(self) -> None:
        import json  # noqa: PLC0415

        job = self.store.read("job")
        if job is not None:
            again = {**json.loads(job), "done": 0, "exchanged": 0, "missing": {}}
            self.store.write("job", json.dumps(again).encode())

    def _save(self, manifest: Manifest) -> None:
        self.store.write(MANIFEST, manifest.model_dump_json(indent=1).encode())
        self.manifest = manifest


def merged(
    found: dict[int, Found], query: int, k: int, calibration: dict[int, tuple[float, float]] | None = None
) -> list[tuple[str, float, int]]:
    """One query's best k of all generations: id, score, generation.

    An item that is seen twice was exchanged between two looks at the store: its newer vector counts.
    """
    answers: dict[str, tuple[float, int]] = {}
    for number in sorted(found):
        factor, offset = (calibration or {}).get(number, (1.0, 0.0))
        for name, score in zip(found[number].ids[query], found[number].scores[query].tolist(), strict=True):
            answers[name] = (factor * score + offset, number)
    best = sorted(answers.items(), key=lambda item: (-item[1][0], item[0]))[:k]
    return [(name, score, number) for name, (score, number) in best]


def _names(fingerprints: tuple[str, ...]) -> str:
    return ", ".join(each.removeprefix("name:")[:40] for each in fingerprints) or "no other model"


def _check_id(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise GalleryError(f"id {name!r}: is not UTF-8 text, which stores ask for; rename the file") from None


def vectors_of(store: Store, ids: list[str], generation: int) -> tuple[list[str], Floats]:
    """Those of these items whose vectors are of this generation, in the order asked for."""
    held: dict[str, Floats] = {}
    for items in store.fetch(ids):
        if items.generation == generation:
            held.update(zip(items.ids, items.vectors, strict=True))
    known = [name for name in ids if name in held]
    return known, np.stack([held[name] for name in known]) if known else np.empty((0, 0), np.float32)
