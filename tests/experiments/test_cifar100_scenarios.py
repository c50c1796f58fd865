"""The scenarios of the published protocol, end to end in two steps a run, on made images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import nobackfill
from nobackfill.cli.app import run
from nobackfill.experiments.config import load_scenario
from nobackfill.experiments.runs import changed_configs

CONFIGS = Path(__file__).parents[2] / "configs"
SMALLER = ("bt2_warm", "prefix_warm", "bt2_old5", "prefix_old5")  # methods of the smaller scenario alone
VALUES = dict.fromkeys(("bt2", "bt2_tuned", "bt2_no_teacher", "naive", "prefix", *SMALLER), 160)


def write_binary(folder: Path) -> None:
    """Two images of every class to train on, and of every fourth class to search, in the official binary layout."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, step in (("train.bin", 1), ("test.bin", 4)):
        labels = np.repeat(np.arange(0, 100, step, dtype=np.uint8), 2)
        pixels = random.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
        np.concatenate([labels[:, None] // 5, labels[:, None], pixels], axis=1).tofile(folder / name)
    (folder / "fine_label_names.txt").write_text("\n".join(f"class{number:02d}" for number in range(100)))


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["cifar100", "cifar100_gpu"])
def test_every_run_of_the_table_trains(tmp_path: Path, scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_binary(tmp_path / "cifar-100-binary")
    changes = [f"data.root={tmp_path}", "epochs=1", "data.train_limit=50", "batch_size=25"]
    changes.append("model.backbone=quicknet8")
    arguments = [part for change in changes for part in ("--set", change)]
    out = tmp_path / "out"
    assert run(["run", str(CONFIGS / scenario / "scenario.yaml"), "--seeds", "1", *arguments, "--out", str(out)]) == 0
    assert "new/new, mAP: " in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    methods = {row["method"] for row in report["searches"]}
    wide = {name for name in VALUES if scenario == "cifar100" or name not in SMALLER}
    assert methods >= {"independent", "bct", "bct_fair", "concat", *wide}
    for method in methods:
        spec = nobackfill.load(out / "seed0" / "new" / method).spec
        assert spec.dim == VALUES.get(method, 256 if method == "concat" else 128)
        assert [prefix.dim for prefix in spec.prefixes] == ([] if method == "independent" else [128])
        (line,) = report["training"][f"seed0/new/{method}"]
        assert line["labels"] > 0
    backbone = "quicknet128" if scenario == "cifar100_gpu" else "quicknet64"
    configs = changed_configs(load_scenario(CONFIGS / scenario / "scenario.yaml"))
    assert {config.model.backbone for config in configs.values()} == {backbone}
