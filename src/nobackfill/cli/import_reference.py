"""`nobackfill import-reference`: a checkpoint of the BT² research code as a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nobackfill.cli.panels import ADVANCED


def import_reference(
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint: .checkpoint or TorchScript .pt file.", show_default=False)
    ],
    arch: Annotated[
        str, typer.Option(help="Architecture: resnet50, alexnet, vgg13_bn, vit_b16, …", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Output run folder.", show_default=False)],
    embedding_dim: Annotated[int, typer.Option(min=1, help="Embedding size d.")] = 128,
    method: Annotated[str, typer.Option(help="How it was trained: independent, bct or bt2.")] = "independent",
    old_dim: Annotated[int | None, typer.Option(min=1, help="BT²: old embedding size. Default: 128.")] = None,
    extra_dim: Annotated[
        int | None, typer.Option(min=0, help="BT²: number of added dimensions k. Default: 32.")
    ] = None,
    scale: Annotated[float | None, typer.Option(min=0, help="BT²: constant C. Default: 2.")] = None,
    old: Annotated[
        Path | None, typer.Option(help="Run folder of the old model it is compatible with, to record that.")
    ] = None,
    image_size: Annotated[
        int, typer.Option(min=1, help="Side of the square network input, in pixels.", rich_help_panel=ADVANCED)
    ] = 224,
    resize: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Resize the shorter side to this, then crop the centre (ImageNet: 256). Default: stretch.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="Pixel mean (0 to 1) used in training: one number, or R,G,B.")
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="Pixel standard deviation, likewise. Default of both: ImageNet's.")
    ] = None,
) -> None:
    """Convert a checkpoint of the BT² research code to a run folder with the same embeddings.

    Only tensors are read, even from TorchScript files: no code in the file is compiled or run. The embeddings are right
    only if images are normalised as in training: Google's ViTs need --mean 0.5 --std 0.5.

    Example: `nobackfill import-reference new.pt.checkpoint --arch resnet50 --method bt2 --out runs/published-bt2`
    """
    import json

    from nobackfill.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
    from nobackfill.errors import ConfigError, nearest
    from nobackfill.files import atomic_folder, require_new, write_text
    from nobackfill.interop.import_reference import METHODS, ReferenceModel
    from nobackfill.interop.import_reference import import_reference as read
    from nobackfill.models import runfolder
    from nobackfill.models.reference import PREFIX, REFERENCE

    if method not in METHODS:
        raise ConfigError(f"--method: unknown method {method!r}; {nearest(method, METHODS)}")
    if PREFIX + arch not in REFERENCE:
        known = [name.removeprefix(PREFIX) for name in REFERENCE]
        raise ConfigError(f"--arch: unknown architecture {arch!r}; {nearest(arch, known)}")
    for option, value in (("--old-dim", old_dim), ("--extra-dim", extra_dim), ("--scale", scale)):
        if value is not None and method != "bt2":
            raise ConfigError(f"{option}: only a BT² model has it, and --method is {method}; leave it out")
    old_dim = 128 if old_dim is None else old_dim
    extra_dim, scale = 32 if extra_dim is None else extra_dim, 2.0 if scale is None else scale
    require_new(out)
    preprocessing = Preprocessing(
        image_size=image_size,
        resize=resize,
        mean=_channels("--mean", mean) or IMAGENET_MEAN,
        std=_channels("--std", std) or IMAGENET_STD,
    )
    prefixes = runfolder.load_spec(old).as_prefixes() if old else ()
    if prefixes and method == "independent":
        raise ConfigError(
            "--old: an independent model is compatible with no old model; leave it out, or give --method bct or bt2"
        )
    if prefixes and prefixes[0].dim != (old_dim if method == "bt2" else min(embedding_dim, prefixes[0].dim)):
        wanted = f"--old-dim says {old_dim}" if method == "bt2" else f"--embedding-dim says {embedding_dim}"
        raise ConfigError(f"--old: {old} has an embedding of {prefixes[0].dim}, but {wanted}")
    model = ReferenceModel(arch, METHODS[method], embedding_dim, old_dim, extra_dim, scale)
    encoder = read(checkpoint, model, preprocessing, prefixes)
    with atomic_folder(out) as working:
        runfolder.save(encoder, working)
        source = {"imported_from": checkpoint.name, "arch": arch, "method": method}
        write_text(working / "metrics.json", json.dumps(source, indent=2) + "\n")
    typer.echo(f"{out}: {arch}, embedding of {encoder.spec.dim} values, generation {encoder.spec.generation}")


def _channels(option: str, text: str | None) -> tuple[float, float, float] | None:
    """One number for all channels, or three; within 0 to 1, a deviation above 0."""
    from nobackfill.errors import ConfigError

    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    lowest = 1e-6 if option == "--std" else 0.0
    if len(values) not in (1, 3) or not all(lowest <= value <= 1 for value in values):
        example = "0.5 or 0.229,0.224,0.225" if option == "--std" else "0.5 or 0.485,0.456,0.406"
        raise ConfigError(f"{option} {text!r}: expected one number or three between 0 and 1, for example {example}")
    red, green, blue = values * (3 // len(values))
    return red, green, blue
