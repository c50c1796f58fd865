"""Ids, classes and names reach the terminal as text, never as commands to it."""

from __future__ import annotations

import json
from pathlib import Path

import faiss
import numpy as np
import pytest

from nobackfill.cli.app import run

BAD = "a\x1b]0;owned\x07\u202e"


def test_a_gallery_prints_no_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    (tmp_path / "ids.txt").write_text(f"{BAD}\nb\nc\n")
    lines = [json.dumps({"id": BAD, "payload": {"class": BAD}})]
    (tmp_path / "payloads.jsonl").write_text("\n".join(lines) + "\n")
    store, made = f"faiss:{tmp_path / 'g'}", ["--vectors", str(tmp_path / "v.npy"), "--name", BAD]
    assert run(["gallery", "create", store, *made, "--ids", str(tmp_path / "ids.txt")]) == 0
    assert run(["gallery", "set-payloads", store, "--payloads", str(tmp_path / "payloads.jsonl")]) == 0
    newer = ["--vectors", str(tmp_path / "v.npy"), "--ids", str(tmp_path / "ids.txt"), "--name", f"{BAD}\nforged"]
    commands = (
        ["search", store, *made],
        ["upgrade", store, *newer],
        ["status", store],
        ["backfill", store, *newer],
        ["status", store],
        ["switch", store],
        ["verify", store],
        ["rollback", store, "--to", BAD, "--yes"],
    )
    for command in commands:
        assert run(["gallery", *command]) == 0
    assert run(["gallery", "status", f"faiss:{tmp_path / BAD}"]) == 2
    captured = capsys.readouterr()
    assert r"a\x1b]0;owned\x07\u202e" in captured.out
    assert r"a\x1b]0;owned\x07\u202e" in captured.err
    assert not [line for line in captured.out.splitlines() if line.startswith("forged")]  # names end no line
    assert not set(captured.out + captured.err) & set("\x1b\x07\u202e")


def test_verbs_that_change_the_lineage_print_none_either(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    index = faiss.IndexFlatIP(4)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "old.index"))
    store, newer = f"faiss:{tmp_path / 'g'}", f"{BAD}2"
    made = ["--vectors", str(tmp_path / "v.npy"), "--name"]
    for command, shown in (
        (["adopt", store, "--generation", BAD, "--index", str(tmp_path / "old.index")], "a gallery of 40 items of a"),
        (["upgrade", store, *made, newer], "queries of a"),
        (["backfill", store, *made, newer], "now embedded by a"),
        (["rollback", store, "--to", BAD, "--yes"], "rolled back to a"),
        (["backfill", store, *made, newer], "now embedded by a"),
        (["switch", store], "serves a"),
        (["create", f"{store}2", *made, BAD], "40 vectors of a"),
    ):
        assert run(["gallery", *command]) == 0
        captured = capsys.readouterr()
        assert rf"{shown}\x1b]0;owned\x07\u202e" in captured.out
        assert not set(captured.out + captured.err) & set("\x1b\x07\u202e")
    assert run(["gallery", "abandon", store, "--yes"]) == 2  # it was copied, not adopted
