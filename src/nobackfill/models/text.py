"""The encoder of a text model: a tokenizer before the network, kept with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nobackfill.data.preprocessing import Role, TextPreprocessing
from nobackfill.data.samples import Inputs, Samples, TextSamples
from nobackfill.data.tokens import TextTokenizer
from nobackfill.errors import RunError
from nobackfill.models.encoder import Encoder
from nobackfill.models.network import Network
from nobackfill.models.sentence_encoder import check_texts
from nobackfill.models.spec import EmbeddingSpec


class _Texts(list[str]):
    """Texts of one role."""

    def __init__(self, texts: Sequence[str], role: Role | None) -> None:
        super().__init__(texts)
        self.role = role


class TextEncoder(Encoder):
    """Texts to embeddings, in evaluation mode.

    Attributes:
        tokenizer: its JSON, as `tokenizers` reads it.
    """

    def __init__(self, network: Network, spec: EmbeddingSpec, tokenizer: str) -> None:
        super().__init__(network, spec)
        settings = spec.preprocessing
        assert isinstance(settings, TextPreprocessing)  # noqa: S101 (what makes it a TextEncoder)
        self.tokenizer = tokenizer
        try:
            self._tokens = TextTokenizer(tokenizer, settings)
        except RunError as error:
            raise RunError(f"tokenizer of generation {spec.generation}: {error}") from error

    def encode_set(self, samples: Samples, workers: int = 0, batch_size: int | None = None) -> NDArray[np.float32]:
        """Embed a data set of texts, with the prompt of their role; of images the captions.

        Raises:
            DataError: if it has nothing of the kind.
        """
        role = samples.role if isinstance(samples, TextSamples) else None
        return self.encode(samples.inputs("text"), batch_size, workers, role=role)

    def encode(
        self, samples: Inputs, batch_size: int | None = None, workers: int = 0, *, role: Role | None = None
    ) -> NDArray[np.float32]:
        """Embed texts, on the device the encoder is on.

        Args:
            samples: strings.
            batch_size: texts at a time; None: `BATCH`.
            workers: not used.
            role: which of the model's prompts goes before the texts; None: the default one, if there is any.

        Returns:
            float32 [n, dim], in the order given.

        Raises:
            DataError: for anything but strings.
        """
        return self._encoded(_Texts(self._check(samples), role), batch_size, workers)

    def _check(self, samples: object) -> Sequence[str]:
        return check_texts(samples)

    def _batches(
        self,
        samples: _Texts,
        batch_size: int,
        workers: int,  # noqa: ARG002 (tokenizers has its own threads)
        device: torch.device,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        tokens = self._tokens.tokens(samples, samples.role)
        order = np.argsort(-tokens.lengths, kind="stable")  # texts of like length together: little padding
        for start in range(0, len(order), batch_size):
            positions = order[start : start + batch_size]
            yield torch.from_numpy(positions), torch.from_numpy(tokens.batch(positions)).to(device)

    def tokens(self, texts: Sequence[str], role: Role | None = None, prompt: str | None = None) -> Tensor:
        """What `forward` takes of n ≥ 1 texts.

        Args:
            texts: strings.
            role: which of the model's prompts goes before them; None: the default one, if there is any.
            prompt: another one instead.

        Returns:
            int64 [n, t] on the CPU, t that of the longest.

        Raises:
            DataError: for anything but strings.
        """
        tokens = self._tokens.tokens(self._check(texts), role, prompt)
        return torch.from_numpy(tokens.batch(np.arange(len(tokens))))
