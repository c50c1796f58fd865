"""Text models to start from, by the name of a backbone: `sentence:FOLDER`, `static:FOLDER`, or a fresh `static`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from nobackfill.errors import ConfigError
from nobackfill.models.sentence_folder import read_sentence
from nobackfill.models.static import fresh_static, read_static
from nobackfill.models.text_source import SENTENCE, STATIC, TextSource


def open_source(name: str, texts: Callable[[], Iterable[str]]) -> TextSource | None:
    """What a backbone of this name starts from; None for one that is not of texts.

    Args:
        name: `sentence:FOLDER` (a SentenceTransformer), `static:FOLDER`, or `static` for a fresh one.
        texts: those of training, whose words a fresh model knows.

    Raises:
        ConfigError, RunError: if the folder does not hold such a model.
    """
    kind, colon, place = name.partition(":")
    if kind not in (SENTENCE, STATIC):
        return None
    if name == STATIC:
        return fresh_static(texts())
    folder = Path(place)
    if not colon or not place or not folder.is_dir():
        raise ConfigError(f"model.backbone: {name!r}: expected {kind}:FOLDER, a folder on this machine")
    return read_sentence(folder) if kind == SENTENCE else read_static(folder)
