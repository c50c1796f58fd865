"""A trained model as an embedder: images, texts or vectors by id, embedded by the encoder of a run folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nobackfill.gallery.embedders.base import Embedded
from nobackfill.gallery.lineage import Generation

if TYPE_CHECKING:
    from nobackfill.data.samples import Inputs
    from nobackfill.models import Encoder


class RunFolderEmbedder:
    """Embeds on this machine or on a Ray cluster; samples that are gone or do not decode are errors of their items.

    Args:
        run: run folder of the model.
        samples: of the items.
        ids: of the samples; None: their positions, "0", "1", ….
        workers: processes that decode image files.
        cluster: address of a Ray cluster to embed on (on a path that it sees as well); None embeds here.
        encoder: of that run folder, if it is loaded already.

    Attributes:
        generation: of the model; `fingerprint` is its.
    """

    def __init__(
        self,
        run: Path | str,
        samples: Inputs,
        ids: Sequence[str] | None = None,
        *,
        workers: int = 0,
        cluster: str | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        from nobackfill.models import load

        self.run: Path = Path(run)
        self.samples, self.workers, self.cluster = samples, workers, cluster
        self.encoder: Encoder = load(self.run) if encoder is None else encoder
        self.generation: Generation = Generation.of(self.encoder.spec)
        self.fingerprint: str = self.generation.fingerprint
        names = [str(position) for position in range(len(samples))] if ids is None else ids
        self.position_of: dict[str, int] = {name: position for position, name in enumerate(names)}

    def embed(self, batches: Iterable[list[str]]) -> Iterator[Embedded]:
        """All batches in their order; a cluster gets all of them at once."""
        if self.cluster is not None:
            yield from self._on_cluster(list(batches), self.cluster)
            return
        from nobackfill.interop.cluster import encode_sound

        for ids in batches:
            known = self._known(ids)
            if known:
                yield self._embedded(ids, known, *encode_sound(self.encoder, self._chosen(known), self.workers))
            else:
                yield self._embedded(ids, known, [], self._nothing(), {})

    def _on_cluster(self, batches: list[list[str]], cluster: str) -> Iterator[Embedded]:
        from nobackfill.interop.cluster import encode_on_cluster

        known = [self._known(ids) for ids in batches]
        made = encode_on_cluster(self.run, [self._chosen(some) for some in known if some], cluster)
        for ids, some in zip(batches, known, strict=True):
            yield self._embedded(ids, some, *(next(made) if some else ([], self._nothing(), {})))

    def _known(self, ids: list[str]) -> list[str]:
        return [name for name in ids if name in self.position_of]

    def _chosen(self, ids: list[str]) -> Inputs:
        positions = [self.position_of[name] for name in ids]
        if isinstance(self.samples, np.ndarray):
            return self.samples[positions]
        return [self.samples[position] for position in positions]

    def _nothing(self) -> NDArray[np.float32]:
        return np.empty((0, self.encoder.spec.dim), np.float32)

    def _embedded(
        self, ids: list[str], known: list[str], sound: list[int], vectors: NDArray[np.float32], faults: dict[int, str]
    ) -> Embedded:
        errors = {name: "not in the data" for name in ids if name not in self.position_of}
        errors |= {known[position]: reason for position, reason in faults.items()}
        return Embedded([known[position] for position in sound], vectors, errors)
