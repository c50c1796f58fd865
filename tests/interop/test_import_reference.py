"""Checkpoints of the BT² research code, made here with its parameter names, in every form it writes."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, relu
from torch.nn.utils.parametrizations import orthogonal

from nobackfill.cli.app import run
from nobackfill.data.preprocessing import Preprocessing
from nobackfill.errors import NobackfillError
from nobackfill.interop.import_reference import ReferenceModel, import_reference
from nobackfill.models import build_backbone, load
from nobackfill.models.reference import REFERENCE, build_reference

D, K, OLD, CLASSES = 16, 4, 12, 10
PREPROCESSING = Preprocessing(image_size=32)
IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
PLAIN = ReferenceModel("resnet18", "independent", D)
BT2 = ReferenceModel("resnet18", "bt2", D, OLD, K, 2.0)
State = dict[str, Tensor]


def recorded_keys() -> dict[str, dict[str, list[int]]]:
    models: dict[str, dict[str, list[int]]] = {}
    for line in (Path(__file__).parent / "reference_keys.txt").read_text().splitlines():
        if line.startswith("["):
            keys = models.setdefault(line.strip("[]"), {})
        elif not line.startswith("#"):
            name, shape = line.split()
            keys[name] = [] if shape == "-" else [int(size) for size in shape.split("x")]
    return models


def backbone_state(out_features: int) -> tuple[nn.Module, State]:
    torch.manual_seed(0)
    backbone = build_reference("reference/resnet18", out_features)
    backbone(torch.randn(8, 3, 32, 32))  # moves the running statistics of batch norm
    return backbone.eval(), {name: value.clone() for name, value in backbone.state_dict().items()}


def plain() -> tuple[State, Tensor]:
    """State of an independent model, and its embeddings by the equations."""
    backbone, state = backbone_state(D)
    with torch.no_grad():
        return {**state, "fc.weight": torch.randn(CLASSES, D, 1, 1)}, normalize(backbone(IMAGES))


def bt2(parametrized: bool) -> tuple[State, Tensor]:
    """State of a BT² model, P and B parametrized or folded, and its embeddings by the equations."""
    backbone, state = backbone_state(D + OLD)
    extra = nn.Linear(D + OLD, OLD)
    p, b = (orthogonal(nn.Linear(size, size, bias=False)) for size in (D, OLD))
    for layer in (p, b):  # away from the starting point, as after training
        with torch.no_grad():
            layer.parametrizations.weight.original.add_(0.3 * torch.randn_like(layer.parametrizations.weight.original))  # type: ignore[union-attr, operator, arg-type]
    with torch.no_grad():
        h = backbone(IMAGES)
        f = normalize(h[:, :D])
        o = normalize(normalize(extra(relu(h)))[:, :K])
        z = torch.cat([o, p(2.0 * f)], dim=1)
        expected = torch.cat([b(z[:, :OLD]), z[:, OLD:]], dim=1)
        full = {f"resnet.{name}": value for name, value in state.items()}
        full |= {"resnet.fc.weight": torch.randn(1000, D + OLD, 1, 1), "fc_out.weight": torch.randn(CLASSES, D)}
        full |= {"fc3.weight": extra.weight[:, :, None, None], "fc3.bias": extra.bias}
        for name, layer in (("ortholinear_p", p), ("ortholinear_old2", b)):
            tensors: State = layer.state_dict()
            if not parametrized:
                tensors = {"weight": layer(torch.eye(D if name == "ortholinear_p" else OLD)).T}
            full |= {f"{name}.{key}": value for key, value in tensors.items()}
    return {name: value.detach() for name, value in full.items()}, expected


class Tree(nn.Module):
    """Parameters under dotted names, for a TorchScript file like the research code's exports."""

    def forward(self, images: Tensor) -> Tensor:
        return images


def script(state: State, path: Path) -> None:
    root = Tree()
    for name, value in state.items():
        *parents, last = name.split(".")
        module: nn.Module = root
        for parent in parents:
            if parent not in dict(module.named_children()):
                module.add_module(parent, Tree())
            module = module.get_submodule(parent)
        module.register_buffer(last, value.contiguous())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; the files stay
        torch.jit.save(torch.jit.script(root), str(path))


def save_forms() -> dict[str, Callable[[State, Path], None]]:
    return {
        "checkpoint": lambda state, path: torch.save({"epoch": 3, "model_state_dict": state, "loss": 0.5}, path),
        "module.": lambda state, path: torch.save(
            {"model_state_dict": {f"module.{name}": value for name, value in state.items()}}, path
        ),
        "bare": torch.save,
        "no counters": lambda state, path: torch.save(
            {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}, path
        ),
        "torchscript": script,
    }


@pytest.mark.parametrize("form", save_forms())
@pytest.mark.parametrize("kind", ["plain", "bt2 parametrized", "bt2 folded"])
def test_every_form_gives_the_embeddings_of_the_equations(tmp_path: Path, kind: str, form: str) -> None:
    state, expected = plain() if kind == "plain" else bt2(kind.endswith("parametrized"))
    save_forms()[form](state, tmp_path / "file")
    encoder = import_reference(tmp_path / "file", PLAIN if kind == "plain" else BT2, PREPROCESSING)
    with torch.inference_mode():
        assert (encoder(IMAGES) - expected).abs().max() <= 1e-5
    assert encoder.spec.dim == (D if kind == "plain" else D + K)


@pytest.mark.parametrize("name", list(recorded_keys()))
def test_names_and_shapes_are_those_of_the_research_code(name: str) -> None:
    keys = recorded_keys()[name]
    method, _, arch = name.rpartition("-")
    features = 256 if method else 128
    found = build_reference(f"reference/{arch}", features).state_dict()
    own = {"fc", "fc3", "fc_out", "ortholinear_p", "ortholinear_old2"}
    expected = {
        key.removeprefix("resnet.").removeprefix("alexnet."): shape
        for key, shape in keys.items()
        if key.split(".")[0] not in own and not key.startswith("resnet.fc.")
    }
    assert {key: list(value.shape) for key, value in found.items()} == expected


def test_every_reference_backbone_is_known() -> None:
    names = {"resnet18", "resnet50", "resnet101", "wide_resnet50_2", "wide_resnet101_2"}
    names |= {"alexnet", "vgg13_bn", "vgg19_bn", "vit_b16"}
    assert set(REFERENCE) == {f"reference/{name}" for name in names}
    with pytest.raises(NobackfillError, match="unknown name 'reference/resnet5'; did you mean 'reference/resnet50'"):
        build_backbone("reference/resnet5", 4)
    with pytest.raises(NobackfillError, match="starts from random weights"):
        build_backbone("reference/resnet18", 4, pretrained=True)


class Evil:
    def __reduce__(self) -> Any:
        return (os.system, ("touch owned",))


def changed(**values: Tensor | None) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        state = {**bt2(parametrized=True)[0], **{key.replace("__", "."): value for key, value in values.items()}}
        torch.save({key: value for key, value in state.items() if value is not None}, path)

    return write


def evil_script(path: Path) -> None:
    import pickle

    script(plain()[0], path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, pickle.dumps(Evil()) if name.endswith("/data.pkl") else data)


P = "ortholinear_p__parametrizations__weight__"
NOT_TENSORS = "not a checkpoint of tensors only"
MALFORMED: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda _: None, "no such checkpoint file"),
    "text": (lambda path: path.write_text("hello"), NOT_TENSORS),
    "cut": (
        lambda path: (changed()(path), path.write_bytes(path.read_bytes()[:5000])),
        NOT_TENSORS,
    ),
    "code in a pickle": (lambda path: torch.save({"model_state_dict": Evil()}, path), NOT_TENSORS),
    "code in a script": (evil_script, "not a checkpoint of tensors only: it names"),
    "a list": (lambda path: torch.save([1], path), "expected a dict with 'model_state_dict', found list"),
    "no tensors": (lambda path: torch.save({"model_state_dict": {"a": 1}}, path), "found int at 'a'"),
    "sparse": (changed(fc3__bias=torch.eye(OLD)[0].to_sparse()), "tensor 'fc3.bias' is torch.sparse_coo, expected one"),
    "meta": (changed(fc3__bias=torch.empty(OLD, device="meta")), "tensor 'fc3.bias' is meta, expected one"),
    "missing": (changed(fc3__bias=None), r"tensor for 'head.extra.bias' is missing"),
    "surplus": (changed(surprise=torch.zeros(1)), r"unexpected tensor 'backbone.surprise'"),
    "shape": (changed(fc3__bias=torch.zeros(3)), r"tensor for 'head.extra.bias' has shape \[3\], expected \[12\]"),
    "classifier": (changed(fc_out__weight=None), r"no classifier in it \(fc_out.weight\)"),
    "not finite": (changed(fc3__bias=torch.full((OLD,), torch.nan)), "holds values that are not finite"),
    "not orthogonal": (
        lambda path: torch.save({**bt2(parametrized=False)[0], "ortholinear_old2.weight": 2 * torch.eye(OLD)}, path),
        "'head.basis.B.weight' is not an orthogonal matrix",
    ),
    "parametrization": (changed(**{f"{P}0__base": None}), "'ortholinear_p' is not an orthogonal parametrization"),
    "wrong method": (lambda path: torch.save(plain()[0], path), r"no classifier in it"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    write, message = MALFORMED[name]
    write(tmp_path / "file.checkpoint")
    with pytest.raises(NobackfillError, match=message) as caught:
        import_reference(tmp_path / "file.checkpoint", BT2, PREPROCESSING)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "owned").exists()


def test_the_verb_writes_a_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model_state_dict": plain()[0]}, "old.checkpoint")
    torch.save({"model_state_dict": bt2(parametrized=True)[0]}, "new.checkpoint")
    size = ["--arch", "resnet18", "--image-size", "32"]
    assert run(["import-reference", "old.checkpoint", *size, "--embedding-dim", str(D), "--out", "old"]) == 0
    dims = ["--method", "bt2", "--embedding-dim", str(D), "--old-dim", str(OLD), "--extra-dim", str(K)]
    assert run(["import-reference", "new.checkpoint", *size, *dims, "--out", "new"]) == 0
    capsys.readouterr()
    with torch.inference_mode():
        assert (load("new")(IMAGES) - bt2(parametrized=True)[1]).abs().max() <= 1e-5
    for more, message in (
        (["--out", "new"], "new: this output folder exists and is not empty"),
        (["--out", "x", "--old", "old"], f"old has an embedding of {D}, but --old-dim says {OLD}"),
        (["--out", "x", "--old", "gone"], "gone: no such run folder"),
        (["--out", "x", "--method", "btt"], "unknown method 'btt'; did you mean"),
        (["--out", "x", "--scale", "0"], "model.scale: expected a finite value above 0"),
        (["--out", "x", "--arch", "resnet34"], "--arch: unknown architecture 'resnet34'; did you mean 'resnet"),
        (["--out", "x", "--method", "independent"], "--old-dim: only a BT² model has it, and --method is independent"),
    ):
        assert run(["import-reference", "new.checkpoint", *size, *dims, *more]) == 2
        assert message in capsys.readouterr().err
    assert not Path("x").exists()


def test_an_imported_bct_model_records_what_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(plain()[0], "a.checkpoint")
    arguments = ["import-reference", "a.checkpoint", "--arch", "resnet18", "--embedding-dim", str(D), "--out"]
    assert run([*arguments, "old"]) == 0
    assert run([*arguments, "new", "--method", "bct", "--old", "old"]) == 0
    assert load("new").spec.compatible_with(load("old").spec)
    assert run([*arguments, "none", "--old", "old"]) == 2


def test_the_normalization_of_other_checkpoints_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(plain()[0], "a.checkpoint")
    size = ["--arch", "resnet18", "--image-size", "32", "--embedding-dim", str(D)]
    arguments = ["import-reference", "a.checkpoint", *size]
    assert run([*arguments, "--mean", "0.5", "--std", "0.5,0.25,0.5", "--out", "half"]) == 0
    assert run([*arguments, "--out", "usual"]) == 0
    encoder = load("half", "cpu")
    assert isinstance(encoder.spec.preprocessing, Preprocessing)
    assert (encoder.spec.preprocessing.mean, encoder.spec.preprocessing.std) == ((0.5, 0.5, 0.5), (0.5, 0.25, 0.5))
    assert encoder.spec.fingerprint != load("usual", "cpu").spec.fingerprint
    pixels = np.random.default_rng(0).integers(256, size=(3, 32, 32, 3), dtype=np.uint8)
    views = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / torch.tensor([0.5, 0.25, 0.5])[:, None, None]
    with torch.inference_mode():
        assert np.abs(encoder.encode(pixels) - encoder(views).numpy()).max() <= 1e-5
    for option, value in (
        ("--mean", "0.5,0.5"),
        ("--mean", "128"),
        ("--mean", "grey"),
        ("--std", "0"),
        ("--std", "nan"),
    ):
        assert run([*arguments, option, value, "--out", "x"]) == 2
        assert f"{option} '{value}': expected one number or three" in capsys.readouterr().err
    assert not Path("x").exists()
