"""`nobackfill runs`, and what training leaves to look at."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tests.cli.test_cli import write_config
from tests.conftest import tiny_config

from nobackfill.cli.app import run


def test_runs_lists_what_is_done_under_way_and_broken(
    tmp_path: Path, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from filelock import FileLock

    from nobackfill.errors import TrainingError
    from nobackfill.training import checkpointer, train
    from nobackfill.training.record import EpochRecord

    monkeypatch.setattr(checkpointer, "SECONDS", 0.0)
    monkeypatch.setattr(checkpointer, "FRACTION", float("inf"))
    real = EpochRecord.step_done

    def fail(record: EpochRecord, images: int) -> None:
        real(record, images)
        if record.epoch == 2:
            raise TrainingError("it burns")

    shutil.copytree(runs["bct"], tmp_path / "a" / "bct")
    with monkeypatch.context() as patch, pytest.raises(TrainingError):
        patch.setattr(EpochRecord, "step_done", fail)
        train(tiny_config("independent", epochs=4), tmp_path / "b[red]")
    for name in ("c", "d"):
        shutil.copytree(tmp_path / "b[red].unfinished", tmp_path / f"{name}.unfinished")
        (tmp_path / f"{name}.unfinished" / "failure.txt").unlink()
    (tmp_path / "e.unfinished").mkdir()
    (tmp_path / "e.unfinished" / "config.yaml").write_text("- [")
    shutil.copytree(runs["bct"], tmp_path / "f")
    (tmp_path / "f" / "model.safetensors").unlink()
    with FileLock(tmp_path / "d.unfinished" / "lock"):
        assert run(["runs", str(tmp_path), "--json"]) == 0
        listed = {entry["path"].rsplit("/", 1)[-1]: entry for entry in json.loads(capsys.readouterr().out)}
        assert run(["runs", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    states = {name: (entry["state"], entry["progress"]) for name, entry in listed.items()}
    assert states == {
        "bct": ("done", 1.0),
        "b[red].unfinished": ("failed", 0.5),
        "c.unfinished": ("unfinished", 0.5),
        "d.unfinished": ("training", 0.5),
        "e.unfinished": ("damaged", 0.0),
        "f": ("damaged", 0.0),
    }
    assert listed["bct"]["scores"]["cross_test"]["top1"] > 0
    assert all(
        words in printed for words in ("failed at 50%", "training at 50%", "it burns", "not valid YAML", "b[red]")
    )
    assert listed["f"]["reason"] == "model.safetensors is missing; train it again"
    assert run(["runs", str(tmp_path / "gone")]) == 2


def test_a_narrow_terminal_shows_whose_row_it_is(
    tmp_path: Path, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    from nobackfill.cli.runs import _table
    from nobackfill.training.runs import find_runs

    shutil.copytree(runs["bct"], tmp_path / "deep" / "run-1")
    console = Console(width=60, file=None, force_terminal=True, color_system=None)
    console.print(_table(list(find_runs(tmp_path)), tmp_path))
    printed = capsys.readouterr().out
    assert "deep/run-1" in printed
    assert "bct" in printed
    assert "done" in printed
    assert max(map(len, printed.splitlines())) <= 60


@pytest.mark.train
def test_training_curves_and_event_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = write_config(Path("tiny"), "new", method="independent")
    assert run(["train", config, "--set", "epochs=2", "--out", "new", "--tensorboard", "events"]) == 0
    with Image.open("new/training.png") as curves:
        assert curves.size == (1050, 750)
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator("events")
    events.Reload()
    losses = [json.loads(line)["loss"] for line in Path("new/history.jsonl").read_text().splitlines()]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses)
    assert [event.step for event in events.Scalars("lr")] == [1, 2]
