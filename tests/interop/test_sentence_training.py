"""The loss for the trainer of sentence-transformers: this package's equations, and ordinary folders out of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

pytest.importorskip("sentence_transformers")
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from tests.sentence_models import TEXTS, bert_model, save, static_model

import nobackfill
from nobackfill.errors import ConfigError, DataError
from nobackfill.interop import BackwardCompatibleLoss, record_lineage, with_old_vectors
from nobackfill.interop.pair_terms import compatibility_terms, info_nce
from nobackfill.methods import PAIR_METHODS, PairBatch
from nobackfill.methods.base import Batch, Method, prototype_loss
from nobackfill.methods.bct import BCT
from nobackfill.methods.bt2 import BT2
from nobackfill.methods.prefix import PrefixMethod
from nobackfill.models.heads import BasisTransformHead, PlainHead

D, OLD, N = 10, 6, 5


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_info_nce_is_that_of_a_loop_and_leaves_out_repeated_documents() -> None:
    queries, documents = normalize(random(4, 3, seed=1)), normalize(random(6, 3, seed=2))
    documents[3] = documents[1]  # the same text, of two queries
    documents[5] = documents[0]  # and as a hard negative
    total = 0.0
    for i in range(4):
        others = [j for j in range(6) if j == i or not torch.equal(documents[j], documents[i])]
        scores = {j: 8.0 * float(queries[i] @ documents[j]) for j in others}
        total -= scores[i] - math.log(sum(math.exp(score) for score in scores.values()))
    assert float(info_nce(queries, documents, 8.0)) == pytest.approx(total / 4, abs=1e-5)


@pytest.mark.parametrize("name", ["bct", "prefix", "bt2"])
def test_the_terms_are_those_of_the_same_method_for_pairs(name: str) -> None:
    """In the trainer and in `nobackfill train`: also what BCT's cross term does with the norm of b."""
    head = BasisTransformHead(D, 0, OLD, 2.0, 1) if name == "bt2" else PlainHead(D, 1, OLD)
    queries, documents = (head(random(N, head.in_features, seed=seed)) for seed in (1, 2))
    old = [normalize(random(N, OLD, seed=seed)) for seed in (3, 4)]
    loss = {"cross": 3.0, "temperature": 1 / 7, **({} if name == "bct" else {"old": 2.0})}
    if name == "bt2":
        loss["independent"] = 0.0
    weights = {"prototypes": 3.0, "prototype_scale": 7.0, "old": loss.get("old", 0.0)}
    embeddings = [side["embedding"] for side in (queries, documents)]
    found = compatibility_terms(embeddings, old, weights, whole=name == "bct")
    batch = PairBatch(torch.eye(N, dtype=torch.bool), *old)
    expected = PAIR_METHODS[name](loss).pair_loss(queries, documents, batch)
    torch.testing.assert_close(found["prototypes"], expected["cross"])
    if name == "bct":
        renormalised = compatibility_terms(embeddings, old, weights)
        assert abs(float(renormalised["prototypes"] - found["prototypes"])) > 1e-3
    else:
        torch.testing.assert_close(found["old"], expected["old"])


Make = Callable[[dict[str, float]], Method]


@pytest.mark.parametrize("make", [BCT, BT2, PrefixMethod])
def test_the_terms_are_the_method_s_own(make: Make) -> None:
    """With a batch's documents as its prototypes; this package's methods see queries and documents one by one."""
    weights = {"prototypes": 3.0, "prototype_scale": 7.0}
    weights |= {} if make is BCT else {"old": 2.0}
    head = BasisTransformHead(D, 0, OLD, 2.0, 3) if make is BT2 else PlainHead(D, 3, OLD)
    sides = [head(random(N, head.in_features, seed=seed)) for seed in (1, 2)]
    old = [random(N, OLD, seed=seed) for seed in (3, 4)]
    found = compatibility_terms([side["embedding"] for side in sides], old, weights, whole=make is BCT)
    extra = {"independent": 0.0} if make is BT2 else {}
    method = make({**weights, **extra, "label_smoothing": 0.0})
    own = torch.arange(N)
    expected = []
    for side, vectors in zip(sides, old, strict=True):
        logits = 20 * normalize(sides[0]["embedding"]) @ normalize(sides[1]["embedding"]).T
        batch = Batch(own, old=normalize(vectors), prototypes=normalize(old[1]))
        expected.append(method.loss({**side, "logits": logits}, batch))
    torch.testing.assert_close(found["prototypes"], expected[0]["prototypes"])
    if make is not BCT:
        torch.testing.assert_close(found["old"], (expected[0]["old"] + expected[1]["old"]) / 2)
    assert set(found) == set(expected[0]) - {"labels"}


def batch_of(model: SentenceTransformer, columns: list[list[str]]) -> list[dict[str, torch.Tensor]]:
    return [model.preprocess(texts) for texts in columns]


COLUMNS = [TEXTS, [*TEXTS[1:], "refund not there"], ["lost my card", *TEXTS[2:], "top up"]]


@pytest.mark.parametrize("method", ["bct", "prefix", "bt2"])
@pytest.mark.parametrize("columns", [2, 3])
def test_the_whole_loss_is_the_script_s_and_the_terms(method: str, columns: int) -> None:
    model, old, other = (static_model(size=size, seed=seed) for size, seed in ((D, 1), (OLD, 2), (D, 3)))
    own = MultipleNegativesRankingLoss(model)
    independent = other if method == "bt2" else None
    loss = BackwardCompatibleLoss(model, old, own, method, independent=independent)
    texts = COLUMNS[:columns]
    if method == "bt2":
        with torch.no_grad():
            loss.basis.weight = torch.linalg.qr(random(D, D, seed=4))[0]  # type: ignore[union-attr]
    found = loss(batch_of(model, texts), None)
    new = [torch.from_numpy(model.encode(side)) for side in texts]
    before = [torch.from_numpy(old.encode(side)) for side in texts]
    scores = 20 * normalize(new[0]) @ normalize(torch.cat(new[1:])).T
    labels = torch.nn.functional.cross_entropy(scores, torch.arange(N))
    b, documents = normalize(new[0])[:, :OLD], normalize(torch.cat(before[1:]))
    b = b if method == "bct" else normalize(b)
    expected = {"labels": labels, "prototypes": info_nce(b, documents, 16.0)}
    if method != "bct":
        cosines = [cosine_similarity(side[:, :OLD], was) for side, was in zip(new, before, strict=True)]
        expected["old"] = 5 * (1 - torch.cat(cosines).mean())
    if method == "bt2":
        f = [torch.from_numpy(static_model(size=D, seed=1).encode(side)) for side in texts]
        wanted = [torch.from_numpy(other.encode(side)) for side in texts]
        expected["independent"] = 1 - cosine_similarity(torch.cat(f), torch.cat(wanted)).mean()
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5)
    sum(found.values()).backward()
    assert model[0].embedding.weight.grad is not None
    assert all(parameter.grad is None for parameter in old.parameters())


def test_without_repeated_documents_it_is_the_prototype_loss() -> None:
    queries, documents = normalize(random(N, 3, seed=1)), normalize(random(N, 3, seed=2))
    expected = prototype_loss(queries, documents, torch.arange(N), scale=9.0)
    torch.testing.assert_close(info_nce(queries, documents, 9.0), expected)


@pytest.mark.parametrize("method", ["bt2", "prefix"])
def test_a_training_script_ends_in_an_ordinary_folder(method: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

    old_folder = save(static_model(size=OLD, seed=2), tmp_path / "old")
    model = bert_model(size=D, normalize=False)
    data = datasets.Dataset.from_dict({"query": TEXTS * 8, "document": COLUMNS[1] * 8})
    data = with_old_vectors(data, f"sentence:{old_folder}")
    assert np.asarray(data[0]["label"]).shape == (2, OLD)
    own = MultipleNegativesRankingLoss(model)
    loss = BackwardCompatibleLoss(model, loss=own, method=method, old_dim=OLD, weights={"old": 20})
    old = nobackfill.load(f"sentence:{old_folder}", "cpu").encode(TEXTS)

    def agreement() -> float:
        b = torch.from_numpy(model.encode(TEXTS, truncate_dim=OLD))
        return float(cosine_similarity(b, torch.from_numpy(old)).mean())

    before = agreement()
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path / "work"), num_train_epochs=4, per_device_train_batch_size=5, learning_rate=0.01,
        report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    SentenceTransformerTrainer(model=model, args=arguments, train_dataset=data, loss=loss).train()
    assert agreement() > before + 0.2
    folder = save(model, tmp_path / "new")
    again = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    np.testing.assert_allclose(again.encode(TEXTS), model.encode(TEXTS), atol=1e-6)
    types = [module["type"] for module in json.loads((folder / "modules.json").read_text())]
    assert all(kind.startswith("sentence_transformers.") for kind in types)
    if method == "bt2":
        matrix = again[-1].linear.weight.detach()
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(D), atol=1e-5, rtol=0)
        assert not torch.allclose(matrix, torch.eye(D), atol=1e-3)
    record_lineage(folder, f"sentence:{old_folder}")
    new_spec, old_spec = (nobackfill.load(f"sentence:{place}", "cpu").spec for place in (folder, old_folder))
    assert new_spec.compatible_with(old_spec)


def test_a_checkpoint_s_matrix_comes_back() -> None:
    model = static_model(size=D)
    loss = BackwardCompatibleLoss(model, loss=MultipleNegativesRankingLoss(model), old_dim=OLD)
    matrix = torch.linalg.qr(random(D, D, seed=4))[0]
    state = model.state_dict()
    assert "2.linear.weight" in state
    state["2.linear.weight"] = matrix
    model.load_state_dict(state)
    assert loss.basis is not None
    torch.testing.assert_close(loss.basis.weight, matrix)


def test_what_does_not_go_together_is_said() -> None:
    model, old = static_model(size=D), static_model(size=OLD)
    own = MultipleNegativesRankingLoss(model)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"old": old}, "loss: expected one that works on embeddings, .* found none"),
        ({"old": old, "loss": torch.nn.MSELoss()}, "found MSELoss"),
        ({"loss": own}, "old: give the old model, or old_dim"),
        ({"loss": own, "old": old, "old_dim": 3}, "old_dim: 3, but the old model's vectors have 6"),
        ({"loss": own, "old_dim": D + 1}, "have 10 values, fewer than the 11 of the old model"),
        ({"loss": own, "old": bert_model(size=OLD)}, "its tokenizer is not the new model's.*with_old_vectors"),
        ({"loss": own, "old": old, "method": "lce"}, "method 'lce'"),
        ({"loss": own, "old": old, "method": "bct", "weights": {"old": 1}}, "weights: unknown key 'old'"),
        ({"loss": own, "old": old, "weights": {"old": -1}}, "'old': expected a value of at least 0, found -1"),
        ({"loss": own, "old": old, "method": "bct", "independent": model}, "bct has no use for it"),
        ({"loss": own, "old": old, "weights": {"independent": 3}}, "'independent': there is no independent model"),
        ({"loss": own, "old": old, "independent": static_model(size=4)}, "independent: 4 values, but .* has 10"),
    ]
    for arguments, message in cases:
        with pytest.raises(ConfigError, match=message):
            BackwardCompatibleLoss(model, **arguments)
    assert len(model) == 1, "a refused loss leaves the model alone"
    loss = BackwardCompatibleLoss(model, loss=own, old_dim=OLD, method="prefix")
    for labels in (None, torch.zeros(N, 3, OLD)):
        with pytest.raises(DataError, match=r"old vectors: expected \[2, 6\] a row in the column 'label'"):
            loss(batch_of(model, COLUMNS[:2]), labels)


def test_old_vectors_do_not_replace_labels(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    old = static_model(size=OLD, prompts={"query": "where ", "document": "the "})
    data = datasets.Dataset.from_dict({"query": TEXTS, "document": TEXTS})
    found = np.asarray(with_old_vectors(data, old)["label"], np.float32)
    np.testing.assert_allclose(found[:, 0], old.encode_query(TEXTS), atol=1e-6)
    np.testing.assert_allclose(found[:, 1], old.encode_document(TEXTS), atol=1e-6)
    with pytest.raises(DataError, match="has a column 'score', where the old vectors would go"):
        with_old_vectors(data.add_column("score", [1.0] * N), old)


def test_old_vectors_stand_in_the_order_in_which_the_trainer_reads_the_columns() -> None:
    datasets = pytest.importorskip("datasets")
    old = static_model(size=OLD, prompts={"query": "where ", "document": "the "})
    data = datasets.Dataset.from_dict({"document": COLUMNS[1], "source": TEXTS, "query": TEXTS})
    made = with_old_vectors(data, old, columns=["query", "document"])
    assert made.column_names == ["query", "document", "label"]
    assert (made[0]["query"], made[0]["document"]) == (TEXTS[0], COLUMNS[1][0])
    found = np.asarray(made["label"], np.float32)
    np.testing.assert_allclose(found[:, 0], old.encode_query(TEXTS), atol=1e-6)
    np.testing.assert_allclose(found[:, 1], old.encode_document(COLUMNS[1]), atol=1e-6)
    with pytest.raises(DataError, match="no column 'queries' in the data set; it has document, source, query"):
        with_old_vectors(data, old, columns=["queries", "document"])
    with pytest.raises(DataError, match="expected each name once"):
        with_old_vectors(data, old, columns=["query", "query"])
