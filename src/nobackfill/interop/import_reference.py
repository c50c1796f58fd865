"""Checkpoints of the BT² research code as encoders of this package.

Reads its `.checkpoint` files (a pickled dict with `model_state_dict`) with torch's weights-only loader, and its
TorchScript `.pt` exports by their tensors alone: the archive's pickles pass an unpickler that rebuilds tensors and
ignores the archive's code, which is never compiled or run.
"""

from __future__ import annotations

import io
import math
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from nobackfill.data.preprocessing import Preprocessing
from nobackfill.errors import ConfigError, RunError, one_line
from nobackfill.models.encoder import Encoder
from nobackfill.models.finished import finished_encoder
from nobackfill.models.heads import BasisTransformHead, Head, PlainHead
from nobackfill.models.network import Network
from nobackfill.models.reference import PREFIX, build_reference
from nobackfill.models.spec import OlderSpace

ReferenceMethod = Literal["independent", "bct", "bt2"]
METHODS: dict[str, ReferenceMethod] = {"independent": "independent", "bct": "bct", "bt2": "bt2"}
VIT = "vit_b16"
MAX_TREE = 2**26  # bytes of the pickle that names the tensors of a TorchScript archive
MAX_STORAGE = 2**32  # bytes of one tensor in a TorchScript archive


@dataclass(frozen=True)
class ReferenceModel:
    """What a checkpoint of the research code does not say of itself.

    Attributes:
        arch: `resnet50`, `alexnet`, … (`nobackfill.models.reference`).
        method: how it was trained; BCT models are built like independent ones.
        embedding_dim: d.
        old_dim, extra_dim, scale: BT²: d_o, k and C.
    """

    arch: str
    method: ReferenceMethod
    embedding_dim: int
    old_dim: int = 0
    extra_dim: int = 32
    scale: float = 2.0


def import_reference(
    path: Path, model: ReferenceModel, preprocessing: Preprocessing, prefixes: tuple[OlderSpace, ...] = ()
) -> Encoder:
    """The encoder of a checkpoint: the same embeddings as the research code's model in evaluation mode.

    Raises:
        RunError: if the file is not such a checkpoint, or a tensor is missing, surplus or misshapen (named).
    """
    tensors = {key.removeprefix("module."): value for key, value in read_state(path).items()}
    renamed = _rename(path, tensors, model)
    classes = renamed.get("head.classifier.weight")
    if classes is None or classes.ndim != 2:
        raise RunError(f"{path}: no classifier in it ({_CLASSIFIER[model.method == 'bt2']}); is --method right?")
    head = _head(model, len(classes))
    network = Network(build_reference(PREFIX + model.arch, head.in_features), head, PREFIX + model.arch)
    head.fold()
    expected = network.state_dict()
    # Counters of batch norm came later than some checkpoints; they do not enter an embedding.
    counters = {name: value for name, value in expected.items() if name.endswith("num_batches_tracked")}
    renamed = {**counters, **renamed}
    for name in sorted({*expected, *renamed}):
        if name not in renamed:
            raise RunError(f"{path}: tensor for {name!r} is missing; are --arch and --method right?")
        if name not in expected:
            raise RunError(f"{path}: unexpected tensor {name!r}; are --arch and --method right?")
        if renamed[name].shape != expected[name].shape:
            shape, wanted = list(renamed[name].shape), list(expected[name].shape)
            raise RunError(f"{path}: tensor for {name!r} has shape {shape}, expected {wanted}; are the dims right?")
        if not renamed[name].isfinite().all():
            raise RunError(f"{path}: tensor for {name!r} holds values that are not finite")
        if name.startswith("head.basis.") and not _is_orthogonal(renamed[name]):
            raise RunError(f"{path}: tensor for {name!r} is not an orthogonal matrix")
    network.load_state_dict(renamed)
    return finished_encoder(network, model.method, preprocessing, prefixes)


def read_state(path: Path) -> dict[str, Tensor]:
    """All tensors of a `.checkpoint` or TorchScript file by name; runs no code of the file."""
    if not path.is_file():
        raise RunError(f"{path}: no such checkpoint file")
    try:
        if zipfile.is_zipfile(path) and _is_torchscript(path):
            return _read_torchscript(path)
        with warnings.catch_warnings():  # torch's own, of sparse tensors, which are refused below
            warnings.filterwarnings("ignore", message="Validating sparse tensor invariants", category=UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a reader fed with a stranger's bytes may raise anything
        # torch's own words would advise to load the file with its code: not to be passed on.
        advice = "weights_only" in str(error)
        reason = "it holds something else" if advice else one_line(error)
        raise RunError(f"{path}: not a checkpoint of tensors only: {reason}") from error
    state = content.get("model_state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state:
        raise RunError(f"{path}: expected a dict with 'model_state_dict', found {type(content).__name__}")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise RunError(f"{path}: expected tensors by name, found {type(value).__name__} at {name!r}")
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            kind = "quantized" if value.is_quantized else "meta" if value.is_meta else str(value.layout)
            raise RunError(f"{path}: tensor {name!r} is {kind}, expected one that holds all its values; save it dense")
    return dict(state)


_CLASSIFIER = ("fc.weight or output_fc.weight", "fc_out.weight")


def _head(model: ReferenceModel, classes: int) -> Head:
    vit = model.arch == VIT
    if model.method != "bt2":
        return PlainHead(model.embedding_dim, classes, classifier_bias=vit)
    if model.old_dim < 1:
        raise ConfigError("--old-dim: a BT² checkpoint needs the size of its old embedding")
    return BasisTransformHead(
        model.embedding_dim,
        model.extra_dim,
        model.old_dim,
        model.scale,
        classes,
        rectify=not vit,
        classifier_bias=vit,
    )


def _rename(path: Path, tensors: dict[str, Tensor], model: ReferenceModel) -> dict[str, Tensor]:
    """The research code's names to ours; 1×1 convolutions to matrices; parametrized P and B to the matrices."""
    unused: tuple[str, ...] = ()
    if model.method == "bt2":
        modules = {
            "fc_out": "head.classifier",
            "fc3": "head.extra",
            "fc2": "head.extra",
            "fc1": "backbone.embedding_fc",
        }
        unused = ("resnet.fc.", "ortholinear_old.")  # built by the research code, never called
    else:
        modules = {"fc": "head.classifier", "output_fc": "head.classifier"}
    renamed = {}
    for name, value in _folded(path, tensors).items():
        module, _, rest = name.partition(".")
        if name.startswith(unused):
            continue
        if module in modules:
            matrix = value.flatten(1) if module in ("fc", "fc3") and value.ndim == 4 and rest == "weight" else value
            renamed[f"{modules[module]}.{rest}"] = matrix
        elif module in ("ortholinear_p", "ortholinear_old2"):
            renamed[f"head.basis.{'P' if module == 'ortholinear_p' else 'B'}.{rest}"] = value
        elif module == "resnet" and model.method == "bt2":
            renamed[f"backbone.{rest.removeprefix('alexnet.')}"] = value
        else:
            renamed[f"backbone.{name.removeprefix('alexnet.')}"] = value
    return renamed


def _folded(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Orthogonal parametrizations replaced by the matrix that torch makes of them."""
    folded = dict(tensors)
    marker = ".parametrizations.weight.original"
    for name in [name for name in tensors if name.endswith(marker)]:
        module = name.removesuffix(marker)
        own = {key: folded.pop(key) for key in list(folded) if key.startswith(f"{module}.parametrizations.")}
        rows, columns = own[name].shape if own[name].ndim == 2 else (0, 0)
        try:
            layer = orthogonal(nn.Linear(columns, rows, bias=False))
            layer.load_state_dict({key.removeprefix(f"{module}."): value for key, value in own.items()})
        except (RuntimeError, ValueError, IndexError) as error:
            reason = one_line(error)
            raise RunError(f"{path}: {module!r} is not an orthogonal parametrization of torch: {reason}") from error
        folded[f"{module}.weight"] = _weight(layer).detach()
    return folded


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)  # noqa: S101 (torch types every attribute of a module as one or the other)
    return weight


def _is_orthogonal(matrix: Tensor) -> bool:
    return bool((matrix @ matrix.T - torch.eye(len(matrix))).abs().max() < 1e-3)


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.partition("/")[2] == "constants.pkl" for name in archive.namelist())


def _read_torchscript(path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
        module = _ScriptTensors(archive, root).load()
    state: dict[str, Tensor] = {}
    _collect(module, "", state)
    return state


def _collect(module: object, prefix: str, state: dict[str, Tensor]) -> None:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            state[f"{prefix}{name}"] = value
        elif isinstance(value, _ScriptModule):
            _collect(value, f"{prefix}{name}.", state)


class _ScriptModule:
    """Stands in for every class of the archive: keeps its attributes, has none of its code."""

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            vars(self).update({str(name): value for name, value in state.items()})


class _ScriptTensors(pickle.Unpickler):
    """Rebuilds tensors and the tree of modules that holds them; refuses anything else."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        tree = archive.getinfo(f"{root}/data.pkl")
        if tree.file_size > MAX_TREE:
            raise pickle.UnpicklingError(f"a tree of {tree.file_size} bytes is too large")
        super().__init__(io.BytesIO(archive.read(tree)))
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str) -> object:
        if module.startswith("__torch__"):
            return _ScriptModule
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _strided
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch.jit._pickle":
            return lambda *_: None  # lists of plain numbers, of no use here
        raise pickle.UnpicklingError(f"it names {module}.{name}; only tensors are allowed")

    def persistent_load(self, key: tuple[str, torch.dtype, str, str, int]) -> Tensor:
        _, dtype, number, _, _ = key
        info = self.archive.getinfo(f"{self.root}/data/{int(number)}")
        if info.file_size > MAX_STORAGE:
            raise pickle.UnpicklingError(f"a tensor of {info.file_size} bytes is too large")
        return torch.frombuffer(bytearray(self.archive.read(info)), dtype=dtype)


def _strided(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    if math.prod(size) > storage.numel():  # strides of zero would let a small file fill the memory
        raise pickle.UnpicklingError(f"a tensor of {list(size)} does not fit its {storage.numel()} stored values")
    return storage.as_strided(size, stride, offset).clone()


_STORAGES = {"FloatStorage": torch.float32, "HalfStorage": torch.float16, "LongStorage": torch.int64}
