"""Training on vectors of other models, through the same loop as everything else."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.maps.pairs import CLASSES, NEW, OLD, items, write
from torch.nn.functional import cosine_similarity, normalize

import nobackfill
from nobackfill.config import RunConfig, VectorData, parse_config
from nobackfill.data.vectors import split_rows
from nobackfill.errors import ConfigError, DataError, NobackfillError, RunError
from nobackfill.methods import METHODS, Batch
from nobackfill.methods.bt2_vectors import BT2Vectors
from nobackfill.methods.vector_map import VectorMap
from nobackfill.models.heads import FrozenBasisHead
from nobackfill.training import train
from nobackfill.training.check import check_config


def config(folder: Path, **changes: Any) -> RunConfig:
    files = {"vectors": str(folder / "new.npy"), "old_vectors": str(folder / "old.npy")}
    tree: dict[str, Any] = {
        "method": "bt2_vectors",
        "data": {"name": "vectors", **files, "labels": str(folder / "labels.npy"), "holdout": 100, "old_name": "ada"},
        "model": {"backbone": "vectors/keep+8", "embedding_dim": NEW, "extra_dim": 3},
        "loss": {"prototypes": 1.0},
        "epochs": 2,
        "batch_size": 64,
        "precision": "fp32",
    }
    for dotted, value in changes.items():
        section, _, key = dotted.rpartition("__")
        (tree[section] if section else tree)[key] = value
    return parse_config(tree)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    old, new, labels = items(500)
    write(tmp_path, old=old, new=new, labels=labels)
    return tmp_path


def test_an_unusable_old_vector_is_named_before_training_or_else_costs_only_the_test(folder: Path) -> None:
    old, _, _ = items(500)
    data = config(folder).data
    assert isinstance(data, VectorData)
    chosen = [split_rows(data, "test", 500), split_rows(data, "train", 500)]
    held, kept = (int(rows[0]) for rows in chosen if rows is not None)
    for row in (held, kept):
        spoiled = old.copy()
        spoiled[row] = 0
        write(folder, old=spoiled)
        if row == held:
            metrics = json.loads((train(config(folder, epochs=1), folder / "run") / "metrics.json").read_text())
            assert f"old.npy: row {row}" in metrics["not_tested"]
            continue
        with pytest.raises(DataError, match=rf"old\.npy: row {row}"):
            train(config(folder), folder / "other")


def test_bt2_on_vectors_keeps_the_new_vector_and_answers_the_old(folder: Path) -> None:
    run = train(config(folder), folder / "run")
    encoder = nobackfill.load(run)
    assert [prefix.fingerprint for prefix in encoder.spec.prefixes] == ["name:ada"]
    new = np.load(folder / "new.npy")
    made, f = encoder.encode(new), new / np.linalg.norm(new, axis=1, keepdims=True)
    extra = made @ made.T - 4 * f @ f.T
    np.testing.assert_allclose(np.diag(extra), 1, atol=1e-4)
    assert np.linalg.matrix_rank(extra, tol=1e-3) == 3
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["training_images"] == 400
    assert {"self_test", "cross_test", "status_quo"} <= set(metrics)


@pytest.mark.parametrize("method", ["mlp", "bt2_vectors"])
def test_training_brings_new_vectors_to_the_old_ones(folder: Path, method: str) -> None:
    backbone, dim = ("vectors/linear+8", OLD) if method == "mlp" else ("vectors/keep", NEW)
    changes: dict[str, Any] = {"model": {"backbone": backbone, "embedding_dim": dim}, "loss": {"contrast": 0.1}}
    plain = config(folder, method=method, epochs=20, optimizer={"lr": 0.01}, data__labels=None, **changes)
    run = train(plain, folder / "run")
    made = torch.from_numpy(nobackfill.load(run).encode(np.load(folder / "new.npy")))[:, :OLD]
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert history[-1]["old"] < history[0]["old"]
    assert float(cosine_similarity(made, torch.from_numpy(np.load(folder / "old.npy"))).mean()) > 0.4
    assert json.loads((run / "metrics.json").read_text())["not_tested"] == "the items have no labels"


def test_the_loss_equals_a_loop() -> None:
    torch.manual_seed(0)
    b, old, labels = torch.randn(7, 4), torch.randn(7, 4), torch.tensor([0, 1, 2, 0, 1, 2, 2])
    prototypes = torch.randn(3, 4)
    expected = {"old": 0.0, "prototypes": 0.0, "contrast": 0.0}
    for i in range(7):
        own = b[i] / b[i].norm()
        cosines = [float(own @ other / other.norm()) for other in old]
        expected["old"] += 3 * (1 - cosines[i]) / 7
        logits = [16 * float(own @ prototype) for prototype in prototypes]
        expected["prototypes"] += 2 * (math.log(sum(map(math.exp, logits))) - logits[int(labels[i])]) / 7
        scores = [cosine / 0.1 for cosine in cosines]
        expected["contrast"] += 0.5 * (math.log(sum(map(math.exp, scores))) - scores[i]) / 7
    weights = {"old": 3.0, "prototypes": 2.0, "contrast": 0.5, "temperature": 0.1}
    found = VectorMap(weights).loss({"compatible": b}, Batch(labels, old, None, prototypes))
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=1e-4)
    assert VectorMap({"old": 0, "contrast": 1}).needed == {"old"}
    assert BT2Vectors({}).needed == {"old"}
    with pytest.raises(ConfigError, match=r"keys 'loss.old', 'loss.prototypes', 'loss.contrast': 0, so that nothing"):
        VectorMap({"old": 0})
    with pytest.raises(ConfigError, match=r"loss.temperature': expected a value above 0"):
        VectorMap({"temperature": 0})


def matrix(layer: torch.nn.Module) -> torch.Tensor:
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    return weight.detach().clone()


def test_the_frozen_head_learns_o_and_b_and_leaves_p_alone() -> None:
    torch.manual_seed(0)
    head = FrozenBasisHead(6, 2, 4, 2.0)
    before = matrix(head.basis.P)
    optimizer = torch.optim.Adam([p for p in head.parameters() if p.requires_grad], lr=0.05)
    features, target = torch.randn(30, 6), normalize(torch.randn(30, 4))
    start = matrix(head.basis.B)
    for _ in range(5):
        loss = 1 - cosine_similarity(head(features)["compatible"], target).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(matrix(head.basis.P), before)
    assert not torch.allclose(matrix(head.basis.B), start, atol=1e-3)
    torch.testing.assert_close(matrix(head.basis.B) @ matrix(head.basis.B).T, torch.eye(4), atol=1e-5, rtol=0)
    f = normalize(features)
    output = head(features)
    torch.testing.assert_close(output["new"], f)
    own = output["extra"] @ output["extra"].T + 4 * f @ f.T
    torch.testing.assert_close(output["embedding"] @ output["embedding"].T, own, atol=1e-5, rtol=1e-5)
    folded = head(features)["embedding"].detach()
    head.fold()
    torch.testing.assert_close(head(features)["embedding"], folded)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing to learn": (
        {
            "method": "independent",
            "loss": {},
            "model": {"backbone": "vectors/linear", "embedding_dim": NEW},
            "data__labels": None,
        },
        "key 'data.labels': method 'independent' has nothing to learn from vectors without labels",
    ),
    "a key of images": ({"data__image_size": 8}, "unknown key 'data.image_size'"),
    "a backbone of images": ({"model__backbone": "smallnet8"}, "'smallnet8' does not work with data 'vectors'"),
    "a vector that is not kept": ({"model__backbone": "vectors/linear"}, "BT² keeps the new vector; use vectors/keep"),
    "an unknown backbone": ({"model__backbone": "vectors/keep*8"}, "expected vectors/linear or vectors/keep"),
    "views": ({"teacher_view": "same"}, "vectors have only one view"),
    "prototypes without labels": ({"data__labels": None}, "prototypes need data.labels"),
    "another old size": ({"model__old_dim": 9}, "key 'model.old_dim': 9, but data.old_vectors have"),
    "another size": ({"model__embedding_dim": 9}, "9, but the vectors to keep have 14 values"),
    "rows outside": ({"data__rows": "rows.npy"}, r"expected row numbers 0…499"),
    "test rows outside": ({"data__test_rows": "rows.npy"}, r"expected row numbers 0…499"),
    "a row twice": ({"data__test_rows": "twice.npy"}, r"twice.npy: row 7 is named 2 times; a copy would be found"),
    "a mask": ({"data__rows": "mask.npy"}, r"found bool \[500\]; np.flatnonzero makes row numbers of a mask"),
    "nothing to train on": ({"data__test_rows": "all.npy"}, r"all.npy: names all 500 rows; none is left to train on"),
    "a zero row": ({"data__vectors": "zero.npy", "data__holdout": None}, "zero.npy: row 4 is zero; cosine is not"),
    "a row in both": (
        {"data__rows": "some.npy", "data__test_rows": "some.npy"},
        r"some.npy: row 3 is also in some.npy; no item may be in both",
    ),
    "old vectors and inputs": (
        {"data__old_inputs": "new.npy"},
        "'data.old_vectors', 'data.old_inputs': .* leave one of the two out",
    ),
    "no old model": ({"data__old_vectors": None}, "missing key 'old': method 'bt2_vectors' needs the run folder"),
    "a map to another size": (
        {"method": "mlp", "model": {"backbone": "vectors/linear", "embedding_dim": 9}},
        "model.embedding_dim: 9, but the space it maps to has 10",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_go_together_is_named(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    np.save("rows.npy", np.array([3, 500]))
    np.save("some.npy", np.array([3, 4]))
    np.save("twice.npy", np.array([3, 7, 7]))
    np.save("mask.npy", np.ones(500, np.bool_))
    np.save("all.npy", np.arange(500))
    zero = np.load("new.npy")
    zero[4] = 0
    np.save("zero.npy", zero)
    changes, message = BAD[name]
    with pytest.raises(NobackfillError, match=message):
        train(config(folder, **changes), folder / "run")
    assert not (folder / "run").exists()


def test_an_old_run_on_vectors_embeds_its_own_inputs(folder: Path) -> None:
    """With `old_inputs` the run itself is the teacher: as if its vectors had been given."""
    np.save(folder / "test.npy", np.arange(400, 500))
    files = {"name": "vectors", "labels": str(folder / "labels.npy"), "test_rows": str(folder / "test.npy")}
    net = {"backbone": "vectors/linear+8", "embedding_dim": 6}
    first = train(
        config(folder, method="independent", loss={}, model=net, data={**files, "vectors": str(folder / "old.npy")}),
        folder / "first",
    )
    made = nobackfill.load(first).encode(np.load(folder / "old.npy"))
    np.save(folder / "made.npy", made)
    files["vectors"] = str(folder / "new.npy")
    vectors: list[Any] = []
    for name, own in (("inputs", {"old_inputs": "old.npy"}), ("vectors", {"old_vectors": "made.npy"})):
        data = {**files, **{key: str(folder / file) for key, file in own.items()}}
        settings = config(folder, method="prefix", loss={}, model=net, data=data)
        run = train(settings.model_copy(update={"old": first}), folder / name)
        metrics = json.loads((run / "metrics.json").read_text())
        assert metrics["training_images"] == 400
        vectors.append((nobackfill.load(run).encode(np.load(folder / "new.npy")), metrics))
        assert [prefix.dim for prefix in nobackfill.load(run).spec.prefixes] == [6]
    np.testing.assert_allclose(vectors[0][0], vectors[1][0], atol=2e-3)  # teachers' vectors are kept in half precision
    for key in ("status_quo", "cross_test", "self_test"):
        assert vectors[0][1][key]["mean_ap"] == pytest.approx(vectors[1][1][key]["mean_ap"], abs=0.01)


def test_vectors_that_changed_are_other_teachers(folder: Path) -> None:
    train(config(folder), folder / "run")
    np.save(folder / "old.npy", items(500, seed=8)[0])
    with pytest.raises(RunError, match="was trained with other teachers"):
        train(config(folder), folder / "run", resume=True)


def test_a_test_split_without_matches_is_said_and_the_run_kept(folder: Path) -> None:
    np.save(folder / "one.npy", np.array([3]))
    run = train(config(folder, data__holdout=None, data__test_rows=str(folder / "one.npy")), folder / "run")
    assert "a test split needs two classes" in json.loads((run / "metrics.json").read_text())["not_tested"]


def test_the_other_byte_order_is_read(folder: Path) -> None:
    new = np.load(folder / "new.npy")
    native = nobackfill.load(train(config(folder), folder / "native")).encode(new)
    np.save(folder / "new.npy", new.astype(">f4"))
    swapped = nobackfill.load(train(config(folder), folder / "swapped")).encode(new)
    np.testing.assert_array_equal(native, swapped)


def test_check_reads_the_sizes_from_the_files(folder: Path) -> None:
    found = check_config(config(folder))
    assert (found.dim, found.steps) == (NEW + 3, 400 // 64)
    assert math.isfinite(sum(found.loss.values()))
    assert CLASSES == 12


def test_mlp_and_infonce_differ_in_what_is_on_by_default() -> None:
    torch.manual_seed(0)
    output, batch = {"compatible": torch.randn(5, 4)}, Batch(torch.zeros(5, dtype=torch.int64), torch.randn(5, 4))
    assert set(METHODS["mlp"]({}).loss(output, batch)) == {"old"}
    assert set(METHODS["infonce"]({}).loss(output, batch)) == {"contrast"}
    assert METHODS["infonce"]({}).needed == METHODS["mlp"]({}).needed == {"old"}
    assert {"mlp", "infonce", "bt2_vectors"} < {name for name, method in METHODS.items() if "vector" in method.kinds}


def test_an_old_run_that_takes_other_vectors_or_none_is_named(
    folder: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    net = {"backbone": "vectors/linear", "embedding_dim": 6}
    first = train(config(folder, method="independent", loss={}, model=net), folder / "first")
    files = {"name": "vectors", "vectors": str(folder / "old.npy"), "labels": str(folder / "labels.npy"), "holdout": 50}
    settings = config(folder, method="bct", loss={}, model=net, data=files)
    with pytest.raises(ConfigError, match=r"takes vectors of 14 values, but the data have 10 values.*data.old_inputs"):
        train(settings.model_copy(update={"old": first}), folder / "run")
    with pytest.raises(ConfigError, match="embeds images, but data 'vectors' are vectors"):
        train(settings.model_copy(update={"old": runs["old"]}), folder / "run")
