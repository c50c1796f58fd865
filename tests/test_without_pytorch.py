"""The base install: a whole upgrade of vectors, and one line for what needs more."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.maps.pairs import items, write

# One process, for importing takes longest; a verb a line, as its exit code and what it printed.
SCRIPT = """
import contextlib, io, json, sys
for name in ("torch", "torchvision", "timm", "accelerate", "sklearn", "scipy", "transformers"):
    sys.modules[name] = None
from nobackfill.cli.app import run
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(json.loads(line))
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""
TRAIN = "pip install 'nobackfill[train]'"
ARRAYS = ["--query", "compatible.npy", "--gallery", "old.npy", "--old-query", "old.npy", "--new-gallery", "new.npy"]
LABELS = ["--query-labels", "labels.npy", "--gallery-labels", "labels.npy", "--exclude-self"]
PAIRS = ["--old", "old.npy", "--new", "new.npy", "--labels", "labels.npy"]
VECTORS = ["--name", "v1", "--vectors"]
DONE = (
    ["--help"],
    ["fit", *PAIRS, "--out", "fits/all"],
    ["fit", *PAIRS, "--method", "ridge", "--direction", "to-old", "--out", "fits/ridge"],
    ["embed", "fits/ridge", "--vectors", "new.npy", "--out", "compatible.npy"],
    ["embed", "fits/ridge", "--vectors", "new.npy", "--out", "compatible.parquet"],
    ["evaluate", *ARRAYS[:6], *LABELS, "--out", "figures.json"],
    ["evaluate", "--query", "new.npy", "--query-run", "fits/ridge", *ARRAYS[2:6], *LABELS],
    ["report", "figures.json", "--out", "report.html"],
    ["report", "figures.json", "--out", "report.md"],
    ["gallery", "create", "faiss:g", "--name", "old", "--vectors", "old.npy"],
    ["gallery", "upgrade", "faiss:g", "--run", "fits/ridge", "--vectors", "new.npy"],
    ["gallery", "backfill", "faiss:g", "--run", "fits/ridge", "--vectors", "new.npy"],
    ["gallery", "search", "faiss:g", "--run", "fits/ridge", "--vectors", "new.npy", "-k", "3", "--json"],
    ["gallery", "verify", "faiss:g"],
)
REFUSED = {
    "fit --method mlp": (["fit", *PAIRS, "--method", "mlp", "--out", "x"], "--method mlp needs PyTorch"),
    "train": (["train", "run.yaml"], "this needs "),
    "evaluate runs": (
        ["evaluate", "--query", "images", "--gallery", "images", "--data", "digits"],
        "this model of images",
    ),
    "export": (["export", "fits/ridge", "--out", "m.onnx"], "this needs PyTorch"),
}


def test_verbs(tmp_path: Path) -> None:
    old, new, labels = items(600)
    write(tmp_path, old=old, new=new, labels=labels)
    (tmp_path / "run.yaml").write_text("{method: independent, data: {name: digits}}")
    spec = {
        "generation": "a-000000000000", "dim": 2, "norm": 1, "fingerprint": "0" * 64,
        "architecture": {"backbone": "smallnet8", "head": "plain"}, "preprocessing": {"image_size": 8},
    }  # fmt: skip
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "embedding.json").write_text(json.dumps(spec))
    (tmp_path / "images" / "model.safetensors").touch()
    verbs = [*DONE, *(arguments for arguments, _ in REFUSED.values())]
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, input="\n".join(map(json.dumps, verbs)), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert not found.stderr
    answers = [json.loads(line) for line in found.stdout.splitlines()]
    for arguments, (code, out, err) in zip(DONE, answers, strict=False):
        assert code == 0, f"{arguments}: {err or out}"
    assert (
        f"PyTorch is not installed: fitting only procrustes and ridge; for mlp, infonce and bt2: {TRAIN}"
        in answers[1][2]
    )
    report = json.loads((tmp_path / "fits" / "all" / "report.json").read_text())
    assert "mlp" not in json.dumps(report)
    assert np.load(tmp_path / "compatible.npy").shape == old.shape
    assert len(json.loads(answers[DONE.index(DONE[-2])][1])) == len(new)
    for (name, (_, message)), (code, _, err) in zip(REFUSED.items(), answers[len(DONE) :], strict=True):
        assert code == 2, name
        assert re.fullmatch(rf"nobackfill: .*{re.escape(message)}.*{re.escape(TRAIN)}\n", err), err
    assert not list(tmp_path.glob("x*"))


@pytest.mark.train
def test_a_fit_is_the_same_with_pytorch(tmp_path: Path) -> None:
    """The closed forms are one code: the run folder does not depend on what else is installed."""
    old, new, labels = items(600)
    write(tmp_path, old=old, new=new, labels=labels)
    arguments = ["fit", *PAIRS, "--method", "procrustes", "--direction", "to-old", "--out"]
    for out, before in (("without", "sys.modules['torch'] = None; "), ("with", "")):
        code = f"import sys; {before}from nobackfill.cli.app import run; sys.exit(run({[*arguments, out]!r}))"
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True)
    for file in ("model.safetensors", "embedding.json"):
        assert (tmp_path / "with" / file).read_bytes() == (tmp_path / "without" / file).read_bytes()
