"""A standard `Dense` module whose matrix stays orthogonal in training, and is an ordinary matrix in files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from nobackfill.errors import require

require("sentence_transformers", what="BackwardCompatibleLoss")
from sentence_transformers.sentence_transformer.modules import Dense, Normalize  # noqa: E402

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def append_basis(model: SentenceTransformer) -> nn.Linear:
    """Append φ = Q·f, f the model's unit vector, to a `SentenceTransformer`; Q [d, d] starts as the identity.

    It is BT²'s change of basis (arXiv 2211.03989, section 3) without extra dimensions: φ = [B 0; 0 I]·P·f is one
    orthogonal matrix.

    Returns:
        The linear layer.
    """
    size = int(model.get_embedding_dimension())
    if not isinstance(model[-1], Normalize):
        model.append(Normalize())
    module = Dense(size, size, bias=False, activation_function=None, init_weight=torch.eye(size))
    layer = module.linear
    orthogonal(layer, orthogonal_map="cayley")
    layer.register_state_dict_post_hook(_fold)
    layer.register_load_state_dict_pre_hook(_unfold)
    model.append(module.to(model.device))
    linear: nn.Linear = layer
    return linear


def _fold(layer: nn.Module, state: dict[str, Tensor], prefix: str, _: object) -> None:
    """Files know the matrix alone, so that they load where nobody knows of it being orthogonal."""
    for name in [name for name in state if name.startswith(f"{prefix}parametrizations.")]:
        del state[name]
    weight = layer.weight
    assert isinstance(weight, Tensor)  # noqa: S101 (of a linear layer)
    state[f"{prefix}weight"] = weight.detach().clone()


def _unfold(layer: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Back from a file: the nearest parameters that give this matrix."""
    weight = state.pop(f"{prefix}weight", None)
    if weight is None:
        return
    with torch.no_grad():
        layer.weight = weight.to(next(layer.parameters()))
    for name, tensor in (*layer.named_parameters(), *layer.named_buffers()):
        state[prefix + name] = tensor.detach().clone()
