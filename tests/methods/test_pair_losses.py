"""The losses of pairs against loops over single pairs."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nobackfill.errors import ConfigError
from nobackfill.methods import METHODS, PAIR_METHODS, PairBatch, method_class
from nobackfill.methods.pairs import info_nce

N, M, D, OLD = 5, 8, 6, 4


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def sample(seed: int, dtype: torch.dtype = torch.float64) -> tuple[dict[str, Tensor], dict[str, Tensor], PairBatch]:
    """Outputs of N queries and M documents; documents 0 and 3 are one, and hard negative 6 answers query 2."""
    random = torch.Generator().manual_seed(seed)

    def rows(count: int, dim: int) -> Tensor:
        return torch.randn(count, dim, generator=random, dtype=dtype)

    answers = torch.zeros(N, M, dtype=torch.bool)
    answers[torch.arange(N), torch.arange(N)] = True
    answers[0, 3] = answers[3, 0] = answers[2, 6] = True
    outputs = [{"new": rows(count, D), "compatible": rows(count, OLD)} for count in (N, M)]
    return outputs[0], outputs[1], PairBatch(answers, rows(N, OLD), rows(M, OLD), rows(N, D), rows(M, D))


def of_one(query: Tensor, documents: Tensor, own: int, excluded: list[int], temperature: float) -> float:
    """−log of the share of its own document among all that are not excluded."""
    return from_scores(
        {j: cosine(query, documents[j]) / temperature for j in range(len(documents)) if j not in excluded}, own
    )


def from_scores(scores: dict[int, float], own: int) -> float:
    return math.log(sum(map(math.exp, scores.values()))) - scores[own]


def slow(
    queries: Any, documents: Any, batch: PairBatch, temperature: float, *, padded: bool = False
) -> dict[str, float]:
    """Every term with weight 1; `padded`: b keeps its norm in the cross term, as if the old vectors ended in zeros."""
    assert batch.old_documents is not None
    assert batch.old_queries is not None
    assert batch.independent_queries is not None
    assert batch.independent_documents is not None
    expected = dict.fromkeys(("pairs", "cross", "old", "independent"), 0.0)
    also = [[j for j in range(M) if batch.answers[i, j] and j != i] for i in range(N)]
    asked = [[k for k in range(N) if batch.answers[k, i] and k != i] for i in range(N)]
    for i in range(N):
        forth = of_one(queries["new"][i], documents["new"], i, also[i], temperature)
        back = of_one(documents["new"][i], queries["new"], i, asked[i], temperature)
        expected["pairs"] += (forth + back) / 2 / N
        b, norm = queries["compatible"][i], float(queries["compatible"][i].norm()) if padded else 1.0
        scores = {j: norm * cosine(b, batch.old_documents[j]) / temperature for j in range(M) if j not in also[i]}
        expected["cross"] += from_scores(scores, i) / N
    for name, part, of_queries, of_documents in (
        ("old", "compatible", batch.old_queries, batch.old_documents),
        ("independent", "new", batch.independent_queries, batch.independent_documents),
    ):
        cosines = [cosine(queries[part][i], of_queries[i]) for i in range(N)]
        cosines += [cosine(documents[part][j], of_documents[j]) for j in range(M)]
        expected[name] = 1 - sum(cosines) / (N + M)
    return expected


TERMS = {
    "independent": {"pairs": 1.0},
    "bct": {"pairs": 1.0, "cross": 1.0},
    "prefix": {"pairs": 1.0, "cross": 1.0, "old": 5.0},
    "bt2": {"pairs": 1.0, "cross": 1.0, "old": 5.0, "independent": 1.0},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PAIR_METHODS)
def test_each_loss_equals_a_loop(name: str, dtype: torch.dtype) -> None:
    queries, documents, batch = sample(1, dtype)
    expected = slow(queries, documents, batch, 0.05, padded=name == "bct")
    found = PAIR_METHODS[name]({}).pair_loss(queries, documents, batch)
    weighted = {term: weight * expected[term] for term, weight in TERMS[name].items()}
    assert {term: float(value) for term, value in found.items()} == pytest.approx(weighted, rel=1e-4)


def test_weights_and_temperature() -> None:
    queries, documents, batch = sample(2)
    expected = slow(queries, documents, batch, 0.3)
    weights = {"cross": 2.0, "old": 7.0, "independent": 0.5, "temperature": 0.3}
    found = PAIR_METHODS["bt2"](weights).pair_loss(queries, documents, batch)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {name: weights.get(name, 1.0) * value for name, value in expected.items()}
    )


def test_a_term_of_weight_0_needs_no_teacher() -> None:
    queries, documents, batch = sample(3)
    bare = dataclasses.replace(batch, old_queries=None, independent_queries=None, independent_documents=None)
    method = PAIR_METHODS["bt2"]({"independent": 0, "old": 0})
    assert method.needed == {"old"}  # the cross term looks at the old documents
    assert set(method.pair_loss(queries, documents, bare)) == {"pairs", "cross"}
    with pytest.raises(ConfigError, match="needs a teacher"):
        PAIR_METHODS["prefix"]({}).pair_loss(queries, documents, bare)


def test_what_answers_a_query_is_no_negative_of_it_whatever_its_vector() -> None:
    queries, documents, batch = sample(4)
    moved = documents["new"].clone()
    moved[6] = queries["new"][2]  # a twin of its own document, as near as can be
    before, after = (info_nce(queries["new"][2:3], rows[[2, 6]], batch.answers[2:3, [2, 6]], 0.05)
                     for rows in (documents["new"], moved))  # fmt: skip
    assert float(before) == float(after) == 0
    one = info_nce(queries["new"][:1], documents["new"][:1], torch.ones(1, 1, dtype=torch.bool), 0.05)
    assert float(one) == 0  # a batch of one pair has no negatives


def test_gradients_reach_both_sides_and_not_the_teachers() -> None:
    queries, documents, batch = sample(5)
    leaves = [value.requires_grad_() for part in (queries, documents) for value in part.values()]
    taught = [getattr(batch, field.name) for field in dataclasses.fields(batch) if field.name != "answers"]
    torch.stack(list(PAIR_METHODS["bt2"]({}).pair_loss(queries, documents, batch).values())).sum().backward()  # type: ignore[no-untyped-call]
    assert all(leaf.grad is not None and leaf.grad.abs().sum() > 0 for leaf in leaves)
    assert all(each.grad is None for each in taught)


def test_a_method_has_one_name_for_labels_and_pairs() -> None:
    assert set(PAIR_METHODS) <= set(METHODS)
    for name, method in PAIR_METHODS.items():
        assert issubclass(method, METHODS[name])
        assert method_class(name, "pair") is method
        assert method_class(name, "text") is METHODS[name]
    with pytest.raises(ConfigError, match="'concat' does not train on pairs; expected bct, bt2, independent or prefix"):
        method_class("concat", "pair")
    with pytest.raises(ConfigError, match="did you mean 'prefix'"):
        method_class("prefx", "pair")
