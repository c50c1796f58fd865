"""Text backbones as standard modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("sentence_transformers")
from sentence_transformers import SentenceTransformer
from tests.sentence_models import TEXTS, VOCABULARY, bert_model, static_model

from nobackfill.errors import RunError
from nobackfill.interop.sentence_export import save_sentence_folder, sentence_model
from nobackfill.interop.text_modules import dense_modules, static_modules, transformer_modules


def written(modules: list[nn.Module], folder: Path) -> np.ndarray[Any, Any]:
    save_sentence_folder(sentence_model(modules), folder, ())
    found: np.ndarray[Any, Any] = SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(TEXTS)
    return found


@pytest.mark.parametrize("pooling", [("mean",), ("cls", "max")])
def test_a_transformer_gives_the_same_vectors(pooling: tuple[str, ...], tmp_path: Path) -> None:
    model = bert_model(pooling=pooling[0], normalize=False)
    inner = model[0].auto_model
    torch.manual_seed(3)
    layers = [nn.Linear(16 * len(pooling), 8), nn.GELU(), nn.Linear(8, 5, bias=False)]
    inner.pooler = None
    modules = transformer_modules(
        inner, model[0].tokenizer.backend_tokenizer.to_str(), max_tokens=6, padding=0, pooling=pooling, layers=layers
    )
    features = model[0](model[0].preprocess(TEXTS, max_length=6))
    mask, tokens = features["attention_mask"].bool()[..., None], features["token_embeddings"]
    pooled = {
        "mean": (tokens * mask).sum(1) / mask.sum(1),
        "cls": tokens[:, 0],
        "max": tokens.masked_fill(~mask, -torch.inf).amax(1),
    }
    expected = nn.Sequential(*layers)(torch.cat([pooled[name] for name in pooling], dim=1)).detach().numpy()
    np.testing.assert_allclose(written(modules, tmp_path / "out"), expected, atol=1e-5)


def test_a_table_of_tokens_gives_the_same_directions(tmp_path: Path) -> None:
    model = static_model()
    table, layer = model[0].embedding.weight.detach(), nn.Linear(8, 5, bias=False)
    left_out = VOCABULARY.index("my")
    modules = static_modules(table, model[0].tokenizer.to_str(), max_tokens=4, left_out=left_out, layers=[layer])
    means = []
    for text in TEXTS:
        rows = [VOCABULARY.index(word) for word in text.split()[:4]]
        means.append(table[[row for row in rows if row != left_out]].mean(0))
    expected = layer(torch.stack(means)).detach().numpy()
    found = written(modules, tmp_path / "out")
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (found, expected)]
    np.testing.assert_allclose(unit[0], unit[1], atol=1e-6)


def test_other_layers_are_refused() -> None:
    with pytest.raises(RunError, match="an activation Dropout without a linear layer before it"):
        dense_modules([nn.Linear(2, 2), nn.GELU(), nn.Dropout()])
