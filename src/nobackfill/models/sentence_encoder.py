"""Encoders of texts from elsewhere: a SentenceTransformer folder, or any Python function."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from nobackfill.arrays import at_a_time
from nobackfill.config import Modality
from nobackfill.data.samples import TextSamples
from nobackfill.errors import ConfigError, DataError, NobackfillError, RunError, one_line, require
from nobackfill.models.sentence_identity import Lineage, check_sentence_folder, folder_fingerprint, read_lineage
from nobackfill.models.spec import OlderSpace
from nobackfill.progress import track

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

    from nobackfill.data import Samples

Floats = NDArray[np.float32]
Role = Literal["query", "document"]
SENTENCE, PYTHON = "sentence:", "python:"
BLOCK = 2048  # texts between two steps of the progress bar; sentence-transformers sorts them by length inside
NAME = re.compile(r"[\w.-]{1,80}")


class TextSpec(BaseModel):
    """What is known of an encoder that was not made here; `EmbeddingSpec` says as much of a run, and more.

    Attributes:
        generation: id of the model.
        dim: number of values.
        prefixes: older generations, newest first.
        fingerprint: of the model.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)
    generation: str
    dim: int = Field(gt=0)
    prefixes: tuple[OlderSpace, ...] = ()
    fingerprint: str
    modality: Modality = "text"

    def compatible_with(self, other: TextSpec) -> bool:
        """Whether vectors of `other` can be searched: of the same generation, or of one of the prefixes."""
        return other.fingerprint in {self.fingerprint, *(prefix.fingerprint for prefix in self.prefixes)}

    def as_prefixes(self) -> tuple[OlderSpace, ...]:
        """The prefixes of a generation trained to be compatible with this one."""
        return (OlderSpace(generation=self.generation, dim=self.dim, fingerprint=self.fingerprint), *self.prefixes)


class TextFunction:
    """Base of encoders of texts that were not made here.

    Attributes:
        spec: size, lineage, fingerprint.
    """

    spec: TextSpec

    def encode(
        self, samples: object, batch_size: int | None = None, workers: int = 0, *, role: Role | None = None
    ) -> Floats:
        """Embed texts.

        Args:
            samples: strings.
            batch_size: texts at a time; None: the model's own.
            workers: not used.
            role: query or document, for models that have a prompt for each; None takes the model's default prompt.

        Returns:
            float32 [n, dim] in the order given, of the norm the model gives them.

        Raises:
            DataError: for anything but strings; for a text whose vector is zero or not finite (named).
        """
        del workers
        texts = check_texts(samples)
        vectors = self.rows(texts, batch_size, role=role)
        bad = np.flatnonzero(~usable(vectors))
        if len(bad):
            raise DataError(f"texts: item {bad[0]} ({texts[bad[0]][:40]!r}) has a zero or infinite vector")
        return vectors

    def encode_set(self, samples: Samples, workers: int = 0, batch_size: int | None = None) -> Floats:
        """Embed a data set of texts with the prompt of their role, of images the captions; `DataError` for another."""
        role = samples.role if isinstance(samples, TextSamples) else None
        return self.encode(samples.inputs("text"), batch_size, workers, role=role)

    def rows(self, texts: Sequence[str], batch_size: int | None = None, *, role: Role | None = None) -> Floats:
        """As `encode`, but a text without a usable vector keeps what the model gave it."""
        vectors = np.empty((len(texts), self.spec.dim), np.float32)
        size = at_a_time(batch_size, BLOCK)
        starts = range(0, len(texts), size)
        for start in track(starts, f"encoding {len(texts)} texts", len(starts)):
            some = list(texts[start : start + size])
            found = self._rows(some, role)
            if found.shape != (len(some), self.spec.dim):
                raise DataError(
                    f"{self.spec.generation}: expected vectors [{len(some)}, {self.spec.dim}], found "
                    f"{list(found.shape)}"
                )
            vectors[start : start + len(some)] = found
        return vectors

    def _rows(self, texts: list[str], role: Role | None) -> Floats:
        raise NotImplementedError("an encoder of texts defines _rows")


class FunctionEncoder(TextFunction):
    """A Python function as an encoder.

    Args:
        function: takes a list of n strings, returns floats [n, dim].
        name: of the model. It stands for the model's fingerprint, so it has to change when the model does.
    """

    def __init__(self, function: Callable[[list[str]], ArrayLike], name: str) -> None:
        if not NAME.fullmatch(name):
            raise ConfigError(f"model name {name!r}: expected letters, digits, '.', '_' or '-'")
        self.function = function
        dim = self._rows(["text"], None).shape[1]
        self.spec = TextSpec(generation=name, dim=dim, fingerprint=f"name:{name}")

    def _rows(self, texts: list[str], role: Role | None) -> Floats:  # noqa: ARG002 (a function knows no roles)
        try:
            found = self.function(texts)
        except NobackfillError:
            raise
        except Exception as error:  # its text stays out: that of a hosted model often quotes a key
            raise DataError(
                f"the model's function failed with {type(error).__name__} on {len(texts)} texts; add -v to see why"
            ) from error
        try:
            rows = np.asarray(found, np.float32)
        except (TypeError, ValueError) as error:
            raise DataError(f"the model's function: {one_line(error)}; expected floats [n, dim]") from error
        if rows.ndim != 2 or not rows.size:
            raise DataError(f"the model's function: expected floats [n, dim], found {list(rows.shape)}")
        return rows


class SentenceEncoder(TextFunction):
    """A SentenceTransformer folder as an encoder: its tokenizer, pooling, prompts and normalisation are kept.

    Attributes:
        model: the `SentenceTransformer`, in evaluation mode.
        spec: size, lineage, fingerprint.
    """

    def __init__(self, model: SentenceTransformer, spec: TextSpec) -> None:
        self.model, self.spec = model.eval(), spec

    def _rows(self, texts: list[str], role: Role | None) -> Floats:
        names = {"query": self.model.encode_query, "document": self.model.encode_document}
        encode = self.model.encode if role is None else names[role]
        rows: Floats = np.asarray(encode(texts, convert_to_numpy=True, show_progress_bar=False), np.float32)
        return rows


def load_sentence_encoder(folder: str | Path, device: str | torch.device | None = None) -> SentenceEncoder:
    """Open a local SentenceTransformer folder (extra `sentences`); nothing is downloaded, and no code in it runs.

    Args:
        folder: written by `SentenceTransformer.save`, a fine-tune, or `nobackfill export`.
        device: where to put it; None takes the accelerator if there is one, else the CPU.

    Raises:
        RunError: for another folder, one that is not whole, or one that wants code of its own.
        MissingPackageError: where sentence-transformers is not installed.
    """
    folder = Path(folder)
    check_sentence_folder(folder)
    digest = folder_fingerprint(folder)
    lineage = read_lineage(folder, digest)
    require("sentence_transformers", what=f"{SENTENCE}{folder}")
    from sentence_transformers import SentenceTransformer

    place = None if device is None else str(device)
    try:
        with _no_progress_bar():
            model = SentenceTransformer(str(folder), device=place, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a stranger's files make of it
        raise RunError(f"{folder}: cannot be opened as a SentenceTransformer: {one_line(error)}") from error
    _check_vocabulary(model, folder)
    model = model.float()  # a fingerprint names vectors, whatever precision a machine prefers
    dim = len(model.encode("text", show_progress_bar=False))
    return SentenceEncoder(model, _spec(folder, digest, lineage, dim))


def sentence_spec(folder: Path, dim: int) -> TextSpec:
    """What is known of the model in a SentenceTransformer folder that gives so many values, by its files alone.

    Raises:
        RunError: for a folder that is not whole, or whose lineage was written for another model.
    """
    digest = folder_fingerprint(folder)
    return _spec(folder, digest, read_lineage(folder, digest), dim)


def load_function_encoder(name: str) -> FunctionEncoder:
    """`MODULE:FUNCTION`, imported; the name stands for the model. Raises `ConfigError` if there is none."""
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{PYTHON}{name}: expected MODULE:FUNCTION: {one_line(error)}") from error
    if not callable(found):
        raise ConfigError(f"{PYTHON}{name}: {function} is {type(found).__name__}, expected a function")
    return FunctionEncoder(found, name.replace(":", "."))


def load_named(model: str, device: str | torch.device | None = None) -> TextFunction | None:
    """The encoder of `sentence:FOLDER` or `python:MODULE:FUNCTION`; None for any other name: a run folder."""
    if model.startswith(SENTENCE):
        return load_sentence_encoder(model.removeprefix(SENTENCE), device)
    return load_function_encoder(model.removeprefix(PYTHON)) if model.startswith(PYTHON) else None


def check_texts(samples: object) -> Sequence[str]:
    """The samples, if they are strings; raises `DataError`."""
    if isinstance(samples, str) or not isinstance(samples, Sequence):
        raise DataError(f"texts: expected a list of strings, found {type(samples).__name__}")
    for position, text in enumerate(samples):
        if not isinstance(text, str):
            raise DataError(f"texts: item {position} is {type(text).__name__}, expected a string")
    return samples


def usable(vectors: Floats) -> NDArray[np.bool_]:
    """Which rows have a direction."""
    found: NDArray[np.bool_] = np.isfinite(vectors).all(axis=1) & (vectors != 0).any(axis=1)
    return found


def _spec(folder: Path, digest: str, lineage: Lineage, dim: int) -> TextSpec:
    stem = folder.resolve().name
    name = stem if NAME.fullmatch(stem) else "sentence"
    known = lineage.exported or OlderSpace(generation=f"{name}-{digest[:12]}", dim=dim, fingerprint=digest)
    if known.dim != dim:
        raise RunError(f"{folder}: gives {dim} values, but its nobackfill.json says {known.dim}")
    return TextSpec(generation=known.generation, dim=dim, prefixes=lineage.prefixes, fingerprint=known.fingerprint)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Without Transformers' bar for each file of weights."""
    logging = importlib.import_module("transformers.utils.logging")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _check_vocabulary(model: SentenceTransformer, folder: Path) -> None:
    """Raise `RunError` if the tokenizer knows tokens that the weights do not."""
    module = model[0]
    tokenizer = getattr(module, "tokenizer", None)
    table = getattr(module, "embedding", None)
    inner = getattr(module, "auto_model", None)
    rows = getattr(table, "num_embeddings", None) or getattr(getattr(inner, "config", None), "vocab_size", None)
    if tokenizer is None or rows is None:
        return
    vocabulary = tokenizer.get_vocab()
    largest = max(vocabulary.values(), default=0)
    if largest >= rows:
        raise RunError(f"{folder}: its tokenizer has token {largest}, but its weights know {rows}; not of one model")
