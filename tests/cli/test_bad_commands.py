"""Bad commands: one line on stderr, exit code 2, nothing written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.cli.test_cli import write_config, write_folder_data

from nobackfill.cli.app import run


def bad_commands(root: Path, runs: dict[str, Path]) -> dict[str, tuple[list[str], str]]:
    good = write_config(root, "good", method="independent")
    evaluate = ["evaluate", "--query", str(runs["new"]), "--gallery", str(runs["old"])]
    embed = ["embed", str(runs["new"]), "--data", "digits", "--out"]
    broken = write_folder_data(root / "broken")
    bad_data = ["--data", f"folder:{broken}"]
    bad_image = broken / "validation" / "cat" / "1.png"
    bad_image.write_text("no image")
    (root / "empty" / "validation").mkdir(parents=True)
    scenario = root / "scenario.yaml"
    scenario.write_text("generations: {a: {independent: none.yaml}, b: {independent: none.yaml}}")
    cut = root / "cut"
    shutil.copytree(runs["new"], cut)
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:500])
    labels = root / "labels"
    labels.mkdir()
    (labels / "test.bin").write_bytes(bytes([0, 200]) + bytes(3072))
    (labels / "train.bin").write_bytes((labels / "test.bin").read_bytes())
    (labels / "fine_label_names.txt").write_text("\n".join(f"c{number}" for number in range(100)))
    teachers = [f"old={runs['new']}", "--set", f"independent={runs['old']}"]
    bt2 = [good, "--set", "method=bt2", "--set", *teachers, "--set", "model.embedding_dim=4", "--set"]
    no_data = root / "no_data.yaml"
    no_data.write_text("method: bct\n")
    return {
        "unknown key": (["train", good, "--set", "model.backbon=x"], "unknown key 'model.backbon': did you mean"),
        "no config": (["train", str(root / "none.yaml")], "none.yaml: cannot be read: no such file"),
        "no teacher": (["train", good, "--set", "method=bct", "--set", "old=gone"], "gone: no such run folder"),
        "no run": ([*evaluate[:2], "gone", *evaluate[3:], "--data", "digits"], "gone: no such run folder"),
        "data": ([*evaluate, "--data", "digit"], "expected NAME or NAME:ROOT; did you mean 'digits'?"),
        "data root": ([*evaluate, "--data", "cifar100:gone"], "gone: no such folder or archive of CIFAR-100"),
        "neither": (["evaluate", "--data", "digits"], "expected --query and --data, or a config file"),
        "no data": ([*evaluate, "--data", str(no_data)], "expected a config with a section 'data'"),
        "split": ([*evaluate, "--data", "digits", "--split", "tests"], "--split 'tests': expected train or test"),
        "no classes": ([*evaluate, "--data", f"folder:{root / 'empty'}"], "no class folders in it"),
        "no image": ([*evaluate, *bad_data], f"nobackfill: {bad_image}: does not decode as an image"),
        "ending": ([*embed, "v.csv"], "unknown extension '.csv', expected .npy"),
        "weights": ([*evaluate[:2], str(cut), *evaluate[3:], "--data", "digits"], "damaged, not readable as"),
        "labels": ([*evaluate, "--data", f"cifar100:{labels}"], "label 200 of image 0 is outside the range 0…99"),
        "diverged": (["train", good, "--set", "optimizer.lr=1e38", "--out", "x"], "learning rate 1e+38; lower"),
        "too small": (["train", *bt2, "model.extra_dim=1"], "is smaller than the old embedding of 6; set extra_dim to"),
        "teacher size": (["train", *bt2, "model.old_dim=9"], "has an embedding of 6, but model.old_dim says 9"),
        "here": (["train", good, "--out", "."], ".: cannot be replaced by a new folder"),
        "option": (["train", good, "--sett", "a=1"], "No such option"),
        "argument": (["train"], "Missing argument"),
        "verb": (["trian"], "No such command 'trian'"),
        "number": (["demo", "--seeds", "0"], "--seeds"),
        "scenario": (["run", str(scenario), "--out", "out"], "none.yaml: cannot be read"),
        "no scenario": (["run", good, "--out", "out"], "missing key 'generations'"),
        "not writable": ([*embed, "/proc/none/v.npy"], "/proc/none"),
    }  # fmt: skip


BAD = (
    "unknown key",
    "no config",
    "no teacher",
    "no run",
    "data",
    "data root",
    "neither",
    "no data",
    "split",
    "no classes",
    "no image",
    "ending",
    "weights",
    "labels",
    "diverged",
    "too small",
    "teacher size",
    "here",
    "option",
    "argument",
    "verb",
    "number",
    "scenario",
    "no scenario",
    "not writable",
)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_on_stderr_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    runs: dict[str, Path],
    name: str,
) -> None:
    commands = bad_commands(tmp_path / "input", runs)
    assert set(commands) == set(BAD)
    command, message = commands[name]
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert run(command) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    *begun, line = printed.err.splitlines()
    assert line.startswith("nobackfill: ")
    assert begun == [] or name == "diverged"  # only a run that had begun could say so
    assert message in line
    assert len(line) < 700
    assert list(Path().rglob("*")) == []  # nothing half-written


@pytest.mark.parametrize(
    "given", [["--ray", "local"], ["--split", "train"], ["--on-bad-image", "skip"], ["--workers", "1"]]
)
def test_options_of_data_do_not_go_with_arrays(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["embed", "gone", "--vectors", "x.npy", "--out", "v.npy", *given]) == 2
    assert f"{given[0]}: works only with --data, and --vectors x.npy is given; leave it out" in capsys.readouterr().err
    if given[0] != "--ray":
        assert run(["evaluate", "--query", "x.npy", "--gallery", "y.npy", *given]) == 2
        assert f"{given[0]}: works only with run folders, but --query x.npy is an array" in capsys.readouterr().err
