"""One upgrade, every method, several seeds: train what is missing, then search the old gallery and the new one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nobackfill.config import RunConfig, load_config
from nobackfill.data import load_split
from nobackfill.errors import ConfigError
from nobackfill.evaluation import RetrievalMetrics, retrieval_metrics
from nobackfill.models import load
from nobackfill.progress import bar
from nobackfill.training.loop import train
from nobackfill.training.setup import resolve, teacher_keys

OLD, NEW = "old", "new"
INDEPENDENT = "independent"  # how reports call what `new` trains


def read_configs(folder: Path) -> dict[str, RunConfig]:
    """The configs of a folder by name: `old`, `new` (the independent new model), then each method's.

    Raises:
        ConfigError: if `old.yaml` or `new.yaml` is not there.
    """
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    for name in (OLD, NEW):
        if name not in names:
            raise ConfigError(f"{folder}: {name}.yaml is missing; expected old.yaml, new.yaml and one file a method")
    ordered = [OLD, NEW, *(name for name in names if name not in (OLD, NEW))]
    return {name: load_config(folder / f"{name}.yaml") for name in ordered}


def compare_methods(
    configs: Mapping[str, RunConfig], seeds: int, out: Path
) -> Iterator[tuple[dict[str, Any], RetrievalMetrics]]:
    """Train each config with each seed under `out/seed<n>/<name>` and evaluate it on the test split.

    A run folder that is there already is reused if its config is the same, an unfinished one is gone on with.

    Yields:
        ({"method", "seed", "query", "gallery"}, metrics): old/old of the old model; new/old and new/new of the others.
    """
    test = load_split(configs[OLD].data, "test")
    workers = configs[OLD].data.workers
    with bar("comparison", seeds * len(configs)) as step:
        for seed in range(seeds):
            runs = {name: out / f"seed{seed}" / name for name in configs}
            old = None
            for name, config in configs.items():
                train_or_reuse(_with_teachers(config, runs, seed), runs[name])
                vectors = load(runs[name]).encode(test.images, workers=workers)
                old = vectors if old is None else old
                galleries = {"old": old} if name == OLD else {"old": old, "new": vectors}
                for gallery_name, gallery in galleries.items():
                    names = {
                        "method": INDEPENDENT if name == NEW else name,
                        "seed": seed,
                        "query": "old" if name == OLD else "new",
                        "gallery": gallery_name,
                    }
                    yield names, retrieval_metrics(vectors, gallery, test.labels, test.labels, exclude_self=True)
                step(f"seed {seed}: {name} done")


def train_or_reuse(config: RunConfig, out: Path) -> None:
    """Train unless `out` already holds this very run; a run of another config is refused, a broken one resumed."""
    if (out / "config.yaml").is_file():
        if resolve(load_config(out / "config.yaml")) == resolve(config):
            return
        raise ConfigError(f"{out}: holds a run of another config; choose another --out or remove it")
    unfinished = Path(f"{out}.unfinished")
    if unfinished.is_dir() and not (unfinished / "config.yaml").is_file():
        shutil.rmtree(unfinished)  # stopped before it began
    train(config, out, resume=True)


def _with_teachers(config: RunConfig, runs: Mapping[str, Path], seed: int) -> RunConfig:
    teachers = {
        key: runs[OLD if key == "old" else NEW] for key, needed in teacher_keys(config.method).items() if needed
    }
    return config.model_copy(update={"seed": seed, **teachers})
