"""The encoder of a text model: a tokenizer before the network, kept with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from nobackfill.data.preprocessing import TextPreprocessing
from nobackfill.errors import DataError, RunError, one_line, require
from nobackfill.data.tokens import tokenizer_digest
from nobackfill.models.encoder import Encoder
from nobackfill.models.network import Network
from nobackfill.models.spec import EmbeddingSpec


class TextEncoder(Encoder):
    """Texts to embeddings, in evaluation mode.

    Attributes:
        tokenizer: its JSON, as `tokenizers` reads it.
    """

    def __init__(self, network: Network, spec: EmbeddingSpec, tokenizer: str) -> None:
        super().__init__(network, spec)
        self.tokenizer = tokenizer
        settings = spec.preprocessing
        if not isinstance(settings, TextPreprocessing) or tokenizer_digest(tokenizer) != settings.tokenizer:
            raise RunError(f"tokenizer of generation {spec.generation}: not the one used to make its vectors")
        require("transformers", what="a text model")
        from tokenizers import Tokenizer

        try:
            self._tokens = Tokenizer.from_str(tokenizer)
        except Exception as error:  # whatever a stranger's JSON makes of it
            raise RunError(f"tokenizer of generation {spec.generation}: {one_line(error)}") from error
        self._tokens.enable_truncation(settings.max_tokens)
        self._tokens.enable_padding(pad_id=settings.padding)

    def _check(self, samples: object) -> Sequence[str]:
        if isinstance(samples, str) or not isinstance(samples, Sequence):
            raise DataError(f"texts: expected a list of strings, found {type(samples).__name__}")
        for position, text in enumerate(samples):
            if not isinstance(text, str):
                raise DataError(f"texts: item {position} is {type(text).__name__}, expected a string")
        return samples

    def _batches(
        self,
        samples: Sequence[str],
        batch_size: int,
        workers: int,  # noqa: ARG002 (tokenizers has its own threads)
        device: torch.device,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(samples), batch_size):
            tokens = self.tokens(list(samples[start : start + batch_size]))
            yield torch.arange(start, start + len(tokens)), tokens.to(device)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """What `forward` takes of n ≥ 1 texts: int64 [n, t] on the CPU, t that of the longest; raises `DataError`."""
        return torch.tensor([each.ids for each in self._tokens.encode_batch(list(self._check(texts)))])
