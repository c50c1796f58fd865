"""Closed forms against slow oracles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.maps.pairs import NEW, OLD, items

import nobackfill
from nobackfill.errors import DataError
from nobackfill.maps.basis import closed_basis
from nobackfill.maps.folders import basis_encoder, map_encoder, save_encoder
from nobackfill.maps.linear import procrustes, ridge
from nobackfill.maps.moments import Moments, moments
from nobackfill.models.spec import named_prefix


def unit(rows: np.ndarray) -> np.ndarray:
    result: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return result


def pairs(count: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Moments]:
    old, new, _ = items(count, seed)
    return unit(new.astype(np.float64)), unit(old.astype(np.float64)), moments(new, old)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_moments_are_those_of_unit_rows(dtype: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nobackfill.maps.moments.ROWS", 64)
    old, new, _ = items(300)
    np.save(tmp_path / "new.npy", new.astype(dtype))
    mapped = np.load(tmp_path / "new.npy", mmap_mode="r")
    rows = np.sort(np.random.default_rng(0).permutation(300)[:201])
    found = moments(mapped, old, rows)
    x, y = unit(np.asarray(mapped, np.float64)[rows]), unit(old.astype(np.float64)[rows])
    assert found.count == 201
    np.testing.assert_allclose(found.mean_x, x.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.xx, x.T @ x / 201, atol=1e-6)
    np.testing.assert_allclose(found.yx, y.T @ x / 201, atol=1e-6)
    covariance, cross = found.centred()
    np.testing.assert_allclose(covariance, np.cov(x.T, bias=True), atol=1e-6)
    np.testing.assert_allclose(cross, (y - y.mean(0)).T @ (x - x.mean(0)) / 201, atol=1e-6)
    rest = np.setdiff1d(np.arange(300), rows)
    whole, both = moments(mapped, old), found + moments(mapped, old, rest)
    for name in ("count", "mean_x", "mean_y", "xx", "yx"):
        np.testing.assert_allclose(getattr(whole, name), getattr(both, name), atol=1e-6)


def test_a_row_without_a_direction_is_named_by_its_number_in_the_file() -> None:
    old, new, _ = items(50)
    new[31] = 0
    with pytest.raises(DataError, match=r"new.npy: row 31 is zero; cosine is not defined for it"):
        moments(new, old, np.arange(20, 50), ("new.npy", "old.npy"))
    old[44, 3] = np.nan
    with pytest.raises(DataError, match=r"old.npy: row 44 holds a value that is not finite"):
        moments(new[:, :5] + 1, old, np.arange(40, 50), ("new.npy", "old.npy"))


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("turned", [True, False])
def test_procrustes_is_the_padded_rotation_and_no_other_is_closer(centred: bool, turned: bool) -> None:
    x, y, found = pairs()
    if turned:  # the larger space out of the smaller one
        old, new, _ = items(300)
        x, y, found = y, x, moments(old, new)
    one = procrustes(found, centred=centred)
    mean_x, mean_y = (x.mean(0), y.mean(0)) if centred else (np.zeros(x.shape[1]), np.zeros(y.shape[1]))
    size = max(x.shape[1], y.shape[1])
    padded_x = np.pad(x - mean_x, ((0, 0), (0, size - x.shape[1])))
    padded_y = np.pad(y - mean_y, ((0, 0), (0, size - y.shape[1])))
    left, _, right = np.linalg.svd(padded_y.T @ padded_x)
    rotation = (left @ right)[: y.shape[1], : x.shape[1]]
    np.testing.assert_allclose(one.weight, rotation, atol=1e-5)
    np.testing.assert_allclose(one.bias, mean_y - rotation @ mean_x, atol=1e-5)

    def error(weight: np.ndarray) -> float:
        return float(np.square((x - mean_x) @ weight.T + mean_y - y).sum())

    random = np.random.default_rng(0)
    for _ in range(20):
        step = random.standard_normal((size, size)) * 0.05
        turn, _ = np.linalg.qr(np.eye(size) + step - step.T)
        other = (turn @ left @ right)[: y.shape[1], : x.shape[1]]
        if x.shape[1] <= y.shape[1]:  # else cutting a rotation changes its norm, and this is no comparison
            assert error(other) >= error(one.weight) - 1e-6


@pytest.mark.train
def test_ridge_is_scikit_learns() -> None:
    from sklearn.linear_model import Ridge

    x, y, found = pairs()
    scale = np.trace(np.cov(x.T, bias=True)) / x.shape[1]
    for penalty, one in zip((1e-3, 0.1, 10.0), ridge(found, (1e-3, 0.1, 10.0)), strict=True):
        oracle = Ridge(alpha=penalty * scale * len(x)).fit(x, y)
        np.testing.assert_allclose(one.weight, oracle.coef_, atol=1e-4)
        np.testing.assert_allclose(one.bias, oracle.intercept_, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(k=st.integers(0, OLD), seed=st.integers(0, 5))
def test_a_closed_basis_is_orthogonal_and_keeps_the_new_model(k: int, seed: int) -> None:
    x, _, found = pairs(200, seed)
    basis = closed_basis(found, ridge(found, [0.1])[0], k)
    np.testing.assert_allclose(basis.P @ basis.P.T, np.eye(NEW), atol=1e-8)
    np.testing.assert_allclose(basis.B @ basis.B.T, np.eye(OLD), atol=1e-8)
    encoder = basis_encoder("bt2_vectors", basis, 2.0, named_prefix("old", OLD))
    embedding = encoder.encode(3 * x)
    assert embedding.shape == (200, NEW + k)
    # By the equations, one sample at a time.
    for f, found_row in zip(x[:10], embedding[:10], strict=True):
        o = basis.A @ f + basis.a
        o = o / np.linalg.norm(o) if k else o
        z = np.concatenate([o, basis.P @ (2 * f)])
        np.testing.assert_allclose(found_row, np.concatenate([basis.B @ z[:OLD], z[OLD:]]), atol=1e-5)
    own = embedding @ embedding.T - 4 * x @ x.T  # <o, o'>: of unit vectors, or nothing
    np.testing.assert_allclose(np.diag(own), np.full(200, float(k > 0)), atol=1e-4)
    assert np.abs(own).max() <= 1 + 1e-4


def test_a_basis_without_extra_dimensions_is_procrustes() -> None:
    x, _, found = pairs()
    encoder = basis_encoder("bt2_vectors", closed_basis(found, ridge(found, [0.1])[0], 0), 2.0, named_prefix("o", OLD))
    one = procrustes(found, centred=False)
    np.testing.assert_allclose(encoder.encode(x)[:, :OLD], 2 * x @ one.weight.T, atol=1e-5)


def test_a_map_is_a_run_folder_like_any_other(tmp_path: Path) -> None:
    x, y, found = pairs()
    one = ridge(found, [0.1])[0]
    prefix = named_prefix("ada", OLD)
    save_encoder(map_encoder("ridge", one, prefix), tmp_path / "run", {})
    encoder = nobackfill.load(tmp_path / "run")
    assert encoder.spec.prefixes == (prefix,)
    assert encoder.spec.modality == "vector"
    wanted = unit(x @ one.weight.T + one.bias)
    np.testing.assert_allclose(encoder.encode(x), wanted, atol=1e-5)
    np.testing.assert_allclose(encoder.encode((5 * x).astype(np.float16), batch_size=7), wanted, atol=3e-3)
    assert encoder.encode(x[:0]).shape == (0, OLD)
    with pytest.raises(DataError, match=r"vectors: expected floats \[n, 14\], found float64 \[300, 10\]"):
        encoder.encode(y)
    with pytest.raises(DataError, match="expected floats"):
        encoder.encode(np.ones((2, NEW), np.int64))
    x[5] = 0
    with pytest.raises(DataError, match="vectors: row 5 (holds a value that is not finite|is zero)"):
        encoder.encode(x, batch_size=3)
