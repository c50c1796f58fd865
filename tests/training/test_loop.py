from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import tiny_config

from nobackfill.config import load_config
from nobackfill.errors import ConfigError, DataError, NobackfillError, RunError, TrainingError
from nobackfill.methods import METHODS
from nobackfill.methods.independent import Independent
from nobackfill.models import load
from nobackfill.training import checkpointer, loop, resolve, summary, train
from nobackfill.training.record import EpochRecord
from nobackfill.training.start import make_optimizer

FILES = {
    "config.yaml", "teachers.json", "data.json", "model.safetensors", "embedding.json", "history.jsonl", "metrics.json"
}  # fmt: skip


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def assert_same_weights(first: Path, second: Path) -> None:
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_a_run_folder_is_whole(runs: dict[str, Path]) -> None:
    for name, run in runs.items():
        assert {path.name for path in run.iterdir()} == FILES
        assert not Path(f"{run}.unfinished").exists()
        metrics = json.loads((run / "metrics.json").read_text())
        assert 0 < metrics["self_test"]["top1"] <= 1
        assert ("cross_test" in metrics) == ("status_quo" in metrics) == (name in ("bct", "bt2"))
        config = load_config(run / "config.yaml")
        assert config == resolve(config)  # fully resolved: nothing left to fill in
        (line,) = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
        parts = {key: line[key] for key in METHODS[config.method].loss_defaults.keys() & line.keys()} | {
            "labels": line["labels"]
        }
        assert line["loss"] == pytest.approx(sum(parts.values()), rel=1e-4)
        assert (line["epoch"], line["lr"]) == (1, config.optimizer.lr)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_same_seed_same_weights_bit_for_bit(tmp_path: Path, runs: dict[str, Path], precision: str) -> None:
    changes: dict[str, Any] = {"old": str(runs["old"]), "independent": str(runs["new"]), "model__extra_dim": 2}
    config = tiny_config("bt2", epochs=2, precision=precision, **changes)
    before = torch.get_rng_state()
    first, second = train(config, tmp_path / "a"), train(config, tmp_path / "b")
    assert torch.equal(torch.get_rng_state(), before)  # the caller's random numbers are left alone
    assert_same_weights(first, second)
    assert (first / "embedding.json").read_text() == (second / "embedding.json").read_text()
    other = train(config.model_copy(update={"seed": 1}), tmp_path / "c")
    assert not torch.equal(weights(first)["head.classifier.weight"], weights(other)["head.classifier.weight"])


def test_training_lowers_the_loss_and_learns(tmp_path: Path) -> None:
    config = tiny_config("independent", epochs=8, data__train_limit=None, optimizer__lr=0.01)
    run = train(config, tmp_path / "run")
    losses = [json.loads(line)["loss"] for line in (run / "history.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] - 0.5
    assert json.loads((run / "metrics.json").read_text())["self_test"]["top1"] > 0.8


class Exploding(Independent):
    """Fine for the first epoch, then NaN from the second step of the second epoch on."""

    steps = 0

    def loss(self, output: Any, batch: Any) -> dict[str, torch.Tensor]:
        Exploding.steps += 1
        parts = super().loss(output, batch)
        return {name: part * (math.nan if Exploding.steps > 4 else 1) for name, part in parts.items()}


def test_a_loss_that_becomes_nan_stops_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "exploding", Exploding)
    monkeypatch.setattr(checkpointer, "SECONDS", 0.0)
    monkeypatch.setattr(checkpointer, "FRACTION", math.inf)
    Exploding.steps = 0
    config = tiny_config("exploding", epochs=3, schedule__name="constant")
    with pytest.raises(TrainingError) as caught:
        train(config, tmp_path / "run")
    message = str(caught.value)
    assert "the loss became NaN at step 2 of epoch 2, learning rate 0.001; lower optimizer.lr" in message
    kept = tmp_path / "run.unfinished" / "checkpoint" / "00001-00000001"
    assert f"the last good checkpoint is {kept}" in message
    assert all(torch.isfinite(tensor.float()).all() for tensor in load_file(kept / "state.safetensors").values())
    assert not (tmp_path / "run").exists()


def test_weights_ruined_by_the_last_step_are_not_published(tmp_path: Path) -> None:
    config = tiny_config("independent", optimizer__lr=1e38, batch_size=1000)
    with pytest.raises(TrainingError, match="the weights became NaN or infinite at the end of epoch 1"):
        train(config, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []  # without a checkpoint there is nothing to go on from


def test_the_schedule_reaches_the_optimiser_and_batch_norm_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []
    real = EpochRecord.line

    def spy(losses: Any) -> Any:
        rates.append(optimizers[-1].param_groups[0]["lr"])
        return real(losses)

    optimizers: list[Any] = []

    def keep(*arguments: Any) -> Any:
        optimizers.append(make_optimizer(*arguments))
        return optimizers[-1]

    monkeypatch.setattr("nobackfill.training.loop.make_optimizer", keep)
    monkeypatch.setattr(EpochRecord, "line", spy)
    config = tiny_config("independent", epochs=4, schedule__warmup_epochs=2)
    run = train(config, tmp_path / "run")
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3, 5e-4])
    assert weights(run)["backbone.stem.1.running_mean"].abs().max() > 0
    bf16 = train(config.model_copy(update={"precision": "bf16"}), tmp_path / "bf16")
    assert not torch.equal(weights(bf16)["backbone.project.weight"], weights(run)["backbone.project.weight"])


def test_the_launchers_environment_changes_nothing(
    tmp_path: Path, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("MIXED_PRECISION", "bf16"), ("GRADIENT_ACCUMULATION_STEPS", "4"), ("DYNAMO_BACKEND", "EAGER")):
        monkeypatch.setenv(f"ACCELERATE_{name}", value)
    assert_same_weights(train(tiny_config("independent"), tmp_path / "run"), runs["new"])


def test_a_run_does_not_go_on_against_another_teacher(
    tmp_path: Path, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(runs["old"], tmp_path / "old")
    config = tiny_config("bct", old=str(tmp_path / "old"))
    monkeypatch.setattr(loop, "run_summary", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "old")
    train_old = tiny_config("independent", data__classes="first-half", model__embedding_dim=4, seed=7)
    monkeypatch.undo()
    train(train_old, tmp_path / "old")
    with pytest.raises(RunError, match="was trained with other teachers or data than the present ones"):
        train(config, tmp_path / "run", resume=True)


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "method": ("bt3", {}, "unknown method 'bt3'; did you mean 'bt2'"),
    "no old": ("bct", {}, "missing key 'old': method 'bct' needs"),
    "no independent": ("bt2", {"old": "OLD"}, "missing key 'independent'"),
    "superfluous teacher": (
        "bct",
        {"old": "OLD", "independent": "NEW"},
        "key 'independent': method 'bct' does not use",
    ),
    "superfluous key": (
        "bct",
        {"old": "OLD", "model__extra_dim": 2},
        r"key 'model.extra_dim': method 'bct' does not use it",
    ),
    "loss key": ("bct", {"old": "OLD", "loss__old": 1}, r"unknown key 'loss.old'"),
    "missing run": ("bct", {"old": "NOWHERE"}, "NOWHERE: no such run folder; train it first"),
    "old dim": ("bct", {"old": "OLD", "model__old_dim": 5}, r"has an embedding of 4, but model.old_dim says 5"),
    "new dim": (
        "bt2",
        {"old": "OLD", "independent": "NEW", "model__embedding_dim": 8, "model__extra_dim": 2},
        r"has an embedding of 6, but model.embedding_dim says 8",
    ),
    "old_dim unused": ("independent", {"model__old_dim": 4}, r"key 'model.old_dim': method 'independent' does not use"),
    "d + k < d_o": (
        "bt2",
        {"old": "NEW", "independent": "OLD", "model__embedding_dim": 4, "model__extra_dim": 1},
        r"4 \+ 1 is smaller than the old embedding of 6; set extra_dim to at least 2",
    ),
    "classes": ("independent", {"data__classes": 11}, r"data.classes: 11 has classes outside the range"),
    "warm-up": (
        "independent",
        {"schedule__warmup_epochs": 1},
        r"'schedule.warmup_epochs': 1 must be less than epochs \(1\)",
    ),
    "root": ("independent", {"data__name": "folder"}, r"missing key 'data.root'"),
    "image size": (
        "independent",
        {"model__backbone": "reference/alexnet"},
        "key 'model.backbone': 'reference/alexnet' does not take images of 8×8",
    ),
    "smoothing": ("independent", {"loss__label_smoothing": 2}, "'loss.label_smoothing': expected a value of at most 1"),
    "backbone": ("independent", {"model__backbone": "smallnet3"}, "'smallnet3': expected a width of 8 to 512, found 3"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_and_leaves_nothing_behind(tmp_path: Path, runs: dict[str, Path], name: str) -> None:
    method, changes, message = BAD[name]
    places = {"OLD": str(runs["old"]), "NEW": str(runs["new"])}
    changes = {key: places.get(value, value) if isinstance(value, str) else value for key, value in changes.items()}
    with pytest.raises(NobackfillError, match=message) as caught:
        train(tiny_config(method, **changes), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="exists and is not empty"):
        train(tiny_config("independent"), tmp_path)


def test_a_batch_larger_than_the_data_still_trains(tmp_path: Path) -> None:
    run = train(tiny_config("independent", batch_size=1000), tmp_path / "run")
    assert math.isfinite(json.loads((run / "history.jsonl").read_text())["loss"])


def test_a_third_generation_answers_both_older_ones(tmp_path: Path, runs: dict[str, Path]) -> None:
    import nobackfill

    new = train(tiny_config("independent", model__embedding_dim=8), tmp_path / "new3")
    config = tiny_config("bt2", old=str(runs["bt2"]), independent=str(new), model__embedding_dim=8, model__extra_dim=2)
    spec = nobackfill.load(train(config, tmp_path / "third")).spec
    assert spec.dim == 10
    assert [prefix.dim for prefix in spec.prefixes] == [8, 4]


def test_a_data_set_without_a_test_split_is_said_in_the_metrics(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / "data" / "train" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (9, 9), (number * 20, 0, 0)).save(tmp_path / "data" / "train" / name / f"{number}.png")
    config = tiny_config("independent", data__name="folder", data__root=str(tmp_path / "data"), batch_size=4)
    metrics = json.loads((train(config, tmp_path / "run") / "metrics.json").read_text())
    assert "expected a folder named validation or val or test" in metrics["not_tested"]
    assert "self_test" not in metrics


def test_precision_auto_says_why() -> None:
    from nobackfill.training.precision import choose_precision

    assert choose_precision("fp32", torch.device("cpu")) == ("fp32", "as configured")
    assert choose_precision("bf16", torch.device("cpu")) == ("bf16", "as configured")
    precision, why = choose_precision("auto", torch.device("cpu"))
    assert (
        why == {"bf16": "this processor computes in bf16", "fp32": "this processor has no bf16 arithmetic"}[precision]
    )
    with pytest.raises(ConfigError, match="bf16 does not run on device 'mps'"):
        choose_precision("bf16", torch.device("mps"))


def test_a_damaged_test_image_does_not_cost_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: object) -> None:
        raise DataError("7.png: damaged")

    monkeypatch.setattr(summary, "encode_shared", damaged)
    run = train(tiny_config("independent"), tmp_path / "run")
    assert json.loads((run / "metrics.json").read_text())["not_tested"] == "7.png: damaged"
    assert load(run).spec.dim == tiny_config("independent").model.embedding_dim
