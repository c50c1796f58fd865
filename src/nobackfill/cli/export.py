"""`nobackfill export`: the encoder of a run as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="Run folder of the model.", show_default=False)],
    out: Annotated[Path, typer.Option(help="File to write: .onnx, or .pt2 for torch.", show_default=False)],
    form: Annotated[str, typer.Option("--format", help="onnx (extra `onnx`), or torch for torch.export.")] = "onnx",
    check: Annotated[bool, typer.Option(help="Run the file and compare it with the model.")] = True,
) -> None:
    """Write the encoder of a run as one file, with a free batch size.

    Its input is the preprocessed sample, of a fitted run the vector as it is; its output is "embedding". What to do to
    a sample first, and which generation it is, stands in the file as JSON under "nobackfill".

    Example: `nobackfill export runs/digits/bt2 --format onnx --out bt2.onnx`
    """
    from nobackfill.interop.export import export_encoder
    from nobackfill.interop.graph import encoder_facts

    made = export_encoder(run, out, form, check=check)
    facts = encoder_facts(made.spec)
    source, checked = facts["input"], "not checked"
    if made.difference is not None:
        checked = f"checked: values within {made.difference:.1e} of the model's"
    typer.echo(
        f"{out}: {source['name']} {source['dtype']} [{', '.join(map(str, source['shape']))}] to embedding "
        f"[batch, {made.spec.dim}], generation {made.spec.generation}; {checked}"
    )
    typer.echo(f"Before it: {facts['before']}")
