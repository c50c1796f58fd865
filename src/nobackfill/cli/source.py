"""`--data` on the command line: which labelled images a verb works on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nobackfill.cli.panels import ADVANCED

if TYPE_CHECKING:
    from nobackfill.data import Samples

DATA_HELP = "digits, cifar100:ROOT, folder:ROOT, or a config file, for its data section."
MODEL_HELP = "Run folder of the model, or sentence:FOLDER (a SentenceTransformer), or python:MODULE:FUNCTION."
WorkersOption = Annotated[
    int | None,
    typer.Option(
        min=0, help="Processes that decode image files. Default: the config's, or 2.", rich_help_panel=ADVANCED
    ),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray", help="Embed on a Ray cluster: local, auto or host:port (extra `ray`).", rich_help_panel=ADVANCED
    ),
]
DataOption = Annotated[str, typer.Option("--data", help=DATA_HELP, show_default=False)]
SplitOption = Annotated[str, typer.Option("--split", help="Split: test (all classes) or train.")]


BadImageOption = Annotated[
    str,
    typer.Option(
        "--on-bad-image",
        help="fail, or skip: leave out files that do not decode, and list them.",
        rich_help_panel=ADVANCED,
    ),
]


def given_for_data(split: str, on_bad_image: str, workers: int | None) -> dict[str, bool]:
    """Which of the options that `open_data` takes beside `--data` differ from their defaults."""
    return {"--split": split != "test", "--on-bad-image": on_bad_image != "fail", "--workers": workers is not None}


def open_data(data: str, split: str, on_bad_image: str, workers: int | None) -> tuple[Samples, int]:
    """The images named by `--data` and `--split`, and the processes to decode them with; lists what was skipped.

    Raises:
        ConfigError: for anything else.
    """
    from nobackfill.config import parse_data, read_tree
    from nobackfill.data import DATASETS, load_split
    from nobackfill.errors import ConfigError, nearest

    if split not in ("train", "test"):
        raise ConfigError(f"--split {split!r}: expected train or test")
    if data.endswith((".yaml", ".yml")):
        section = read_tree(data).get("data")
        if not isinstance(section, dict):
            raise ConfigError(f"--data {data}: expected a config with a section 'data'")
    else:
        name, _, root = data.partition(":")
        if name not in DATASETS:
            raise ConfigError(f"--data {data!r}: expected NAME or NAME:ROOT; {nearest(name, DATASETS)}")
        section = {"name": name, **({"root": root} if root else {})}
    if on_bad_image != "fail":
        section = {**section, "on_bad_image": on_bad_image}
    if workers is not None:
        section = {**section, "workers": workers}
    settings = parse_data(section, f"--data {data!r}")
    images = load_split(settings, "train" if split == "train" else "test")
    for line in images.skipped:
        typer.echo(f"skipped {line}", err=True)
    if images.skipped:
        typer.echo(f"images skipped: {len(images.skipped)}; images left: {len(images)}", err=True)
    return images, settings.processes
