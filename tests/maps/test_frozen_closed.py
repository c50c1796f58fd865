"""`low_rank`, `qdc`, `slerp` and the rank merge against slow oracles."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.maps.pairs import NEW, OLD, items, write

import nobackfill
from nobackfill.errors import ConfigError, DataError
from nobackfill.evaluation.compare import Protocol
from nobackfill.evaluation.rank_merge import merged_nearest, merged_search
from nobackfill.maps import Held, Pairs, fit
from nobackfill.maps.folders import save_encoder
from nobackfill.maps.linear import procrustes, ridge
from nobackfill.maps.low_rank import low_rank
from nobackfill.maps.moments import moments
from nobackfill.maps.qdc import drift
from nobackfill.maps.slerp import slerp_encoder
from nobackfill.models.array_forms import slerp
from nobackfill.models.runfolder import load_arrays
from nobackfill.models.spec import named_prefix


def unit(rows: np.ndarray) -> np.ndarray:
    result: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return result


@pytest.mark.parametrize("rank", [1, 3, OLD])
def test_low_rank_is_reduced_rank_ridge_on_what_procrustes_leaves(rank: int) -> None:
    old, new, _ = items(300)
    found, penalty = moments(new, old), 0.1
    x, y = unit(new.astype(np.float64)), unit(old.astype(np.float64))
    x, y = x - x.mean(0), y - y.mean(0)
    left = y - x @ procrustes(found, centred=True).weight.T
    # Ridge as least squares on data with rows of zeros appended; then the fitted values cut to their best rank.
    root = math.sqrt(penalty * np.square(x).sum() / NEW)
    longer, targets = np.vstack([x, root * np.eye(NEW)]), np.vstack([left, np.zeros((NEW, OLD))])
    full = np.linalg.lstsq(longer, targets, rcond=None)[0]
    _, _, right = np.linalg.svd(longer @ full, full_matrices=False)
    cut = full @ right[:rank].T @ right[:rank]
    one = low_rank(found, rank, penalty)
    np.testing.assert_allclose(one.weight - procrustes(found, centred=True).weight, cut.T, atol=1e-5)
    np.testing.assert_allclose(one.bias, found.mean_y - one.weight @ found.mean_x, atol=1e-8)
    if rank == OLD:  # nothing is cut: Procrustes and ridge on its residual
        whole = np.linalg.solve(x.T @ x + root**2 * np.eye(NEW), x.T @ left).T
        np.testing.assert_allclose(one.weight, procrustes(found, centred=True).weight + whole, atol=1e-5)


def test_qdc_subtracts_the_mean_drift_of_queries(tmp_path: Path) -> None:
    old, new, labels = items(600)
    tuned = unit(old) + 0.2 * unit(new)[:, :OLD] + 0.5  # a fine-tune of the old model, drifted
    one = drift(moments(tuned, old))
    step = sum(t - o for t, o in zip(unit(tuned), unit(old), strict=True)) / 600
    np.testing.assert_allclose(unit(tuned)[3] @ one.weight.T + one.bias, unit(tuned)[3] - step, atol=1e-5)
    pairs = Pairs(**write(tmp_path / "tuned", old=old, new=tuned.astype(np.float32), labels=labels))
    found = fit(pairs, tmp_path / "run", methods=["qdc"])
    assert [line.searched for line in found.results] == ["old/old", "new/new", "new/old", "new/new", "old + new/old"]
    held = np.sort(np.random.default_rng([0, 2]).permutation(600)[:120])
    raw = nobackfill.retrieval_metrics(tuned[held], old[held], labels[held], labels[held], exclude_self=True)
    assert found.results[2].scores["mean_ap"] > raw.mean_ap + 0.01
    unequal = Pairs(**write(tmp_path / "other", old=old, new=new, labels=labels))
    with pytest.raises(ConfigError, match="--method qdc: the models have 10 and 14 values; it needs two of one size"):
        fit(unequal, tmp_path / "no", methods=["qdc"])
    assert not list(tmp_path.glob("no*"))


def naive_slerp(start: np.ndarray, end: np.ndarray, alpha: float) -> np.ndarray:
    angle = math.acos(max(-1.0, min(1.0, float(start @ end))))
    return (math.sin((1 - alpha) * angle) * start + math.sin(alpha * angle) * end) / math.sin(angle)


@settings(max_examples=30, deadline=None)
@given(alpha=st.sampled_from([0.0, 0.1, 0.5, 1.0]), seed=st.integers(0, 50))
def test_slerp_is_on_the_arc_between_old_and_rotated_new(alpha: float, seed: int) -> None:
    old, new, _ = items(40, seed)
    rotation = procrustes(moments(new, old), centred=False)
    encoder = slerp_encoder(rotation, alpha, named_prefix("old", OLD))
    # The two halves may have any norms: each is brought to unit norm.
    found = encoder.encode(np.concatenate([3 * old, 0.1 * new], axis=1))
    start, end = unit(old.astype(np.float64)), unit(unit(new.astype(np.float64)) @ rotation.weight.T)
    for line, one, other in zip(found, start, end, strict=True):
        np.testing.assert_allclose(line, naive_slerp(one, other, alpha), atol=1e-5)


def test_slerp_of_parallel_and_opposite_vectors_is_finite() -> None:
    start = unit(np.random.default_rng(0).standard_normal((5, 4))).astype(np.float32)
    np.testing.assert_allclose(slerp(start, start, 0.3), start, atol=1e-6)
    np.testing.assert_allclose(slerp(start, -start, 0.25), 0.5 * start, atol=1e-3)


@pytest.mark.train
def test_a_slerp_run_loads_and_encodes_the_same_with_and_without_pytorch(tmp_path: Path) -> None:
    old, new, _ = items(50)
    encoder = slerp_encoder(procrustes(moments(new, old), centred=False), 0.4, named_prefix("old", OLD))
    save_encoder(encoder, tmp_path / "run", {})
    both = np.concatenate([old, new], axis=1)
    wanted = encoder.encode(both)
    for loaded in (load_arrays(tmp_path / "run"), nobackfill.load(tmp_path / "run")):
        np.testing.assert_allclose(loaded.encode(both), wanted, atol=1e-6)
        with pytest.raises(DataError, match=r"\[n, 24\] \(10 \+ 14 values, two vectors side by side\), found .* 14\]"):
            loaded.encode(new)


def test_slerp_says_that_both_models_embed_queries_and_is_not_taken_for_a_run_of_new_vectors(tmp_path: Path) -> None:
    old, new, labels = items(600)
    pairs = Pairs(**write(tmp_path / "arrays", old=old, new=new, labels=labels))
    found = fit(pairs, tmp_path / "run", methods=["slerp", "procrustes"], directions=["to-old"])
    assert found.best == "procrustes"
    line = next(line for line in found.results if line.name == "slerp")
    assert line.kind is not None
    assert line.kind.words == "both models embed every query; the gallery stays as it is"
    encoder = nobackfill.load(tmp_path / "run/methods/slerp-to-old")
    held = np.sort(np.random.default_rng([0, 2]).permutation(600)[:120])
    queries = encoder.encode(np.concatenate([old[held], new[held]], axis=1))
    metrics = nobackfill.retrieval_metrics(queries, old[held], labels[held], labels[held], exclude_self=True)
    assert line.scores["mean_ap"] == pytest.approx(metrics.mean_ap)
    assert fit(pairs, tmp_path / "alone", methods=["slerp"]).best == "slerp"


def fused(searches: list[tuple[np.ndarray, np.ndarray]], query: int, own: int | None) -> np.ndarray:
    total = np.zeros(len(searches[0][1]))
    for queries, gallery in searches:
        size = min(queries.shape[1], gallery.shape[1])
        a, b = unit(queries[:, :size]), unit(gallery[:, :size])
        scores = [-np.inf if item == own else float(a[query] @ b[item]) for item in range(len(b))]
        order = sorted(range(len(b)), key=lambda item: -scores[item])
        for rank, item in enumerate(order, 1):
            total[item] += 1 / (60 + rank)
    return total


@pytest.mark.parametrize("exclude_self", [True, False])
def test_rank_merge_is_reciprocal_rank_fusion_of_whole_rankings(exclude_self: bool) -> None:
    old, new, labels = items(140)
    mapped = unit(new) @ ridge(moments(new, old), [0.1])[0].weight.T.astype(np.float32)
    count = 140 if exclude_self else 20
    searches = [(old[:count], old), (mapped[:count], old)]
    metrics = merged_search(searches, Protocol(labels[:count], labels, exclude_self=exclude_self))
    nearest = merged_nearest(searches, 10, exclude_self=exclude_self)
    for query in range(0, count, 7):
        own = query if exclude_self else None
        total = fused(searches, query, own).astype(np.float32)
        order = [item for item in np.argsort(-total, kind="stable") if item != own]
        assert nearest[query].tolist() == order[:10]
        wanted = [bool(labels[item] == labels[query]) for item in order]
        values = [float(total[item]) for item in order]
        precisions = [
            sum(w for w, other in zip(wanted, values, strict=True) if other >= value)
            / sum(other >= value for other in values)
            for value, w in zip(values, wanted, strict=True) if w
        ]  # fmt: skip
        assert metrics.average_precision[query] == pytest.approx(np.mean(precisions))


def test_merging_a_search_with_itself_changes_nothing() -> None:
    old, _, labels = items(60)
    held = Held.of(old, old, labels)
    metrics = merged_search([(old, old), (old, old)], Protocol(labels, labels, exclude_self=held.exclude_self))
    alone = nobackfill.retrieval_metrics(old, old, labels, labels, exclude_self=True)
    assert metrics.mean_ap == pytest.approx(alone.mean_ap)


@pytest.mark.parametrize("match", [0, 1])
def test_items_with_equal_vectors_share_a_rank(match: int) -> None:
    gallery, query = np.array([[1, 0], [1, 0], [0, 1]], np.float32), np.array([[1, 0]], np.float32)
    protocol = Protocol(relevant=[[match]])
    merged = merged_search([(query, gallery)] * 2, protocol)
    alone = nobackfill.retrieval_metrics(query, gallery, relevant=[[match]])
    assert (merged.scores(), merged.average_precision.tolist()) == (alone.scores(), [0.5])
