"""Text backbones: equal to sentence-transformers and model2vec, read safely, rebuilt from a run folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tests.models.texts import TEXTS, write_sentence, write_static
from tests.sentence_models import save, static_model
from torch.nn.functional import normalize

from nobackfill.data.preprocessing import TextPreprocessing
from nobackfill.errors import NobackfillError
from nobackfill.gallery import Gallery, Generation
from nobackfill.interop.import_text import import_text
from nobackfill.models import load, runfolder
from nobackfill.models.network import build_network
from nobackfill.models.sentence import SentenceBackbone, part_sizes
from nobackfill.models.sentence_identity import write_lineage
from nobackfill.models.spec import OlderSpace
from nobackfill.models.stages import stages
from nobackfill.models.static import fresh_static
from nobackfill.models.text import TextEncoder
from nobackfill.models.text_backbones import open_source
from nobackfill.models.text_source import output_layer

sentence_transformers = pytest.importorskip("sentence_transformers")
LONG = "the card " * 300


def unit(vectors: Any) -> NDArray[np.float32]:
    rows = np.asarray(vectors, np.float32)
    unit_rows: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sentence(tmp_path_factory.mktemp("tiny") / "model")


@pytest.mark.parametrize(
    "pooling", ["mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens", "cls+max"]
)
def test_a_sentence_transformer_gives_its_own_vectors(tmp_path: Path, pooling: str) -> None:
    place = write_sentence(tmp_path / "model", pooling=pooling.split("+"), dense=5 if pooling == "mean" else None)
    model = sentence_transformers.SentenceTransformer(str(place), device="cpu", local_files_only=True)
    encoder = import_text(f"sentence:{place}")
    texts = [*TEXTS, LONG, "[PAD] is a word too"]
    assert np.abs(encoder.encode(texts, batch_size=4) - unit(model.encode(texts))).max() < 1e-5
    runfolder.save(encoder, tmp_path)
    again = load(tmp_path, "cpu")
    np.testing.assert_array_equal(again.encode(texts), encoder.encode(texts))
    assert isinstance(again, TextEncoder)
    assert str(place) not in (tmp_path / "embedding.json").read_text()  # it needs that folder no more


def test_prompts_are_kept(tmp_path: Path) -> None:
    place = write_sentence(tmp_path / "model", prompts={"document": "money: ", "all": "the "})
    model = sentence_transformers.SentenceTransformer(str(place), device="cpu", local_files_only=True)
    encoder = import_text(f"sentence:{place}")
    assert isinstance(encoder, TextEncoder)
    for role, expected in (("query", model.encode_query(TEXTS)), ("document", model.encode_document(TEXTS))):
        assert np.abs(encoder.encode(TEXTS, role=role) - unit(expected)).max() < 1e-5  # type: ignore[arg-type]
    assert np.abs(encoder.encode(TEXTS) - unit(model.encode(TEXTS))).max() < 1e-5
    assert np.abs(encoder.encode(TEXTS) - encoder.encode(TEXTS, role="query")).max() > 0.01
    place = write_sentence(tmp_path / "other", prompts={"query": "card of ", "passage": "money: "})
    settings = import_text(f"sentence:{place}").spec.preprocessing
    assert isinstance(settings, TextPreprocessing)
    assert [settings.prompt_of(role) for role in ("query", "document", None)] == ["card of ", "money: ", ""]


def test_prompts_of_a_static_model_are_kept(tmp_path: Path) -> None:
    model = static_model(prompts={"query": "where is ", "passage": "the money ", "all": "my "})
    model.default_prompt_name = "all"
    encoder = import_text(f"sentence:{save(model, tmp_path / 'model')}")
    assert isinstance(encoder, TextEncoder)
    texts = ["my card", "a new pin", "refund not there"]
    assert np.abs(encoder.encode(texts, role="query") - unit(model.encode_query(texts))).max() < 1e-5
    assert np.abs(encoder.encode(texts, role="document") - unit(model.encode_document(texts))).max() < 1e-5
    assert np.abs(encoder.encode(texts) - unit(model.encode(texts))).max() < 1e-5


def test_a_static_model_is_the_mean_of_its_vectors(tmp_path: Path) -> None:
    place = write_static(tmp_path / "static", mapping=True)
    model = sentence_transformers.SentenceTransformer(
        modules=[sentence_transformers.sentence_transformer.modules.StaticEmbedding.load(str(place))], device="cpu"
    )
    encoder = import_text(f"static:{place}")
    known = [text for text in TEXTS if "zzz" not in text and " and " not in text and text != "how"]
    assert np.abs(encoder.encode(known) - unit(model.encode(known))).max() < 1e-5
    odd = encoder.encode(["card zzz"])  # model2vec leaves unknown words out
    np.testing.assert_allclose(odd, encoder.encode(["card"]), atol=1e-6)
    model.save(str(tmp_path / "saved"))
    for name in (f"sentence:{tmp_path / 'saved'}", f"static:{tmp_path / 'saved'}"):
        other = import_text(name)
        assert np.abs(other.encode([*TEXTS, LONG]) - unit(model.encode([*TEXTS, LONG]))).max() < 1e-5


def test_a_fresh_model_knows_the_words_and_falls_back_to_letters() -> None:
    source = fresh_static(TEXTS)
    assert source.tokenizer == fresh_static(TEXTS).tokenizer
    assert source.options_for(7) == {**source.options, "width": 7, "output": 0}
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(source.tokenizer)
    assert tokenizer.encode("The CARD", add_special_tokens=False).tokens == ["the", "card"]
    assert tokenizer.encode("cat", add_special_tokens=False).tokens == ["c", "##a", "##t"]
    assert tokenizer.encode("ж", add_special_tokens=False).tokens == ["[UNK]"]


def test_parts_of_a_batch_hold_little_padding_and_change_nothing(folder: Path) -> None:
    source = open_source(f"sentence:{folder}", list)
    assert source is not None
    backbone = SentenceBackbone(source.options_for(9), 9).eval()
    source.fill(backbone)
    random = np.random.default_rng(0)
    tokens = torch.full((40, 30), -1)
    for row, length in enumerate(random.integers(1, 31, 40)):
        tokens[row, :length] = torch.from_numpy(random.integers(0, 20, length))
    one_by_one = torch.cat([backbone(row[row >= 0][None]) for row in tokens])
    torch.testing.assert_close(backbone(tokens), one_by_one, atol=1e-5, rtol=1e-5)
    lengths = sorted(random.integers(1, 200, 500).tolist(), reverse=True)
    sizes = part_sizes(lengths)
    assert sum(sizes) == 500
    assert min(sizes) >= 1
    ends = np.cumsum(sizes)
    padded = sum(size * lengths[end - size] for size, end in zip(sizes, ends, strict=True))
    assert sum(lengths) / padded > 0.8


def test_an_output_layer_starts_as_what_is_there() -> None:
    rows = torch.randn(5, 4)
    same, wider, narrower = (output_layer(4, size, wanted=True) for size in (4, 6, 3))
    assert same is not None
    assert wider is not None
    assert narrower is not None
    torch.testing.assert_close(same(rows), rows)
    torch.testing.assert_close(wider(rows)[:, :4], rows)
    torch.testing.assert_close(narrower.weight @ narrower.weight.T, torch.eye(3))


def test_stages_run_from_the_embeddings_to_the_output_layer(folder: Path) -> None:
    for name in (f"sentence:{folder}", f"static:{write_static(folder.parent / 'static')}"):
        source = open_source(name, list)
        assert source is not None
        from nobackfill.models.backbones import build_backbone

        backbone = build_backbone(source.backbone, 4, options=source.options_for(4))
        found = stages(backbone, name)
        assert {found["project.weight"], found["project.bias"]} == {max(found.values())}
        stem = [number for key, number in found.items() if "embeddings" in key or key == "table"]
        assert set(stem) == {0}
        if name.startswith("sentence"):
            assert sorted(set(found.values())) == [0, 1, 2, 3]


Change = Callable[[Path], object]


def edit(name: str, **changes: Any) -> Change:
    def change(place: Path) -> None:
        path = place / name
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**known, **changes}))

    return change


def other_module(kind: str, path: str = "") -> Change:
    def change(place: Path) -> None:
        (place / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": path, "type": kind}]))

    return change


def more_tokens(place: Path) -> None:
    tree = json.loads((place / "tokenizer.json").read_text())
    tree["model"]["vocab"] |= {f"extra{number}": 40 + number for number in range(40)}
    (place / "tokenizer.json").write_text(json.dumps(tree))


def fewer_tensors(place: Path) -> None:
    tensors = load_file(place / "model.safetensors")
    save_file({key: value for key, value in tensors.items() if "layer.1" not in key}, place / "model.safetensors")


BAD: dict[str, tuple[Change, str]] = {
    "no modules": (lambda place: (place / "modules.json").unlink(), "not a SentenceTransformer folder: modules.json"),
    "its own module": (other_module("custom.Module"), "module 'custom.Module' is code of its own, which is not run"),
    "its own model": (edit("config.json", auto_map={"AutoModel": "x.Y"}), "wants code of its own"),
    "a module elsewhere": (other_module("sentence_transformers.models.Pooling", "../.."), "leaves the folder"),
    "another module": (other_module("sentence_transformers.models.CNN"), "has the modules CNN; expected Transformer"),
    "another vocabulary": (more_tokens, r"its tokenizer has \d+ tokens, but its weights have rows for 40"),
    "tensors missing": (fewer_tensors, "tensors missing or of the wrong shape, first encoder.layer.1"),
    "damaged": (lambda place: (place / "model.safetensors").write_bytes(b"x"), "no transformer there that can be read"),
    "no list": (lambda place: (place / "modules.json").write_text('"x"'), "expected a list of modules"),
    "no type": (lambda place: (place / "modules.json").write_text('[{"path": ""}]'), "expected a type and a path"),
    "no length": (edit("sentence_bert_config.json", max_seq_length="x"), "key 'max_seq_length': .*, found 'x'"),
    "no text": (edit("config_sentence_transformers.json", prompts={"query": 1}), r"key 'prompts\.query': .*string"),
    "no pooling": (edit("1_Pooling/config.json", pooling_mode="sum"), r"pooling \['sum'\]: expected some of cls"),
    "no JSON": (lambda place: (place / "config.json").write_text("{"), "cannot be read as JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(folder: Path, tmp_path: Path, name: str) -> None:
    change, message = BAD[name]
    place = tmp_path / "bad"
    shutil.copytree(folder, place)
    change(place)
    with pytest.raises(NobackfillError, match=message) as caught:
        import_text(f"sentence:{place}")
    assert "\n" not in str(caught.value)


def test_names_that_are_no_folders(tmp_path: Path) -> None:
    for name in ("sentence:nowhere", "sentence:all-MiniLM-L6-v2", "sentence", "static:"):
        with pytest.raises(NobackfillError, match="expected .*:FOLDER, a folder on this machine"):
            open_source(name, list)
    with pytest.raises(NobackfillError, match="no static model there"):
        open_source(f"static:{tmp_path}", list)
    assert open_source("smallnet8", list) is None


def test_a_run_folder_with_other_sizes_is_refused(folder: Path) -> None:
    encoder = import_text(f"sentence:{folder}")
    architecture = encoder.spec.architecture
    for changes in ({"pooling": "x"}, {"config": "{}"}, {"config": '{"model_type": "none"}'}, {"dense": "[[1]]"}):
        options = {**architecture.backbone_options, **changes}
        broken = architecture.model_copy(update={"backbone_options": options})
        with pytest.raises(NobackfillError):
            build_network(broken).backbone(torch.zeros(2, 3, dtype=torch.int64))
    assert normalize(torch.ones(1, 2)).shape == (1, 2)


@pytest.mark.parametrize("kind", ["transformer", "static"])
def test_an_imported_model_is_the_generation_of_its_folder(tmp_path: Path, kind: str) -> None:
    place = save(static_model(), tmp_path / "model") if kind == "static" else write_sentence(tmp_path / "model")
    write_lineage(place, (OlderSpace(generation="older", dim=3, fingerprint="name:older"),))
    itself, encoder = load(f"sentence:{place}", "cpu"), import_text(f"sentence:{place}")
    runfolder.save(encoder, tmp_path)
    imported = load(tmp_path, "cpu")
    for name in ("generation", "dim", "prefixes", "fingerprint"):
        assert getattr(imported.spec, name) == getattr(itself.spec, name)
    assert np.abs(unit(itself.encode(TEXTS)) - imported.encode(TEXTS)).max() < 1e-5
    gallery = Gallery.create(f"faiss:{tmp_path / 'gallery'}", Generation.of(itself.spec))
    gallery.upsert(TEXTS, itself.encode(TEXTS), fingerprint=itself.spec.fingerprint)
    hits = gallery.search(imported.encode(TEXTS), 1, imported.spec.fingerprint)
    assert [line[0].id for line in hits] == TEXTS
    gallery.store.close()
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, tmp_path / "model.safetensors")
    with pytest.raises(NobackfillError, match="changed since"):  # the run folder still knows its own content
        load(tmp_path, "cpu")
