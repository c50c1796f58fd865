"""A run that was stopped, anywhere and however often, ends in the bytes of the run that never was."""

from __future__ import annotations

import json
import math
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import tiny_config
from tests.training import killing
from tests.training.killing import epochs, weights

from nobackfill.config import parse_config
from nobackfill.errors import RunError
from nobackfill.training import checkpointer, train
from nobackfill.training.checkpoint import newest
from nobackfill.training.record import EpochRecord
from nobackfill.training.setup import prepare
from nobackfill.training.stopping import StoppedError
from nobackfill.training.unfinished import check_same_data

STEPS = 3  # of an epoch of `tiny_config`


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step."""
    monkeypatch.setattr(checkpointer, "SECONDS", 0.0)
    monkeypatch.setattr(checkpointer, "FRACTION", math.inf)


class PowerError(Exception): ...


def stop_before(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The power fails in the given optimiser step, counted from this start on."""
    real, count = EpochRecord.step_done, 0

    def fail(record: Any, images: int) -> None:
        nonlocal count
        count += 1
        if count == step:
            raise PowerError
        real(record, images)

    monkeypatch.setattr(EpochRecord, "step_done", fail)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer__name": "sgd", "optimizer__layer_decay": 0.5},
        {"accumulate": 2, "precision": "bf16"},
        {"freeze": "stages<2", "optimizer__name": "adamw"},
        {
            "average": 0.8,
            "optimizer__name": "sgd",
            "optimizer__nesterov": True,
            "schedule__name": "one_cycle",
            "data__mirror": True,
            "data__augment": {
                "flip": "alternating",
                "cutout": 3,
                "crop": "padded",
                "padding_mode": "reflect",
                "small_size": 6,
                "small_until": 0.5,
            },
        },
        {"optimizer__name": "muon", "model__classifier_scale": 8, "optimizer__decay_norms_and_biases": False},
    ],
    ids=str,
)
def test_stopped_in_every_step(
    tmp_path: Path, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, eager: None, changes: dict[str, Any]
) -> None:
    start = {"init_from": str(runs["new"])} if "freeze" in changes else {}
    config = tiny_config("independent", epochs=2, **changes, **start)
    straight = train(config, tmp_path / "straight")
    for step in range(1, 2 * STEPS + 1):
        with monkeypatch.context() as patch:
            stop_before(patch, 2 if step > 1 else 1)  # one step further than the start before
            with pytest.raises(PowerError):
                train(config, tmp_path / "run", resume=True)
    run = train(config, tmp_path / "run", resume=True)
    assert weights(run) == weights(straight)
    lines = [(path / "history.jsonl").read_text().splitlines() for path in (run, straight)]
    for found, wanted in zip(*lines, strict=True):
        assert json.loads(found)["loss"] == json.loads(wanted)["loss"]  # the sums of the epoch under way too
    assert train(config, tmp_path / "run", resume=True) == run  # nothing left to do


def test_with_teachers_and_dropout(
    tmp_path: Path, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, eager: None
) -> None:
    config = tiny_config(
        "bt2", epochs=2, old=str(runs["old"]), independent=str(runs["new"]), model__extra_dim=2, teacher_view="same"
    )

    def with_dropout(*arguments: Any) -> Any:
        setup = prepare(*arguments)
        setup.network.backbone.stem.append(torch.nn.Dropout(0.3))  # type: ignore[union-attr, operator]
        return setup

    monkeypatch.setattr("nobackfill.training.loop.prepare", with_dropout)
    straight = train(config, tmp_path / "straight")
    with monkeypatch.context() as patch:
        stop_before(patch, 5)
        with pytest.raises(PowerError):
            train(config, tmp_path / "run")
    assert weights(train(config, tmp_path / "run", resume=True)) == weights(straight)


def test_an_unfinished_run_asks_for_resume_and_goes_on_only_as_it_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eager: None
) -> None:
    config = tiny_config("independent", epochs=2)
    with monkeypatch.context() as patch:
        stop_before(patch, 5)
        with pytest.raises(PowerError):
            train(config, tmp_path / "run")
    working = tmp_path / "run.unfinished"
    assert not (tmp_path / "run").exists()
    assert [path.name for path in sorted((working / "checkpoint").iterdir())] == ["00001-00000000", "00001-00000001"]
    with pytest.raises(RunError, match="contains an unfinished run; resume it with --resume"):
        train(config, tmp_path / "run")
    changed = tiny_config("independent", epochs=2, seed=9, optimizer__lr=0.5)
    with pytest.raises(RunError, match=r"its config differs in 'optimizer\.lr', 'seed'"):
        train(changed, tmp_path / "run", resume=True)
    run = train(config, tmp_path / "run", resume=True)
    assert not working.exists()
    assert epochs(run) == [1, 2]
    with pytest.raises(RunError, match=r"its config differs in 'optimizer\.lr', 'seed'"):
        train(changed, run, resume=True)
    with pytest.raises(RunError, match="exists and is not empty"):
        train(config, run)


@pytest.mark.parametrize("content", ["{", "[]", "\udcff"])
def test_a_damaged_record_is_named(tmp_path: Path, runs: dict[str, Path], content: str) -> None:
    config, run = tiny_config("bct", old=str(runs["old"])), tmp_path / "run"
    shutil.copytree(runs["bct"], run)
    (run / "teachers.json").write_text(content, errors="surrogateescape")
    with pytest.raises(RunError, match=rf"^{run / 'teachers.json'}: damaged: .*; remove {run} to train it again$"):
        train(config, run, resume=True)
    (tmp_path / "data.json").write_text(content, errors="surrogateescape")
    with pytest.raises(RunError, match=rf"^{tmp_path / 'data.json'}: damaged: "):
        check_same_data(tmp_path, {"samples": 3})


def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eager: None
) -> None:
    config = tiny_config("independent", epochs=2)
    straight = train(config, tmp_path / "straight")
    with monkeypatch.context() as patch:
        stop_before(patch, 5)
        with pytest.raises(PowerError):
            train(config, tmp_path / "run")
    for name, content in (("state.safetensors", b"hello"), ("state.json", b'{"epoch": []')):
        damaged = newest(tmp_path / "run.unfinished" / "checkpoint")
        assert damaged
        whole = (damaged / name).read_bytes()
        (damaged / name).write_bytes(content)
        with pytest.raises(RunError, match=f"{damaged}: damaged checkpoint: .*; remove it to resume"):
            train(config, tmp_path / "run", resume=True)
        (damaged / name).write_bytes(whole)
    shutil.rmtree(str(damaged))
    assert weights(train(config, tmp_path / "run", resume=True)) == weights(straight)


def test_stopped_between_the_last_write_and_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eager: None
) -> None:
    config = tiny_config("independent")
    straight = train(config, tmp_path / "straight")

    def fail(*_: Any) -> None:
        raise PowerError

    with monkeypatch.context() as patch:
        patch.setattr("nobackfill.training.loop.publish", fail)
        with pytest.raises(PowerError):
            train(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "run.unfinished" / "checkpoint")  # half of `publish` was done
    with monkeypatch.context() as patch:
        patch.setattr("nobackfill.training.loop.prepare", fail)  # nothing is trained again
        run = train(config, tmp_path / "run", resume=True)
    assert weights(run) == weights(straight)
    assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in straight.iterdir())


def test_two_processes_do_not_train_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    from nobackfill.training import unfinished

    monkeypatch.setattr(unfinished, "PATIENCE", 0.1)
    working = tmp_path / "run.unfinished"
    working.mkdir()
    with FileLock(working / "lock"), pytest.raises(RunError, match="another process is training this run"):
        train(tiny_config("independent"), tmp_path / "run", resume=True)
    train(tiny_config("independent"), tmp_path / "run", resume=True)


def test_a_run_that_another_process_finishes_meanwhile_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, out = tiny_config("independent"), tmp_path / "run"
    train(config, out)
    before = weights(out)
    # It looked just before the other one was done.
    monkeypatch.setattr("nobackfill.training.loop.runfolder.is_run", lambda folder: False)
    monkeypatch.setattr("nobackfill.training.loop.require_new", lambda folder: None)
    assert train(config, out, resume=True) == out
    assert weights(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    (tmp_path / "run.unfinished").mkdir()

    def renamed(*arguments: Any, **options: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("filelock.FileLock.acquire", renamed)
    assert train(config, out, resume=True) == out


def test_a_run_does_not_go_on_with_other_images(tmp_path: Path, eager: None) -> None:
    config: dict[str, Any] = tiny_config("independent", epochs=2).model_dump(mode="json")
    assert killing.run(config, tmp_path / "run", kill_in_write=3) == -signal.SIGKILL
    other = parse_config({**config, "data": {**config["data"]}})
    digests = tmp_path / "run.unfinished" / "data.json"
    written = json.loads(digests.read_text())
    assert set(written) == {"samples", "labels and names", "precision"}
    digests.write_text(json.dumps({**written, "samples": 7}))
    with pytest.raises(RunError, match=r"started with other data or on another machine: samples \(7, now 200\)"):
        train(other, tmp_path / "run", resume=True)
    digests.write_text(json.dumps(written))
    train(other, tmp_path / "run", resume=True)
    assert json.loads((tmp_path / "run" / "data.json").read_text()) == written


def test_stopped_in_the_last_step_there_is_still_the_summary_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("independent")
    straight = train(config, tmp_path / "straight")
    real = EpochRecord.step_done

    def told(record: Any, images: int) -> None:
        real(record, images)
        if record.steps == STEPS:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(EpochRecord, "step_done", told)
        with pytest.raises(StoppedError, match="stopped after epoch 1, with a checkpoint") as caught:
            train(config, tmp_path / "run")
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    run = train(config, tmp_path / "run", resume=True)
    assert weights(run) == weights(straight)
    assert epochs(run) == [1]
