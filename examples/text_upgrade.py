# ruff: noqa: PLC0415, S311, S106 (packages are imported where they are used; no secrets)
"""Upgrade a text encoder under a running gallery: its queries work at once, and the items move over when you like.

pip install 'nobackfill[sentences]'
pip install wordllama==0.4.0.post1   # optional, for BANKING77: a real old model instead of a small one made here
python examples/text_upgrade.py [--banking77 FOLDER] [--out FOLDER]

The old model is a table of token vectors: of 64 random values, or with --banking77 WordLlama's 256. The new one is
trained in a script of sentence-transformers with five more lines, marked (+) below: a random table of 128 values, or
WordLlama's again with 128 values more. Pairs are two texts of one intent. Half a minute with the texts built in here; a
minute of one core with BANKING77 and WordLlama, where 74.7 % of every third test text's first answers are right before,
78.9 % by the new queries in the old gallery, and 83.2 % with the gallery re-embedded.
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
BATCH = 64
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


def wordllama(folder: Path, size: int) -> Any:
    """WordLlama's table of token vectors, with a layer for further values that starts as the identity and zeros."""
    import torch
    from safetensors.torch import load_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, StaticEmbedding
    from tokenizers import Tokenizer

    table = load_file(folder / "weights" / "l2_supercat_256.safetensors")["embedding.weight"].float()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    modules: list[Any] = [StaticEmbedding(tokenizer, table)]
    if size > table.shape[1]:
        weight = torch.eye(size, table.shape[1])
        modules.append(Dense(table.shape[1], size, bias=False, activation_function=None, init_weight=weight))
    return SentenceTransformer(modules=modules, device="cpu")


def two_models(texts: list[tuple[str, str]], *, real: bool) -> tuple[Any, Any, str, float]:
    """The old model, the new one before it is trained, and the method and learning rate to do it with."""
    if real and (package := find_spec("wordllama")) and package.origin:
        folder = Path(package.origin).parent  # its files alone are needed
        return wordllama(folder, 256), wordllama(folder, 384), "prefix", 0.005
    return static_model(texts, 64), static_model(texts, 128), "bt2", 0.02


def train(
    model: Any, texts: list[tuple[str, str]], old: str, out: Path, *, method: str, rate: float, steps: int
) -> None:
    """A training script of sentence-transformers; (+) marks what this package adds to it."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    from nobackfill.interop import BackwardCompatibleLoss, record_lineage, with_old_vectors  # (+)

    data = Dataset.from_dict(pairs_of(texts, BATCH * steps))
    data = with_old_vectors(data, old)  # (+)
    loss = MultipleNegativesRankingLoss(model)
    old_dim = nobackfill.load(old, "cpu").spec.dim  # (+)
    loss = BackwardCompatibleLoss(model, loss=loss, method=method, old_dim=old_dim)  # (+)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(out.with_name("work")), num_train_epochs=1, per_device_train_batch_size=BATCH,
        learning_rate=rate, warmup_steps=steps // 10, save_strategy="no", report_to=[],
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
    parser.add_argument("--steps", type=int, default=300, help="of training, 64 pairs each")
    options = parser.parse_args(arguments)
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    texts = read_texts(options.banking77)

    old, new = (f"sentence:{options.out / name}" for name in ("old", "new"))
    old_model, new_model, method, rate = two_models(texts["train"], real=options.banking77 is not None)
    old_model.save_pretrained(str(options.out / "old"), create_model_card=False)
    train(new_model, texts["train"], old, options.out / "new", method=method, rate=rate, steps=options.steps)

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
