"""Runs as modules of sentence-transformers; its models are made here, none is downloaded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.interop.conftest import NEW, OLD, vectors
from tests.sentence_models import TEXTS as KNOWN
from tests.sentence_models import bert_model, save
from torch import nn

import nobackfill
from nobackfill.errors import DataError, MissingPackageError, RunError

pytest.importorskip("sentence_transformers")
from sentence_transformers import SentenceTransformer

from nobackfill.interop import SentenceModule
from nobackfill.interop.import_text import import_text
from nobackfill.models import runfolder
from nobackfill.models.text import TextEncoder


class Letters(nn.Module):
    """A model of its own: a text's letters, counted and multiplied."""

    def __init__(self, size: int = NEW) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.from_numpy(vectors(26, seed=3)[:, :size]))

    def preprocess(self, texts: list[str], **kwargs: Any) -> dict[str, Any]:
        counts = [[text.count(chr(97 + i)) for i in range(26)] for text in texts]
        return {"counts": torch.tensor(counts).float()}

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return {**features, "sentence_embedding": features["counts"].to(self.table.dtype) @ self.table}

    def save(self, folder: str) -> None:
        torch.save(self.state_dict(), Path(folder) / "letters.pt")

    @staticmethod
    def load(folder: str) -> Letters:
        found = Letters()
        found.load_state_dict(torch.load(Path(folder) / "letters.pt", weights_only=True))
        return found


TEXTS = ["one", "two three", "a longer text of letters", "zebra"]


@pytest.mark.parametrize("name", ["map", "bt2"])
def test_after_a_model_s_own_modules_it_gives_the_encoder_s_vectors(name: str, vector_runs: dict[str, Path]) -> None:
    model = SentenceTransformer(modules=[Letters()], device="cpu")
    upgraded = SentenceTransformer(modules=[*model, SentenceModule(vector_runs[name])], device="cpu")
    encoder = nobackfill.load(vector_runs[name], "cpu")
    found = upgraded.encode(TEXTS, batch_size=2)
    np.testing.assert_allclose(found, encoder.encode(model.encode(TEXTS)), atol=1e-6)
    assert upgraded.get_embedding_dimension() == encoder.spec.dim
    (prefix,) = encoder.spec.prefixes
    np.testing.assert_array_equal(upgraded.encode(TEXTS, truncate_dim=prefix.dim, batch_size=2), found[:, : prefix.dim])
    assert encoder.spec.generation in repr(upgraded)


def test_a_text_run_stands_alone(text_run: Path) -> None:
    model = SentenceTransformer(modules=[SentenceModule(text_run)], device="cpu")
    expected = nobackfill.load(text_run, "cpu").encode(TEXTS)
    np.testing.assert_allclose(model.encode(TEXTS, batch_size=2), expected, atol=1e-6)
    np.testing.assert_allclose(model.encode(TEXTS[0]), expected[0], atol=1e-6)
    np.testing.assert_allclose(model.encode("three", prompt="two "), expected[1], atol=1e-6)
    assert model.max_seq_length == 12
    module = model[0]
    assert module.tokenize(TEXTS)["input_ids"].equal(module.preprocess(TEXTS)["input_ids"])
    with pytest.raises(DataError, match=r"texts: item 0 is tuple, expected a string"):
        module.preprocess([("a", "b")])


def test_a_text_run_s_prompts_go_before_texts_of_their_role(tmp_path: Path) -> None:
    prompts = {"query": "where is ", "document": "the money ", "passage": "new pin "}
    folder = save(bert_model(prompts=prompts, default_prompt_name="passage"), tmp_path / "folder")
    (tmp_path / "run").mkdir()
    runfolder.save(import_text(f"sentence:{folder}"), tmp_path / "run")
    encoder = nobackfill.load(tmp_path / "run", "cpu")
    assert isinstance(encoder, TextEncoder)
    model = SentenceTransformer(modules=[SentenceModule(tmp_path / "run")], device="cpu")
    np.testing.assert_allclose(model.encode(KNOWN), encoder.encode(KNOWN), atol=1e-6)
    queries = encoder.encode(KNOWN, role="query")
    np.testing.assert_allclose(model.encode_query(KNOWN), queries, atol=1e-6)
    np.testing.assert_allclose(model.encode_document(KNOWN), encoder.encode(KNOWN, role="document"), atol=1e-6)
    np.testing.assert_allclose(model.encode(KNOWN, prompt="where is "), queries, atol=1e-6)
    assert np.abs(queries - encoder.encode(KNOWN)).max() > 1e-3


@pytest.mark.parametrize("kind", ["vectors", "text"])
def test_saved_it_is_a_run_folder_and_comes_back(
    kind: str, vector_runs: dict[str, Path], text_run: Path, tmp_path: Path
) -> None:
    run = text_run if kind == "text" else vector_runs["bt2"]
    before: list[nn.Module] = [] if kind == "text" else [Letters()]
    model = SentenceTransformer(modules=[*before, SentenceModule(run)], device="cpu")
    expected = model.encode(TEXTS)
    model.save(str(tmp_path / "model"))
    folder = tmp_path / "model" / f"{len(before)}_SentenceModule"
    for file in folder.iterdir():
        assert file.read_bytes() == (run / file.name).read_bytes()
    assert nobackfill.load(folder).spec == nobackfill.load(run).spec
    again = SentenceTransformer(str(tmp_path / "model"), device="cpu", trust_remote_code=True, local_files_only=True)
    np.testing.assert_array_equal(again.encode(TEXTS), expected)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match="damaged"):
        SentenceModule.load(str(folder))


def test_it_stays_in_float32_and_in_evaluation_mode(vector_runs: dict[str, Path]) -> None:
    module = SentenceModule(vector_runs["map"])
    model = SentenceTransformer(modules=[Letters().half(), module], device="cpu")
    model.train()
    assert not module.encoder.training
    for _ in range(2):
        assert all(parameter.dtype == torch.float32 for parameter in module.parameters())
        halves = SentenceTransformer(modules=[model[0]], device="cpu").encode(TEXTS)
        assert halves.dtype == np.float16
        np.testing.assert_allclose(model.encode(TEXTS), module.encoder.encode(halves), atol=1e-6)
        model.half()
    assert model.to("meta")[1].encoder.network.backbone.linear.weight.device.type == "meta"


def test_gradients_pass_through_it_and_leave_it_alone(vector_runs: dict[str, Path]) -> None:
    letters, module = Letters(), SentenceModule(vector_runs["bt2"])
    features = module(letters(letters.preprocess(TEXTS)))
    features["sentence_embedding"][:, 0].sum().backward()
    assert letters.table.grad is not None
    assert letters.table.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in module.parameters())


def test_changed_weights_are_not_saved_as_the_generation(vector_runs: dict[str, Path], tmp_path: Path) -> None:
    module = SentenceModule(vector_runs["map"])
    next(module.parameters()).data += 1
    with pytest.raises(RunError, match="its weights have changed"):
        module.save(str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_is_said_in_a_line(runs: dict[str, Path], vector_runs: dict[str, Path]) -> None:
    with pytest.raises(RunError, match="this run embeds images; expected a run that embeds vectors or texts"):
        SentenceModule(runs["old"])
    module = SentenceModule(vector_runs["map"])
    with pytest.raises(RunError, match="put it after the modules of the model that makes them"):
        SentenceTransformer(modules=[module], device="cpu").encode(TEXTS)
    with pytest.raises(RunError, match="expected sentence embeddings of 12 values from the modules before it, found 7"):
        SentenceTransformer(modules=[Letters(OLD), module], device="cpu").encode(TEXTS)


def test_without_sentence_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import nobackfill.interop

    for name in [name for name in sys.modules if name.split(".")[0] == "sentence_transformers"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "nobackfill.interop.sentences")
    with pytest.raises(MissingPackageError, match=r"SentenceModule needs .*: pip install 'nobackfill\[sentences\]'"):
        _ = nobackfill.interop.SentenceModule
    assert nobackfill.interop.EncoderTransformer is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = nobackfill.interop.nothing
