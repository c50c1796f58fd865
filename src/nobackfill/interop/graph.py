"""What of an encoder goes into a file for other programs, and what they have to know to use it."""

from __future__ import annotations

import random
import string
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.export import Dim

from nobackfill import __version__
from nobackfill.data.preprocessing import Preprocessing, TextPreprocessing, VectorPreprocessing
from nobackfill.models.encoder import Encoder, mirrored_sum
from nobackfill.models.network import Network
from nobackfill.models.spec import EmbeddingSpec
from nobackfill.models.text import TextEncoder

INPUTS = {"image": "images", "vector": "vectors", "text": "tokens"}
OUTPUT = "embedding"
Shape = list[str | int]
"""Sizes of a tensor, those that are left open by name."""


class InputFacts(TypedDict):
    """Of the graph's input."""

    name: str
    dtype: str
    shape: Shape


class OutputFacts(InputFacts):
    """Of its output; `norm` as in the run's `embedding.json`."""

    norm: str | float | None


class Facts(TypedDict):
    """What a consumer of an exported encoder has to know, as JSON takes it; see `encoder_facts`."""

    nobackfill: str
    input: InputFacts
    output: OutputFacts
    before: str
    spec: dict[str, object]


class Graph(nn.Module):
    """`Encoder.forward`, for vectors with their normalisation before it."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.network: Network = encoder.network
        self.preprocessing: Preprocessing | TextPreprocessing | VectorPreprocessing = encoder.spec.preprocessing
        self.mirrored: bool = encoder.mirrored
        self.requires_grad_(False).eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """Images float32 [n, 3, s, s], vectors float32 [n, d] or tokens int64 [n, t] to float32 [n, dim]."""
        if isinstance(self.preprocessing, VectorPreprocessing):
            inputs = self.preprocessing.normalize(inputs)
        embedding = self._embed(inputs)
        return mirrored_sum(embedding, self._embed(inputs.flip(-1))) if self.mirrored else embedding

    def _embed(self, inputs: Tensor) -> Tensor:
        # Not by Network.forward: its autocast context has no place in a graph that is float32 throughout.
        embedding: Tensor = self.network.head(self.network.backbone(inputs).float())[OUTPUT]
        return embedding


def free_dimensions(spec: EmbeddingSpec) -> dict[int, Dim]:
    """Dimensions of the input that the file leaves open, as `torch.export` takes them."""
    free = {0: Dim("batch")}
    if isinstance(spec.preprocessing, TextPreprocessing):
        free[1] = Dim("tokens", max=spec.preprocessing.max_tokens)
    return free


def encoder_facts(spec: EmbeddingSpec) -> Facts:
    """What a consumer has to know, as JSON takes it.

    Returns:
        "nobackfill": version of this package; "input" and "output": name, dtype and shape, the latter's norm; "before":
        what to do to a sample first, in words; "spec": the run's `embedding.json`, in which "preprocessing" gives the
        same in figures.
    """
    shape, before = _input(spec)
    return {
        "nobackfill": __version__,
        "input": {
            "name": INPUTS[spec.modality],
            "dtype": "int64" if spec.modality == "text" else "float32",
            "shape": shape,
        },
        "output": {"name": OUTPUT, "dtype": "float32", "shape": ["batch", spec.dim], "norm": spec.norm},
        "before": before,
        "spec": spec.model_dump(mode="json"),
    }


def _input(spec: EmbeddingSpec) -> tuple[Shape, str]:
    """Shape of the input, and what comes before it."""
    settings = spec.preprocessing
    if isinstance(settings, VectorPreprocessing):
        return ["batch", settings.input_dim], "none; the graph scales vectors to unit norm"
    if isinstance(settings, TextPreprocessing):
        return ["batch", "tokens"], _text_steps(settings)
    side = settings.image_size
    resizing = f"resized ({settings.interpolation}, antialiased) to {side}×{side}"
    if settings.resize is not None:
        resizing = (
            f"resized ({settings.interpolation}, antialiased) to {settings.resize} on the shorter side, centre-cropped "
            f"to {side}×{side}"
        )
    return ["batch", 3, side, side], (
        f"RGB upright by its EXIF tag, uint8, {resizing}, then (pixel / 255 − mean) / std with mean "
        f"{list(settings.mean)} and std {list(settings.std)}, channels first"
    )


def _text_steps(settings: TextPreprocessing) -> str:
    """From a text to its row of tokens, in the order in which `TextTokenizer` goes."""
    prompts = {
        "queries": settings.prompt_of("query"),
        "documents": settings.prompt_of("document"),
        "other texts": settings.prompt_of(None),
    }
    if len(set(prompts.values())) == 1:
        prompts = {"each text": settings.prompt}
    steps = [f"{prompt!r} put before {which}" for which, prompt in prompts.items() if prompt]
    marks = "" if settings.marks else " without its marks of beginning and end"
    steps += [f"the run folder's tokenizer.json{marks}", f"cut to {settings.max_tokens} tokens"]
    if settings.left_out is not None:
        steps.append(f"token {settings.left_out} removed")
    return ", ".join([*steps, f"padded with {-1 if settings.masked else settings.padding}"])


def random_inputs(encoder: Encoder, count: int, seed: int = 0) -> Tensor:
    """Inputs of `Graph.forward` [count, …]: noise, vectors of all norms, texts of random letters."""
    generator, settings = torch.Generator().manual_seed(seed), encoder.spec.preprocessing
    if isinstance(encoder, TextEncoder):
        letters = random.Random(seed)  # noqa: S311 (no secrets)
        words = ["".join(letters.choices(string.ascii_lowercase, k=3)) for _ in range(3 * count)]
        return encoder.tokens([" ".join(words[: 1 + 2 * row]) for row in range(count)])
    if isinstance(settings, Preprocessing):
        return torch.randn(count, 3, settings.image_size, settings.image_size, generator=generator)
    assert isinstance(settings, VectorPreprocessing)  # noqa: S101 (there is no fourth kind)
    norms = torch.logspace(-2, 2, count).unsqueeze(1)
    return norms * torch.randn(count, settings.input_dim, generator=generator)
