"""The encoder in NumPy alone gives what PyTorch gives, from the same run folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.maps.pairs import NEW, OLD, items

import nobackfill
from nobackfill.errors import DataError, RunError
from nobackfill.maps.basis import closed_basis
from nobackfill.maps.folders import basis_encoder, map_encoder, save_encoder
from nobackfill.maps.linear import ridge
from nobackfill.maps.moments import moments
from nobackfill.models import ArrayEncoder
from nobackfill.models.runfolder import load_arrays, save
from nobackfill.models.spec import Architecture, named_prefix

PREFIX = named_prefix("old", OLD)


def vectors() -> Any:
    return items(400)[1]


def fitted(kind: str) -> ArrayEncoder:
    old, new, _ = items(400)
    pairs = moments(new, old)
    one = ridge(pairs, [0.1])[0]
    if kind == "map":
        return map_encoder("ridge", one, PREFIX)
    return basis_encoder("bt2_vectors", closed_basis(pairs, one, 3 if kind == "basis" else 0), 2.0, PREFIX)


def net(form: str, head: str) -> ArrayEncoder:
    """With a small net, as training leaves one: nothing in it is zero."""
    random = np.random.default_rng(0)
    beside, hidden = (0 if head == "unit" else 4), 16
    features = OLD if head == "unit" else NEW + beside
    shapes = {"net.0.weight": (hidden, NEW), "net.0.bias": (hidden,)}
    last = features if form == "linear" else beside
    shapes |= {"net.2.weight": (last, hidden), "net.2.bias": (last,)}
    if form == "linear":
        shapes |= {"linear.weight": (features, NEW), "linear.bias": (features,)}
    weights = {
        f"backbone.{name}": (0.3 * random.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()
    }
    options: dict[str, bool | int | float] = {"dim": OLD}
    if head == "bt2_vectors":
        options = {"dim": NEW, "extra_dim": 3, "old_dim": OLD, "scale": 2.0, "beside": beside}
        for name, size in (("P", NEW), ("B", OLD)):
            weights[f"head.basis.{name}.weight"] = np.linalg.qr(random.normal(size=(size, size)))[0].astype(np.float32)
        weights["head.extra.weight"] = (0.3 * random.normal(size=(3, features))).astype(np.float32)
        weights["head.extra.bias"] = random.normal(size=3).astype(np.float32)
    architecture = Architecture(
        backbone=f"vectors/{form}+{hidden}", backbone_options={"in_features": NEW}, head=head, head_options=options
    )
    return ArrayEncoder.finished("x", architecture, weights, PREFIX)


ENCODERS: dict[str, Callable[[], ArrayEncoder]] = {
    "map": lambda: fitted("map"),
    "basis": lambda: fitted("basis"),
    "basis without extra dimensions": lambda: fitted("rotation"),
    "map with a net": lambda: net("linear", "unit"),
    "basis with a net": lambda: net("keep", "bt2_vectors"),
}


@pytest.mark.train
@pytest.mark.parametrize("name", ENCODERS)
def test_it_equals_pytorch_both_ways(tmp_path: Path, name: str) -> None:
    encoder = ENCODERS[name]()
    save_encoder(encoder, tmp_path / "run", {})
    in_torch = nobackfill.load(tmp_path / "run", "cpu")  # which checks names, shapes, size, norm and fingerprint
    assert in_torch.spec == encoder.spec
    scaled = 3 * vectors()
    expected = in_torch.encode(scaled)
    np.testing.assert_allclose(encoder.encode(scaled), expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), encoder.spec.norm, atol=1e-5)
    (tmp_path / "again").mkdir()
    save(in_torch, tmp_path / "again")
    for file in ("model.safetensors", "embedding.json"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "run" / file).read_bytes()


@pytest.mark.parametrize("name", ENCODERS)
def test_what_is_saved_is_read_back(tmp_path: Path, name: str) -> None:
    encoder = ENCODERS[name]()
    save_encoder(encoder, tmp_path / "run", {})
    loaded = load_arrays(tmp_path / "run")
    assert loaded.spec == encoder.spec
    rows = vectors()
    np.testing.assert_array_equal(loaded.encode(rows, batch_size=7)[:7], encoder.encode(rows[:7]))
    assert loaded.encode(rows[:0]).shape == (0, encoder.spec.dim)
    with pytest.raises(DataError, match=rf"vectors: expected floats \[n, {NEW}\], found float32 \[400, {NEW - 1}\]"):
        loaded.encode(rows[:, 1:])
    rows[5] = np.inf
    with pytest.raises(DataError, match="vectors: row 5 (holds a value that is not finite|is zero)"):
        loaded.encode(rows, batch_size=3)


def change_weights(**values: Any) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        weights = load_file(run / "model.safetensors")
        for name, value in values.items():
            weights[name.replace("__", ".")] = value
        save_file({name: value for name, value in weights.items() if value is not None}, run / "model.safetensors")

    return damage


def change_spec(section: str | None = None, **values: Any) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        tree = json.loads((run / "embedding.json").read_text())
        (tree if section is None else tree[section]).update(values)
        (run / "embedding.json").write_text(json.dumps(tree))

    return damage


BIAS = "backbone__linear__bias"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (shutil.rmtree, "no such run folder"),
    "cut": (lambda run: (run / "model.safetensors").write_bytes(b"abc"), "not readable as safetensors"),
    "missing": (change_weights(**{BIAS: None}), "tensor 'backbone.linear.bias' is missing"),
    "surplus": (change_weights(x=np.zeros(1, np.float32)), "unexpected tensor 'x'"),
    "shape": (change_weights(**{BIAS: np.zeros(2, np.float32)}), rf"is torch.float32 \[2\], expected .* \[{OLD}\]"),
    "type": (change_weights(**{BIAS: np.zeros(OLD)}), rf"is torch.float64 \[{OLD}\], expected torch.float32"),
    "values": (change_weights(**{BIAS: np.zeros(OLD, np.float32)}), "damaged: its weights or embedding.json changed"),
    "dim": (change_spec(dim=3), "damaged: dim, norm or generation"),
    "norm": (change_spec(norm=3.0), "damaged: dim, norm or generation"),
    "sizes": (change_spec("preprocessing", input_dim=NEW + 1), "damaged: its sizes are inconsistent"),
    "head": (change_spec("architecture", head="plain"), r"needs PyTorch: pip install 'nobackfill\[train\]'"),
    "backbone": (change_spec("architecture", backbone="smallnet8"), "needs PyTorch"),
    "options": (change_spec("architecture", head_options={"dim": 10**13, "classes": 2}), "needs PyTorch"),
    "huge": (change_spec("architecture", head_options={"dim": 10**13}), "damaged: dim, norm or generation"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named(tmp_path: Path, name: str) -> None:
    save_encoder(fitted("map"), tmp_path / "run", {})
    damage, message = DAMAGES[name]
    damage(tmp_path / "run")
    with pytest.raises(RunError, match=message) as caught:
        load_arrays(tmp_path / "run")
    assert "\n" not in str(caught.value)


@pytest.mark.train
def test_rows_of_any_norm_are_encoded_as_their_directions(tmp_path: Path) -> None:
    save_encoder(fitted("map"), tmp_path / "run", {})
    rows = vectors()[:4].astype(np.float64)
    for encoder in (load_arrays(tmp_path / "run"), nobackfill.load(tmp_path / "run", "cpu")):
        wanted = encoder.encode(rows)
        for size in (1e-30, 1e25):
            np.testing.assert_allclose(encoder.encode((rows * size).astype(np.float32)), wanted, atol=1e-5)
        rows[2] = 0
        with pytest.raises(DataError, match="vectors: row 2 is zero"):
            encoder.encode(rows)
        rows[2] = 1


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_holds_at_least_one(size: int) -> None:
    with pytest.raises(DataError, match=f"batch_size: expected at least 1, found {size}"):
        fitted("map").encode(vectors(), batch_size=size)
