"""Upgrades of text encoders beside everything they compete with, on one test set, over several seeds.

    python benchmarks/text_data.py --clinc150 ../shared/data/clinc150/data_full.json --wordnet package/dict
    python benchmarks/text_upgrades.py banking77 --wordllama FOLDER --tune
    python benchmarks/text_upgrades.py banking77 --wordllama FOLDER --out runs/text --json docs/results/…

`--tune` trains every setting of each method (`text_settings.py`), with held-out training rows as the test split.
Trains what is missing under `--out` (`nobackfill train`, three seeds), fits every map between the old model and the
first seed's independent one, and prints a table: status quo, full backfill, each method's queries in the old gallery
and in its own, each map of queries into the untouched gallery (slerp takes both models' queries), and asking both
models and merging by rank. Intervals are of the paired bootstrap over queries and seeds; a map's row has one seed.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from text_settings import SETTINGS

import nobackfill
from nobackfill.arrays import unit
from nobackfill.cli.app import run as cli
from nobackfill.config import RunConfig, parse_config
from nobackfill.data import PairSamples, load_split
from nobackfill.evaluation import RetrievalMetrics
from nobackfill.evaluation.compare import Protocol
from nobackfill.evaluation.comparison import Comparison
from nobackfill.evaluation.rank_merge import merged_search
from nobackfill.maps import Pairs, fit
from nobackfill.maps.fits import FITS
from nobackfill.maps.pairs import Held
from nobackfill.training import train

Side = Any


def mean(metrics: RetrievalMetrics, score: str) -> float:
    return float(np.nanmean(metrics.per_query(score)))


def merged(*trees: dict[str, Any]) -> dict[str, Any]:
    """Sections of later trees over those of earlier ones."""
    result: dict[str, Any] = {}
    for tree in trees:
        for key, value in tree.items():
            result[key] = {**result[key], **value} if isinstance(value, dict) and key in result else value
    return result


class Upgrades:
    """The runs of a setting, and what each of their models makes of the test set."""

    def __init__(self, name: str, folders: dict[str, Path | None], out: Path, methods: list[str] | None) -> None:
        self.setting, self.out = SETTINGS[name], out / name
        self.folders = folders
        self.methods = list(self.setting.methods) if methods is None else ["independent", *methods]
        test = load_split(self.config("independent", 0).data, "test")
        self.test: Any = test
        if isinstance(test, PairSamples):
            self.protocol = Protocol(relevant=test.relevant())
        else:
            self.protocol = Protocol(test.labels, test.labels, exclude_self=True)

    def config(self, method: str, seed: int, choice: str | None = None) -> RunConfig:
        """Of a run; with a choice, of one that is tested on held-out training rows."""
        backbone = self.setting.backbone.format(**self.folders)
        data = self.setting.data if choice is None else {**self.setting.data, "holdout": self.setting.holdout}
        own: dict[str, Any] = {"method": method, "data": data, "seed": seed, "model": {"backbone": backbone}}
        if method != "independent":
            own["old"] = str(self.old)
            own["init"] = "fit" if backbone.startswith("sentence:") else None
        if method == "bt2":
            own["model"]["extra_dim"] = 32
            own["independent"] = str(self.run("independent", seed) if choice is None else self.tuning / "independent-")
        choices = self.setting.methods[method]
        return parse_config(
            merged(self.setting.common, own, choices[next(iter(choices)) if choice is None else choice])
        )

    @property
    def old(self) -> Path:
        return self.out / "old"

    @property
    def tuning(self) -> Path:
        return self.out / "tuning"

    def run(self, method: str, seed: int) -> Path:
        return self.out / f"{method}-{seed}"

    def train_old(self) -> None:
        if not self.old.is_dir():
            if self.setting.old:
                own = {"data": self.setting.data}
                train(parse_config(merged(self.setting.common, self.setting.old, own)), self.old, resume=True)
            elif cli(["import-text", self.setting.imported.format(**self.folders), "--out", str(self.old)]):
                raise SystemExit(2)

    def train(self, seeds: int) -> None:
        self.train_old()
        for seed in range(seeds):
            for method in self.methods:
                train(self.config(method, seed), self.run(method, seed), resume=True)

    def tune(self) -> list[dict[str, Any]]:
        """Scores on held-out training rows, of every setting of every method."""
        self.train_old()
        rows = []
        for method in self.methods:
            for choice in self.setting.methods[method]:
                run = train(self.config(method, 0, choice), self.tuning / f"{method}-{choice}", resume=True)
                found = json.loads((run / "metrics.json").read_text())
                cells = {"new/old": found.get("cross_test"), "new/new": found["self_test"]}
                rows.append({"method": method, "setting": choice, "loss": self.setting.methods[method][choice],
                             **{cell: {score: scores[score] for score in self.setting.scores}
                                for cell, scores in cells.items() if scores}})  # fmt: skip
        return rows

    def vectors(self, run: Path, samples: Any) -> tuple[Side, Side]:
        """Queries and gallery by one model."""
        encoder = nobackfill.load(run, "cpu")
        if isinstance(samples, PairSamples):
            return encoder.encode_set(samples.queries, 0), encoder.encode_set(samples.documents, 0)
        return (encoder.encode_set(samples, 0),) * 2

    def fitted(self) -> tuple[dict[str, RetrievalMetrics], RetrievalMetrics]:
        """Maps of new queries into the untouched gallery by name, and the rank merge with the best of them.

        Of a map that is trained the best rate on the test set counts, which flatters the maps.
        """
        training: Any = load_split(self.config("independent", 0).data, "train")
        arrays, out = self.out / "arrays", self.out / "fit"
        arrays.mkdir(parents=True, exist_ok=True)
        sides = {}
        for name, run in (("old", self.old), ("new", self.run("independent", 0))):
            sides[name] = self.vectors(run, self.test)
            queries, items = self.vectors(run, training)
            np.save(arrays / f"{name}.npy", np.concatenate([queries, items]) if self.setting.pairs else items)
        if not self.setting.pairs:
            np.save(arrays / "labels.npy", training.labels)
        (old_query, old_items), (new_query, new_items) = sides["old"], sides["new"]
        held = Held(
            old_items, new_items, old_query, new_query, None if self.setting.pairs else (self.test.labels,) * 2,
            self.protocol.relevant, exclude_self=self.protocol.exclude_self,
        )  # fmt: skip
        pairs = Pairs(arrays / "old.npy", arrays / "new.npy", None if self.setting.pairs else arrays / "labels.npy")
        shutil.rmtree(out, ignore_errors=True)
        equal = old_items.shape[1] == new_items.shape[1]  # qdc asks for it
        methods = [name for name, each in FITS.items() if "to-old" in each.directions and (equal or name != "qdc")]
        fit(pairs, out, methods=methods, directions=("to-old",), held=held)
        both_queries = np.concatenate([unit(old_query, "old queries"), unit(new_query, "new queries")], axis=1)
        maps: dict[str, RetrievalMetrics] = {}
        best, score = None, self.setting.scores[-1]
        for name in methods:
            for run in sorted((out / "methods").glob(f"{name}-*to-old*")):  # start and each learning rate
                encoder = nobackfill.load(run, "cpu")
                asks_both = encoder.spec.preprocessing.input_shape != new_query.shape[1:]
                mapped = encoder.encode(both_queries if asks_both else new_query)
                found = self.protocol.search(mapped, old_items)
                if name not in maps or mean(found, score) > mean(maps[name], score):
                    maps[name] = found
                if best is None or mean(found, score) > best[0]:
                    best = mean(found, score), mapped
        assert best is not None
        both = merged_search([(old_query, old_items), (best[1], old_items)], self.protocol)
        return maps, both

    def table(self, seeds: int) -> dict[str, Any]:
        """Every row, with the change against the status quo and against the best map."""
        scores = self.setting.scores
        old_query, old_items = self.vectors(self.old, self.test)
        cells: dict[str, list[RetrievalMetrics]] = {"status quo": [self.protocol.search(old_query, old_items)]}
        for method in self.methods:
            for seed in range(seeds):
                query, items = self.vectors(self.run(method, seed), self.test)
                if method != "independent":
                    cells.setdefault(f"{method} new/old", []).append(self.protocol.search(query, old_items))
                name = "full backfill" if method == "independent" else f"{method} new/new"
                cells.setdefault(name, []).append(self.protocol.search(query, items))
        maps, both = self.fitted()
        cells |= {f"map {name} new/old": [metrics] for name, metrics in maps.items()}
        cells["rank merge old + new/old"] = [both]
        values = {}
        for name, several in cells.items():
            for score in scores:
                rows = np.stack([each.per_query(score) for each in several])
                values[name, score] = np.repeat(rows, seeds, axis=0) if len(rows) == 1 else rows
        counted = np.isfinite(values["status quo", scores[0]]).all(0)
        compared = Comparison({key: rows[:, counted] for key, rows in values.items()})
        best = {
            score: max((name for name in cells if name.startswith("map ")), key=lambda n: compared.mean((n, score)))
            for score in scores
        }
        rows = []
        for name, several in cells.items():
            row: dict[str, Any] = {"name": name, "seeds": len(several)}
            for score in scores:
                each = [float(np.nanmean(one.per_query(score))) for one in several]
                row[score] = {
                    "mean": float(np.mean(each)),
                    "sd": float(np.std(each, ddof=1)) if len(each) > 1 else 0.0,
                    "change": compared.difference((name, score), ("status quo", score)).points(),
                    "against_best_map": compared.difference((name, score), (best[score], score)).points(),
                }
            rows.append(row)
        seconds = {
            method: [
                json.loads((self.run(method, seed) / "metrics.json").read_text())["seconds"] for seed in range(seeds)
            ]
            for method in self.methods
        }
        return {"rows": rows, "best_map": best, "queries": int(counted.sum()), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument("--wordllama", type=Path, help="folder of its package")
    parser.add_argument("--minilm", type=Path, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--tune", action="store_true", help="try each method's settings on held-out training rows")
    parser.add_argument("--out", type=Path, default=Path("runs/text"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", help="beside the independent model, with commas; all, if left out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folders = {"wordllama": options.wordllama, "minilm": options.minilm}
    methods = options.methods.split(",") if options.methods else None
    upgrades = Upgrades(options.setting, folders, options.out, methods)
    result: Any
    if options.tune:
        result = upgrades.tune()
        for row in result:
            cells = [
                [f"{100 * value:5.1f}" for value in row[cell].values()]
                for cell in ("new/old", "new/new")
                if cell in row
            ]
            print(f"{row['method']:12} {row['setting']:6} {'   '.join(map('/'.join, cells))}")
    else:
        upgrades.train(options.seeds)
        result = upgrades.table(options.seeds)
        for row in result["rows"]:
            figures = [
                f"{100 * row[s]['mean']:5.1f} ± {100 * row[s]['sd']:.1f} ({row[s]['change']})"
                for s in upgrades.setting.scores
            ]
            print(f"{row['name']:28} {'   '.join(figures)}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
