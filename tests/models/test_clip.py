"""Text against images: a tiny CLIP with random weights, imported, taught from, and searched with."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from nobackfill.cli.app import run
from nobackfill.errors import NobackfillError
from nobackfill.interop.import_clip import import_tower
from nobackfill.models import load
from nobackfill.models.text import TextEncoder

transformers = pytest.importorskip("transformers")
WORDS = ("zero", "one", "two", "three")
DIM = 6


def write_clip(folder: Path) -> Any:
    """A CLIP of a few thousand random weights with a tokenizer whose tokens are letters; returns the model."""
    letters = [*map(chr, range(97, 123))]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[])
    tokenizer.save_pretrained(folder)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    # Ten times the usual spread: random words are to be told apart.
    config = transformers.CLIPConfig(
        text_config={
            **size, "vocab_size": len(tokens), "max_position_embeddings": 12, "projection_dim": DIM,
            "bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1, "initializer_factor": 10.0,
        },
        vision_config={**size, "image_size": 16, "patch_size": 8, "projection_dim": DIM},
        projection_dim=DIM,
    )  # fmt: skip
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"size": {"shortest_edge": 16}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]})
    )
    return model


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("clip")
    return folder, write_clip(folder)


def features(found: Any) -> torch.Tensor:
    return normalize(found if isinstance(found, torch.Tensor) else found.pooler_output).detach()


def test_the_text_tower_gives_the_original_s_features(clip: tuple[Path, Any]) -> None:
    folder, model = clip
    texts = ["one", "a", "a text far longer than twelve tokens are", "two three"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=12, return_tensors="pt")
    encoder = import_tower(folder, "text")
    assert isinstance(encoder, TextEncoder)
    found = encoder.encode(texts, batch_size=2)
    assert found.dtype == np.float32
    assert np.abs(found - features(model.get_text_features(**inputs)).numpy()).max() < 1e-5
    assert np.abs(encoder.encode(texts[::-1])[::-1] - found).max() < 1e-5  # whatever stands beside it in a batch


def test_the_image_tower_gives_the_original_s_features(clip: tuple[Path, Any]) -> None:
    folder, model = clip
    encoder = import_tower(folder, "image")
    pixels = torch.randn(3, 3, 16, 16)
    with torch.inference_mode():
        assert (encoder(pixels) - features(model.get_image_features(pixel_values=pixels))).abs().max() < 1e-5
    assert encoder.spec.modality == "image"
    photo = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    processor = transformers.CLIPImageProcessor.from_pretrained(folder, crop_size={"height": 16, "width": 16})
    view = processor(images=Image.fromarray(photo), return_tensors="pt")["pixel_values"]
    expected = features(model.get_image_features(pixel_values=view)).numpy()
    assert np.abs(encoder.encode(photo[None]) - expected).max() < 0.02  # a pixel's rounding


@pytest.fixture
def captioned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sixteen training and eight test images a class, of its own colour, each with a caption that names the class."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    captions = {}
    for split, count in (("training", 16), ("validation", 8)):
        for number, word in enumerate(WORDS):
            for i in range(count):
                path = Path("photos", split, word, f"{i}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                colour = np.array([number & 1, number >> 1, 0]) * 200
                pixels = random.integers(0, 50, (8, 8, 3)) + colour
                Image.fromarray(pixels.astype(np.uint8)).save(path)
                captions[path.relative_to("photos").as_posix() if i % 2 else str(path)] = word
    Path("captions.json").write_text(json.dumps(captions))
    Path("bt2.yaml").write_text(
        f"""
method: bt2
data: {{name: folder, root: photos, captions: captions.json, image_size: 8, workers: 0}}
model: {{backbone: smallnet8, embedding_dim: {DIM}, extra_dim: 2}}
old: text
independent: new
optimizer: {{lr: 0.01}}
epochs: 30
batch_size: 16
"""
    )
    return tmp_path


def test_old_text_queries_find_images_of_a_new_model(
    captioned: Path, clip: tuple[Path, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(clip[0])
    assert run(["import-clip", folder, "--tower", "text", "--out", "text"]) == 0
    assert run(["import-clip", folder, "--tower", "image", "--other", "text", "--out", "image"]) == 0
    assert load("image").spec.compatible_with(load("text").spec)
    plain = ["method=independent", "old=null", "independent=null", "model.extra_dim=null"]
    assert run(["train", "bt2.yaml", *(word for each in plain for word in ("--set", each)), "--out", "new"]) == 0
    assert run(["train", "bt2.yaml", "--out", "bt2"]) == 0
    metrics = json.loads(Path("bt2/metrics.json").read_text())
    assert metrics["status_quo"]["mean_ap"] > 0.99  # the same word, the same vector
    assert metrics["cross_test"]["mean_ap"] > 0.8  # new images find old captions
    capsys.readouterr()
    search = ["evaluate", "--data", "bt2.yaml", "--out", "figures.json"]
    assert run([*search, "--query", "text", "--gallery", "bt2"]) == 0  # old captions find new images
    searches = json.loads(Path("figures.json").read_text())["searches"]
    scores = {(search["query"], search["gallery"]): search["scores"] for search in searches}
    assert scores["text", "bt2"]["mean_ap"] > 0.8
    assert "not trained to be compatible" not in capsys.readouterr().out
    assert run([*search, "--query", "text", "--gallery", "new"]) == 0
    assert "not trained to be compatible" in capsys.readouterr().out
    assert run(["embed", "text", "--data", "bt2.yaml", "--out", "captions.npy"]) == 0
    assert np.load("captions.npy").shape == (32, DIM)
    assert run(["embed", "text", "--data", "folder:photos", "--out", "x.npy"]) == 2
    assert "a text model needs a caption for each image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", r"no caption for 64 of 64 images; the first is 'training/one/0.png'"),
        ("[]", "expected a mapping of image file to caption, found list"),
        ('{"a": 3}', "the caption of 'a' is 3, expected a string"),
        ('{"a": " "}', "the caption of 'a' is ' ', expected a string"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        (None, "cannot be read as JSON"),
    ],
)
def test_a_wrong_file_of_captions_is_named(captioned: Path, content: str | None, message: str) -> None:
    from nobackfill.config import load_config
    from nobackfill.data import load_split

    Path("captions.json").unlink()
    if content is not None:
        Path("captions.json").write_text(content)
    with pytest.raises(NobackfillError, match=message) as caught:
        load_split(load_config("bt2.yaml").data, "train")
    assert str(caught.value).startswith("captions.json: ")


def test_captions_belong_to_files_alone(captioned: Path) -> None:
    from nobackfill.config import DigitsData
    from nobackfill.data import ImageSamples, load_split
    from nobackfill.data.captions import with_captions

    digits = load_split(DigitsData(), "test")
    assert isinstance(digits, ImageSamples)
    with pytest.raises(NobackfillError, match="captions need image files, and this data set has none"):
        with_captions(digits, Path("captions.json"), Path())


class Evil:
    def __reduce__(self) -> Any:
        return (os.system, ("touch owned",))


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def evil_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(Evil(), folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no pre-trained CLIP model there"),
        (lambda folder: change_config(folder, model_type="bert"), "config.json says model_type 'bert'"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "no pre-trained CLIP model there"),
        (lambda folder: change_config(folder, text_config={"hidden_size": 32}), "wrong shape|no pre-trained"),
        (evil_weights, "no pre-trained CLIP model there"),
        (lambda folder: [path.unlink() for path in folder.glob("*token*")], "no CLIP tokenizer there"),
        (
            lambda folder: change_config(folder, auto_map={"AutoModel": "evil.Model"}, model_type="evil"),
            "model_type 'evil'",
        ),
    ],
)
def test_a_folder_without_a_whole_clip_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip").mkdir()
    write_clip(tmp_path / "clip")
    spoil(tmp_path / "clip")
    with pytest.raises(NobackfillError, match=message) as caught:
        import_tower(Path("clip"), "text")
    assert "\n" not in str(caught.value)
    assert not Path("owned").exists()


def test_pickled_weights_of_tensors_alone_are_read(tmp_path: Path) -> None:
    model = write_clip(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    write_clip(tmp_path / "again")
    found, expected = (import_tower(folder, "text").encode(["one"]) for folder in (tmp_path, tmp_path / "again"))
    assert np.allclose(found, expected, atol=1e-6)


def test_a_damaged_text_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: tuple[Path, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["import-clip", str(clip[0]), "--tower", "text", "--out", "text"]) == 0
    texts = ["one", "two"]
    assert np.allclose(load("text").encode(texts), import_tower(clip[0], "text").encode(texts), atol=1e-6)
    with pytest.raises(NobackfillError, match="expected a list of strings, found str"):
        load("text").encode("one")
    with pytest.raises(NobackfillError, match="item 1 is int, expected a string"):
        load("text").encode(["one", 2])  # type: ignore[list-item]
    whole = Path("text/tokenizer.json").read_text()
    Path("text/tokenizer.json").write_text(whole.replace('"a"', '"é"'))
    with pytest.raises(NobackfillError, match="not the one used to make its vectors"):
        load("text")
    Path("text/tokenizer.json").unlink()
    with pytest.raises(NobackfillError, match="tokenizer.json: damaged or missing"):
        load("text")
    spec = json.loads(Path("text/embedding.json").read_text())
    spec["architecture"]["backbone_options"] = {"hidden_size": 16}
    Path("text/embedding.json").write_text(json.dumps(spec))
    with pytest.raises(NobackfillError, match="missing or unknown options"):
        load("text")
    capsys.readouterr()
    assert run(["import-clip", str(clip[0]), "--tower", "sound", "--out", "x"]) == 2
    assert "--tower 'sound': expected text or image" in capsys.readouterr().err
