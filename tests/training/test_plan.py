from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tests.conftest import tiny_config

from nobackfill.errors import ConfigError, NobackfillError, RunError
from nobackfill.models.runfolder import load_spec
from nobackfill.training import loop, resolve, train
from nobackfill.training.plan import RunPlan, make_plan, plan_without_teachers


def test_a_plan_says_what_a_run_is_going_to_be(runs: dict[str, Path]) -> None:
    config = tiny_config("bt2", old=str(runs["old"]), independent=str(runs["new"]), model__extra_dim=2)
    plan = make_plan(config)
    old, new = load_spec(runs["old"]), load_spec(runs["new"])
    assert plan.config == resolve(config)
    assert plan.teachers == {"old": old, "independent": new}
    assert plan.digests == {"old": old.fingerprint, "independent": new.fingerprint}
    assert (plan.old_dim, plan.prefixes) == (4, old.as_prefixes())
    assert plan.method.needed == {"old", "independent", "prototypes"}
    assert (plan.data.count, plan.preprocessing.input_shape) == (1198, (3, 8, 8))
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.old_dim = 5  # type: ignore[misc]


def test_a_run_has_one_plan_from_start_to_reuse(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[RunPlan] = []

    def counted(config: object) -> RunPlan:
        plans.append(make_plan(config))  # type: ignore[arg-type]
        return plans[-1]

    monkeypatch.setattr(loop, "make_plan", counted)
    config = tiny_config("bct", old=str(runs["old"]))
    run = train(config, tmp_path / "run")
    assert len(plans) == 1
    assert json.loads((run / "teachers.json").read_text()) == plans[0].digests
    assert load_spec(run).prefixes == plans[0].prefixes
    train(config, run, resume=True)
    assert plans[0] != plans[1]  # a method is no value
    assert plans[0].digests == plans[1].digests


def test_a_teacher_that_does_not_fit_is_named_before_anything_is_made(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="key 'old': .* has an embedding of 4, but model.old_dim says 5"):
        train(tiny_config("bct", old=str(runs["old"]), model__old_dim=5), tmp_path / "run")
    with pytest.raises(RunError, match="gone: no such run folder"):
        train(tiny_config("bct", old="gone"), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_without_teachers_the_config_says_how_large_the_old_embedding_is(runs: dict[str, Path]) -> None:
    plan = plan_without_teachers(tiny_config("bct", old="gone", model__old_dim=4))
    assert (plan.old_dim, plan.teachers, plan.digests, plan.prefixes) == (4, {}, {}, ())
    assert plan_without_teachers(tiny_config("bct", old=str(runs["old"]))).old_dim == 4
    with pytest.raises(NobackfillError, match="key 'model.old_dim': required, to check without the old run gone"):
        plan_without_teachers(tiny_config("bct", old="gone"))
