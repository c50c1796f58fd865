"""`nobackfill import-clip`: one tower of a CLIP model as a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_clip(
    folder: Annotated[
        Path, typer.Argument(help="Folder of the model: config.json, weights, tokenizer.", show_default=False)
    ],
    tower: Annotated[str, typer.Option(help="Tower: text or image.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Output run folder.", show_default=False)],
    other: Annotated[
        Path | None, typer.Option(help="Run folder of the other tower, to record that they share a space.")
    ] = None,
) -> None:
    """Convert the text or image tower of a CLIP model to a run folder. Reads a local folder; needs the extra `text`.

    A text tower embeds the captions of a data set (`data.captions`), for instance as the old model of an image model.

    Example: `nobackfill import-clip data_store/clip-vit-base-patch32 --tower text --out checkpoints/clip_text`
    """
    import json

    from nobackfill.errors import ConfigError
    from nobackfill.files import atomic_folder, require_new, write_text
    from nobackfill.interop.import_clip import import_tower
    from nobackfill.models import runfolder

    if tower not in ("text", "image"):
        raise ConfigError(f"--tower {tower!r}: expected text or image")
    require_new(out)
    prefixes = runfolder.load_spec(other).as_prefixes() if other else ()
    encoder = import_tower(folder, "text" if tower == "text" else "image", prefixes)
    with atomic_folder(out) as working:
        runfolder.save(encoder, working)
        write_text(
            working / "metrics.json", json.dumps({"imported_from": folder.name, "tower": tower}, indent=2) + "\n"
        )
    typer.echo(
        f"{out}: CLIP's {tower} tower, embedding of {encoder.spec.dim} values, generation {encoder.spec.generation}"
    )
