"""Muon, its updates made orthogonal in a number format that the device computes in."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from timm.optim.muon import Muon as TimmMuon
from timm.optim.muon import get_lr_scale, reshape_for_muon, zeropower_via_newtonschulz
from torch import Tensor

# a, b, c of each Newton-Schulz step aX + b(XXᵀ)X + c(XXᵀ)²X; timm's default, named "quintic" there.
COEFFICIENTS = [
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
]


class Muon(TimmMuon):
    """timm's Muon with one more choice, `dtype`; in bf16 both give the same weights, bit for bit.

    timm always takes bf16. A processor without bf16 arithmetic has to emulate it, which on two such cores was half of
    a training step.

    Args:
        groups: parameter groups, each with `use_fallback`: False for matrices, True for what AdamW takes (with
            `nesterov`, NAdamW).
        lr: learning rate.
        weight_decay: of groups that do not name their own.
        nesterov: whether momentum is Nesterov's.
        dtype: in which the Newton-Schulz steps run.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, object]],
        lr: float,
        weight_decay: float,
        *,
        nesterov: bool,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(groups, lr, weight_decay, nesterov=nesterov)
        self.dtype: torch.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step. It uses up the gradients of the matrices: they are None afterwards."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for matrix in [] if group["use_fallback"] else group["params"]:
                if matrix.grad is not None:
                    self._step_matrix(matrix, matrix.grad, group)
                    matrix.grad = None  # so that timm leaves it alone
        super().step()  # type: ignore[no-untyped-call]
        return loss

    def _step_matrix(self, matrix: Tensor, gradient: Tensor, group: dict[str, float]) -> None:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        flat, shape = reshape_for_muon(update)
        flat = zeropower_via_newtonschulz(flat, len(COEFFICIENTS), COEFFICIENTS, eps=group["eps"], dtype=self.dtype)
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        matrix.add_(flat.reshape(shape), alpha=-group["lr"] * get_lr_scale(flat.shape))
