"""Texts made ready for the model that trains on them."""

from __future__ import annotations

from dataclasses import replace

from accelerate import PartialState

from nobackfill.data import PairSamples, Samples, TextSamples
from nobackfill.data.tokens import TextTokenizer
from nobackfill.models.text_source import TextSource
from nobackfill.progress import note


def tokenized(samples: Samples, source: TextSource) -> tuple[Samples, int]:
    """Texts, or pairs of texts, with their tokens, and how many are longer than the model reads, which is said once."""
    tokenizer = TextTokenizer(source.tokenizer, source.preprocessing)

    def read(texts: TextSamples) -> TextSamples:
        return replace(texts, tokens=tokenizer.tokens(texts.texts, texts.role))

    cut = total = 0
    result = samples
    if isinstance(samples, TextSamples):
        result = read(samples)
        cut, total = _cut(result), len(samples)
    elif isinstance(samples, PairSamples):
        queries, documents = read(samples.queries), read(samples.documents)
        result = replace(samples, queries=queries, documents=documents)
        cut, total = _cut(queries) + _cut(documents), len(queries) + len(documents)
    if cut and PartialState().is_main_process:
        note(
            f"{samples.origin}: {cut} of {total} texts are longer than {source.preprocessing.max_tokens} tokens and cut"
        )
    return result, cut


def _cut(samples: TextSamples) -> int:
    return 0 if samples.tokens is None else int(samples.tokens.cut.sum())
