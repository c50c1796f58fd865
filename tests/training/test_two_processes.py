"""Two processes against one with the whole batch. One launch trains all of it: a launch costs more than a small run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from tests.training.test_processes import config, difference
from tests.training.test_rivals import config as rival_config

from nobackfill.config import RunConfig
from nobackfill.training import train

TEXT = find_spec("transformers") is not None
if TEXT:
    from tests.training.test_texts import config as text_config
    from tests.training.test_texts import root

    __all__ = ["root"]  # the fixture
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Launched:
    """Runs by name: their settings, their folders, and what their processes said."""

    folder: Path
    settings: dict[str, RunConfig]
    done: dict[str, subprocess.CompletedProcess[str]]

    def equal(self, name: str, whole: Path, terms: tuple[str, ...]) -> list[dict[str, dict[str, float]]]:
        """Check a run against one in a single process: weights and losses; the metrics of both."""
        done, run = self.done[name], self.folder / name
        assert done.returncode == 0, done.stderr
        assert "2 × cpu" in done.stdout
        assert done.stdout.count("trained in") == 1  # one process speaks
        assert 0 < difference(whole, run) < 1e-5
        last, own = (json.loads((each / "history.jsonl").read_text().splitlines()[-1]) for each in (whole, run))
        for term in terms or last.keys() - {"images_per_second", "memory_mb"}:
            assert last[term] == pytest.approx(own[term], rel=1e-5)  # gathered from both
        return [json.loads((each / "metrics.json").read_text()) for each in (whole, run)]


@pytest.fixture(scope="module")
def launched(
    runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Launched:
    """`nobackfill train` as two processes; the first run finds an empty cache, so both embed for its teachers."""
    folder = tmp_path_factory.mktemp("two")
    settings = {"bt2": config(runs), "all_extra": config(runs, model__extra_dim=4)}
    settings |= {"odd": config(runs, batch_size=63), "norms": config(runs, model__backbone="smallnet8")}
    settings |= {method: rival(method, runs) for method in ("ract", "advbct")}
    if TEXT:
        pairs = on_pairs(request.getfixturevalue("root"))
        settings |= {"pairs": pairs, "pairs_in_parts": pairs.model_copy(update={"accumulate": 2})}
    paths = [folder / f"{name}.yaml" for name in settings]
    for path, each in zip(paths, settings.values(), strict=True):
        path.write_text(yaml.safe_dump(each.model_dump(mode="json")))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", str(Path(__file__).with_name("several_runs.py"))]
    environment = {**os.environ, "NOBACKFILL_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    launch = subprocess.run(
        [*command, *map(str, paths)], check=False, capture_output=True, text=True, env=environment, timeout=300
    )
    assert launch.returncode == 0, launch.stderr
    return Launched(folder, settings, {path.stem: said(path) for path in paths})


def said(config: Path) -> subprocess.CompletedProcess[str]:
    """What both processes of a run printed, and the code they share."""
    out, err, codes = ([config.with_suffix(f".{name}{rank}").read_text() for rank in (0, 1)]
                       for name in ("out", "err", "code"))  # fmt: skip
    assert codes[0] == codes[1]
    return subprocess.CompletedProcess([config.stem], int(codes[0]), "".join(out), "".join(err))


def rival(method: str, runs: dict[str, Path]) -> RunConfig:
    """By SGD with a net that has layer norm, as `config`."""
    made: RunConfig = rival_config(
        method,
        runs,
        model__backbone="test_convnext",
        data__image_size=32,
        optimizer__name="sgd",
        optimizer__lr=0.02,
        **({"loss__temperature": 1.0} if method == "ract" else {}),
    )
    return made


def on_pairs(root: Path) -> RunConfig:
    """Hard negatives of unequal number; the start is the fitted one."""
    made: RunConfig = text_config(
        root, "prefix", "static", kind="pairs", init="fit", mine={"negatives": 60, "margin": 0.2}, data__negatives=[],
        optimizer={"name": "sgd", "lr": 0.5},
    )  # fmt: skip
    return made


def test_two_processes_equal_one(launched: Launched, tmp_path: Path) -> None:
    whole = train(launched.settings["bt2"], tmp_path / "whole")
    metrics = launched.equal("bt2", whole, ("loss", "labels", "independent", "prototypes", "old"))
    assert metrics[0]["status_quo"] == pytest.approx(metrics[1]["status_quo"], abs=1e-6)  # no padded duplicates
    for name in ("self_test", "cross_test"):
        assert metrics[0][name]["mean_ap"] == pytest.approx(metrics[1][name]["mean_ap"], abs=2e-3)


def test_as_many_extra_dimensions_as_old_ones(launched: Launched, tmp_path: Path) -> None:
    """P takes no part in the loss; its gradient is 0, which the processes share like any other."""
    launched.equal("all_extra", train(launched.settings["all_extra"], tmp_path / "whole"), ())


def test_what_two_processes_cannot_do_is_refused(launched: Launched) -> None:
    odd, norms = launched.done["odd"], launched.done["norms"]
    assert odd.returncode == norms.returncode == 2
    assert "'batch_size': 63 does not divide into 2 processes × 1 micro-batches" in odd.stderr
    assert "the batch norm of 'smallnet8' cannot be synchronised on 'cpu'; set it to false" in norms.stderr


@pytest.mark.parametrize("method", ["ract", "advbct"])
def test_rivals(launched: Launched, tmp_path: Path, method: str) -> None:
    """Negatives of the other process count, and so do its samples for the discriminator's batch norm."""
    launched.equal(method, train(launched.settings[method], tmp_path / "whole"), ())


@pytest.mark.skipif(not TEXT, reason="the extra 'text' is not installed")
def test_pairs(launched: Launched, tmp_path: Path) -> None:
    """One loss over the whole batch, hard negatives of unequal number included."""
    settings = launched.settings["pairs"]
    whole = train(settings, tmp_path / "whole")
    less = train(settings.model_copy(update={"epochs": 1}), tmp_path / "less")
    assert difference(whole, less) > 1e-3  # it moves
    for name in ("pairs", "pairs_in_parts"):
        own, metrics = launched.equal(name, whole, ("loss", "pairs", "cross", "old", "masked"))
        assert metrics["mined"] == own["mined"]
        assert metrics["mined"]["negatives"] < 128 * 60  # unequal numbers
        for cell in ("self_test", "cross_test", "status_quo"):
            assert metrics[cell]["mrr"] == pytest.approx(own[cell]["mrr"], abs=0.02)  # one swap of near ties
