"""What a fit is chosen and judged by where pairs or matches are few, what it is resumed with, and what it keeps."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.maps.pairs import NEW, OLD, items, write

from nobackfill.errors import DataError, RunError
from nobackfill.evaluation.neighbours import neighbours
from nobackfill.evaluation.verdict import Verdict
from nobackfill.maps import Held, Pairs, fit, fitting
from nobackfill.maps.pairs import without_twins
from nobackfill.models import OlderSpace
from nobackfill.reports.document import FitSection
from nobackfill.reports.fits import fit_table


def made(folder: Path, count: int, labels: np.ndarray | None = None) -> Pairs:
    old, new, _ = items(count)
    return Pairs(**write(folder, old=old, new=new, **({} if labels is None else {"labels": labels})))


def test_agreement_on_few_pairs_tells_maps_apart(tmp_path: Path) -> None:
    old, new, _ = items(60, seed=1)
    held = Held.of(old, new, None)
    found = fit(made(tmp_path, 90), tmp_path / "run", methods=("procrustes", "ridge"), held=held)  # 9 for validation
    assert all(one.validation < 1 for one in found.results if one.validation is not None)


def test_agreement_on_few_held_out_items_tells_searches_apart(tmp_path: Path) -> None:
    old, new, _ = items(11, seed=1)
    found = fit(made(tmp_path, 90), tmp_path / "run", methods=("ridge",), held=Held.of(old, new, None)).results
    assert {one.nearest for one in found} == {3}  # ten of ten others would be found by any search
    assert found[0].overlap < 0.9
    assert found[-1].name == "rank merge"
    table = fit_table(FitSection(
        results=found, verdict=Verdict("cannot tell", ()), best="ridge", dropped=0, fitted_on_gallery=False
    ))  # fmt: skip
    assert "overlap with full backfill, top 3 (%)" in [column.header for column in table.columns]


@pytest.mark.parametrize(
    ("relevant", "message"),
    [
        ([[0]] * 9, "relevant: expected a list for each of the 10 queries, found 9 lists"),
        ([[0]] * 9 + [[5000]], "relevant: query 9: item 5000 is outside the gallery's range 0…199"),
        (np.eye(9, 200, dtype=bool), r"relevant: expected bool \[10, 200\], found bool \[9, 200\]"),
        ([[]] * 10, "relevant: no query has a relevant item in the gallery, so no search can be judged by it"),
    ],
)
def test_wrong_relevance_is_refused_before_anything_is_fitted(tmp_path: Path, relevant: Any, message: str) -> None:
    pairs, (old, new, _) = made(tmp_path / "arrays", 200), items(10, seed=1)
    held = Held(np.load(pairs.old), np.load(pairs.new), old, new, None, relevant)
    with pytest.raises(DataError, match=message):
        fit(pairs, tmp_path / "run", methods=("ridge",), held=held)
    assert [path.name for path in tmp_path.iterdir()] == ["arrays"]


def test_labels_and_relevance_that_only_fitted_pairs_match_are_refused_at_once(tmp_path: Path) -> None:
    pairs, (old, new, _) = made(tmp_path / "arrays", 200), items(40, seed=1)
    new[::2] = np.load(pairs.new)[:20]  # of two items with one label, one is a fitted pair
    with pytest.raises(DataError, match="shares its label with another once the 20 queries among the fitted pairs"):
        fit(pairs, tmp_path / "run", methods=("ridge",), held=Held.of(old, new, np.arange(40) // 2))
    relevant: list[list[int]] = [[0], []] * 20
    held = Held(np.load(pairs.old), np.load(pairs.new), old, new, None, relevant)
    with pytest.raises(DataError, match="no query has a relevant item in the gallery once the 20 queries among"):
        fit(pairs, tmp_path / "run", methods=("ridge",), held=held)
    assert [path.name for path in tmp_path.iterdir()] == ["arrays"]


def weak(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True pairs that share little, floats [count, 64]; six of them cannot be told from noise."""
    random = np.random.default_rng(seed)
    content, noise = random.standard_normal((count, 12)), random.standard_normal((2, count, 64))
    old, new = (content @ random.standard_normal((12, 64)) + 5 * each for each in noise)
    return old.astype(np.float32), new.astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
def test_few_pairs_are_judged_by_all_of_them(tmp_path: Path, seed: int) -> None:
    (old, new), held = weak(64, seed), Held.of(*weak(60, 9), None)
    fit(Pairs(**write(tmp_path / "true", old=old, new=new)), tmp_path / "run", methods=("ridge",), held=held)
    random = np.random.default_rng(seed)
    for name, other in (("mixed", new[random.permutation(64)]), ("noise", random.standard_normal((64, 64)))):
        pairs = Pairs(**write(tmp_path / name, old=old, new=other.astype(np.float32)))
        with pytest.raises(DataError, match="unusable as pairs: a map fitted on them ranks an item's own old vector"):
            fit(pairs, tmp_path / "no", methods=("ridge",), held=held)
        with pytest.raises(DataError, match="ranks an item's own new vector"):
            fit(pairs, tmp_path / "no", methods=("ridge",), held=held, directions=("to-new",))


def test_labels_that_few_share_do_not_choose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = made(tmp_path, 300, np.arange(300) // 2)
    found = fit(pairs, tmp_path / "run", methods=("ridge",))
    assert "of 24 validation pairs share their label with another, too few to choose settings by" in (
        capsys.readouterr().err
    )
    unlabelled = fit(dataclasses.replace(pairs, labels=None), tmp_path / "other", methods=("ridge",))
    assert [one.choice for one in found.results] == [one.choice for one in unlabelled.results]
    assert found.results[0].queries  # judged by them all the same


def test_labels_that_nothing_shares_are_refused_at_once(tmp_path: Path) -> None:
    pairs = made(tmp_path / "arrays", 300, np.arange(300))
    with pytest.raises(DataError, match="no held-out item shares its label with another"):
        fit(pairs, tmp_path / "run", methods=("ridge",))
    assert [path.name for path in tmp_path.iterdir()] == ["arrays"]


def test_an_unfinished_fit_of_other_rows_or_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, (old, new, _) = made(tmp_path, 300), items(60, seed=1)
    held = Held.of(old, new, None)

    class PowerError(Exception): ...

    def fail(*arguments: object) -> None:
        raise PowerError

    with monkeypatch.context() as patch, pytest.raises(PowerError):
        patch.setattr(fitting, "assess_fits", fail)
        fit(pairs, tmp_path / "run", methods=("ridge",))
    refused = r"run\.unfinished: contains an unfinished fit with other settings, or other files; remove it"
    with pytest.raises(RunError, match=refused):
        fit(pairs, tmp_path / "run", methods=("ridge",), held=held)
    new = np.load(pairs.new)
    np.save(pairs.new, new[:, ::-1])
    with pytest.raises(RunError, match=refused):
        fit(pairs, tmp_path / "run", methods=("ridge",))
    np.save(pairs.new, new)
    fit(pairs, tmp_path / "run", methods=("ridge",))


def test_a_run_says_whose_vectors_it_takes_where_that_is_one_model(tmp_path: Path) -> None:
    spaces = {
        name: OlderSpace(generation=name, dim=dim, fingerprint=f"of {name}") for name, dim in (("o", OLD), ("n", NEW))
    }
    known = dataclasses.replace(made(tmp_path, 300), old_space=spaces["o"], new_space=spaces["n"])
    fit(known, tmp_path / "run", methods=("ridge", "slerp"))
    bases = {
        path.parent.name: json.loads(path.read_text())["generation"] for path in (tmp_path / "run").rglob("base.json")
    }
    assert bases == {"run": "n", "ridge-to-old": "n", "ridge-to-new": "o"}
    fit(known, tmp_path / "back", methods=("ridge",), directions=("to-new",))
    assert json.loads((tmp_path / "back/base.json").read_text())["generation"] == "o"


def test_the_vectors_of_one_map_at_a_time_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []

    def watched(find: Callable[..., Any]) -> Callable[..., Any]:
        def call(query: np.ndarray, gallery: np.ndarray, *rest: object, **options: object) -> object:
            seen.extend(weakref.ref(each) for each in (query, gallery) if all(each is not ref() for ref in seen))
            alive.append(sum(ref() is not None for ref in seen))
            return find(query, gallery, *rest, **options)

        return call

    monkeypatch.setattr("nobackfill.maps.assessment.neighbours", watched(neighbours))
    fit(made(tmp_path, 300), tmp_path / "run", methods=("procrustes", "ridge", "low_rank"))
    assert len(alive) == 2 + 3 * 3
    assert max(alive) <= 2 + 2  # old and new vectors of the held-out items; a query, and a mapped gallery


def test_leaving_out_twins_takes_no_memory_for_each_fitted_pair() -> None:
    random = np.random.default_rng(0)
    new = random.random((300_000, 2), np.float32)
    held = Held.of(new[:50], new[:50], None)
    tracemalloc.start()
    try:
        kept, dropped = without_twins(held, new, np.arange(40, len(new)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (len(kept.new_query), dropped) == (40, 10)
    assert peak < 12e6
