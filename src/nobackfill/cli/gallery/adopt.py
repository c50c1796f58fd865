"""`nobackfill gallery adopt`."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from nobackfill.cli.gallery.options import JsonOption, say


class Layout(str, Enum):
    """Where vectors of later models go."""

    new_column = "new-column"
    same_column = "same-column"


def adopt(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE",
            help="postgresql://host/db#table, qdrant:DIR#collection, milvus:FILE.db#collection, or faiss:DIR with "
            "--index.",
            show_default=False,
        ),
    ],
    generation: Annotated[
        str, typer.Option("--generation", help="A name for the model that made the vectors.", show_default=False)
    ],
    vector_column: Annotated[
        str | None,
        typer.Option(
            "--vector-column", help="Column of its vectors (default: embedding), or a name in Qdrant, Milvus."
        ),
    ] = None,
    id_column: Annotated[str, typer.Option("--id-column", help="Column of unique ids: integers, text or uuid.")] = "id",
    fingerprint: Annotated[
        str | None, typer.Option("--fingerprint", help="Fingerprint of that model. Default: its name identifies it.")
    ] = None,
    model_name: Annotated[
        str | None, typer.Option("--model-name", help="Instead of --fingerprint: the name that stands for it.")
    ] = None,
    layout: Annotated[
        Layout,
        typer.Option("--layout", help="Later models: a new column each, or their compatible part in the same column."),
    ] = Layout.new_column,
    payload_columns: Annotated[
        str | None,
        typer.Option("--payload-columns", help="Columns to show and filter by, with commas; default: all others."),
    ] = None,
    index: Annotated[
        Path | None, typer.Option("--index", help="faiss: the index file to copy from.", show_default=False)
    ] = None,
    ids: Annotated[
        Path | None, typer.Option("--ids", help="faiss: a text file with the id of each vector, one per line.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be run.")] = False,
    json_: JsonOption = False,
) -> None:
    """Make a gallery of a table or collection in use: its rows stay where they are, and the application goes on.

    Prints the statements first. `gallery abandon` takes back all of them.

    Example: `nobackfill gallery adopt postgresql://localhost/shop#items --generation minilm --dry-run`
    """
    from nobackfill.errors import ConfigError
    from nobackfill.gallery import Gallery
    from nobackfill.gallery.adopting import plan_adoption
    from nobackfill.gallery.copying import plan_copy

    if fingerprint is not None and model_name is not None:
        raise ConfigError("give --fingerprint or --model-name, not both")
    if ids is not None and index is None:
        raise ConfigError("--ids: goes with --index")
    in_place = {
        "--vector-column": vector_column is not None,
        "--id-column": id_column != "id",
        "--layout": layout is not Layout.new_column,
        "--payload-columns": payload_columns is not None,
    }
    if index is not None and any(in_place.values()):
        ignored = next(name for name, given in in_place.items() if given)
        raise ConfigError(f"{ignored}: a FAISS index has no columns; leave it out, or leave out --index")
    known = fingerprint or (f"name:{model_name}" if model_name else None)
    if index is not None:
        plan = plan_copy(store, generation, index, ids, fingerprint=known)
    else:
        plan = plan_adoption(
            store,
            generation,
            vector_column=vector_column,
            id_column=id_column,
            fingerprint=known,
            layout=layout.value,
            payload_columns=tuple(payload_columns.split(",")) if payload_columns is not None else None,
        )
    if not json_:
        _say(plan.statements, "now")
        _say(plan.later, "at each upgrade")
        for note in plan.notes:
            say(f"note: {note}")
    items = None
    if not dry_run:
        gallery = Gallery.open(plan.carry_out())
        items = gallery.status().total
        gallery.store.close()
    if json_:
        document = {"statements": plan.statements, "later": plan.later, "notes": plan.notes, "items": items}
        typer.echo(json.dumps(document, indent=1))
    elif dry_run:
        say(f"{plan.url}: nothing was changed (--dry-run)")
    else:
        say(f"{plan.url}: a gallery of {items} items of {plan.generation.name}")


def _say(statements: list[str], when: str) -> None:
    if statements:
        say(f"-- {when}:")
    for statement in statements:
        say(f"{statement};", keep="\n")
