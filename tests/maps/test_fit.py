"""Fits from end to end: what they write, what they say, and what they refuse."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tests.maps.pairs import NEW, OLD, items, write

import nobackfill
from nobackfill.errors import ConfigError, DataError, RunError
from nobackfill.evaluation import retrieval_metrics
from nobackfill.evaluation.candidates import FULL, STATUS_QUO, CandidateResult
from nobackfill.evaluation.kinds import Kind
from nobackfill.evaluation.neighbours import neighbours, overlap
from nobackfill.gallery import ArrayEmbedder, Gallery, Generation
from nobackfill.gallery.writing import Batch
from nobackfill.maps import FITS, Held, Pairs, Settings, budget, fit, fitting
from nobackfill.maps.pairs import split_rows, without_twins
from nobackfill.models import OlderSpace

QUICK = ("procrustes", "ridge")
NEAREST, OLDEST = (OlderSpace(generation=f"old{dim}", dim=dim, fingerprint=f"abc{dim}") for dim in (OLD, OLD - 2))


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    old, new, labels = items(600)
    return Pairs(**write(tmp_path / "arrays", old=old, new=new, labels=labels))


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "STEPS", 60)
    monkeypatch.setattr(budget, "RATES", (1e-2,))


@pytest.mark.train
def test_every_method_in_every_direction(tmp_path: Path, pairs: Pairs, brief: None) -> None:
    settings = Settings(extra_dims=(0, 3), scales=(1.0, 2.0), hidden=16)
    held = Held.of(*items(500, seed=1))
    methods = tuple(name for name in FITS if name != "qdc")  # for two models of one size
    found = fit(pairs, tmp_path / "run", methods=methods, settings=settings, held=held)
    lines = {(line.name, line.searched): line for line in found.results}
    swept = {f"{name}_k{k}_c{c}" for name in ("bt2", "bt2_residual") for k in (0, 3) for c in (1, 2)}
    maps = {"procrustes", "ridge", "low_rank", "mlp", "infonce", "lambda_orthogonal"}
    expected = {(STATUS_QUO, "old/old"), (FULL, "new/new")}
    expected |= {(name, searched) for name in swept | maps for searched in ("new/old", "new/new")}
    expected |= {(name, "new/mapped") for name in (*maps, "fct", "fastfill")}
    expected |= {(name, "old + new/old") for name in ("slerp", "rank merge")}
    assert set(lines) == expected
    assert lines["bt2_k3_c2", "new/new"].dim == NEW + 3
    assert lines["bt2_k3_c2", "new/old"].dim == OLD
    kinds = {searched: {line.kind for line in found.results if line.searched == searched} for _, searched in lines}
    assert kinds == {
        "old/old": {None}, "new/new": {None}, "new/old": {Kind("new", "untouched")},
        "new/mapped": {Kind("new", "mapped")}, "old + new/old": {Kind("old + new", "untouched")},
    }  # fmt: skip

    # Every figure is that of the run folder it stands for.
    def scores(query: np.ndarray, gallery: np.ndarray) -> tuple[float, float]:
        metrics = retrieval_metrics(query, gallery, held.labels[0], held.labels[0], exclude_self=True, topk=(1, 5))  # type: ignore[index]
        return metrics.cmc[1], metrics.mean_ap

    def shown(line: CandidateResult) -> tuple[float, float]:
        return line.scores["top1"], line.scores["mean_ap"]

    folders = {one.name: one for one in (tmp_path / "run" / "methods").iterdir()}
    ridge = nobackfill.load(folders["ridge-to-old"])
    line = lines["ridge", "new/old"]
    assert shown(line) == pytest.approx(scores(ridge.encode(held.new_query), held.old_gallery))
    mapped = nobackfill.load(folders["ridge-to-new"]).encode(held.old_gallery)
    line = lines["ridge", "new/mapped"]
    assert shown(line) == pytest.approx(scores(held.new_query, mapped))
    wanted = neighbours(held.new_query, held.new_gallery, 10, exclude_self=True)
    agreement = overlap(neighbours(held.new_query, mapped, 10, exclude_self=True), wanted).mean()
    assert line.overlap == pytest.approx(agreement)
    # The run folder is the best way of validation into the old space.
    best = max((line for line in found.results if line.searched == "new/old"), key=lambda line: line.validation or 0)
    assert found.best == best.name
    encoder = nobackfill.load(tmp_path / "run")
    line = lines[found.best, "new/old"]
    assert shown(line) == pytest.approx(scores(encoder.encode(held.new_query), held.old_gallery))
    assert encoder.spec.prefixes[0].fingerprint == "name:old"
    assert found.verdict.decision == "use it"
    assert lines["ridge", "new/old"].decision == "better"


def test_the_run_serves_a_gallery_of_the_old_model(tmp_path: Path, pairs: Pairs) -> None:
    fit(pairs, tmp_path / "run", methods=("ridge",))
    encoder = nobackfill.load(tmp_path / "run")
    old, new, _ = items(80, seed=4)
    ids = [str(number) for number in range(80)]
    first = Generation(name="old", dim=OLD, fingerprint="name:old")
    gallery = Gallery.create(f"faiss:{tmp_path / 'gallery'}", first, [(ids, old, [{} for _ in ids])])
    queries = encoder.encode(new[:5])
    embedder = ArrayEmbedder(ids, encoder.encode(new), encoder.spec.fingerprint)
    gallery.upgrade(Generation.of(encoder.spec), embedder)
    found = gallery.search(queries, 3, encoder.spec.fingerprint)
    wanted = neighbours(queries, old, 3)
    assert [[int(hit.id) for hit in line] for line in found] == wanted.tolist()


@pytest.mark.train
def test_trained_fits_are_compatible_with_the_model_whose_fingerprint_is_known(
    tmp_path: Path, pairs: Pairs, brief: None
) -> None:
    known = dataclasses.replace(pairs, old_space=NEAREST, old_prefixes=(OLDEST,))
    methods = ("mlp", "infonce", "bt2", "bt2_residual")
    fit(known, tmp_path / "run", methods=methods, directions=("to-old",), settings=Settings(hidden=8))
    runs = [tmp_path / "run", *(tmp_path / "run/methods").iterdir()]
    assert len(runs) == 1 + 2 * len(methods)  # and the closed form that each starts from
    # The rates that lost are not looked at again: they know the nearest generation only.
    prefixes = [nobackfill.load(run).spec.prefixes for run in runs]
    assert {one[:1] for one in prefixes} == {(NEAREST,)}
    assert prefixes[0] == (NEAREST, OLDEST)
    assert prefixes.count((NEAREST, OLDEST)) == 1 + len(methods)


def test_the_run_serves_a_gallery_that_holds_two_older_generations(tmp_path: Path, pairs: Pairs) -> None:
    known = dataclasses.replace(pairs, old_space=NEAREST, old_prefixes=(OLDEST,))
    fit(known, tmp_path / "run", methods=("ridge",))
    encoder = nobackfill.load(tmp_path / "run")
    assert encoder.spec.prefixes == (NEAREST, OLDEST)
    assert len(nobackfill.load(tmp_path / "run/methods/ridge-to-new").spec.prefixes) == 1  # searches new vectors
    old, new, _ = items(40, seed=4)
    ids = [str(number) for number in range(40)]
    generations = [
        Generation(name=one.generation, dim=one.dim, fingerprint=one.fingerprint, compatible_with=older)
        for one, older in ((OLDEST, ()), (NEAREST, (OLDEST.fingerprint,)))
    ]
    batch: Batch = (ids[:20], old[:20, :-2], [{} for _ in ids[:20]])
    gallery = Gallery.create(f"faiss:{tmp_path / 'gallery'}", generations[0], [batch])
    gallery.upgrade(generations[1], ArrayEmbedder(ids, old, NEAREST.fingerprint))
    gallery.upsert(ids[20:], old[20:], fingerprint=NEAREST.fingerprint)
    gallery.upgrade(Generation.of(encoder.spec), ArrayEmbedder(ids, encoder.encode(new), encoder.spec.fingerprint))
    found = gallery.search(encoder.encode(new), 3, encoder.spec.fingerprint)
    assert {int(hit.id) < 20 for line in found for hit in line} == {True, False}


@pytest.mark.train
def test_without_labels_a_full_backfill_is_the_measure(tmp_path: Path, pairs: Pairs, brief: None) -> None:
    found = fit(dataclasses.replace(pairs, labels=None), tmp_path / "run", methods=("ridge", "bt2"))
    assert all(not line.scores for line in found.results)
    assert found.results[1].overlap == 1
    assert set(found.results[2].change or {}) == {"overlap"}
    # The fifth that was held out is the same whatever the method, and no row of it was fitted on.
    split = split_rows(600, 0.2, 0, assessed_apart=False)
    assert sorted([*split.fit, *split.validation, *split.held]) == list(range(600))
    assert (len(split.held), len(split.validation)) == (120, 48)


def test_doing_nothing_wins_loudly_where_it_does(tmp_path: Path) -> None:
    old, new, labels = items(800, noise=(0.05, 8.0))  # the new model is much worse, yet knows a little
    found = fit(Pairs(**write(tmp_path, old=old, new=new, labels=labels)), tmp_path / "run", methods=QUICK)
    assert found.verdict.decision == "do nothing"
    assert found.verdict.reasons[0].startswith("DOING NOTHING IS BETTER")
    assert {line.decision for line in found.results[1:]} <= {"worse", "mixed"}


UNUSABLE = {
    "noise": "unusable as pairs: a map fitted on them ranks an item's own old vector at",
    "permuted": "unusable as pairs: a map fitted on them ranks an item's own old vector at",
    "constant": "unusable: all rows have the same direction",
    "missing": "row 17 holds a value that is not finite",
    "shorter": "599 rows, but",
    "flat": r"expected floats \[n, dim\], found float32 \[600\]",
    "whole": "expected floats .*found int64",
}


@pytest.mark.parametrize("name", UNUSABLE)
@pytest.mark.parametrize("side", ["old", "new"])
def test_unusable_pairs_are_refused_and_leave_nothing_behind(tmp_path: Path, name: str, side: str) -> None:
    old, new, labels = items(600)
    arrays = {"old": old, "new": new}
    good, random = arrays[side], np.random.default_rng(0)
    holed = good.copy()
    holed[17, 2] = np.nan
    arrays[side] = {
        "noise": random.standard_normal(good.shape).astype(np.float32),
        "permuted": good[random.permutation(600)],
        "constant": np.ones_like(good),
        "missing": holed,
        "shorter": good[:599],
        "flat": good[:, 0],
        "whole": np.ones(good.shape, np.int64),
    }[name]
    with pytest.raises(DataError, match=UNUSABLE[name] if name != "shorter" else "rows, but"):
        fit(Pairs(**write(tmp_path / "arrays", **arrays, labels=labels)), tmp_path / "run", methods=QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["arrays"]


@pytest.mark.train
def test_too_few_pairs_and_unknown_methods_are_refused(tmp_path: Path, pairs: Pairs) -> None:
    few = Pairs(**write(tmp_path / "few", **dict(zip(("old", "new", "labels"), items(60), strict=True))))
    with pytest.raises(DataError, match="60 pairs are too few .* at least 248"):
        fit(few, tmp_path / "run")
    with pytest.raises(ConfigError, match="--method 'rigde': unknown; did you mean 'ridge'"):
        fit(pairs, tmp_path / "run", methods=["rigde"])
    with pytest.raises(ConfigError, match="--direction to-new: bt2 only maps to-old; leave it out"):
        fit(pairs, tmp_path / "run", methods=["ridge", "bt2"], directions=["to-new"])
    with pytest.raises(ConfigError, match="--extra-dim 11: expected 0 to 10 for 14 → 10"):
        fit(pairs, tmp_path / "run", methods=["bt2"], settings=Settings(extra_dims=(11,)))


def test_held_out_queries_among_the_fitted_pairs_are_dropped() -> None:
    old, new, labels = items(200)
    others = items(50, seed=1)
    held = Held.of(*(np.concatenate([a[:7], b]) for a, b in zip((old, new, labels), others, strict=True)))
    kept, dropped = without_twins(held, new, np.arange(5, 200))
    assert dropped == 2
    np.testing.assert_array_equal(kept.new_query, np.concatenate([new[:5], others[1]]))
    np.testing.assert_array_equal(kept.old_gallery, np.concatenate([old[:5], others[0]]))
    queries = Held(old, new, others[0], others[1], None, [[i] for i in range(50)])
    assert without_twins(queries, new, np.arange(200)) == (queries, 0)
    twin = dataclasses.replace(queries, new_query=np.concatenate([others[1][:3], new[9:10], others[1][4:]]))
    kept, dropped = without_twins(twin, new, np.arange(200))
    assert (dropped, len(kept.old_query), kept.relevant) == (1, 49, [[i] for i in range(50) if i != 3])
    assert len(kept.old_gallery) == 200
    with pytest.raises(DataError, match="all held-out queries are among the fitted pairs"):
        without_twins(Held.of(old, new, labels), new, np.arange(200))


@pytest.mark.train
def test_a_fit_that_was_killed_is_gone_on_with(
    tmp_path: Path, pairs: Pairs, brief: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = fit(pairs, tmp_path / "straight", methods=("mlp", "bt2"), directions=("to-old",))

    class PowerError(Exception): ...

    def fail(*arguments: object) -> None:
        raise PowerError

    with monkeypatch.context() as patch, pytest.raises(PowerError):
        patch.setattr(fitting, "assess_fits", fail)
        fit(pairs, tmp_path / "run", methods=("mlp", "bt2"), directions=("to-old",))
    stamp = (tmp_path / "run.unfinished/methods/mlp-to-old-0.01/model.safetensors").stat().st_mtime_ns
    with pytest.raises(RunError, match="an unfinished fit with other settings"):
        fit(pairs, tmp_path / "run", methods=("mlp",), directions=("to-old",))
    again = fit(pairs, tmp_path / "run", methods=("mlp", "bt2"), directions=("to-old",))
    assert (tmp_path / "run/methods/mlp-to-old-0.01/model.safetensors").stat().st_mtime_ns == stamp
    assert again.results == straight.results
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("straight", "run")]
    assert weights[0] == weights[1]
    with pytest.raises(RunError, match="exists and is not empty"):
        fit(pairs, tmp_path / "run", methods=("mlp",))
