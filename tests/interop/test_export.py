"""Encoders as files for other programs, against the encoders themselves."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.interop.conftest import NEW, vectors
from torch.nn.utils import parametrize

import nobackfill
from nobackfill.cli.app import run as run_command
from nobackfill.data.preprocessing import Preprocessing, TextPreprocessing
from nobackfill.errors import MissingPackageError, RunError
from nobackfill.interop import export_encoder
from nobackfill.interop.formats import FORMATS
from nobackfill.interop.graph import Graph, encoder_facts
from nobackfill.models.runfolder import load_spec
from nobackfill.models.text import TextEncoder

ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))
needs_onnx = pytest.mark.skipif(not ONNX, reason="needs the extra onnx")
FORMS = [pytest.param("onnx", marks=needs_onnx), "torch"]
TEXTS = ["one", "two three", "a longer text of letters"]
Use = Callable[[Any], np.ndarray]


def read(path: Path) -> tuple[Use, dict[str, Any]]:
    """The file as a consumer without nobackfill opens it, and what it says of itself."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        facts = json.loads(session.get_modelmeta().custom_metadata_map["nobackfill"])
        (source,), (output,) = session.get_inputs(), session.get_outputs()
        for said, found in ((facts["input"], source), (facts["output"], output)):
            assert (said["name"], said["shape"]) == (found.name, found.shape)
        assert source.type == {"float32": "tensor(float)", "int64": "tensor(int64)"}[facts["input"]["dtype"]]
        return lambda inputs: session.run(["embedding"], {source.name: np.asarray(inputs)})[0], facts
    extra = {"nobackfill": ""}
    program = torch.export.load(path, extra_files=extra).module()
    return lambda inputs: program(torch.as_tensor(inputs)).numpy(), json.loads(extra["nobackfill"])


@pytest.mark.parametrize("form", FORMS)
def test_images(form: str, runs: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / f"model{FORMATS[form].ending}"
    made = export_encoder(runs["bt2"], out, form)
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert made.difference is not None
    assert made.difference < 1e-5
    use, facts = read(out)
    encoder = nobackfill.load(runs["bt2"], "cpu")
    assert facts["spec"] == load_spec(runs["bt2"]).model_dump(mode="json")
    # By the facts alone, from pixels of the right size.
    settings, pixels = facts["spec"]["preprocessing"], np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), np.uint8)
    seen = (pixels / 255 - settings["mean"]) / settings["std"]
    found = use(seen.astype(np.float32).transpose(0, 3, 1, 2))
    np.testing.assert_allclose(found, encoder.encode(pixels), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), facts["output"]["norm"], rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_vectors_are_scaled_in_the_graph(form: str, vector_runs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / f"model{FORMATS[form].ending}"
    made = export_encoder(vector_runs["bt2"], out, form)
    assert made.difference is not None
    assert made.difference < 1e-5
    use, facts = read(out)
    assert facts["input"] == {"name": "vectors", "dtype": "float32", "shape": ["batch", NEW]}
    encoder = nobackfill.load(vector_runs["bt2"], "cpu")
    for count in (1, 9):
        np.testing.assert_allclose(use(vectors(count)), encoder.encode(vectors(count)), atol=1e-5)
    content = out.read_bytes()  # what torch notes of where a value came from is left out
    for folder in (Path(torch.__file__).parent, Path(nobackfill.__file__).parent, tmp_path, vector_runs["bt2"]):
        assert str(folder).encode() not in content


@pytest.mark.parametrize("form", FORMS)
def test_texts_of_any_length(form: str, text_run: Path, tmp_path: Path) -> None:
    out = tmp_path / f"model{FORMATS[form].ending}"
    export_encoder(text_run, out, form)
    use, facts = read(out)
    assert facts["input"] == {"name": "tokens", "dtype": "int64", "shape": ["batch", "tokens"]}
    encoder = nobackfill.load(text_run, "cpu")
    assert isinstance(encoder, TextEncoder)
    for texts in (TEXTS, TEXTS[:1]):
        np.testing.assert_allclose(use(encoder.tokens(texts)), encoder.encode(texts), atol=1e-5)


@needs_onnx
def test_a_value_that_torch_names_as_the_output_is_renamed(clip_runs: dict[str, Path], tmp_path: Path) -> None:
    # The embedding of the positions: a constant, where that of a text's tokens is computed.
    made = export_encoder(clip_runs["image"], tmp_path / "model.onnx")
    assert made.difference is not None
    assert made.difference < 1e-5


def test_a_loaded_basis_is_folded(runs: dict[str, Path]) -> None:
    graph = Graph(nobackfill.load(runs["bt2"], "cpu"))
    assert not any(parametrize.is_parametrized(module) for module in graph.modules())
    names = {name for name in graph.state_dict() if ".basis." in name}
    assert names == {"network.head.basis.P.weight", "network.head.basis.B.weight"}


WRONG: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "values": (lambda found: found + 2e-4, r"differ by up to 0\.0002 from the encoder's, more than 0\.0001"),
    "nan": (lambda found: found / 0 * 0, "differ by up to nan"),
    "batch": (lambda found: found[:2], r"a batch of 5 gives \[2, 7\], expected \[5, 7\]"),
}


@pytest.mark.parametrize(("form", "what"), [("onnx", "values"), *(("torch", what) for what in WRONG)])
def test_a_file_that_gives_other_values_is_not_written(
    form: str, what: str, vector_runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form == "onnx" and not ONNX:
        pytest.skip("needs the extra onnx")
    (spoil, message), right = WRONG[what], Graph.forward
    monkeypatch.setattr(Graph, "forward", lambda self, x: spoil(right(self, x)))
    out = tmp_path / f"model{FORMATS[form].ending}"
    out.write_text("the one before")
    with pytest.raises(RunError, match=message):
        export_encoder(vector_runs["map"], out, form)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert out.read_text() == "the one before"


def test_a_backbone_that_cannot_be_traced_is_one_line(
    vector_runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: Graph, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("it looks at\nits values")

    monkeypatch.setattr(Graph, "forward", forward)
    for form, ending in (("onnx", ".onnx"),) * ONNX + (("torch", ".pt2"),):
        with pytest.raises(RunError, match=rf"map: cannot be exported to {form}: it looks at its values"):
            export_encoder(vector_runs["map"], tmp_path / f"model{ending}", form)
    assert not list(tmp_path.iterdir())


@needs_onnx
def test_weights_too_large_for_the_format_are_said_before_the_work(
    vector_runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nobackfill.interop.formats.LARGEST", 100)
    with pytest.raises(
        RunError, match="its weights take 0.0 GiB, and an ONNX file holds at most 2; export it as torch"
    ):
        export_encoder(vector_runs["map"], tmp_path / "model.onnx")


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_names_the_extra(
    missing: str, vector_runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingPackageError, match=r"export to onnx needs ONNX.*: pip install 'nobackfill\[onnx\]'"):
        export_encoder(vector_runs["map"], tmp_path / "model.onnx")


def test_the_steps_before_an_image_s_graph_are_told(runs: dict[str, Path]) -> None:
    spec = nobackfill.load(runs["old"]).spec
    assert "resized (bilinear, antialiased) to 8×8, then (pixel / 255 − mean)" in encoder_facts(spec)["before"]
    cropped = spec.model_copy(update={"preprocessing": Preprocessing(image_size=8, resize=9, interpolation="bicubic")})
    assert "(bicubic, antialiased) to 9 on the shorter side, centre-cropped to 8×8" in encoder_facts(cropped)["before"]


PROMPTS = {"prompt": "p: ", "query_prompt": "q: ", "document_prompt": ""}
TEXT_STEPS: dict[str, tuple[dict[str, Any], str]] = {
    "plain": ({}, "the run folder's tokenizer.json, cut to 64 tokens, padded with 3"),
    "masked": ({"masked": True}, "the run folder's tokenizer.json, cut to 64 tokens, padded with -1"),
    "bare": (
        {"marks": False, "left_out": 5},
        "the run folder's tokenizer.json without its marks of beginning and end, cut to 64 tokens, token 5 removed, "
        "padded with 3",
    ),
    "prompt": (
        {"prompt": "p: "},
        "'p: ' put before each text, the run folder's tokenizer.json, cut to 64 tokens, padded with 3",
    ),
    "prompts": (
        PROMPTS,
        "'q: ' put before queries, 'p: ' put before other texts, the run folder's tokenizer.json, cut to 64 tokens, "
        "padded with 3",
    ),
}


@pytest.mark.parametrize("name", TEXT_STEPS)
def test_the_steps_before_a_text_s_graph_are_told(name: str, vector_runs: dict[str, Path]) -> None:
    changes, expected = TEXT_STEPS[name]
    settings = TextPreprocessing.model_validate({"tokenizer": 64 * "0", "max_tokens": 64, "padding": 3, **changes})
    spec = load_spec(vector_runs["map"]).model_copy(update={"preprocessing": settings})
    assert encoder_facts(spec)["before"] == expected


def test_the_verb(vector_runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, run = tmp_path / "new" / "model.pt2", str(vector_runs["map"])
    assert run_command(["export", run, "--format", "torch", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert f"{out}: vectors float32 [batch, 12] to embedding [batch, 7], generation map-" in told
    assert "checked: embeddings within" in told
    assert run_command(["export", run, "--format", "torch", "--no-check", "--out", str(out)]) == 0
    assert "; not checked" in capsys.readouterr().out
    wrong = {
        "did you mean 'onnx'?": ["--format", "onx", "--out", "x.onnx"],
        "x.pt: expected a file name that ends with .pt2": ["--format", "torch", "--out", "x.pt"],
        "Missing option '--out'": [],
    }
    for message, arguments in wrong.items():
        assert run_command(["export", run, *arguments]) == 2
        assert message in capsys.readouterr().err
    assert run_command(["export", "--help"]) == 0
    assert "Example: nobackfill export" in " ".join(capsys.readouterr().out.split())
