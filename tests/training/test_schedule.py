from __future__ import annotations

import math

import pytest
from tests.conftest import tiny_config

from nobackfill.errors import ConfigError
from nobackfill.training.resolving import resolve
from nobackfill.training.schedule import learning_rate


def rates(name: str, epochs: int, warmup: int) -> list[float]:
    config = tiny_config("independent", epochs=epochs, schedule__name=name, schedule__warmup_epochs=warmup)
    return [learning_rate(config, epoch) / config.optimizer.lr for epoch in range(epochs)]


def test_cosine_after_a_linear_warm_up() -> None:
    assert rates("cosine", 8, 4) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 0.853553, 0.5, 0.146447], abs=1e-6)
    assert rates("cosine", 2, 0) == pytest.approx([1, 0.5])


def test_constant() -> None:
    assert rates("constant", 4, 2) == [0.5, 1, 1, 1]


def by_step(name: str, epochs: int, steps: int, **schedule: float) -> list[float]:
    keys = {f"schedule__{key}": value for key, value in schedule.items()}
    config = tiny_config("independent", epochs=epochs, schedule__name=name, optimizer__lr=1, **keys)
    return [learning_rate(config, epoch, step, steps) for epoch in range(epochs) for step in range(steps)]


def test_linear_rises_and_falls_by_step() -> None:
    assert by_step("linear", 2, 5, rise=0.2) == pytest.approx(
        [0.25, 0.75, *((1 - (2.5 + step) / 10) / 0.8 for step in range(8))]
    )
    assert by_step("linear", 1, 4, rise=0.0) == pytest.approx([0.875, 0.625, 0.375, 0.125])


def test_one_cycle_has_the_peaks_of_linear_and_cosine_flanks() -> None:
    linear, cycle = by_step("linear", 3, 7, rise=0.4), by_step("one_cycle", 3, 7, rise=0.4)
    assert cycle == pytest.approx([0.5 - 0.5 * math.cos(math.pi * rate) for rate in linear])
    assert cycle[0] < linear[0]


def test_multistep_falls_after_its_milestones() -> None:
    config = tiny_config(
        "independent", epochs=6, schedule__name="multistep", schedule__milestones=[2, 4], optimizer__lr=1
    )
    assert [learning_rate(config, epoch) for epoch in range(6)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    half = config.model_copy(update={"schedule": config.schedule.model_copy(update={"gamma": 0.5, "warmup_epochs": 1})})
    assert [learning_rate(half, epoch) for epoch in range(6)] == pytest.approx([1, 1, 0.5, 0.5, 0.25, 0.25])


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"name": "linear", "warmup_epochs": 2}, "'schedule.warmup_epochs': 'linear' works in steps"),
        ({"name": "cosine", "rise": 0.3}, "'schedule.rise': 'cosine' works in epochs"),
        ({"name": "multistep"}, "required for 'multistep'"),
        ({"name": "cosine", "milestones": [1]}, "not allowed for other schedules"),
        ({"name": "multistep", "milestones": [4, 2]}, r"expected increasing epochs, found \[4, 2\]"),
        ({"name": "linear", "gamma": 0.5}, "'schedule.gamma': 'linear' does not use it"),
    ],
)
def test_settings_of_another_schedule_are_refused(schedule: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_config("independent", schedule=schedule)


def test_a_milestone_that_no_epoch_reaches_is_refused() -> None:
    config = tiny_config("independent", epochs=4, schedule={"name": "multistep", "milestones": [2, 4]})
    with pytest.raises(ConfigError, match=r"'schedule.milestones': 4 must be less than epochs \(4\)"):
        resolve(config)
