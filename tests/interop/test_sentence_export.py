"""Runs as SentenceTransformer folders of standard modules alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("sentence_transformers")
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize
from tests.sentence_models import TEXTS, bert_model, save, static_model

import nobackfill
from nobackfill.cli.app import run as command
from nobackfill.data.preprocessing import VectorPreprocessing
from nobackfill.errors import ConfigError, RunError
from nobackfill.interop.export import export_encoder
from nobackfill.interop.import_text import import_text
from nobackfill.interop.sentence_export import export_sentence_transformer, save_sentence_folder, sentence_model
from nobackfill.interop.standard_modules import head_modules
from nobackfill.models import Architecture, OlderSpace, runfolder
from nobackfill.models.finished import finished_encoder
from nobackfill.models.heads import HEADS, BasisTransformHead, ConcatHead, Head, PlainHead
from nobackfill.models.network import build_network

NEW, OLD = 16, 6
PREFIX = OlderSpace(generation="old", dim=OLD, fingerprint="f" * 64)
RUNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "linear": ("vectors/linear", "unit", {"dim": OLD}),
    "net": ("vectors/linear+9", "unit", {"dim": OLD}),
    "bt2": ("vectors/keep", "bt2_vectors", {"dim": NEW, "extra_dim": 0, "old_dim": OLD, "scale": 2.0, "beside": 0}),
    "relu": ("vectors/relu+9", "unit", {"dim": OLD}),
    "extra": ("vectors/keep", "bt2_vectors", {"dim": NEW, "extra_dim": 3, "old_dim": OLD, "scale": 2.0, "beside": 0}),
}


def fitted(name: str, folder: Path) -> Path:
    """A fitted run with random weights."""
    backbone, head, options = RUNS[name]
    torch.manual_seed(1)
    network = build_network(
        Architecture(backbone=backbone, backbone_options={"in_features": NEW}, head=head, head_options=options)
    )
    for parameter in network.backbone.parameters():  # the net's last layer starts at zero
        torch.nn.init.normal_(parameter)
    for layer in (getattr(network.head, "basis", None),):
        if layer is not None:
            for matrix in (layer.P.weight, layer.B.weight):
                torch.nn.init.orthogonal_(matrix)
    folder.mkdir()
    runfolder.save(finished_encoder(network, name, VectorPreprocessing(input_dim=NEW), (PREFIX,)), folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(static_model(size=NEW, prompts={"query": "where "}), tmp_path_factory.mktemp("models") / "static")


@pytest.mark.parametrize("name", ["linear", "net", "bt2"])
def test_the_folder_gives_the_run_s_vectors(name: str, base: Path, tmp_path: Path) -> None:
    run = fitted(name, tmp_path / "run")
    made = export_sentence_transformer(run, tmp_path / "out", f"sentence:{base}")
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu", local_files_only=True)
    before, encoder = SentenceTransformer(str(base), device="cpu"), nobackfill.load(run, "cpu")
    expected = encoder.encode(before.encode(TEXTS))
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(model.encode(TEXTS, truncate_dim=OLD), expected[:, :OLD], atol=1e-5)
    np.testing.assert_allclose(model.encode_query(TEXTS), encoder.encode(before.encode_query(TEXTS)), atol=1e-5)
    assert made.difference is not None
    assert made.difference < 1e-5
    kinds = [module["type"] for module in json.loads((tmp_path / "out" / "modules.json").read_text())]
    assert all(kind.startswith("sentence_transformers.") for kind in kinds)
    spec = nobackfill.load(f"sentence:{tmp_path / 'out'}").spec
    assert (spec.fingerprint, spec.generation) == (encoder.spec.fingerprint, encoder.spec.generation)
    assert spec.prefixes == (PREFIX,)


def test_a_model_that_truncates_is_truncated_before_the_map(tmp_path: Path) -> None:
    base = save(static_model(size=NEW + 4, truncate_dim=NEW), tmp_path / "base")
    config = base / "config_sentence_transformers.json"
    if "truncate_dim" not in json.loads(config.read_text()):
        pytest.skip("this release does not save truncate_dim")
    run = fitted("linear", tmp_path / "run")
    export_sentence_transformer(run, tmp_path / "out", base)


def test_the_command_writes_it_and_says_what_it_checked(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = fitted("bt2", tmp_path / "run"), tmp_path / "out"
    arguments = ["export", str(run), "--format", "sentence-transformers", "--out", str(out)]
    assert command([*arguments, "--base", f"sentence:{base}"]) == 0
    assert "SentenceTransformer of 16 values" in capsys.readouterr().out
    assert command([*arguments, "--base", f"sentence:{base}"]) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert command([*arguments[:-1], str(tmp_path / "other")]) == 2
    assert "--base is missing" in capsys.readouterr().err
    assert command(["export", str(run), "--out", str(tmp_path / "run.onnx"), "--base", "sentence:x"]) == 2
    assert "--base: goes with --format sentence-transformers" in capsys.readouterr().err


def test_a_run_of_token_vectors_is_no_graph_but_a_folder(base: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    runfolder.save(import_text(f"static:{base}"), tmp_path / "run")
    with pytest.raises(RunError, match="run: cannot be exported to torch: no graph .* use --format sentence-transf"):
        export_encoder(tmp_path / "run", tmp_path / "model.pt2", "torch")
    assert not (tmp_path / "model.pt2").exists()
    assert export_sentence_transformer(tmp_path / "run", tmp_path / "out").path.is_dir()


def test_what_standard_modules_cannot_say_is_refused(base: Path, text_run: Path, tmp_path: Path) -> None:
    run = fitted("extra", tmp_path / "run")
    with pytest.raises(RunError, match=r"head 'bt2_vectors' scales two parts .* --extra-dim 0"):
        export_sentence_transformer(run, tmp_path / "out", base)
    with pytest.raises(RunError, match=r"no standard modules compute its backbone 'clip/text'; use .*SentenceModule"):
        export_sentence_transformer(text_run, tmp_path / "out")
    relu = fitted("relu", tmp_path / "relu")
    with pytest.raises(RunError, match=r"no standard modules compute its backbone 'vectors/relu\+9'; export a fit of"):
        export_sentence_transformer(relu, tmp_path / "out", base)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["relu", "run"]


def test_the_base_has_to_be_the_one_fitted_on(base: Path, tmp_path: Path) -> None:
    run = fitted("linear", tmp_path / "run")
    small = save(static_model(size=4), tmp_path / "small")
    with pytest.raises(ConfigError, match=r"has 4 values, but .* takes 16"):
        export_sentence_transformer(run, tmp_path / "out", small)
    (run / "base.json").write_text(PREFIX.model_dump_json())
    with pytest.raises(ConfigError, match=r"fitted on vectors of old, and this is static-"):
        export_sentence_transformer(run, tmp_path / "out", base)


HEADINGS: list[Head] = [
    PlainHead(NEW, 3, OLD),
    BasisTransformHead(NEW, 0, OLD, 2.0, 3),
    BasisTransformHead(NEW, 0, OLD, 3.0, 3, rectify=False, classifier_bias=True),
]


@pytest.mark.parametrize("head", HEADINGS)
def test_a_trained_head_becomes_modules_as_well(head: Head, tmp_path: Path) -> None:
    if isinstance(head, BasisTransformHead):
        for layer in (head.basis.P, head.basis.B):
            weight: Any = layer.weight
            layer.weight = torch.nn.init.orthogonal_(torch.empty_like(weight))
    backbone: Any = bert_model(size=head.in_features, normalize=False)
    features = torch.from_numpy(backbone.encode(TEXTS))
    expected = head(features)["embedding"].detach().numpy()
    model = sentence_model([*backbone, *head_modules(head)])
    save_sentence_folder(model, tmp_path / "out", (PREFIX,))
    found = SentenceTransformer(str(tmp_path / "out"), device="cpu", local_files_only=True).encode(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_heads_of_two_parts_are_refused() -> None:
    for head in (ConcatHead(NEW, OLD, 2.0, 3), BasisTransformHead(NEW, 2, OLD, 2.0, 3)):
        with pytest.raises(RunError, match="scales two parts of the vector apart"):
            head_modules(head)
    assert set(HEADS) == {"plain", "unit", "bt2", "concat", "bt2_vectors"}, "say of a new head whether it can be said"


def test_a_folder_that_gives_other_vectors_is_not_written(tmp_path: Path) -> None:
    model = sentence_model([*static_model(size=NEW), Normalize()])
    wrong = np.zeros((5, NEW), np.float32)
    with pytest.raises(RunError, match="not written: it gives vectors that differ by up to"):
        save_sentence_folder(model, tmp_path / "out", (), wrong)
    assert not list(tmp_path.iterdir())
