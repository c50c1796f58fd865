from __future__ import annotations

import pytest
from tests.conftest import tiny_config

from nobackfill.training.schedule import learning_rate


def rates(name: str, epochs: int, warmup: int) -> list[float]:
    config = tiny_config("independent", epochs=epochs, schedule__name=name, schedule__warmup_epochs=warmup)
    return [learning_rate(config, epoch) / config.optimizer.lr for epoch in range(epochs)]


def test_cosine_after_a_linear_warm_up() -> None:
    assert rates("cosine", 8, 4) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 0.853553, 0.5, 0.146447], abs=1e-6)
    assert rates("cosine", 2, 0) == pytest.approx([1, 0.5])


def test_constant() -> None:
    assert rates("constant", 4, 2) == [0.5, 1, 1, 1]
