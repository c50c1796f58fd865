"""`nobackfill gallery search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nobackfill.cli.gallery.options import (
    JsonOption,
    NameOption,
    RunOption,
    ScopeOption,
    StoreArgument,
    WhereOption,
    read_scope,
    require_model,
    say,
)
from nobackfill.cli.output import print_json

if TYPE_CHECKING:
    from nobackfill.gallery import Hit


def search(
    store: StoreArgument,
    query: Annotated[list[str] | None, typer.Argument(help="Image files, or texts for a text model.")] = None,
    run: RunOption = None,
    name: NameOption = None,
    vectors: Annotated[Path | None, typer.Option("--vectors", help="Query vectors, .npy [n, dim].")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Results per query.")] = 10,
    where: WhereOption = None,
    scope: ScopeOption = None,
    json_: JsonOption = False,
    remember: Annotated[bool, typer.Option("--remember", help="Count the results, for --order popular.")] = False,
) -> None:
    """Search with any model of the lineage; results come from all generations.

    Example: `nobackfill gallery search faiss:photos --run runs/digits/bt2 photo.png -k 5`
    """
    from dataclasses import asdict

    from nobackfill.cli.gallery.items import query_vectors
    from nobackfill.gallery import Gallery

    require_model(run, name)
    gallery = Gallery.open(store, scope=read_scope(scope))
    titles, rows, fingerprint = query_vectors(query, run, name, vectors)
    results = gallery.search(rows, k, fingerprint, where=where, remember=remember)
    if json_:
        listed = [
            {"query": title, "hits": [asdict(hit) for hit in hits]} for title, hits in zip(titles, results, strict=True)
        ]
        print_json(listed)
        return
    for title, hits in zip(titles, results, strict=True):
        say(title)
        for rank, hit in enumerate(hits, start=1):
            say(_line(rank, hit))


def _line(rank: int, hit: Hit) -> str:
    class_name = f"  {hit.payload['class']}" if "class" in hit.payload else ""
    return f"  {rank:3}  {hit.score:7.4f}  {hit.id}{class_name}  [{hit.generation}]"
