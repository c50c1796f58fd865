"""The average of the weights against a loop over the steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import tiny_config
from torch import nn

from nobackfill.errors import ConfigError
from nobackfill.models.heads import BasisTransformHead
from nobackfill.training import train
from nobackfill.training.averaging import WeightAverage
from nobackfill.training.resolving import resolve


def drift(network: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.randn(value.shape, generator=generator))
            else:
                value.add_(1)


def test_the_average_is_that_of_a_loop() -> None:
    network, generator = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), torch.Generator().manual_seed(0)
    average = WeightAverage(network, 0.6)
    slow = {name: value.double().clone() for name, value in network.state_dict().items()}
    for step in range(12):
        drift(network, generator)
        average.update(network)
        decay = min(0.6, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            slow[name] = decay * slow[name] + (1 - decay) * value.double()
    counted = network.state_dict()["1.num_batches_tracked"].clone()
    average.copy_to(network)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, slow[name].float())
    assert network.state_dict()["1.num_batches_tracked"] == counted == 12


def test_averaged_orthogonal_maps_are_orthogonal() -> None:
    head, generator = BasisTransformHead(6, 2, 5, 2.0, classes=3), torch.Generator().manual_seed(1)
    average = WeightAverage(head, 0.9)
    for _ in range(5):
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        average.update(head)
    average.copy_to(head)
    for matrix in (head.basis.P.weight, head.basis.B.weight):
        assert isinstance(matrix, torch.Tensor)
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(matrix)))


def test_the_run_folder_gets_the_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    real = WeightAverage.copy_to

    def watched(average: WeightAverage, network: nn.Module) -> None:
        seen.extend([{name: value.clone() for name, value in network.state_dict().items()}, average.state()])
        real(average, network)

    monkeypatch.setattr(WeightAverage, "copy_to", watched)
    run = train(tiny_config("independent", average=0.9), tmp_path / "run")
    last, averaged = seen
    stored = load_file(run / "model.safetensors")
    assert int(averaged["steps"]) == 3
    torch.testing.assert_close(stored["backbone.project.weight"], averaged["backbone.project.weight"])
    assert not torch.allclose(stored["backbone.project.weight"], last["backbone.project.weight"])


def test_no_average_of_frozen_weights() -> None:
    with pytest.raises(ConfigError, match="'average', 'freeze': frozen weights cannot be averaged"):
        resolve(tiny_config("independent", average=0.9, freeze="stages<2"))
