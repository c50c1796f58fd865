"""Models of sentence-transformers on the command line, from `embed` to a gallery's last backfill."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("sentence_transformers")
from tests.sentence_models import save, static_model

import nobackfill
from nobackfill.cli.app import run
from nobackfill.models.sentence_encoder import load_sentence_encoder

TOPICS = ("card lost my cash", "money transfer top up", "exchange rate refund charged", "new pin app open")
OTHERS = "a b c is the where was when will it come not there yet does"


def letters(texts: list[str]) -> list[list[float]]:
    return [[1.0, *(text.count(letter) for letter in "abcdef")] for text in texts]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    made = {name: save(static_model(size=size, seed=size), folder / name) for name, size in (("old", 8), ("new", 16))}
    return {name: f"sentence:{path}" for name, path in made.items()}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Texts of four topics, as the captions of images."""
    monkeypatch.chdir(tmp_path)
    draw, captions = random.Random(0), {}
    for split, count in (("train", 320), ("val", 60)):
        for number in range(count):
            topic = number % 4
            file = Path("data", split, str(topic), f"{number}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (1, 1)).save(file)
            words = [*draw.choices(TOPICS[topic].split(), k=3), *draw.choices(OTHERS.split(), k=3)]
            captions[file.relative_to("data").as_posix()] = " ".join(words)
    Path("captions.json").write_text(json.dumps(captions))
    Path("data.yaml").write_text("data: {name: folder, root: data, captions: captions.json}\n")
    return "data.yaml"


def test_embed_and_evaluate_take_them(models: dict[str, str], data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["embed", models["old"], "--data", data, "--out", "old.npy"]) == 0
    texts = list(json.loads(Path("captions.json").read_text()).values())[320:]
    expected = load_sentence_encoder(models["old"].removeprefix("sentence:"), "cpu").encode(texts)
    order = sorted(range(60), key=lambda number: (number % 4, f"data/val/{number % 4}/{number}.png"))
    np.testing.assert_allclose(np.load("old.npy"), expected[order], atol=1e-6)
    assert run(["embed", models["old"], "--data", data, "--out", "old.parquet"]) == 0
    capsys.readouterr()
    assert run(["evaluate", "--query", models["new"], "--gallery", models["old"], "--data", data]) == 0
    assert "was not trained to be compatible" in capsys.readouterr().out
    assert run(["embed", "python:tests.cli.test_sentence_models:letters", "--data", data, "--out", "f.npy"]) == 0
    assert np.load("f.npy").shape == (60, 7)
    assert run(["export", "python:tests.cli.test_sentence_models:letters", "--out", "f.onnx"]) == 2
    assert "export to onnx takes run folders" in capsys.readouterr().err
    assert run(["embed", models["old"], "--data", data, "--out", "x.npy", "--ray", "local"]) == 2
    assert "--ray: works with run folders" in capsys.readouterr().err


def test_a_gallery_of_an_old_model_is_upgraded(
    models: dict[str, str], data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["fit", "--old-model", models["old"], "--new-model", models["new"]]
    assert run([*both, "--data", data, "--method", "ridge", "--out", "fits/upgrade"]) == 0
    spec = nobackfill.load("fits/upgrade").spec
    old, new = (nobackfill.load(models[name]).spec for name in ("old", "new"))
    assert [prefix.fingerprint for prefix in spec.prefixes] == [old.fingerprint]
    assert json.loads(Path("fits/upgrade/base.json").read_text())["fingerprint"] == new.fingerprint
    bases = {
        path.parent.name: json.loads(path.read_text()) for path in Path("fits/upgrade/methods").glob("*/base.json")
    }
    assert {name: each["fingerprint"] for name, each in bases.items()} == {
        "ridge-to-old": new.fingerprint,
        "ridge-to-new": old.fingerprint,
    }
    out = ["--format", "sentence-transformers", "--out", "upgraded"]
    assert run(["export", "fits/upgrade", *out, "--base", models["old"]]) == 2
    assert "has 8 values, but fits/upgrade takes 16" in capsys.readouterr().err
    assert run(["export", "fits/upgrade", *out, "--base", models["new"]]) == 0
    assert nobackfill.load("sentence:upgraded").spec.compatible_with(old)

    assert run(["gallery", "create", "faiss:g", "--model", models["old"], "--data", data]) == 0
    assert f"60 vectors of {old.generation}" in capsys.readouterr().out
    assert run(["gallery", "upgrade", "faiss:g", "--model", models["new"]]) == 2
    assert "was not trained to be compatible with old-" in capsys.readouterr().err
    assert run(["gallery", "upgrade", "faiss:g", "--model", "sentence:upgraded"]) == 0
    capsys.readouterr()
    query = ["gallery", "search", "faiss:g", "my lost card", "-k", "5", "--json", "--model"]
    for model, left in ((models["old"], 60), ("sentence:upgraded", 60), ("sentence:upgraded", 45)):
        if left == 45:
            assert run(["gallery", "backfill", "faiss:g", "--model", model, "--target", "15"]) == 0
            assert "15 items replaced" in capsys.readouterr().out
        assert run([*query, model]) == 0
        (answer,) = json.loads(capsys.readouterr().out)
        assert sum(hit["payload"]["class"] == "0" for hit in answer["hits"]) >= 4, model


def test_options_that_do_not_go_together(models: dict[str, str], data: str, capsys: pytest.CaptureFixture[str]) -> None:
    both = ["--old-model", models["old"], "--new-model", models["new"]]
    cases = [
        (both, "--old-model, --new-model and --data: give all three or none"),
        ([*both, "--data", data, "--old", "x.npy"], "the models make the vectors; leave out --old"),
        (["--old-model", models["old"], "--new-model", models["old"], "--data", data], "an upgrade needs two models"),
        (["--old-model", "sentence:nowhere", "--new-model", "x", "--data", data], "nowhere: no such folder"),
    ]
    for options, message in cases:
        assert run(["fit", *options, "--method", "ridge", "--out", "fits/x"]) == 2
        assert message in capsys.readouterr().err
