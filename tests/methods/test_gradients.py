"""What each part of a rival's loss teaches, and what it leaves alone."""

from __future__ import annotations

import math

import pytest
import torch
from tests.methods.test_rivals import MIXED, OLD, sample
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from nobackfill.methods import METHODS, Method
from nobackfill.methods.advbct import AdvBCT, Adversary
from nobackfill.methods.classes import largest_usual
from nobackfill.methods.lce import LCE
from nobackfill.methods.mixbct import MixBCT
from nobackfill.methods.oca import OCA
from nobackfill.methods.unibct import refined

RIVALS = ("lce", "ract", "unibct", "advbct", "mixbct", "oca", "dsimplex_hoc")


def slopes(method: Method, part: str, *, progress: float = 0.3) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradient of one part of the loss with respect to f [n, d], and to each parameter that it reaches."""
    output, batch = sample(method, MIXED, progress)
    new = output["new"]
    assert batch.classifier is not None
    parameters = {f"classifier.{name}": value for name, value in batch.classifier.named_parameters()}
    if batch.own is not None:
        parameters.update({f"own.{name}": value for name, value in batch.own.named_parameters()})
    found = torch.autograd.grad(method.loss(output, batch)[part], [new, *parameters.values()], allow_unused=True)
    reached = {name: each for name, each in zip(parameters, found[1:], strict=True) if each is not None and each.any()}
    return torch.zeros_like(new) if found[0] is None else found[0], reached


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("lce", "boundary"),
        ("ract", "old"),
        ("unibct", "centres"),
        ("advbct", "boundary"),
        ("advbct", "adversary"),
        ("oca", "prototypes"),
        ("oca", "alignment"),
        ("dsimplex_hoc", "old"),
    ],
)
def test_a_compatible_part_moves_the_values_that_face_the_old_model_and_no_others(name: str, part: str) -> None:
    of_f, reached = slopes(METHODS[name]({}), part)
    assert of_f[:, :OLD].any()
    assert not of_f[:, OLD:].any()
    assert not any(name.startswith("classifier") for name in reached)


def test_the_alignment_of_lce_teaches_the_classifier_alone() -> None:
    of_f, reached = slopes(LCE({}), "alignment")
    assert not of_f.any()
    assert set(reached) == {"classifier.weight"}
    rows = reached["classifier.weight"].abs().sum(dim=1) > 0
    assert rows.tolist() == [True, True, True, False, False, False]  # class 4 has a single old vector: no cone
    assert not reached["classifier.weight"][:, OLD:].any()


def test_the_discriminator_learns_what_the_network_unlearns() -> None:
    plain = Adversary(OLD, 6).double()
    b = torch.randn(8, OLD, dtype=torch.float64, requires_grad=True)
    old = torch.randn(8, OLD, dtype=torch.float64, requires_grad=True)
    weight = plain.discriminator[0].weight
    assert isinstance(weight, Tensor)
    forward = torch.autograd.grad(plain.told_apart(b, old, -1.0), [b, old, weight])  # −(−1): not turned round
    turned = torch.autograd.grad(plain.told_apart(b, old, 0.7), [b, old, weight])
    assert forward[0].any()
    torch.testing.assert_close(turned[0], -0.7 * forward[0])
    torch.testing.assert_close(turned[1], forward[1])
    torch.testing.assert_close(turned[2], forward[2])


def test_adversary_of_advbct_starts_at_nothing_and_grows_as_published() -> None:
    base, _ = slopes(AdvBCT({}), "adversary", progress=0.5)
    strength = {p: 2 / (1 + math.exp(-10 * p)) - 1 for p in (0.1, 0.5)}
    early, reached = slopes(AdvBCT({}), "adversary", progress=0.1)
    torch.testing.assert_close(early, base * (0.9 * strength[0.1]) / (0.5 * strength[0.5]))
    at_start, reached = slopes(AdvBCT({}), "adversary", progress=0.0)
    assert not at_start.any()
    assert all(name.startswith("own.discriminator") for name in reached)  # which learns from the start
    assert len(reached) >= 5


def test_the_boundary_of_advbct_teaches_the_radii_of_the_samples_outside() -> None:
    _, reached = slopes(AdvBCT({}), "boundary")
    assert set(reached) == {"own.radii"}
    assert not reached["own.radii"][3:].any()  # classes without a radius


def test_mixbct_gives_replaced_samples_no_gradient() -> None:
    of_f, reached = slopes(MixBCT({"mix": 0.4, "kept": 1.0}), "labels")
    assert of_f.any(dim=1).tolist() == [False] * 3 + [True] * 6
    assert set(reached) == {"classifier.weight", "classifier.bias"}


def test_oca_teaches_the_rotation_by_its_labels() -> None:
    of_f, reached = slopes(OCA({}), "labels")
    assert of_f[:, OLD:].any()
    assert {"own.bias", "classifier.weight"} < set(reached)
    assert any("parametrizations" in name for name in reached)


@pytest.mark.parametrize("name", RIVALS)
def test_a_batch_of_one_class_and_lone_classes_give_finite_gradients(name: str) -> None:
    for labels in ([1] * 9, [*list(range(6)), 0, 1, 2]):
        method = METHODS[name]({})
        output, batch = sample(method, labels)
        total = torch.stack(list(method.loss(output, batch).values())).sum()
        assert total.isfinite()
        assert torch.autograd.grad(total, output["new"])[0].isfinite().all()


def test_refining_draws_the_odd_vector_in() -> None:
    torch.manual_seed(0)
    usual = normalize(torch.tensor([1.0, 0.0, 0.0]) + 0.1 * torch.randn(20, 3))
    vectors = torch.cat([usual, torch.tensor([[-1.0, 0.0, 0.0]])])
    plain, spread = vectors.mean(dim=0), refined(vectors, 5, 0.05, 0.9)
    assert cosine_similarity(spread[-1], usual.mean(dim=0), dim=0) > 0.5  # it lay opposite
    assert (spread.mean(dim=0) - usual.mean(dim=0)).norm() < 0.5 * (plain - usual.mean(dim=0)).norm()


@pytest.mark.parametrize("seed", range(5))
def test_outliers_do_not_widen_a_class(seed: int) -> None:
    torch.manual_seed(seed)
    values = torch.cat([torch.rand(20 + seed), torch.tensor([7.0, 0.0])])
    ordered = sorted(values.tolist())
    low, high = ordered[len(ordered) // 4], ordered[3 * len(ordered) // 4]
    inside = [value for value in ordered if low - 1.5 * (high - low) <= value <= high + 1.5 * (high - low)]
    assert largest_usual(values) == max(inside) < 7
    assert largest_usual(torch.tensor([1.0, 9.0, 2.0])) == 9  # too few to call one an outlier
    assert largest_usual(torch.tensor([3.0])) == 3
