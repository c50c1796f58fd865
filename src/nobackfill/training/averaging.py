"""An exponential moving average of the weights, kept beside training."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """θ̄ ← d·θ̄ + (1 − d)·θ after each step, over parameters and the running statistics of batch norm.

    The decay grows into its value, d_t = min(decay, (1 + t)/(10 + t)), so that the random start is soon forgotten.
    Orthogonal maps are averaged in their parameters, so they stay orthogonal.

    Attributes:
        tensors: the averages by their names in the network's state, on its device.
        steps: int64 scalar, steps averaged over.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors: dict[str, Tensor] = {name: value.detach().clone() for name, value in _averaged(network).items()}
        self.steps = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """After a step of the optimiser."""
        count = int(self.steps)
        decay = min(self.decay, (1 + count) / (10 + count))
        now = _averaged(network)
        torch._foreach_lerp_(list(self.tensors.values()), [now[name] for name in self.tensors], 1 - decay)
        self.steps += 1

    @torch.no_grad()
    def copy_to(self, network: nn.Module) -> None:
        """Replace the network's weights by their averages."""
        for name, value in _averaged(network).items():
            value.copy_(self.tensors[name])

    def state(self) -> dict[str, Tensor]:
        """All there is to keep in a checkpoint."""
        return {**self.tensors, "steps": self.steps}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` returned; raises `KeyError` or `RuntimeError` for tensors missing or misshapen."""
        for name, value in self.state().items():
            value.copy_(state[name])


def _averaged(network: nn.Module) -> dict[str, Tensor]:
    # state_dict shares memory with the network; counters of batches are no averages.
    return {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
