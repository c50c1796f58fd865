"""An encoder as one file for other programs, run and compared with the encoder before it appears."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nobackfill.data.preprocessing import VectorPreprocessing
from nobackfill.errors import ConfigError, RunError, nearest, one_line, require
from nobackfill.files import atomic_file
from nobackfill.interop.formats import FORMATS, Traceable, quiet
from nobackfill.interop.graph import Graph, encoder_facts, free_dimensions, random_inputs
from nobackfill.models.encoder import Encoder
from nobackfill.models.runfolder import load
from nobackfill.models.spec import EmbeddingSpec
from nobackfill.models.static import StaticBackbone

TOLERANCE = 1e-4
STATIC = (
    "no graph that leaves the number of texts open takes the mean of as many token vectors as each has; use "
    "--format sentence-transformers"
)


@dataclass(frozen=True)
class Exported:
    """A file written.

    Attributes:
        path: the file.
        spec: of the encoder in it.
        difference: greatest absolute difference from the encoder's values on random inputs; None: not checked.
    """

    path: Path
    spec: EmbeddingSpec
    difference: float | None


def export_encoder(run: str | Path, out: str | Path, form: str = "onnx", *, check: bool = True) -> Exported:
    """Write the encoder of a run as one file, whole or not at all.

    Its one input is what `Encoder.forward` takes, but vectors of any norm; the batch size is free, as is the number of
    tokens. Its one output is "embedding", float32 [n, dim]. What comes before the input stands in the file as JSON
    (`encoder_facts`): in ONNX's metadata under "nobackfill", in a .pt2 as the extra file of that name.

    Args:
        run: run folder.
        out: file to write, which may exist: .onnx, or .pt2 for "torch".
        form: "onnx", or "torch" for torch.export.
        check: run the file on random inputs of two batch sizes, and compare.

    Raises:
        ConfigError: for another form or ending.
        MissingPackageError: where the extra `onnx` is missing.
        RunError: if the run is not whole, its backbone cannot be traced, its weights exceed an ONNX file's 2 GiB, or
            the file does not give the encoder's values within `TOLERANCE`; nothing is written then.
    """
    out = Path(out)
    if form not in FORMATS:
        raise ConfigError(f"format {form!r}: {nearest(form, FORMATS)}")
    layout = FORMATS[form]
    if out.suffix != layout.ending or out.is_dir():
        raise ConfigError(f"{out}: expected a file name that ends with {layout.ending}")
    require(*layout.packages, *(layout.packages_to_run if check else ()), what=f"export to {form}")
    encoder = load(run, "cpu")
    if not isinstance(encoder, Encoder):
        raise ConfigError(f"{run}: export to {form} takes run folders; this is a model of another library already")
    spec = encoder.spec
    subject = Traceable(Graph(encoder), random_inputs(encoder, 2), free_dimensions(spec), encoder_facts(spec))
    difference = None
    with atomic_file(out) as temporary, quiet():
        try:
            layout.write(subject, temporary)
            if check:
                difference = _difference(encoder, layout.open(temporary))
        except Exception as error:  # the tracer meets a stranger's backbone
            static = isinstance(encoder.network.backbone, StaticBackbone)
            raise RunError(f"{run}: cannot be exported to {form}: {STATIC if static else _reason(error)}") from error
        if difference is not None and not difference <= TOLERANCE:  # nor NaN
            raise RunError(
                f"{run}: not exported: its {form} file gives values that differ by up to {difference:.2g} from the "
                f"encoder's, more than {TOLERANCE:g}"
            )
    return Exported(out, spec, difference)


@torch.inference_mode()
def _difference(encoder: Encoder, exported: Callable[[Tensor], Tensor]) -> float:
    """Greatest absolute difference over a batch of one and one of five."""
    settings, greatest = encoder.spec.preprocessing, torch.zeros(())
    for count in (1, 5):
        inputs = random_inputs(encoder, count, seed=count)
        seen = settings.normalize(inputs) if isinstance(settings, VectorPreprocessing) else inputs
        expected, actual = encoder(seen), exported(inputs)
        if actual.shape != expected.shape:
            raise RunError(f"a batch of {count} gives {list(actual.shape)}, expected {list(expected.shape)}")
        greatest = torch.maximum(greatest, (actual - expected).abs().max())  # which keeps NaN
    return float(greatest)


def _reason(error: BaseException) -> str:
    """One line of the error at the bottom: what the exporters wrap it in is pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error) or type(error).__name__
