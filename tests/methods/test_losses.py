"""Each loss against a loop over samples written from the equations."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from nobackfill.errors import ConfigError
from nobackfill.methods import METHODS, Batch, method_class
from nobackfill.methods.bct import BCT
from nobackfill.methods.bt2 import BT2
from nobackfill.methods.concat import Concat
from nobackfill.methods.independent import Independent
from nobackfill.methods.prefix import PrefixMethod

N, D, OLD, CLASSES = 7, 6, 4, 5


def cross_entropy_of_one(logits: Tensor, label: int, smoothing: float = 0.0) -> float:
    log_sum = math.log(sum(math.exp(value) for value in logits.tolist()))
    losses = [log_sum - value for value in logits.tolist()]
    return float((1 - smoothing) * losses[label] + smoothing * sum(losses) / len(losses))


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def sample(seed: int, dtype: torch.dtype) -> tuple[dict[str, Tensor], Batch]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    f = torch.nn.functional.normalize(normal(N, D))
    output = {
        "new": f, "logits": normal(N, CLASSES), "compatible": 1.7 * normal(N, OLD), "embedding": f,
    }  # fmt: skip
    labels = torch.randint(0, CLASSES, (N,), generator=generator)
    return output, Batch(labels, normal(N, OLD), normal(N, D), normal(CLASSES, OLD))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_independent__equals_a_loop(dtype: torch.dtype, smoothing: float) -> None:
    output, batch = sample(0, dtype)
    expected = sum(cross_entropy_of_one(output["logits"][i], int(batch.labels[i]), smoothing) for i in range(N)) / N
    parts = Independent({"label_smoothing": smoothing}).loss(output, Batch(batch.labels))
    assert set(parts) == {"labels"}
    assert float(parts["labels"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 16.0])
def test_bct__equals_a_loop(dtype: torch.dtype, scale: float) -> None:
    output, batch = sample(1, dtype)
    assert batch.prototypes is not None
    labels, old_classes = 0.0, 0.0
    for i in range(N):
        label = int(batch.labels[i])
        labels += cross_entropy_of_one(output["logits"][i], label, 0.1) / N
        old_logits = torch.stack([scale * (output["compatible"][i] @ w) for w in batch.prototypes])
        old_classes += 10 * cross_entropy_of_one(old_logits, label, 0.1) / N
    parts = BCT({"prototype_scale": scale}).loss(output, Batch(batch.labels, prototypes=batch.prototypes))
    assert float(parts["labels"]) == pytest.approx(labels, rel=1e-5)
    assert float(parts["prototypes"]) == pytest.approx(old_classes, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 16.0])
def test_bt2__equals_a_loop(dtype: torch.dtype, scale: float) -> None:
    output, batch = sample(2, dtype)
    assert batch.prototypes is not None
    assert batch.old is not None
    assert batch.independent is not None
    expected = dict.fromkeys(("labels", "independent", "prototypes", "old"), 0.0)
    for i in range(N):
        label, b = int(batch.labels[i]), output["compatible"][i]
        expected["labels"] += cross_entropy_of_one(output["logits"][i], label) / N
        expected["independent"] += 1 * (1 - cosine(output["new"][i], batch.independent[i])) / N
        old_logits = torch.stack([scale * (b / b.norm() @ w) for w in batch.prototypes])
        expected["prototypes"] += 10 * cross_entropy_of_one(old_logits, label) / N
        expected["old"] += 5 * (1 - cosine(b, batch.old[i])) / N
    parts = BT2({"prototype_scale": scale}).loss(output, batch)
    assert {name: float(value) for name, value in parts.items()} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_prefix__equals_a_loop(dtype: torch.dtype) -> None:
    output, batch = sample(5, dtype)
    assert batch.prototypes is not None
    assert batch.old is not None
    expected = dict.fromkeys(("labels", "prototypes", "old"), 0.0)
    for i in range(N):
        label, b = int(batch.labels[i]), output["compatible"][i]
        expected["labels"] += cross_entropy_of_one(output["logits"][i], label) / N
        old_logits = torch.stack([16 * (b / b.norm() @ w) for w in batch.prototypes])
        expected["prototypes"] += cross_entropy_of_one(old_logits, label) / N
        expected["old"] += 5 * (1 - cosine(b, batch.old[i])) / N
    found = PrefixMethod({}).loss(output, Batch(batch.labels, batch.old, None, batch.prototypes))
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=1e-5)


def test_concat__has_the_loss_of_bt2() -> None:
    output, batch = sample(6, torch.float64)
    assert Concat({}).loss(output, batch) == BT2({}).loss(output, batch)
    assert Concat.loss_defaults == BT2.loss_defaults


def test_a_part_of_weight_0_needs_no_teacher_and_is_left_out() -> None:
    output, batch = sample(7, torch.float64)
    assert BT2({}).needed == {"old", "independent", "prototypes"}
    full = BT2({}).loss(output, batch)
    for name in ("old", "independent", "prototypes"):
        method = BT2({name: 0})
        assert method.needed == {"old", "independent", "prototypes"} - {name}
        found = method.loss(output, dataclasses.replace(batch, **cast("dict[str, Any]", {name: None})))
        assert found == {part: value for part, value in full.items() if part != name}
    assert set(PrefixMethod({"old": 0}).loss(output, dataclasses.replace(batch, old=None))) == {"labels", "prototypes"}


def test_bt2__each_weight_multiplies_its_own_part_and_smoothing_the_first() -> None:
    output, batch = sample(4, torch.float64)
    plain = BT2({"prototypes": 1, "old": 1}).loss(output, batch)
    weighed = BT2({"independent": 0.3, "prototypes": 2, "old": 7, "label_smoothing": 0.2}).loss(output, batch)
    for name, weight in (("independent", 0.3), ("prototypes", 2), ("old", 7)):
        assert float(weighed[name]) == pytest.approx(weight * float(plain[name]))
    expected = sum(cross_entropy_of_one(output["logits"][i], int(batch.labels[i]), 0.2) for i in range(N)) / N
    assert float(weighed["labels"]) == pytest.approx(expected)


def test_published_weights_are_the_defaults() -> None:
    assert BT2.loss_defaults == {
        "independent": 1, "prototypes": 10, "old": 5, "prototype_scale": 1, "label_smoothing": 0,
    }  # fmt: skip
    assert BCT.loss_defaults == {"prototypes": 10, "prototype_scale": 1, "label_smoothing": 0.1}
    assert Independent.loss_defaults == {"label_smoothing": 0.1}


def test_a_loss_key_the_method_does_not_know_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'loss.prototype': did you mean 'prototypes'"):
        BT2({"prototype": 1})
    with pytest.raises(ConfigError, match=r"'loss.old': expected a value of at least 0, found -1"):
        BT2({"old": -1})


def test_a_teacher_that_was_not_named_is_missed_loudly() -> None:
    output, batch = sample(3, torch.float32)
    with pytest.raises(ConfigError, match="needs a teacher"):
        BT2({}).loss(output, Batch(batch.labels))


def test_method_class__names_the_nearest() -> None:
    assert {"independent", "bct", "bt2", "concat", "prefix", "bt2_vectors", "mlp", "infonce"} < set(METHODS)
    with pytest.raises(ConfigError, match="unknown method 'bt'; did you mean 'bt2'"):
        method_class("bt")
