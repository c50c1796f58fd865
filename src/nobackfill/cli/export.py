"""`nobackfill export`: the encoder of a run as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="Run folder of the model.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Output: .onnx, .pt2 for torch, or a folder.", show_default=False)],
    form: Annotated[
        str,
        typer.Option(
            "--format", help="onnx (extra `onnx`), torch for torch.export, or sentence-transformers (a folder)."
        ),
    ] = "onnx",
    check: Annotated[
        bool, typer.Option(help="Run the exported file and compare its embeddings with the model's.")
    ] = True,
    base: Annotated[
        Path | None,
        typer.Option(help="sentence-transformers, for a fitted run: the SentenceTransformer whose vectors it takes."),
    ] = None,
) -> None:
    """Export the encoder of a run to one file, with a dynamic batch size; or to a SentenceTransformer folder.

    The input is the preprocessed sample (for a fitted run, the vector itself); the output is "embedding". The file
    describes its preprocessing and generation as JSON under "nobackfill".

    Example: `nobackfill export runs/digits/bt2 --format onnx --out bt2.onnx`

    Example: `nobackfill export fits/upgrade --format sentence-transformers --base sentence:NEW --out upgraded`
    """
    from nobackfill.errors import ConfigError
    from nobackfill.interop.sentence_export import FORM, export_sentence_transformer

    if form == FORM:
        folder = export_sentence_transformer(run, out, base)
        typer.echo(
            f"{out}: SentenceTransformer of {folder.spec.dim} values, generation {folder.spec.generation}; checked: "
            f"embeddings within {folder.difference:.1e} of the model's"
        )
        return
    if base is not None:
        raise ConfigError(f"--base: goes with --format {FORM}; leave it out")
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
