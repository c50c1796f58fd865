"""Text encoders beside sentence-transformers: a training step against its trainer's, encoding against its `encode`.

    python benchmarks/text_data.py --wordnet package/dict --out data
    python benchmarks/text.py sentence:MINILM --pairs data/wordnet_examples.jsonl --wordllama FOLDER --json text.json

The same folder, pairs, batches and loss on both sides: InfoNCE in both directions with in-batch negatives at
temperature 0.05, AdamW, float32. Theirs: `SentenceTransformerTrainer` with `MultipleNegativesRankingLoss` in two
directions, nothing logged, saved or clipped. Ours: `nobackfill.training.train`, `independent` for the same loss,
`prefix` with the terms that look at the old vectors (WordLlama's, embedded before). Every measurement is a process of
its own, the sides take turns, and what counts is processor time, all included but for the start: tokens, batches,
loss, optimiser. Medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

SIDES = ("theirs", "independent", "prefix", "encode theirs", "encode ours")
RATIOS = (("independent", "theirs", 1.10), ("prefix", "theirs", 1.20), ("encode theirs", "encode ours", 1.0))
"""What is divided by what, and what it was asked to be: at most, and of the last one at least."""


def read(pairs: Path, count: int) -> tuple[list[str], list[str]]:
    """As many pairs, evenly taken from the file."""
    lines = pairs.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:: max(1, len(lines) // count)][:count]]
    return [row["example"] for row in rows], [row["entry"] for row in rows]


class Clock:
    """Processor seconds between the warm-up's end and the last step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, *_: object) -> None:
        self.times.append(time.process_time())


def theirs(model: str, queries: list[str], documents: list[str], batch: int, epochs: int) -> float:
    """Seconds a step."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    clock = Clock()

    class Timed(TrainerCallback):  # type: ignore[misc]
        def on_epoch_end(self, *_: object, **__: object) -> None:
            clock()

    opened = open_theirs(model)
    loss = MultipleNegativesRankingLoss(
        opened, scale=20.0, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder, num_train_epochs=epochs, per_device_train_batch_size=batch, learning_rate=1e-5,
            save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True, max_grad_norm=0.0,
            dataloader_drop_last=True, optim="adamw_torch_fused",
        )  # fmt: skip
        data = Dataset.from_dict({"query": queries, "document": documents})
        SentenceTransformerTrainer(
            model=opened, args=arguments, train_dataset=data, loss=loss, callbacks=[Timed()]
        ).train()
    return (clock.times[-1] - clock.times[0]) / ((len(queries) // batch) * (epochs - 1))


def open_theirs(model: str) -> Any:
    """A SentenceTransformer of the same weights, with the same tokenizer."""
    from sentence_transformers import SentenceTransformer

    kind, _, folder = model.partition(":")
    if kind == "sentence":
        return SentenceTransformer(folder, device="cpu")
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    from nobackfill.models.static import read_static

    source = read_static(Path(folder))
    table = StaticEmbedding(Tokenizer.from_str(source.tokenizer), source.weights["table"].numpy())
    return SentenceTransformer(modules=[table], device="cpu")


def ours(method: str, options: argparse.Namespace, queries: list[str], documents: list[str]) -> float:
    """Seconds a step of `nobackfill train`."""
    from nobackfill.cli.app import run as cli
    from nobackfill.config import parse_config
    from nobackfill.models.text_backbones import open_source
    from nobackfill.training import train

    source = open_source(options.model, list)
    assert source is not None
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.jsonl"
        file.write_text(
            "".join(json.dumps({"query": q, "positive": d}) + "\n" for q, d in zip(queries, documents, strict=True))
        )
        tree: dict[str, Any] = {
            "method": method,
            "data": {"name": "pairs", "train": str(file)},
            "model": {"backbone": options.model, "embedding_dim": source.dim},
            "epochs": options.epochs,
            "batch_size": options.batch,
            "precision": "fp32",
            "optimizer": {"name": "adamw", "lr": 1e-5},
        }
        if method != "independent":
            assert not cli(["import-text", f"static:{options.wordllama}", "--out", f"{folder}/old"])
            tree["old"] = f"{folder}/old"
        train(parse_config(tree), Path(folder) / "run", on_epoch=clock)
    return (clock.times[-1] - clock.times[0]) / ((len(queries) // options.batch) * (options.epochs - 1))


def encoding(side: str, model: str, texts: list[str]) -> float:
    """Seconds a thousand texts, after a first call."""
    from nobackfill.interop.import_text import import_text

    encode: Any = open_theirs(model).encode if side == "encode theirs" else import_text(model).encode
    encode(texts[:64])
    started = time.process_time()
    encode(texts)
    return 1000 * (time.process_time() - started) / len(texts)


def measure(side: str, options: argparse.Namespace) -> float:
    queries, documents = read(options.pairs, options.count)
    torch.set_num_threads(1)
    if side.startswith("encode"):
        return encoding(side, options.model, queries + documents)
    if side == "theirs":
        return theirs(options.model, queries, documents, options.batch, options.epochs)
    return ours(side, options, queries, documents)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="sentence:FOLDER or static:FOLDER")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--wordllama", type=Path, required=True, help="folder of its package: the old model")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--count", type=int, default=256, help="pairs of an epoch")
    parser.add_argument("--epochs", type=int, default=3, help="of a measurement; the first one warms up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="add the figures to this file")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(f"seconds {measure(options.side, options)}")
        return
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(options.rounds):
        for side in SIDES:
            command = [sys.executable, *sys.argv, "--side", side]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            seconds[side].append(float(printed.rsplit("seconds ", 1)[1]))
    medians = {side: statistics.median(each) for side, each in seconds.items()}
    ratios = {f"{one} / {other}": medians[one] / medians[other] for one, other, _ in RATIOS}
    for (name, ratio), (*_, asked) in zip(ratios.items(), RATIOS, strict=True):
        print(f"{name:28} {ratio:5.2f}   asked {'≥' if asked == 1 else '≤'} {asked}")
    if options.json:
        known = json.loads(options.json.read_text()) if options.json.is_file() else {}
        known[options.model.split(":")[0]] = {
            "batch": options.batch, "pairs": options.count, "epochs": options.epochs, "rounds": options.rounds,
            "seconds": seconds, "ratios": ratios,
        }  # fmt: skip
        options.json.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
