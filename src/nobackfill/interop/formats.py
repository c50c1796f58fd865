"""The kinds of files that encoders are exported to: how each is written, and run again to be checked."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim

from nobackfill.errors import RunError
from nobackfill.interop.graph import OUTPUT, Facts, Graph

FACTS = "nobackfill"  # the key that the facts stand under
LARGEST = 2**31 - 2**24  # protobuf's bound, less room for the graph itself
OPSET = 18  # what the exporter writes without converting
NOISY = r"(torch|onnx|onnxscript|onnx_ir|copyreg)(\.|$)"


@dataclass(frozen=True)
class Traceable:
    """What is written.

    Attributes:
        graph: the module.
        example: an input of batch size two.
        free: its open dimensions.
        facts: see `encoder_facts`.
    """

    graph: Graph
    example: Tensor
    free: Mapping[int, Dim]
    facts: Facts


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        ending: of its name.
        packages: what writing it takes beyond torch.
        packages_to_run: what running it takes.
        write: puts it at a path.
        open: the file as a function of its input.
    """

    ending: str
    packages: tuple[str, ...]
    packages_to_run: tuple[str, ...]
    write: Callable[[Traceable, Path], None]
    open: Callable[[Path], Callable[[Tensor], Tensor]]


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' warnings of their own deprecated calls, which say nothing of the model."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", category=category, module=NOISY)
        yield


def _write_onnx(one: Traceable, path: Path) -> None:
    import onnx  # an extra

    size = sum(tensor.nbytes for tensor in one.graph.state_dict().values())
    if size > LARGEST:
        raise RunError(f"its weights take {size / 2**30:.1f} GiB, and an ONNX file holds at most 2; export it as torch")
    program: Any = torch.onnx.export(
        one.graph,
        (one.example,),
        dynamo=True,
        dynamic_shapes=(dict(one.free),),
        input_names=[one.facts["input"]["name"]],
        opset_version=OPSET,
        verbose=False,
    )
    _tidy(program.model.graph)
    program.model.metadata_props[FACTS] = json.dumps(one.facts)
    onnx.save_model(program.model_proto, path)


def _tidy(graph: Any) -> None:
    """Name the output, and drop the stack traces of each node: they tell the folders of this machine."""
    values = list(graph.initializers.values())
    for node in graph.all_nodes():
        node.metadata_props.clear()
        values.extend(node.outputs)
    for value in values:
        if value.name == OUTPUT:  # torch's own name for what `aten.embedding` gives; two of a name are no valid graph
            value.name = f"{OUTPUT}_inside"
    graph.outputs[0].name = OUTPUT


def _open_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime  # an extra

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    return lambda inputs: torch.from_numpy(session.run([OUTPUT], {source.name: inputs.numpy()})[0])


def _write_torch(one: Traceable, path: Path) -> None:
    program = torch.export.export(one.graph, (one.example,), dynamic_shapes=(dict(one.free),))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names the folders of this machine
    with path.open("wb") as file:  # by its path the archive inside would bear a passing name
        torch.export.save(program, file, extra_files={FACTS: json.dumps(one.facts)})


def _open_torch(path: Path) -> Callable[[Tensor], Tensor]:
    program: Callable[[Tensor], Tensor] = torch.export.load(path).module()
    return program


FORMATS = {
    "onnx": Format(".onnx", ("onnx", "onnxscript"), ("onnxruntime",), _write_onnx, _open_onnx),
    "torch": Format(".pt2", (), (), _write_torch, _open_torch),
}
