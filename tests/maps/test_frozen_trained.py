"""`fct`, `fastfill` and `lambda_orthogonal` against slow oracles, and their run folders."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from tests.maps.pairs import NEW, OLD, items, write

import nobackfill
from nobackfill.errors import ConfigError, DataError, RunError
from nobackfill.maps import Held, Pairs, Settings, budget, fit, fitting, uncertainty
from nobackfill.maps.fastfill import LEAST, MOST, class_means, fastfill_loss
from nobackfill.maps.fct import relu_encoder, squared_error
from nobackfill.maps.folders import save_encoder
from nobackfill.maps.lambda_orthogonal import deviation_of, pair_loss, supervised_contrast
from nobackfill.maps.pairs import split_rows
from nobackfill.models.runfolder import load_arrays, write_tensors
from nobackfill.models.spec import named_prefix

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.train
TRAINED = ("fct", "fastfill", "lambda_orthogonal")


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "STEPS", 60)
    monkeypatch.setattr(budget, "RATES", (1e-2, 1e-9))  # the second learns nothing, so the first must be chosen


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    old, new, labels = items(600)
    side = (new[:, :5] + np.random.default_rng(0).standard_normal((600, 5))).astype(np.float32)
    return Pairs(**write(tmp_path / "arrays", old=old, new=new, labels=labels, side=side))


def rows(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_a_folded_net_computes_what_the_trained_one_does(tmp_path: Path) -> None:
    from nobackfill.training.small_nets import folded, relu_net

    torch.manual_seed(0)
    net = relu_net(OLD + 5, 16, NEW)
    with torch.no_grad():
        for layer in (net[1], net[4]):
            layer.get_parameter("weight").uniform_(0.5, 2)
            layer.get_parameter("bias").uniform_(-1, 1)
    for seed in range(20):
        net(torch.from_numpy(rows(32, OLD + 5, seed=seed)))  # moves the running statistics
    net.eval()
    encoder = relu_encoder("fct_side", folded(net), named_prefix("new", NEW), first=OLD)
    save_encoder(encoder, tmp_path / "run", {})
    old, side = 7 * rows(9, OLD, seed=90), 0.1 * rows(9, 5, seed=91)
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (old, side)]
    with torch.no_grad():
        wanted = torch.nn.functional.normalize(net(torch.from_numpy(np.concatenate(unit, axis=1)))).numpy()
    for one in (encoder, load_arrays(tmp_path / "run"), nobackfill.load(tmp_path / "run")):
        np.testing.assert_allclose(one.encode(np.concatenate([old, side], axis=1)), wanted, atol=1e-5)


def test_fct_minimises_the_squared_error() -> None:
    mapped, wanted = rows(7, 4), rows(7, 4, seed=1)
    naive = sum(sum((a - b) ** 2 for a, b in zip(m, w, strict=True)) for m, w in zip(mapped, wanted, strict=True)) / 7
    assert squared_error(torch.from_numpy(mapped), torch.from_numpy(wanted)).item() == pytest.approx(float(naive))


@pytest.mark.parametrize("labels", [None, [0, 1, 2, 1, 0, 0], [1] * 6])
def test_fastfill_is_a_likelihood_and_a_class_term(labels: list[int] | None) -> None:
    mapped, wanted, logarithm = rows(6, 4), rows(6, 4, seed=1), rows(6, seed=2)
    logarithm[0], logarithm[1] = -100, 100  # held within bounds
    centres = rows(3, 4, seed=3)
    total = 0.0
    for i in range(6):
        log = min(max(float(logarithm[i]), LEAST), MOST)
        total += float(np.square(mapped[i] - wanted[i]).sum()) / math.exp(log) + log
        if labels is not None:
            scores = 16 * centres @ (mapped[i] / np.linalg.norm(mapped[i]))
            total += math.log(sum(math.exp(score) for score in scores)) - float(scores[labels[i]])
    classes = None if labels is None else (torch.from_numpy(centres), torch.tensor(labels))
    found = fastfill_loss(torch.from_numpy(mapped), torch.from_numpy(logarithm), torch.from_numpy(wanted), classes)
    assert found.item() == pytest.approx(total / 6, rel=1e-4)


def test_class_means_are_unit_means() -> None:
    new, labels = rows(5, 3), np.array([0, 2, 1, 2, 2])
    mean = new[[1, 3, 4]].mean(axis=0)
    np.testing.assert_allclose(class_means(new, labels)[2], mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.parametrize("labels", [[0, 1, 1, 0, 2], [3] * 5])
def test_supervised_contrast_is_a_loop_over_pairs(labels: list[int]) -> None:
    ahead, back = rows(5, 3), rows(5, 3, seed=1)
    total = 0.0
    for i in range(5):
        cosines = [float(back[i] @ f / np.linalg.norm(back[i]) / np.linalg.norm(f)) / 0.1 for f in ahead]
        same = [j for j in range(5) if labels[j] == labels[i]]
        normal = math.log(sum(math.exp(value) for value in cosines))
        total -= sum(cosines[j] - normal for j in same) / len(same)
    found = supervised_contrast(torch.from_numpy(ahead), torch.from_numpy(back), torch.tensor(labels))
    assert found.item() == pytest.approx(total / 5, rel=1e-5)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_lambda_orthogonality_is_penalised_beyond_its_threshold(shape: tuple[int, int], scale: float) -> None:
    ahead, back, old, weight = rows(6, 3), rows(6, 3, seed=1), rows(6, 3, seed=2), scale * rows(*shape, seed=3)
    small = weight @ weight.T if shape[0] <= shape[1] else weight.T @ weight
    off = float(np.sqrt(np.square(small - np.eye(min(shape))).sum()))
    gate = 1 / (1 + math.exp(-10 * (off - 0.5 * math.sqrt(min(shape)))))
    wanted = float(np.square(ahead - back).sum() + np.square(back - old).sum()) / 6 + gate * off
    one, two, three, four = (torch.from_numpy(each) for each in (ahead, back, old, weight))
    found = pair_loss(one, two, three, four, None)
    assert found.item() == pytest.approx(wanted, rel=1e-5)
    assert deviation_of(weight) == pytest.approx(off, rel=1e-5)


def test_the_runs_are_what_the_table_says(tmp_path: Path, pairs: Pairs, brief: None) -> None:
    found = fit(pairs, tmp_path / "run", methods=TRAINED, settings=Settings(hidden=32))
    lines = {(line.name, line.searched): line for line in found.results}
    for name, epochs in (
        ("fct", "36 epochs at 0.01"),
        ("fastfill", "36 epochs at 0.01"),
        ("lambda_orthogonal", "30 epo"),
    ):
        assert lines[name, "new/mapped"].choice.startswith(epochs)
    old, new, labels, side = (np.load(tmp_path / f"arrays/{name}.npy") for name in ("old", "new", "labels", "side"))
    held = split_rows(600, 0.2, 0, assessed_apart=False).held
    methods = tmp_path / "run/methods"
    back = nobackfill.load(methods / "lambda_orthogonal-to-old").encode(new[held])
    for name, query, inputs in (
        ("fct", new[held], old[held]),
        ("fct_side", new[held], np.concatenate([old, side], axis=1)[held]),
        ("fastfill", new[held], old[held]),
        ("lambda_orthogonal", back, old[held]),
    ):
        gallery = nobackfill.load(methods / f"{name}-to-new").encode(inputs)
        metrics = nobackfill.retrieval_metrics(query, gallery, labels[held], labels[held], exclude_self=True)
        assert lines[name, "new/mapped"].scores["mean_ap"] == pytest.approx(metrics.mean_ap), name
    assert lines["fct_side", "new/mapped"].scores["mean_ap"] > lines["fct", "new/mapped"].scores["mean_ap"]
    # The forward map's space is the backward map's.
    specs = [load_arrays(methods / f"lambda_orthogonal-{way}").spec for way in ("to-old", "to-new")]
    assert specs[1].prefixes[0].fingerprint == specs[0].fingerprint
    # FastFill knows where it errs, on items it has not seen.
    sure = uncertainty(methods / "fastfill-to-new", old[held])
    mapped = nobackfill.load(methods / "fastfill-to-new").encode(old[held])
    error = 1 - (mapped * new[held] / np.linalg.norm(new[held], axis=1, keepdims=True)).sum(axis=1)
    assert sure.shape == (120,)
    assert np.corrcoef(sure, error)[0, 1] > 0
    with pytest.raises(RunError, match=r"holds no uncertainty.safetensors; expected the folder of a fastfill fit"):
        uncertainty(methods / "fct-to-new", old)
    write_tensors(methods / "fastfill-to-new" / "uncertainty.safetensors", {"weight": np.ones((1, 3), np.float32)})
    with pytest.raises(RunError, match=r"uncertainty.safetensors: damaged: arrays .* do not fit the run"):
        uncertainty(methods / "fastfill-to-new", old)
    (methods / "fastfill-to-new" / "uncertainty.safetensors").write_bytes(b"none")
    with pytest.raises(RunError, match=r"uncertainty.safetensors: damaged: "):
        uncertainty(methods / "fastfill-to-new", old)


def test_side_vectors_are_refused_where_they_do_not_belong(tmp_path: Path, pairs: Pairs) -> None:
    with pytest.raises(ConfigError, match="--side: only fct takes side vectors; add --method fct"):
        fit(pairs, tmp_path / "run", methods=["ridge"])
    with pytest.raises(ConfigError, match="--side: the held-out items need their side vectors too; give --test-side"):
        fit(pairs, tmp_path / "run", methods=["fct"], held=Held.of(*items(100, seed=1)))
    np.save(tmp_path / "arrays/side.npy", rows(599, 5))
    with pytest.raises(DataError, match=r"side.npy: 599 rows, but .*old.npy has 600"):
        fit(pairs, tmp_path / "run", methods=["fct"])
    assert not list(tmp_path.glob("run*"))


def test_without_labels_the_class_terms_are_left_out_and_it_is_said(tmp_path: Path, brief: None) -> None:
    old, new, _ = items(600)
    given = Pairs(**write(tmp_path / "arrays", old=old, new=new))
    found = fit(given, tmp_path / "run", methods=["fastfill", "lambda_orthogonal"], settings=Settings(hidden=16))
    assert {line.name: line.choice for line in found.results}["fastfill"].endswith(
        "; no labels: without the class term"
    )


def test_a_killed_fit_keeps_what_was_trained(
    tmp_path: Path, pairs: Pairs, brief: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerError(Exception): ...

    class TrainedAgainError(Exception): ...

    def fail(*arguments: object) -> None:
        raise PowerError

    def train(*arguments: object) -> None:
        raise TrainedAgainError

    settings = Settings(hidden=16)
    with monkeypatch.context() as patch, pytest.raises(PowerError):
        patch.setattr(fitting, "assess_fits", fail)
        fit(pairs, tmp_path / "run", methods=TRAINED, settings=settings)
    monkeypatch.setattr("nobackfill.training.small_nets.descend", train)
    again = fit(pairs, tmp_path / "run", methods=TRAINED, settings=settings)
    assert {line.name for line in again.results} >= {"fct", "fct_side", "fastfill", "lambda_orthogonal", "rank merge"}
