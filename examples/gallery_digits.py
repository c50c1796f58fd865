"""A gallery that outlives its model, on digits, in a minute.

    python examples/gallery_digits.py

A first model (it has seen the digits 0–4) fills a gallery. A better one (0–9, trained by BT²) searches it at once, then
a quarter of the gallery is re-embedded, then all of it. Writes the pictures of the searches and of the backfilling
curve into the folder gallery-digits.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nobackfill import Gallery, load, load_config, retrieval_metrics, train
from nobackfill.data import load_split
from nobackfill.gallery import ArrayEmbedder, Generation, Hit

CONFIGS = Path(__file__).parents[1] / "configs" / "digits"
QUERIES = (3, 17, 28, 44, 61)
SHOWN = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gallery-digits"))
    out = parser.parse_args().out
    runs = {name: out / "runs" / name for name in ("old", "new", "bt2")}
    for name, run in runs.items():
        settings = load_config(CONFIGS / f"{name}.yaml")
        if name == "bt2":
            settings = settings.model_copy(update={"old": runs["old"], "independent": runs["new"]})
        train(settings, run, resume=True)  # at once if it is there already

    images = load_split(load_config(CONFIGS / "new.yaml").data, "test")
    old, new = load(runs["old"]), load(runs["bt2"])
    ids = [f"digit {place}" for place in range(len(images))]
    payloads: list[Any] = [{"label": int(label)} for label in images.labels]
    url = f"faiss:{out / 'gallery'}"
    gallery = Gallery.create(url, Generation.of(old.spec), [(ids, old.encode(images.images), payloads)])

    vectors = new.encode(images.images)  # here for the sample, the queries and the backfill
    embedder = ArrayEmbedder(ids, vectors, new.spec.fingerprint)
    curve = gallery.upgrade(Generation.of(new.spec), embedder).curve

    def look() -> list[list[Hit]]:
        found = gallery.search(vectors[list(QUERIES)], SHOWN + 1, new.spec.fingerprint)
        return [
            [hit for hit in hits if hit.id != ids[query]][:SHOWN] for query, hits in zip(QUERIES, found, strict=True)
        ]

    stages = {"old gallery": look()}
    job = gallery.backfill(embedder, target="25%")
    print(f"{job.replaced} of {len(ids)} items embedded anew in {job.seconds:.2f} s")
    stages["a quarter embedded anew"] = look()
    gallery.backfill(embedder)
    stages["all embedded anew"] = look()
    print(f"problems: {gallery.verify() or 'none'}")

    for name, gallery_vectors, queries in (
        ("old/old", old.encode(images.images), old.encode(images.images)),
        ("new/old", old.encode(images.images), vectors),
        ("new/new", vectors, vectors),
    ):
        metrics = retrieval_metrics(queries, gallery_vectors, images.labels, images.labels, exclude_self=True)
        print(f"{name}: top-1 {metrics.cmc[1]:.1%}, mAP {metrics.mean_ap:.1%}")
    assert isinstance(images.images, np.ndarray)
    draw_searches(images.images, images.labels, ids, stages, out / "searches.png")
    if curve is not None:
        draw_curve(curve.fractions, curve.top1, curve.mean_ap, out / "curve.png")
    print(f"{out}: searches.png, curve.png")


def draw_searches(
    pixels: np.ndarray, labels: np.ndarray, ids: list[str], stages: dict[str, list[list[Hit]]], path: Path
) -> None:
    """A row a query: the query, then its answers at each stage; right ones framed green, items embedded anew dotted."""
    place_of = {name: place for place, name in enumerate(ids)}
    figure = Figure(figsize=(0.6 * (1 + len(stages) * SHOWN) + 1, 0.62 * len(QUERIES) + 0.9), layout="constrained")
    first, *others = figure.subfigures(1, 1 + len(stages), width_ratios=[1.2, *[SHOWN] * len(stages)])
    first.suptitle("query", fontsize=9)
    for axes, query in zip(_cells(first, 1)[:, 0], QUERIES, strict=True):
        axes.imshow(pixels[query])
    for part, (name, answers) in zip(others, stages.items(), strict=True):
        part.suptitle(name, fontsize=9)
        for line, hits, query in zip(_cells(part, SHOWN), answers, QUERIES, strict=True):
            for axes, hit in zip(line, hits, strict=True):
                axes.imshow(pixels[place_of[hit.id]])
                right = labels[place_of[hit.id]] == labels[query]
                for spine in axes.spines.values():
                    spine.set(color="tab:green" if right else "tab:red", linewidth=2.5)
                    spine.set_linestyle("--" if hit.generation.startswith("bt2") else "-")
    figure.supxlabel("green: same digit; red: another; dashed: the item's vector is new", fontsize=9)
    figure.savefig(path, dpi=150)


def _cells(part: Any, columns: int) -> Any:
    grid = part.subplots(len(QUERIES), columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    return grid


def draw_curve(fractions: tuple[float, ...], top1: tuple[float, ...], mean_ap: tuple[float, ...], path: Path) -> None:
    """Score against the fraction of the gallery that is embedded anew."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, values in (("top-1", top1), ("mAP", mean_ap)):
        axes.plot([100 * fraction for fraction in fractions], [100 * value for value in values], marker="o", label=name)
    axes.set(xlabel="gallery embedded anew, %", ylabel="%")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
