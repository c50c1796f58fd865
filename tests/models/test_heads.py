from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity

from nobackfill.errors import ConfigError
from nobackfill.models import BasisTransformHead, PlainHead
from nobackfill.models.heads import ConcatHead, FrozenBasisHead

CLASSES = 5
TOLERANCE = 2e-5


@st.composite
def heads(draw: st.DrawFn) -> BasisTransformHead:
    old_dim = draw(st.integers(1, 24))
    extra_dim = draw(st.integers(0, old_dim))
    dim = draw(st.integers(max(1, old_dim - extra_dim), 32))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    return BasisTransformHead(dim, extra_dim, old_dim, draw(st.floats(0.25, 4)), CLASSES)


def train_steps(head: BasisTransformHead, steps: int, lr: float = 0.1) -> None:
    optimizer = torch.optim.Adam(head.parameters(), lr)
    target = torch.randn(head.dim)
    for _ in range(steps):
        output = head(torch.randn(16, head.in_features))
        loss = (output["embedding"] - target).square().mean() + output["logits"].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def matrices(head: BasisTransformHead) -> tuple[torch.Tensor, torch.Tensor]:
    p, b = head.basis.P.weight, head.basis.B.weight
    assert isinstance(p, torch.Tensor)
    assert isinstance(b, torch.Tensor)
    return p, b


@given(heads(), st.integers(0, 30))
@settings(max_examples=30, deadline=None)
def test_p_and_b_stay_orthogonal_through_training(head: BasisTransformHead, steps: int) -> None:
    train_steps(head, steps)
    for matrix in matrices(head):
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(matrix)), atol=1e-4, rtol=0)


def test_no_scale_is_too_large_for_a_norm() -> None:
    """Its square may be: a file of unknown origin says what the scale is."""
    assert ConcatHead(6, 4, 1e200, CLASSES).norm == 1e200
    assert BasisTransformHead(6, 2, 4, 1e200, CLASSES).norm == 1e200
    assert FrozenBasisHead(6, 2, 4, 1e200).norm == 1e200
    assert BasisTransformHead(6, 0, 4, 3.0, CLASSES).norm == 3


def test_training_moves_p_and_b() -> None:
    torch.manual_seed(0)
    head = BasisTransformHead(8, 2, 6, 2.0, CLASSES)
    before = [matrix.detach().clone() for matrix in matrices(head)]
    train_steps(head, 5)
    for matrix, start in zip(matrices(head), before, strict=True):
        assert (matrix - start).abs().max() > 1e-2


@given(heads(), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_norm_is_the_same_for_every_input(head: BasisTransformHead, steps: int) -> None:
    train_steps(head, steps)
    embedding = head(3 * torch.randn(20, head.in_features))["embedding"]
    expected = math.sqrt(head.basis.scale**2 + (1 if head.extra_dim else 0))
    assert head.norm == pytest.approx(expected)
    torch.testing.assert_close(embedding.norm(dim=1), torch.full((20,), expected), atol=TOLERANCE, rtol=TOLERANCE)


@given(heads(), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_inner_products_keep_those_of_f_and_o(head: BasisTransformHead, steps: int) -> None:
    train_steps(head, steps)
    x, y = (head(torch.randn(10, head.in_features)) for _ in range(2))
    expected = x["extra"] @ y["extra"].T + head.basis.scale**2 * (x["new"] @ y["new"].T)
    torch.testing.assert_close(x["embedding"] @ y["embedding"].T, expected, atol=2e-4, rtol=1e-4)


@given(heads())
@settings(max_examples=50, deadline=None)
def test_an_old_vector_padded_with_zeros_scores_as_the_prefix(head: BasisTransformHead) -> None:
    embedding = head(torch.randn(10, head.in_features))["embedding"].detach()
    old = torch.randn(7, head.old_dim)
    padded = torch.cat([old, torch.zeros(7, head.dim - head.old_dim)], dim=1)
    torch.testing.assert_close(embedding @ padded.T, embedding[:, : head.old_dim] @ old.T, atol=1e-5, rtol=1e-5)


@given(heads())
@settings(max_examples=20, deadline=None)
def test_folding_changes_nothing_and_leaves_plain_matrices(head: BasisTransformHead) -> None:
    features = torch.randn(6, head.in_features)
    before = head(features)
    head.fold()
    after = head(features)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert {"basis.P.weight", "basis.B.weight"} <= set(head.state_dict())


def test_bt2_head_equals_the_equations_one_sample_at_a_time() -> None:
    torch.manual_seed(1)
    d, k, d_o, scale = 6, 2, 4, 2.0
    head = BasisTransformHead(d, k, d_o, scale, CLASSES)
    assert head.extra is not None
    features = torch.randn(8, d + d_o)
    output = head(features)
    p, b = matrices(head)
    for i, h in enumerate(features):
        f = h[:d] / h[:d].norm()
        a = head.extra.weight @ torch.clamp(h, min=0) + head.extra.bias
        a = (a / a.norm())[:k]
        o = a / a.norm()
        z = torch.cat([o, p @ (scale * f)])
        phi = torch.cat([b @ z[:d_o], z[d_o:]])
        torch.testing.assert_close(output["embedding"][i], phi)
        torch.testing.assert_close(output["compatible"][i], phi[:d_o])
        torch.testing.assert_close(output["logits"][i], head.classifier.weight @ f)


def test_concat_head_is_both_embeddings_side_by_side() -> None:
    head = ConcatHead(5, 3, 2.0, 4)
    features = torch.randn(6, 8)
    output = head(features)
    for i in range(6):
        b, f = features[i, :3] / features[i, :3].norm(), features[i, 3:] / features[i, 3:].norm()
        torch.testing.assert_close(output["embedding"][i], torch.cat([b, 2 * f]))
        torch.testing.assert_close(output["compatible"][i], b)
        torch.testing.assert_close(output["logits"][i], head.classifier.weight @ f)
    torch.testing.assert_close(output["embedding"].norm(dim=1), torch.full((6,), head.norm))


def test_plain_head_is_a_unit_vector_and_its_prefix() -> None:
    head = PlainHead(6, CLASSES, old_dim=4)
    features = torch.randn(5, 6)
    output = head(features)
    torch.testing.assert_close(output["embedding"].norm(dim=1), torch.ones(5))
    torch.testing.assert_close(cosine_similarity(output["embedding"], features), torch.ones(5))
    assert output["compatible"].shape == (5, 4)


def test_dims_that_do_not_hold_the_old_space_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"8 \+ 2 is smaller than the old embedding of 12; set extra_dim to at least 4"
    ):
        BasisTransformHead(8, 2, 12, 2.0, CLASSES)
    with pytest.raises(ConfigError, match="exceeds the old embedding"):
        BasisTransformHead(8, 5, 4, 2.0, CLASSES)
    with pytest.raises(ConfigError, match="4 is smaller than the old embedding of 6"):
        PlainHead(4, CLASSES, old_dim=6)
