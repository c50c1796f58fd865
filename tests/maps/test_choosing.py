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
from nobackfill.maps import Held, Pairs, fit, fitting
from nobackfill.maps.pairs import without_twins
from nobackfill.models import OlderSpace


def made(folder: Path, count: int, labels: np.ndarray | None = None) -> Pairs:
    old, new, _ = items(count)
    return Pairs(**write(folder, old=old, new=new, **({} if labels is None else {"labels": labels})))


def test_agreement_on_few_pairs_tells_maps_apart(tmp_path: Path) -> None:
    old, new, _ = items(60, seed=1)
    held = Held.of(old, new, None)
    found = fit(made(tmp_path, 90), tmp_path / "run", methods=("procrustes", "ridge"), held=held)  # 9 for validation
    assert all(one.validation < 1 for one in found.results if one.validation is not None)


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
