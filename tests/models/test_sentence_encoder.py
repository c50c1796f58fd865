"""SentenceTransformer folders and functions as encoders: same vectors, a fingerprint of all that decides them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sentence_transformers")
import torch
from safetensors.torch import load_file, save_file
from tests.sentence_models import TEXTS, bert_model, save, static_model

import nobackfill
from nobackfill.data.preprocessing import Role
from nobackfill.data.samples import TextSamples
from nobackfill.errors import ConfigError, DataError, MissingPackageError, RunError
from nobackfill.models.sentence_encoder import FunctionEncoder, load_function_encoder, load_sentence_encoder
from nobackfill.models.sentence_identity import folder_fingerprint, read_lineage, write_lineage
from nobackfill.models.spec import OlderSpace

PROMPTS = {"query": "where ", "document": "the "}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(bert_model(prompts=PROMPTS), tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(static_model(), tmp_path_factory.mktemp("models") / "static")


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("kind", ["bert", "static"])
def test_it_encodes_as_the_model_does(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    encoder = nobackfill.load(f"sentence:{folder}", "cpu")
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    found = encoder.encode(TEXTS, batch_size=2)
    np.testing.assert_allclose(found, model.encode(TEXTS), atol=1e-6)
    assert found.dtype == np.float32
    assert encoder.spec.dim == found.shape[1]
    assert encoder.spec.generation == f"{kind}-{encoder.spec.fingerprint[:12]}"
    sentence = load_sentence_encoder(folder, "cpu")
    np.testing.assert_allclose(sentence.encode(TEXTS, role="query"), model.encode_query(TEXTS), atol=1e-6)
    np.testing.assert_allclose(sentence.encode(TEXTS, role="document"), model.encode_document(TEXTS), atol=1e-6)
    assert len(sentence.encode([])) == 0


@pytest.mark.parametrize("role", ["query", "document", None])
def test_a_data_set_gets_the_prompt_of_its_role(bert: Path, role: Role | None) -> None:
    encoder = load_sentence_encoder(bert, "cpu")
    samples = TextSamples(tuple(TEXTS), np.zeros(len(TEXTS), np.int64), ("",), "made", role=role)
    np.testing.assert_array_equal(encoder.encode_set(samples), encoder.encode(TEXTS, role=role))
    assert np.abs(encoder.encode_set(samples) - encoder.encode(TEXTS)).max() > 1e-3 or role is None


def test_the_fingerprint_is_that_of_a_copy_with_other_metadata(bert: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(bert, copy)
    edit(copy / "config_sentence_transformers.json", __version__={"sentence_transformers": "9"})
    edit(copy / "config.json", transformers_version="9", _name_or_path="/home/somebody/model")
    (copy / "README.md").write_text("a card")
    weights = load_file(copy / "model.safetensors")
    save_file(dict(reversed(weights.items())), copy / "model.safetensors", {"format": "pt", "by": "hand"})
    assert folder_fingerprint(copy) == folder_fingerprint(bert)


def test_the_fingerprint_changes_with_weights_tokenizer_pooling_and_prompts(bert: Path, tmp_path: Path) -> None:
    def weights(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors["embeddings.word_embeddings.weight"][3, 3] += 1e-6
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    def tokenizer(folder: Path) -> None:
        edit(folder / "tokenizer.json", truncation=None, normalizer=None)

    def pooling(folder: Path) -> None:
        (place,) = folder.glob("*_Pooling")
        edit(place / "config.json", pooling_mode="cls")

    def prompts(folder: Path) -> None:
        edit(folder / "config_sentence_transformers.json", prompts={**PROMPTS, "query": "when "})

    def default_prompt(folder: Path) -> None:
        edit(folder / "config_sentence_transformers.json", default_prompt_name="query")

    def modules(folder: Path) -> None:
        listed = json.loads((folder / "modules.json").read_text())
        (folder / "modules.json").write_text(json.dumps(listed[:-1]))

    found = {folder_fingerprint(bert)}
    changes = (weights, tokenizer, pooling, prompts, default_prompt, modules)
    for change in changes:
        folder = tmp_path / change.__name__
        shutil.copytree(bert, folder)
        change(folder)
        found.add(folder_fingerprint(folder))
    assert len(found) == 1 + len(changes)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"auto_map": {"AutoModel": "code.Model"}}, "wants to run code of its own"),
        ("1_Pooling/config.json", {"activation_function": "os.system"}, "'os.system' is not one of PyTorch's"),
    ],
)
def test_code_of_its_own_is_refused(
    file: str, changes: dict[str, Any], message: str, bert: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bert, folder)
    edit(folder / file, **changes)
    with pytest.raises(RunError, match=message):
        load_sentence_encoder(folder)


def test_a_module_behind_a_link_is_refused(bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bert, folder)
    shutil.move(folder / "1_Pooling", tmp_path / "elsewhere")
    (folder / "1_Pooling").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="'1_Pooling' leaves the folder"):
        load_sentence_encoder(folder)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ({"type": "custom.Thing", "path": ""}, "'custom.Thing' is not part of sentence-transformers"),
        ({"type": "sentence_transformers.models.Transformer", "path": "../other"}, "leaves the folder"),
        ({"type": "sentence_transformers.models.Transformer"}, "expected a type and a path"),
    ],
)
def test_foreign_modules_are_refused(module: dict[str, str], message: str, bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bert, folder)
    (folder / "modules.json").write_text(json.dumps([module]))
    with pytest.raises(RunError, match=message):
        load_sentence_encoder(folder)


def test_what_is_no_such_folder_is_said(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no such folder; .*nothing is downloaded"):
        load_sentence_encoder("sentence-transformers/all-MiniLM-L6-v2")
    with pytest.raises(RunError, match=r"modules\.json is missing"):
        load_sentence_encoder(tmp_path)
    folder = tmp_path / "model"
    shutil.copytree(bert, folder)
    torch.save({}, folder / "pytorch_model.bin")
    assert folder_fingerprint(folder) == folder_fingerprint(bert)  # not what is loaded
    (folder / "model.safetensors").write_bytes(b"\x08" + bytes(7) + b"not JSON")
    with pytest.raises(RunError, match=r"model\.safetensors: damaged"):
        load_sentence_encoder(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(RunError, match="pickled weights are not read"):
        load_sentence_encoder(folder)


def test_a_tokenizer_of_another_model_is_refused(static: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(static, folder)
    (weights,) = folder.rglob("model.safetensors")
    save_file({"embedding.weight": torch.zeros(7, 8)}, weights)
    with pytest.raises(RunError, match="its tokenizer has token .* but its weights know 7"):
        load_sentence_encoder(folder)


def test_lineage_is_kept_and_belongs_to_these_weights(static: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(static, folder)
    older = (OlderSpace(generation="old", dim=4, fingerprint="f"),)
    write_lineage(folder, older)
    encoder = load_sentence_encoder(folder, "cpu")
    assert encoder.spec.prefixes == older
    assert encoder.spec.fingerprint == folder_fingerprint(static)
    edit(folder / "config_sentence_transformers.json", default_prompt_name="query", prompts=PROMPTS)
    with pytest.raises(RunError, match="written for another model"):
        read_lineage(folder, folder_fingerprint(folder))
    write_lineage(folder, older, OlderSpace(generation="run", dim=8, fingerprint="g"))
    spec = load_sentence_encoder(folder, "cpu").spec
    assert (spec.generation, spec.fingerprint, spec.prefixes) == ("run", "g", older)
    write_lineage(folder, older, OlderSpace(generation="run", dim=7, fingerprint="g"))
    with pytest.raises(RunError, match=r"gives 8 values, but its nobackfill\.json says 7"):
        load_sentence_encoder(folder, "cpu")
    (folder / "nobackfill.json").write_text("{}")
    with pytest.raises(RunError, match=r"nobackfill\.json: damaged"):
        load_sentence_encoder(folder)


def lengths(texts: list[str]) -> list[list[float]]:
    return [[len(text), text.count("a")] for text in texts]


def test_a_function_is_an_encoder() -> None:
    encoder = load_function_encoder("tests.models.test_sentence_encoder:lengths")
    np.testing.assert_array_equal(encoder.encode(["aa", "b"]), [[2, 2], [1, 0]])
    assert encoder.spec.fingerprint == "name:tests.models.test_sentence_encoder.lengths"
    with pytest.raises(DataError, match=r"item 1 \(''\) has a zero or infinite vector"):
        encoder.encode(["a", ""])
    with pytest.raises(DataError, match="item 0 is int, expected a string"):
        encoder.encode([1])
    with pytest.raises(DataError, match="expected a list of strings, found str"):
        encoder.encode("text")
    with pytest.raises(DataError, match=r"expected floats \[n, dim\], found \[1\]"):
        FunctionEncoder(lambda texts: [1.0] * len(texts), "flat")
    with pytest.raises(DataError, match=r"expected vectors \[2, 2\], found \[1, 2\]"):
        FunctionEncoder(lambda texts: [[1.0, 2.0]], "one").encode(TEXTS[:2])
    with pytest.raises(DataError, match=r"could not convert .*; expected floats \[n, dim\]"):
        FunctionEncoder(lambda _: [["x"]], "words")
    for name, message in (("tests:nothing", "MODULE:FUNCTION"), ("sys:path", "path is list, expected a function")):
        with pytest.raises(ConfigError, match=message):
            nobackfill.load(f"python:{name}")
    with pytest.raises(ConfigError, match="model name 'a b'"):
        FunctionEncoder(lengths, "a b")


def test_what_a_function_raises_is_one_line_without_its_text() -> None:
    def hosted(texts: list[str]) -> list[list[float]]:
        if len(texts) > 1:
            raise RuntimeError("429 for https://api.example/embed?key=SECRET")
        return [[1.0, 2.0]]

    with pytest.raises(DataError, match="the model's function failed with RuntimeError on 2 texts") as caught:
        FunctionEncoder(hosted, "hosted").encode(TEXTS[:2])
    assert "SECRET" not in str(caught.value)


def test_without_sentence_transformers_the_extra_is_named(static: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "sentence_transformers"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError, match=r"sentence:.* needs .*: pip install 'nobackfill\[sentences\]'"):
        nobackfill.load(f"sentence:{static}")


def test_a_batch_of_texts_holds_at_least_one(static: Path) -> None:
    with pytest.raises(DataError, match="batch_size: expected at least 1, found -1"):
        load_sentence_encoder(static).encode(TEXTS, batch_size=-1)
