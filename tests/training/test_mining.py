"""Mined negatives against a loop over all documents, and runs that train with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.training.test_texts import config, ready, root
from torch.nn.functional import cosine_similarity

from nobackfill.config import MineConfig
from nobackfill.data import PairSamples, TextSamples
from nobackfill.errors import NobackfillError
from nobackfill.training import train
from nobackfill.training.mining import with_mined

pytest.importorskip("transformers")
__all__ = ["root"]  # the fixture
CPU = torch.device("cpu")


def texts(count: int, role: Any) -> TextSamples:
    return TextSamples(
        tuple(f"{role} {n}" for n in range(count)), np.zeros(count, np.int64), (role,), "here", role=role
    )


def sample(seed: int) -> tuple[PairSamples, torch.Tensor, torch.Tensor]:
    """12 pairs of 7 queries and 9 documents in 6 groups; some have negatives of their own."""
    random = np.random.default_rng(seed)
    samples = PairSamples(
        queries=texts(7, "query"),
        documents=texts(9, "document"),
        query=np.concatenate([np.arange(7), random.integers(7, size=5)]),
        document=random.integers(9, size=12),
        negatives=tuple(np.unique(random.integers(9, size=n % 3)).astype(np.int64) for n in range(12)),
        group=np.concatenate([np.arange(6), random.integers(6, size=3)]),
        origin="here",
    )
    generator = torch.Generator().manual_seed(seed)
    queries, documents = (3 * torch.randn(n, 4, generator=generator) for n in (7, 9))
    return samples, queries, documents


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(1, 10), margin=st.sampled_from([0.0, 0.05, 0.4, 1.2]))
def test_the_mined_are_those_of_a_loop(seed: int, count: int, margin: float) -> None:
    samples, queries, documents = sample(seed)
    found, said = with_mined(samples, queries, documents, MineConfig(negatives=count, margin=margin), CPU)
    total = without = 0
    for pair in range(len(samples)):
        query, own = samples.query[pair], samples.document[pair]
        answering = {samples.group[d] for q, d in zip(samples.query, samples.document, strict=True) if q == query}
        scores = {d: float(cosine_similarity(queries[query], documents[d], dim=0)) for d in range(9)}
        allowed = [d for d in range(9) if samples.group[d] not in answering and scores[d] <= scores[own] - margin]
        expected = sorted(allowed, key=lambda d: -scores[d])[:count]
        given_ones = list(samples.negatives[pair])
        assert list(found.negatives[pair]) == sorted({*expected, *given_ones})  # each once
        total += len(expected)
        without += not expected
    assert said == {"negatives": total, "pairs_without": without}
    assert found.documents is samples.documents  # nothing new to tokenize


def test_many_pairs_are_mined_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, queries, documents = sample(3)
    whole, said = with_mined(samples, queries, documents, MineConfig(negatives=3), CPU)
    monkeypatch.setattr("nobackfill.training.mining.QUERIES", 5)
    parts, again = with_mined(samples, queries, documents, MineConfig(negatives=3), CPU)
    assert said == again
    assert all(np.array_equal(*both) for both in zip(whole.negatives, parts.negatives, strict=True))


def test_a_run_trains_with_them(root: Path, tmp_path: Path) -> None:
    settings = config(root, "prefix", "static", kind="pairs", mine={"negatives": 2}, data__negatives=[])
    setup, _ = ready(settings)
    assert setup.pairs is not None
    samples = setup.pairs.samples
    assert setup.samples is samples
    counts = [len(each) for each in samples.negatives]
    assert max(counts) == 2
    for pair, negatives in enumerate(samples.negatives):
        own = np.full(len(negatives), samples.query[pair])
        assert not samples.answers(own, negatives).any()
    run = train(settings, tmp_path / "run")
    said = json.loads((run / "metrics.json").read_text())["mined"]
    assert said == {"negatives": sum(counts), "pairs_without": counts.count(0)}
    bare = train(config(root, "prefix", "static", kind="pairs", data__negatives=[]), tmp_path / "bare")
    lines = [json.loads((each / "history.jsonl").read_text().splitlines()[0]) for each in (run, bare)]
    assert lines[0]["pairs"] > lines[1]["pairs"]  # more to tell apart


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "texts"}, "'mine': data 'texts' are no pairs"),
        ({"kind": "pairs", "method": "independent"}, "'mine': there is no old model"),
        ({"kind": "pairs", "mine": {"negatives": 0}}, "mine.negatives"),
        ({"kind": "pairs", "mine": {"negatives": 2, "margin": -0.1}}, "mine.margin"),
        ({"kind": "pairs", "mine": {"negative": 2}}, "mine.negative"),
    ],
)
def test_what_cannot_be_mined_is_named(root: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NobackfillError, match=message) as caught:
        train(config(root, **{"method": "prefix", "mine": {"negatives": 2}, **changes}), tmp_path / "run")
    assert "\n" not in str(caught.value)
