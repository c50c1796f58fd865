from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import nobackfill
from nobackfill.data.preprocessing import Preprocessing
from nobackfill.errors import DataError, NobackfillError, RunError
from nobackfill.models import BasisTransformHead, Encoder, Network, build_backbone, load, save
from nobackfill.models.finished import finished_encoder

IMAGES = np.random.default_rng(0).integers(0, 256, (9, 12, 10, 3), dtype=np.uint8)
PREPROCESSING = Preprocessing(image_size=8)


def encoder(seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    head = BasisTransformHead(6, 2, 4, 2.0, 5)
    return finished_encoder(
        Network(build_backbone("smallnet8", head.in_features), head, "smallnet8"), "bt2", PREPROCESSING
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    save(encoder(), folder)
    return folder


def test_save_load_encode_is_identical(run: Path) -> None:
    before, after = encoder(), nobackfill.load(run)
    assert after.spec == before.spec
    np.testing.assert_array_equal(after.encode(IMAGES), before.encode(IMAGES))
    assert {path.name for path in run.iterdir()} == {"model.safetensors", "embedding.json"}
    assert not any("parametrizations" in name for name in load_file(run / "model.safetensors"))


def test_encode_is_float32_of_the_norm_in_the_spec(run: Path) -> None:
    vectors = load(run).encode(IMAGES, batch_size=4)
    assert vectors.dtype == np.float32
    assert vectors.shape == (9, 8)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), np.sqrt(5), rtol=1e-5)
    assert load(run).encode(IMAGES[:0]).shape == (0, 8)


def test_encode_takes_arrays_files_and_opened_images(run: Path, tmp_path: Path) -> None:
    loaded, paths = load(run), []
    for number, image in enumerate(IMAGES):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(image).save(paths[-1])
    expected = loaded.encode(IMAGES)
    np.testing.assert_array_equal(loaded.encode(paths), expected)
    np.testing.assert_array_equal(loaded.encode([str(path) for path in paths]), expected)
    np.testing.assert_array_equal(loaded.encode([Image.fromarray(image) for image in IMAGES]), expected)
    grey = IMAGES[..., 0]
    np.testing.assert_array_equal(loaded.encode(grey), loaded.encode(np.stack([grey] * 3, axis=-1)))


def test_forward_gives_the_embedding_of_preprocessed_tensors(run: Path) -> None:
    loaded = load(run)
    batch = PREPROCESSING.normalize(PREPROCESSING.resized(torch.from_numpy(IMAGES).permute(0, 3, 1, 2)))
    with torch.inference_mode():
        np.testing.assert_array_equal(loaded(batch).numpy(), loaded.encode(IMAGES))


@pytest.mark.parametrize(
    "images",
    ["file.png", b"x", IMAGES.astype(np.float32), IMAGES[..., :2], IMAGES[0], IMAGES[:, :0], 7, [None], [IMAGES[0]]],
)
def test_encode__bad_input_is_named(run: Path, images: Any) -> None:
    with pytest.raises(DataError, match="images: "):
        load(run).encode(images)


def test_the_fingerprint_follows_weights_and_preprocessing() -> None:
    first = encoder()
    assert encoder().spec.fingerprint == first.spec.fingerprint
    assert encoder(1).spec.fingerprint != first.spec.fingerprint
    other = finished_encoder(encoder().network, "bt2", Preprocessing(image_size=9))
    assert other.spec.fingerprint != first.spec.fingerprint
    assert first.spec.generation == f"bt2-{first.spec.fingerprint[:12]}"


def change_weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        weights = load_file(run / "model.safetensors")
        change(weights)
        save_file(weights, run / "model.safetensors")

    return damage


def change_spec(**values: Any) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        tree = json.loads((run / "embedding.json").read_text())
        (run / "embedding.json").write_text(json.dumps({**tree, **values}))

    return damage


def cut(run: Path) -> None:
    whole = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def flip_a_bit(run: Path) -> None:
    data = bytearray((run / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (run / "model.safetensors").write_bytes(bytes(data))


BIAS = "head.extra.bias"


def weights_as_a_pipe(run: Path) -> None:
    (run / "model.safetensors").unlink()
    os.mkfifo(run / "model.safetensors")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (shutil.rmtree, "no such run folder; train it first"),
    "no weights": (lambda run: (run / "model.safetensors").unlink(), "model.safetensors is missing"),
    "no spec": (lambda run: (run / "embedding.json").unlink(), "embedding.json is missing"),
    "cut": (cut, "damaged, not readable as safetensors"),
    "one bit": (flip_a_bit, "damaged: its weights or embedding.json changed"),
    "missing tensor": (change_weights(lambda weights: weights.__delitem__(BIAS)), f"tensor '{BIAS}' is missing"),
    "unexpected tensor": (change_weights(lambda weights: weights.update(x=torch.zeros(1))), "unexpected tensor 'x'"),
    "shape": (
        change_weights(lambda weights: weights.update({BIAS: torch.zeros(9)})),
        rf"tensor '{BIAS}' is torch.float32 \[9\], expected torch.float32 \[4\]",
    ),
    "type": (
        change_weights(lambda weights: weights.update({BIAS: torch.zeros(4, dtype=torch.bfloat16)})),
        rf"tensor '{BIAS}' is torch.bfloat16 \[4\], expected torch.float32 \[4\]",
    ),
    "json": (lambda run: (run / "embedding.json").write_text("{"), "embedding.json: damaged"),
    "key": (change_spec(surprise=1), "damaged: unknown key 'surprise'"),
    "dim": (change_spec(dim=-1), "damaged: key 'dim'"),
    "other dim": (change_spec(dim=9), "damaged: dim, norm or generation do not match its architecture"),
    "norm": (change_spec(norm=99.0), "damaged: dim, norm or generation do not match"),
    "generation": (change_spec(generation="bt2-000000000000"), "damaged: dim, norm or generation do not match"),
    "huge": (
        change_spec(
            architecture={"backbone": "smallnet8", "head": "plain", "head_options": {"dim": 10**13, "classes": 2}}
        ),
        "damaged: dim, norm or generation do not match",
    ),
    "huge, and consistent": (
        change_spec(
            dim=10**9,
            norm=1.0,
            architecture={"backbone": "smallnet8", "head": "plain", "head_options": {"dim": 10**9, "classes": 10**6}},
        ),
        r"tensor 'backbone\.\S+' is .*, expected torch.float32 \[1000000000",  # from the header: it would be 4 PB
    ),
    "prefix forged": (
        change_spec(prefixes=[{"generation": "other", "dim": 8, "fingerprint": "f" * 64}]),
        "damaged: its prefixes changed since they were written",
    ),
    "prefix too large": (
        change_spec(prefixes=[{"generation": "a\x1b", "dim": 10**6, "fingerprint": "f"}], prefixes_digest=None),
        r"damaged: prefix 'a\\x1b' has 1000000 values, expected at most 8",
    ),
    "no object": (lambda run: (run / "embedding.json").write_text("[1]"), "damaged: expected an object, found list"),
    "deep": (lambda run: (run / "embedding.json").write_text("[" * 10**6), "embedding.json: damaged"),
    "digits": (
        lambda run: (run / "embedding.json").write_text('{"dim": ' + "9" * 5000 + "}"),
        "embedding.json: damaged",
    ),
    "pipe": (weights_as_a_pipe, "is missing"),
    "head": (
        change_spec(architecture={"backbone": "smallnet8", "head": "bt3"}),
        "unknown head 'bt3'; did you mean 'bt2'",
    ),
    "options": (
        change_spec(architecture={"backbone": "smallnet8", "head": "plain", "head_options": {"x": 1}}),
        "head 'plain' does not take these options",
    ),
    "address": (
        change_spec(architecture={"backbone": "hf-hub:a/b", "head": "plain", "head_options": {"dim": 2, "classes": 2}}),
        "unknown name 'hf-hub:a/b'",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named(run: Path, name: str) -> None:
    damage, message = DAMAGES[name]
    damage(run)
    with pytest.raises(NobackfillError, match=message) as caught:
        load(run)
    assert str(caught.value).isprintable()


def test_a_long_spec_is_not_echoed(run: Path) -> None:
    for values in ({"dim": "9" * 10**6}, {"k" * 10**6: 1}, {"generation": ["x" * 10**6]}, {"format": "x" * 10**6}):
        tree = json.loads((run / "embedding.json").read_text())
        (run / "embedding.json").write_text(json.dumps({**tree, **values}))
        with pytest.raises(RunError, match=r"embedding.json: ") as caught:
            load(run)
        assert len(str(caught.value)) < 1000
        (run / "embedding.json").write_text(json.dumps(tree))


def test_dropped_and_swapped_prefixes_are_noticed(runs: dict[str, Path], tmp_path: Path) -> None:
    """The fingerprint does not cover them; a run from before their digest opens without it."""
    run = Path(shutil.copytree(runs["bt2"], tmp_path / "run"))
    tree = json.loads((run / "embedding.json").read_text())
    assert load(run).spec.prefixes
    for prefixes in ([], tree["prefixes"] * 2, [{**tree["prefixes"][0], "dim": 3}]):
        (run / "embedding.json").write_text(json.dumps({**tree, "prefixes": prefixes}))
        with pytest.raises(RunError, match="its prefixes changed"):
            load(run)
    del tree["prefixes_digest"]
    (run / "embedding.json").write_text(json.dumps(tree))
    assert load(run).spec.prefixes


def test_an_unfinished_run_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "run.unfinished").mkdir()
    with pytest.raises(RunError, match="unfinished; `nobackfill train … --resume` resumes it"):
        load(tmp_path / "run")


def test_the_lineage_is_in_the_spec(runs: dict[str, Path]) -> None:
    specs = {name: load(run).spec for name, run in runs.items()}
    assert specs["new"].prefixes == ()
    for name in ("bct", "bt2"):
        (prefix,) = specs[name].prefixes
        assert (prefix.generation, prefix.dim) == (specs["old"].generation, 4)
        assert specs[name].compatible_with(specs["old"])
        assert specs[name].compatible_with(specs[name])
        assert not specs[name].compatible_with(specs["new"])
    assert not specs["new"].compatible_with(specs["old"])
    third = specs["bt2"].as_prefixes()
    assert [prefix.generation for prefix in third] == [specs["bt2"].generation, specs["old"].generation]
