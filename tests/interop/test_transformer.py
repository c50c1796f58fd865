"""A run as a step of scikit-learn's pipelines."""

from __future__ import annotations

import copy
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.utils.validation import check_is_fitted
from tests.interop.conftest import NEW, OLD, vectors

import nobackfill
from nobackfill.errors import DataError, RunError
from nobackfill.interop import EncoderTransformer


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 10, 12, 3), np.uint8)


def test_its_values_are_the_encoder_s(runs: dict[str, Path], vector_runs: dict[str, Path], text_run: Path) -> None:
    texts = ["one", "two three", "a"]
    for run, samples in ((runs["bt2"], pictures(5)), (vector_runs["bt2"], vectors(5)), (text_run, texts)):
        expected = nobackfill.load(run).encode(samples, batch_size=2)
        found = EncoderTransformer(run, batch_size=2).fit_transform(samples)
        assert np.array_equal(found, expected)


def test_strings_come_as_any_kind_of_column(text_run: Path) -> None:
    pandas = pytest.importorskip("pandas")
    step, texts = EncoderTransformer(text_run), ["one", "two three", "a"]
    expected = step.transform(texts)
    for column in (np.array(texts), np.array(texts, object), pandas.Series(texts), tuple(texts)):
        assert np.array_equal(step.transform(column), expected)
    with pytest.raises(DataError, match=r"texts: item 1 is float, expected a string"):
        step.transform(np.array(["one", np.nan], object))


def test_a_pipeline_finds_neighbours_and_is_scored(vector_runs: dict[str, Path]) -> None:
    x = vectors(60)
    search = make_pipeline(EncoderTransformer(vector_runs["bt2"]), Normalizer(), NearestNeighbors(n_neighbors=1))
    search.fit(x)
    _, found = search[-1].kneighbors(search[:-1].transform(100 * x))  # of any norm
    assert np.array_equal(found[:, 0], np.arange(60))
    judge = make_pipeline(EncoderTransformer(vector_runs["map"]), LogisticRegression())
    assert cross_val_score(judge, x, x[:, 0] > 0, cv=3).mean() > 0.6


def test_copies_carry_the_settings_and_not_the_encoder(vector_runs: dict[str, Path]) -> None:
    step = EncoderTransformer(vector_runs["map"], batch_size=3).fit(None)
    expected = step.transform(vectors(4))
    state = pickle.dumps(step)
    assert len(state) < 1500
    for other in (pickle.loads(state), copy.deepcopy(step)):
        assert "_loaded" not in vars(other)
        assert other.fingerprint_ == step.fingerprint_
        assert np.array_equal(other.transform(vectors(4)), expected)
    twin = clone(step)
    assert twin.get_params() == step.get_params() == {"run": vector_runs["map"], "batch_size": 3}
    assert not hasattr(twin, "fingerprint_")
    assert np.array_equal(pickle.loads(pickle.dumps(make_pipeline(step))).transform(vectors(4)), expected)


def test_fitting_only_binds_it_to_a_generation(vector_runs: dict[str, Path], tmp_path: Path) -> None:
    step = EncoderTransformer(vector_runs["map"])
    check_is_fitted(step)  # stateless
    assert step.transform(vectors(2)).shape == (2, OLD)
    assert list(step.get_feature_names_out()) == [f"encodertransformer{i}" for i in range(OLD)]
    step.fit(None)
    assert (step.n_features_in_, step.n_features_out_) == (NEW, OLD)
    assert step.generation_ == nobackfill.load(vector_runs["map"]).spec.generation
    step.set_params(run=vector_runs["bt2"])
    with pytest.raises(RunError, match=r"fitted with generation map-\w{12}, found bt2_vectors-\w{12} there; fit again"):
        step.transform(vectors(2))
    assert step.fit_transform(vectors(2)).shape == (2, NEW + 3)
    assert len(step.get_feature_names_out()) == NEW + 3
    shutil.copytree(vector_runs["map"], tmp_path / "run")
    moved = EncoderTransformer(tmp_path / "run").fit(None)
    stale = pickle.dumps(moved)
    shutil.rmtree(tmp_path / "run")
    assert moved.transform(vectors(2)).shape == (2, OLD)  # it has been read
    with pytest.raises(RunError, match="no such run folder"):
        pickle.loads(stale).transform(vectors(2))


def letters(texts: list[str]) -> list[list[float]]:
    """A model of texts that is no run."""
    return [[1.0, *(text.count(letter) for letter in "abc")] for text in texts]


def test_a_model_of_texts_that_is_no_run_is_fitted_too() -> None:
    step, texts = EncoderTransformer("python:tests.interop.test_transformer:letters"), ["abba", "c"]
    found = step.fit_transform(texts)
    assert np.array_equal(found, np.array(letters(texts), np.float32))
    assert step.n_features_out_ == 4
    assert not hasattr(step, "n_features_in_")
    assert np.array_equal(pickle.loads(pickle.dumps(step)).transform(texts), found)


def test_a_run_of_images_after_one_of_vectors_has_no_number_of_values(
    runs: dict[str, Path], vector_runs: dict[str, Path]
) -> None:
    step = EncoderTransformer(vector_runs["map"]).fit(None)
    step.set_params(run=runs["old"]).fit(None)
    assert not hasattr(step, "n_features_in_")
    assert step.n_features_out_ == 4


def test_frames_go_in_and_come_out(vector_runs: dict[str, Path]) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(vectors(3), index=["a", "b", "c"])
    step = EncoderTransformer(vector_runs["map"]).set_output(transform="pandas")
    found = step.fit_transform(frame)
    assert list(found.index) == ["a", "b", "c"]
    assert list(found.columns) == list(step.get_feature_names_out())
    # A frame lies column by column in memory, which changes the order of a product's additions.
    np.testing.assert_allclose(found, nobackfill.load(vector_runs["map"]).encode(vectors(3)), atol=1e-6)


def test_what_cannot_be_used_is_said_in_a_line(vector_runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run folder"):
        EncoderTransformer(tmp_path / "none").fit(None)
    with pytest.raises(DataError, match=r"expected floats \[n, 12\], found float32 \[2, 5\]"):
        EncoderTransformer(vector_runs["map"]).fit_transform(vectors(2)[:, :5])
