"""`--data` on the command line: which labelled images a verb works on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nobackfill.data import ImageSet, Split

DATA_HELP = "digits, cifar100:ROOT, folder:ROOT, or a config file whose data section is taken."
DataOption = Annotated[str, typer.Option("--data", help=DATA_HELP, show_default=False)]
SplitOption = Annotated[str, typer.Option("--split", help="test (every class) or train.")]


def open_data(data: str, split: str) -> ImageSet:
    """The images named by `--data` and `--split`; raises `ConfigError` for anything else."""
    from nobackfill.config import DataConfig, load_config
    from nobackfill.data import DATASETS, load_split
    from nobackfill.errors import ConfigError, nearest

    if split not in ("train", "test"):
        raise ConfigError(f"--split {split!r}: expected train or test")
    if data.endswith((".yaml", ".yml")):
        return load_split(load_config(data).data, _split(split))
    name, _, root = data.partition(":")
    if name not in DATASETS:
        raise ConfigError(f"--data {data!r}: expected NAME or NAME:ROOT; {nearest(name, DATASETS)}")
    return load_split(DataConfig(name=name, root=Path(root) if root else None), _split(split))  # type: ignore[arg-type]


def _split(name: str) -> Split:
    return "train" if name == "train" else "test"
