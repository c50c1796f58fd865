"""The output layer fitted to the old vectors: the ridge itself, every head, and runs that start from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tests.training.test_texts import config, ready, root
from torch.nn.functional import cosine_similarity, normalize

from nobackfill.config import RunConfig
from nobackfill.errors import ConfigError, NobackfillError
from nobackfill.models.heads import BasisTransformHead, ConcatHead, Head, PlainHead, UnitHead
from nobackfill.training import fitted_start, loop, train
from nobackfill.training.checkpointer import Checkpointer
from nobackfill.training.fitted_start import Moments, _matrix, lifted, principal_rows, ridge, squared_error
from nobackfill.training.stopping import StoppedError

pytest.importorskip("transformers")
__all__ = ["root"]  # the fixture

W, OLD = 9, 6


def pairs(seed: int, count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    x = normalize(torch.randn(count, W, generator=random, dtype=torch.float64))
    y = x @ torch.randn(W, OLD, generator=random, dtype=torch.float64)
    return x, normalize(y + 0.1 * torch.randn(count, OLD, generator=random, dtype=torch.float64))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), penalty=st.sampled_from([1e-3, 0.1, 10.0]))
def test_the_ridge_is_scikit_learn_s(seed: int, penalty: float) -> None:
    from sklearn.linear_model import Ridge

    x, y = pairs(seed)
    sums = Moments.of(x[:15], y[:15]) + Moments.of(x[15:], y[15:])
    (weight,) = ridge(sums, [penalty])
    alpha = penalty * float((x**2).sum()) / W
    slow = Ridge(alpha=alpha, fit_intercept=False, solver="cholesky").fit(x.numpy(), y.numpy()).coef_
    np.testing.assert_allclose(weight.numpy(), slow, atol=1e-8)
    assert squared_error(weight, sums) == pytest.approx(float(((x @ weight.T - y) ** 2).sum(1).mean()))


@pytest.mark.parametrize(
    "head",
    [
        PlainHead(10, 3, OLD),
        PlainHead(OLD, 3, OLD),
        ConcatHead(8, OLD, 2.0, 3),
        BasisTransformHead(8, 0, OLD, 2.0, 3),
        BasisTransformHead(8, 2, OLD, 2.0, 3),
        BasisTransformHead(8, 2, OLD, 2.0, 3, rectify=False),
        BasisTransformHead(8, OLD, OLD, 2.0, 3, rectify=False),  # b is made of o alone
    ],
    ids=lambda head: f"{head.kind}-{head.options.get('extra_dim', '')}-{head.options['dim']}",
)
def test_every_head_s_compatible_part_starts_as_the_fit(head: Head) -> None:
    x, y = pairs(1)
    sums = Moments.of(x, y)
    (weight,) = ridge(sums, [1e-3])
    rows = lifted(head, weight, principal_rows(sums, weight, head.in_features), OLD)
    assert rows.shape == (head.in_features, W)
    found = head((3.7 * x @ rows.T).float())["compatible"].detach().double()
    fitted = x @ weight.T
    k = head.extra_dim if isinstance(head, BasisTransformHead) else 0
    if isinstance(head, BasisTransformHead) and 0 < k < OLD:
        # o has a norm of its own: the two parts have the fit's directions, each for itself.
        basis = _matrix(head.basis.B)
        found, fitted = found @ basis, fitted @ basis
        torch.testing.assert_close(
            cosine_similarity(found[:, :k], fitted[:, :k]), torch.ones(len(x), dtype=torch.float64), atol=1e-5, rtol=0
        )
        found, fitted = found[:, k:], fitted[:, k:]
    torch.testing.assert_close(
        cosine_similarity(found, fitted), torch.ones(len(x), dtype=torch.float64), atol=1e-5, rtol=0
    )


def test_the_other_values_are_principal_directions_of_the_size_of_the_fitted_ones() -> None:
    x, y = pairs(2)
    sums = Moments.of(x, y)
    (weight,) = ridge(sums, [1e-3])
    rows = principal_rows(sums, weight, 4)
    new = x @ rows.T
    assert float((new**2).mean()) == pytest.approx(float(((x @ weight.T) ** 2).mean()))
    products = new.T @ new
    torch.testing.assert_close(products, torch.diag(products.diag()), atol=1e-10, rtol=0)  # uncorrelated
    _, _, directions = np.linalg.svd(x.numpy(), full_matrices=False)
    angles = np.abs(normalize(rows).numpy() @ directions[:4].T)
    np.testing.assert_allclose(np.diag(angles), 1, atol=1e-8)
    assert principal_rows(sums, weight, 30).shape == (W, W)  # no more than x has


def test_a_head_without_a_compatible_part_is_refused() -> None:
    for head in (PlainHead(8, 3), UnitHead(8)):
        with pytest.raises(ConfigError, match="has no compatible part to fit"):
            lifted(head, torch.zeros(OLD, W), torch.zeros(0, W), OLD)


@pytest.mark.parametrize(
    ("method", "kind"), [("prefix", "texts"), ("bct", "pairs"), ("bt2", "pairs"), ("lce", "texts")]
)
def test_a_run_starts_near_the_old_space(root: Path, method: str, kind: str) -> None:
    changes: dict[str, Any] = {"loss": {"independent": 0}, "model__extra_dim": 0} if method == "bt2" else {}
    cosines = []
    for init in (None, "fit"):
        setup, network = ready(config(root, method, kind=kind, init=init, **changes))
        texts: Any = setup.samples if kind == "texts" else setup.pairs and setup.pairs.samples.documents
        old = torch.from_numpy(np.array(_old(root, texts)))
        network.eval()
        b = network(torch.from_numpy(texts.tokens.batch(np.arange(len(texts)))))["compatible"]
        cosines.append(float(cosine_similarity(b, old).mean().detach()))
    assert cosines[1] > cosines[0] + 0.2
    assert cosines[1] > 0.5


def _old(root: Path, texts: Any) -> Any:
    import nobackfill

    return nobackfill.load(root / "old").encode(list(texts.texts))


def test_a_fitted_run_says_so_and_resumes_to_the_same_weights(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(root, "prefix", init="fit")
    whole = train(settings, tmp_path / "whole")
    said = json.loads((whole / "metrics.json").read_text())["fitted_output"]
    assert said["texts"] == 128
    assert said["penalty"] in fitted_start.PENALTIES
    assert 0 < said["squared_error"] < 1

    class Stopping(Checkpointer):
        def after_step(self, record: Any) -> None:
            if (record.epoch, record.steps) == (1, 2):
                self.stop.number = 15
            super().after_step(record)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "Checkpointer", Stopping)
        with pytest.raises(StoppedError):
            train(settings, tmp_path / "run")
    run = train(settings, tmp_path / "run", resume=True)
    first, second = (load_file(each / "model.safetensors") for each in (whole, run))
    assert all(torch.equal(first[name], second[name]) for name in first)
    bare = load_file(train(config(root, "prefix"), tmp_path / "bare") / "model.safetensors")
    assert not torch.equal(bare["backbone.project.weight"], first["backbone.project.weight"])


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no old model": ({"method": "independent"}, "'init': method 'independent' has no old model to fit to"),
    "two starts": ({"init_from": "somewhere"}, "'init', 'init_from': both set the output layer"),
    "no output layer": ({"backbone": "fresh"}, "'init': a fresh 'static' model has no output layer"),
    "another word": ({"init": "fitted"}, "init"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_fitted_is_named(root: Path, tmp_path: Path, name: str) -> None:
    changes, message = BAD[name]
    with pytest.raises(NobackfillError, match=message) as caught:
        train(config(root, **{"method": "prefix", "init": "fit", **changes}), tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_images_have_no_output_layer_to_fit() -> None:
    from tests.conftest import tiny_config

    settings: RunConfig = tiny_config("bct", old="old", init="fit")
    with pytest.raises(ConfigError, match="'init': only text models have it, data 'digits' are none"):
        train(settings, "nowhere")
