"""The example runs offline, without any wheel that brings a model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("sentence_transformers")
pytest.importorskip("datasets")


def test_the_new_queries_pass_the_old_ones_in_the_old_gallery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(__file__).parents[2] / "examples" / "text_upgrade.py"
    spec = importlib.util.spec_from_file_location("text_upgrade", path)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.setattr(example, "find_spec", lambda name: None)
    scores = example.main(["--out", str(tmp_path / "out")])
    assert scores["new/old"] > scores["old/old"]
    assert scores["new/new"] > scores["old/old"]
    printed = capsys.readouterr().out
    assert "old queries, old gallery: top-1" in printed
    assert "by the old model:" in printed
    assert "by the new model:" in printed
