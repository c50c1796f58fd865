"""`nobackfill export`: the encoder of a run as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="Run folder of the model.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Output file: .onnx, or .pt2 for torch.", show_default=False)],
    form: Annotated[str, typer.Option("--format", help="onnx (extra `onnx`), or torch for torch.export.")] = "onnx",
    check: Annotated[
        bool, typer.Option(help="Run the exported file and compare its embeddings with the model's.")
    ] = True,
) -> None:
    """Export the encoder of a run to one file, with a dynamic batch size.

    The input is the preprocessed sample (for a fitted run, the vector itself); the output is "embedding". The file
    describes its preprocessing and generation as JSON under "nobackfill".

    Example: `nobackfill export runs/digits/bt2 --format onnx --out bt2.onnx`
    """
    from nobackfill.interop.export import export_encoder
    from nobackfill.interop.graph import encoder_facts

    made = export_encoder(run, out, form, check=check)
    facts = encoder_facts(made.spec)
    source, checked = facts["input"], "not checked"
    if made.difference is not None:
        checked = f"checked: embeddings within {made.difference:.1e} of the model's"
    typer.echo(
        f"{out}: {source['name']} {source['dtype']} [{', '.join(map(str, source['shape']))}] to embedding "
        f"[batch, {made.spec.dim}], generation {made.spec.generation}; {checked}"
    )
    typer.echo(f"Preprocessing: {facts['before']}")
