"""The rivals' losses against loops over samples written from the equations, ties and lone classes included."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from tests.methods.test_losses import cosine, cross_entropy_of_one
from torch import Tensor, nn
from torch.nn.functional import normalize

from nobackfill.config import ModelConfig
from nobackfill.errors import ConfigError
from nobackfill.methods import METHODS, PAIR_METHODS, Batch, Method
from nobackfill.methods.advbct import AdvBCT, Adversary
from nobackfill.methods.dsimplex import DSimplexHOC
from nobackfill.methods.lce import LCE
from nobackfill.methods.mixbct import MixBCT
from nobackfill.methods.oca import OCA
from nobackfill.methods.ract import RACT
from nobackfill.methods.unibct import UniBCT, margin_softmax
from nobackfill.models.classifier import SimplexClassifier

N, D, OLD, CLASSES = 9, 7, 5, 6
MIXED = [0, 1, 2, 0, 1, 2, 2, 4, 0]  # class 3 and 5 without a sample, class 4 with one
LABELS = {"several classes": MIXED, "one class": [1] * N}


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    """Here only values matter; `test_gradients.py` looks at gradients."""
    with torch.no_grad():
        yield


def sample(method: Method, labels: list[int], progress: float = 0.3) -> tuple[dict[str, Tensor], Batch]:
    """Random output and batch in double precision; two samples are equal in everything, so scores tie."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator, dtype=torch.float64)
        values[-1] = values[0]
        return values

    torch.manual_seed(2)
    classifier = nn.Linear(D, CLASSES, bias=True, dtype=torch.float64)
    new, old, y = normalize(normal(N, D)).requires_grad_(), normalize(normal(N, OLD)), torch.tensor(labels)
    own = method.modules(ModelConfig(embedding_dim=D), OLD, CLASSES)
    statistics = {name: each.double() for name, each in method.statistics(old, y, CLASSES).items()}
    prototypes = torch.randn(CLASSES, OLD, generator=generator, dtype=torch.float64)
    batch = Batch(y, old, None, prototypes, statistics, progress, classifier, own.double() if own else None)
    return {"new": new, "embedding": new, "compatible": new[:, :OLD], "logits": classifier(new)}, batch


def unit(vector: Tensor) -> Tensor:
    scaled: Tensor = vector / vector.norm()
    return scaled


def centre_of(batch: Batch, label: int) -> Tensor:
    """Mean of the old vectors of a class; here the batch is all there is."""
    assert batch.old is not None
    return torch.stack([batch.old[i] for i in range(N) if int(batch.labels[i]) == label]).mean(dim=0)


def members(batch: Batch, label: int) -> list[int]:
    return [i for i in range(N) if int(batch.labels[i]) == label]


def found(method: Method, output: dict[str, Tensor], batch: Batch) -> dict[str, float]:
    return {name: float(value) for name, value in method.loss(output, batch).items()}


def plain_labels(output: dict[str, Tensor], batch: Batch) -> float:
    return sum(cross_entropy_of_one(output["logits"][i], int(batch.labels[i])) for i in range(N)) / N


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_lce__equals_a_loop(labels: list[int]) -> None:
    method = LCE({"boundary": 2, "alignment": 3})
    output, batch = sample(method, labels)
    assert batch.classifier is not None
    assert batch.old is not None
    beyond, apart = [], []
    for i, label in enumerate(labels):
        if len(members(batch, label)) < 2:
            continue
        centre = centre_of(batch, label)
        widest = max(math.acos(cosine(batch.old[j], centre)) for j in members(batch, label))
        beyond.append(max(0.0, math.acos(cosine(output["compatible"][i], centre)) - widest))
        apart.append(1 - cosine(centre, batch.classifier.weight[label, :OLD]))
    expected = {"boundary": 2 * sum(beyond) / len(beyond), "alignment": 3 * sum(apart) / len(apart)}
    expected["labels"] = plain_labels(output, batch)
    assert found(method, output, batch) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("hardest", [0, 2, 50])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_ract__equals_a_loop(labels: list[int], hardest: int) -> None:
    method = RACT({"old": 10, "temperature": 0.5, "hardest": hardest})
    output, batch = sample(method, labels)
    assert batch.old is not None
    total = 0.0
    for i in range(N):
        b = output["compatible"][i]
        others = [j for j in range(N) if labels[j] != labels[i]]
        against_old = sorted((cosine(b, batch.old[j]) for j in others), reverse=True)[: hardest or None]
        against_new = sorted((cosine(b, output["compatible"][j]) for j in others), reverse=True)[: hardest or None]
        own = math.exp(cosine(b, batch.old[i]) / 0.5)
        total -= math.log(own / (own + sum(math.exp(c / 0.5) for c in against_old + against_new))) / N
    expected = {"labels": plain_labels(output, batch), "old": 10 * total}
    assert found(method, output, batch) == pytest.approx(expected, rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_hoc__equals_a_loop(labels: list[int]) -> None:
    method = DSimplexHOC({"sharpness": 3})
    output, batch = sample(method, labels)
    assert batch.old is not None
    total = 0.0
    for i in range(N):
        scores = [3 * cosine(batch.old[i], output["compatible"][j]) for j in range(N)]
        total += math.log(sum(math.exp(scores[j]) if labels[j] != labels[i] else 1.0 for j in range(N))) / N
        total -= scores[i] / N
    expected = {"labels": 0.1 * plain_labels(output, batch), "old": 0.9 * total}
    assert found(method, output, batch) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_unibct__equals_a_loop(labels: list[int]) -> None:
    method = UniBCT({"centres": 2, "scale": 4, "margin": 0.4, "neighbours": 2, "temperature": 0.3, "spread": 0.6})
    output, batch = sample(method, labels)
    assert batch.old is not None
    centres: dict[int, Tensor] = {}
    for label in set(labels):
        rows = members(batch, label)
        spread = {i: batch.old[i] for i in rows}
        for _ in range(200 if len(rows) > 1 else 0):  # x ← (1 − γ)·o + γ·A x has the closed form as its fixed point
            after = {}
            for i in rows:
                near = {j: cosine(batch.old[i], batch.old[j]) for j in rows if j != i}
                nearest = sorted(near, key=near.__getitem__, reverse=True)[:2]
                weight = {j: math.exp(near[j] / 0.3) for j in nearest}
                pulled = sum((weight[j] * spread[j] for j in nearest), torch.zeros(OLD)) / sum(weight.values())
                after[i] = 0.4 * batch.old[i] + 0.6 * pulled
            spread = after
        centres[label] = torch.stack(list(spread.values())).mean(dim=0)
    total = 0.0
    for i, label in enumerate(labels):
        logits = []
        for other in range(CLASSES):
            angle = math.acos(cosine(output["compatible"][i], centres[other])) if other in centres else math.pi / 2
            logits.append(4 * math.cos(min(math.pi, angle + 0.4 * (other == label))))
        total += cross_entropy_of_one(torch.tensor(logits, dtype=torch.float64), label) / N
    expected = {"labels": plain_labels(output, batch), "centres": 2 * total}
    assert found(method, output, batch) == pytest.approx(expected, rel=1e-4)


def test_the_margin_makes_the_loss_larger_up_to_the_opposite_side() -> None:
    cosines = torch.tensor([[-0.99, 0.2], [0.5, 0.5]], dtype=torch.float64)
    losses = [float(margin_softmax(cosines, torch.tensor([0, 1]), 8, margin)) for margin in (0.0, 0.3, 1.0, 2.9)]
    assert losses == sorted(losses)


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_advbct__equals_a_loop(labels: list[int], progress: float) -> None:
    method = AdvBCT({"boundary": 2, "adversary": 3})
    output, batch = sample(method, labels, progress)
    assert isinstance(batch.own, Adversary)
    assert batch.old is not None
    outside = []
    for i, label in enumerate(labels):
        if len(members(batch, label)) < 2:
            continue
        centre = centre_of(batch, label)
        largest = max(float((batch.old[j] - centre).norm()) for j in members(batch, label))
        share = 1 / (1 + math.exp(-float(batch.own.radii[label])))
        radius = largest + share * abs(largest - 1) if largest < 1 else largest - share * abs(largest - 1)
        distance = float((unit(output["compatible"][i]) - centre).norm()) - radius
        outside += [distance] if distance > 0 else []
    adversary = 0.0
    for vectors, label in ((output["compatible"], 0), (batch.old, 1)):
        logits = batch.own.discriminator(torch.stack([unit(row) for row in vectors]))
        adversary += sum(cross_entropy_of_one(row, label) for row in logits) / N
    expected = {"labels": plain_labels(output, batch), "boundary": 2 * sum(outside) / max(1, len(outside))}
    expected["adversary"] = 3 * (1 - progress) * adversary
    assert found(method, output, batch) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("mix", "kept"), [(0.3, 0.9), (1.0, 0.5), (0.05, 1.0), (1.0, 1.0), (1.0, 0.01)])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_mixbct__equals_a_loop(labels: list[int], mix: float, kept: float) -> None:
    method = MixBCT({"mix": mix, "kept": kept})
    output, batch = sample(method, labels)
    assert batch.classifier is not None
    assert batch.old is not None
    total, left = 0.0, int(mix * N)
    for i, label in enumerate(labels):
        distances = sorted(float((batch.old[j] - centre_of(batch, label)).norm()) for j in members(batch, label))
        count = math.ceil(kept * len(distances))
        own = float((batch.old[i] - centre_of(batch, label)).norm())
        vector = output["new"][i]
        if left and own <= distances[count - 1] + 1e-6:
            vector, left = torch.cat([unit(batch.old[i]), torch.zeros(D - OLD)]), left - 1
        total += cross_entropy_of_one(batch.classifier(vector), label) / N
    assert found(method, output, batch) == pytest.approx({"labels": total}, rel=1e-5)


def test_oca__equals_a_loop() -> None:
    method = OCA({"prototype_scale": 2})
    output, batch = sample(method, MIXED)
    assert batch.classifier is not None
    assert batch.own is not None
    assert batch.prototypes is not None
    expected = dict.fromkeys(("labels", "prototypes", "alignment"), 0.0)
    for i, label in enumerate(MIXED):
        b, turned = output["compatible"][i], batch.own(output["new"][i])
        old_logits = torch.stack([2 * (unit(b) @ prototype) for prototype in batch.prototypes])
        expected["labels"] += 5 * cross_entropy_of_one(batch.classifier(turned), label, 0.1) / N
        expected["prototypes"] += 10 * cross_entropy_of_one(old_logits, label, 0.1) / N
        expected["alignment"] += 5 * (1 - cosine(b, batch.prototypes[label])) / N
    assert found(method, output, batch) == pytest.approx(expected, rel=1e-5)
    assert OCA({"prototypes": 0}).needed == {"prototypes"}


def test_the_simplex_has_corners_that_are_all_alike() -> None:
    classifier = SimplexClassifier(D, CLASSES, 3.0)
    expected = torch.full((D + 1, D + 1), -1 / D).fill_diagonal_(1)
    torch.testing.assert_close(classifier.weight @ classifier.weight.T, expected, atol=1e-6, rtol=0)
    assert not classifier.weight.requires_grad
    torch.testing.assert_close(classifier(classifier.weight), 3 * expected, atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="7 values have 8 simplex corners, too few for 9 classes"):
        SimplexClassifier(D, 9, 1.0)


@pytest.mark.parametrize(
    ("method", "loss", "message"),
    [
        ("ract", {"temperature": 0}, "'loss.temperature': expected a value above 0"),
        ("ract", {"hardest": 1.5}, "'loss.hardest': expected a whole number, found 1.5"),
        ("unibct", {"neighbours": 0}, "'loss.neighbours': expected a value above 0"),
        ("unibct", {"spread": 1}, "'loss.spread': expected a value below 1"),
        ("mixbct", {"mix": 1.1}, "'loss.mix': expected a value of at most 1, found 1.1"),
        ("mixbct", {"kept": 0}, "'loss.kept': expected a value above 0"),
        ("bct", {"prototype_scale": 0}, "'loss.prototype_scale': expected a value above 0"),
        ("oca", {"alignement": 1}, "unknown key 'loss.alignement': did you mean 'alignment'"),
    ],
)
def test_settings_without_a_meaning_are_refused(method: str, loss: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        METHODS[method](loss)


@pytest.mark.parametrize(
    "method",
    [each for each in (*METHODS.values(), *PAIR_METHODS.values()) if each.teachers],
    ids=lambda method: method.__name__,
)
def test_what_nothing_ties_to_the_old_model_is_refused(method: type[Method]) -> None:
    """Its run folder would say that it is compatible."""
    assert method.ties
    for kept in method.ties:
        method({**dict.fromkeys(method.ties, 0.0), kept: 1.0})
    named = ", ".join(f"'loss.{key}'" for key in method.ties)
    with pytest.raises(ConfigError, match=f"{named}: 0, so that nothing makes the new model compatible with the old"):
        method(dict.fromkeys(method.ties, 0.0))
