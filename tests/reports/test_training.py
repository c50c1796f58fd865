"""Epochs as a run folder's file has them."""

from __future__ import annotations

from pathlib import Path

from nobackfill.reports.training import history


def test_integers_beyond_all_floats_are_left_out(tmp_path: Path) -> None:
    line = '{"epoch": 1, "loss": 0.5, "lr": %s}\n'
    (tmp_path / "history.jsonl").write_text(line % ("9" * 400))
    assert history(tmp_path) == [{"epoch": 1, "loss": 0.5}]
    (tmp_path / "history.jsonl").write_text('{"epoch": 1, "loss": %s}' % ("9" * 400))
    assert history(tmp_path) == []
