"""What a gallery knows of the models whose vectors it holds: the manifest."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from nobackfill.errors import GalleryError
from nobackfill.gallery.formats import parse_document
from nobackfill.gallery.pair_rules import PairRule
from nobackfill.gallery.stores.base import Floats, Store

MANIFEST = "manifest"


class _SpecPrefix(Protocol):
    @property
    def fingerprint(self) -> str: ...


class _Spec(Protocol):
    """What is needed of `EmbeddingSpec`; vectors from elsewhere describe themselves by `Generation`."""

    @property
    def generation(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def prefixes(self) -> Sequence[_SpecPrefix]: ...


class ExpectedCurve(BaseModel):
    """Expected score against the fraction of the gallery that is embedded anew, measured on a sample.

    Attributes:
        fractions: from 0 to 1, ascending.
        top1: at each of them; `mean_ap` alike.
        queries: how many queries it rests on.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)
    fractions: tuple[float, ...]
    top1: tuple[float, ...]
    mean_ap: tuple[float, ...]
    queries: int

    def at(self, fraction: float) -> tuple[float, float]:
        """Top-1 and mAP at a fraction, interpolated."""
        top1, mean_ap = (float(np.interp(fraction, self.fractions, scores)) for scores in (self.top1, self.mean_ap))
        return top1, mean_ap


class Generation(BaseModel):
    """One model of the lineage.

    Attributes:
        name: id of the model, as in its run folder.
        dim: size of its vectors; they are stored with unit norm.
        fingerprint: says which model it is; a query or vector of another is refused.
        compatible_with: fingerprints of the older generations whose vectors its own compare with.
        scales: fingerprint of an older generation → γ, the mean norm of a unit vector's first values (as many as that
            generation has). Older queries' scores on this generation's items are divided by it.
        curve: what backfilling from the generation before to this one is worth, if that could be measured.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)
    name: str
    dim: int = Field(gt=0, le=65536)
    fingerprint: str
    compatible_with: tuple[str, ...] = ()
    scales: dict[str, float] = Field(default_factory=dict)
    curve: ExpectedCurve | None = None

    @classmethod
    def of(cls, spec: _Spec) -> Generation:
        """From the spec of an encoder."""
        older = tuple(prefix.fingerprint for prefix in spec.prefixes)
        return cls(name=spec.generation, dim=spec.dim, fingerprint=spec.fingerprint, compatible_with=older)

    @classmethod
    def named(cls, name: str, dim: int, older: Sequence[Generation] = ()) -> Generation:
        """A model known by its name only, whose vectors come from elsewhere; you vouch that they fit the older ones.

        Raises:
            GalleryError: if the name is empty.
        """
        if not name.strip():
            raise GalleryError(f"a model's name {name!r} is empty; expected one that its clients know")
        compatible = tuple(generation.fingerprint for generation in older)
        return cls(name=name, dim=dim, fingerprint=f"name:{name}", compatible_with=compatible)


class Manifest(BaseModel):
    """The lineage of a gallery, oldest generation first. Generations are numbered from 1 in the stores.

    Attributes:
        format: of this document.
        generations: of the lineage.
        serves_from: number of the oldest generation that is searched and whose queries are answered; `switch` moves it,
            and so does an upgrade to a model that does not compare with the oldest ones.
        source: where the items came from, as `--data` named it; None for vectors from a file.
        rules: how scores are compared, one for each pair of query and stored generation; scores of other pairs are
            compared as they are.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    generations: tuple[Generation, ...] = Field(min_length=1)
    serves_from: int = Field(default=1, ge=1)
    source: str | None = None
    rules: tuple[PairRule, ...] = ()

    @property
    def newest(self) -> int:
        """Number of the newest generation."""
        return len(self.generations)

    def number(self, fingerprint: str) -> int:
        """Number of a generation; raises `GalleryError` for a model that is not of this lineage."""
        for number, generation in enumerate(self.generations, start=1):
            if generation.fingerprint == fingerprint:
                return number
        known = ", ".join(generation.name for generation in self.generations)
        raise GalleryError(
            f"a model of fingerprint {fingerprint[:12]}… is not of this gallery's lineage ({known}); "
            "add it with `gallery upgrade`, or search with one of these"
        )

    def comparable(self, one: int, other: int) -> bool:
        """Whether vectors of these two generations compare."""
        newer, older = self.generations[max(one, other) - 1], self.generations[min(one, other) - 1]
        return one == other or older.fingerprint in newer.scales

    def name(self, number: int) -> str:
        """Of a generation."""
        return self.generations[number - 1].name

    def pair_rule(self, query: int, stored: int) -> PairRule | None:
        """How scores of a query generation with a stored one are compared, if there is a rule."""
        return next((rule for rule in self.rules if (rule.query, rule.stored) == (query, stored)), None)

    def with_rules(self, rules: Sequence[PairRule]) -> Manifest:
        """With these in place of those of the same pairs."""
        pairs = {(rule.query, rule.stored): rule for rule in (*self.rules, *rules)}
        return self.model_copy(update={"rules": tuple(pairs.values())})

    def query_vectors(self, queries: Floats, query_generation: int, gallery_generation: int) -> Floats:
        """Unit queries of one generation as inner-product queries for the unit vectors of another.

        A newer query meets an older item by its first values: the score the item has as [φ ; 0] among new vectors.
        An older query meets a newer item's first values, which have norm γ on average and count as if it were 1.
        """
        of_query, of_item = self.generations[query_generation - 1], self.generations[gallery_generation - 1]
        if query_generation == gallery_generation:
            return queries
        if query_generation > gallery_generation:
            return np.ascontiguousarray(queries[:, : of_item.dim])
        padded = np.zeros((len(queries), of_item.dim), np.float32)
        padded[:, : of_query.dim] = queries / np.float32(of_item.scales[of_query.fingerprint])
        return padded

    def compatible_generations(
        self, generation: Generation, counts: Mapping[int, int], url: str
    ) -> tuple[Generation, ...]:
        """The older generations whose vectors those of a new one compare with.

        Args:
            generation: the new one.
            counts: items by generation.
            url: of the store, for messages.

        Raises:
            GalleryError: if it is in the lineage already, not compatible with a generation in use, or too small to hold
                the space of one; or if there are items of a generation that was forgotten, whose number it would take.
        """
        if any(known.fingerprint == generation.fingerprint for known in self.generations):
            raise GalleryError(f"{url}: {generation.name} is already a generation of this gallery")
        forgotten = sum(count for number, count in counts.items() if number > self.newest)
        if forgotten:
            raise GalleryError(
                f"{url}: vectors of a model that was forgotten: {forgotten}; remove or upsert their items before you "
                "upgrade"
            )
        numbered = enumerate(self.generations, start=1)
        return tuple(older for number, older in numbered if _compatible(generation, older, counts.get(number, 0)))

    def extended(self, generation: Generation, sample: Floats, counts: Mapping[int, int], url: str) -> Manifest:
        """The manifest with a new generation, whose scales are measured on a sample of its unit vectors [n, dim].

        Raises:
            GalleryError: as `compatible_generations`; or if the sample's first values are all zero.
        """
        older = self.compatible_generations(generation, counts, url)
        scales = {each.fingerprint: _scale(generation, each, sample) for each in older}
        added = generation.model_copy(update={"scales": scales})
        # Else one late item of an older generation would be in the way of every search by the new one.
        oldest = min((self.number(each.fingerprint) for each in older), default=self.newest + 1)
        update = {"generations": (*self.generations, added), "serves_from": max(self.serves_from, oldest)}
        return self.model_copy(update=update)


def load_manifest(store: Store) -> Manifest:
    """The manifest of a store; raises `GalleryError` if there is none, or it is damaged or of another format."""
    data = store.read(MANIFEST)
    if data is None:
        raise GalleryError(
            f"{store.url}: no gallery there, or its creation was interrupted; create it with `gallery create`"
        )
    return _parsed(data, store.url)


@functools.lru_cache(maxsize=64)
def _parsed(data: bytes, url: str) -> Manifest:
    """Each search reads the manifest; it is parsed when it is another one."""
    return parse_document(Manifest, data, f"{url}: its manifest")


def save_manifest(store: Store, manifest: Manifest) -> Manifest:
    """Replace the manifest of a store; returns it."""
    store.write(MANIFEST, manifest.model_dump_json(indent=1).encode())
    return manifest


def _compatible(generation: Generation, older: Generation, items: int) -> bool:
    """Whether it compares with an older one; raises `GalleryError` if not, though it should or has to."""
    if older.fingerprint in generation.compatible_with:
        if older.dim > generation.dim:
            raise GalleryError(
                f"{generation.name} has {generation.dim} values, fewer than the {older.dim} of {older.name}, whose "
                "vectors its first ones should compare with"
            )
        return True
    if items:
        known = ", ".join(each.removeprefix("name:")[:40] for each in generation.compatible_with) or "no other model"
        raise GalleryError(
            f"{generation.name} was not trained to be compatible with {older.name}, of which the gallery holds {items} "
            f"vectors, but with {known}; train it with that run as `old` (`fit`: as --old-name)"
        )
    return False


def _scale(generation: Generation, older: Generation, sample: Floats) -> float:
    scale = float(np.linalg.norm(sample[:, : older.dim], axis=1).mean())
    if scale == 0:
        raise GalleryError(
            f"sample of {generation.name}: its first {older.dim} values, which should compare with {older.name}, are "
            "all zero"
        )
    return scale
