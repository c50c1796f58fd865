"""`nobackfill import-text`: a text model of another package as a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_text(
    model: Annotated[
        str, typer.Argument(help="sentence:FOLDER (SentenceTransformer) or static:FOLDER.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Output run folder.", show_default=False)],
) -> None:
    """Convert a text model to a run folder, for instance as the old model of a run. Needs the extra `text`.

    Reads a local folder: a SentenceTransformer, or a static model of model2vec, StaticEmbedding or WordLlama's package.

    Example: `nobackfill import-text sentence:models/all-MiniLM-L6-v2 --out runs/text/minilm`
    """
    import json

    from nobackfill.files import atomic_folder, require_new, write_text
    from nobackfill.interop import import_text as interop
    from nobackfill.models import runfolder

    require_new(out)
    encoder = interop.import_text(model)
    with atomic_folder(out) as working:
        runfolder.save(encoder, working)
        kind, _, place = model.partition(":")
        write_text(
            working / "metrics.json", json.dumps({"imported_from": f"{kind}:{Path(place).name}"}, indent=2) + "\n"
        )
    typer.echo(f"{out}: embedding of {encoder.spec.dim} values, generation {encoder.spec.generation}")
