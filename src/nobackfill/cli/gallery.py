"""`nobackfill gallery`: galleries that outlive their model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nobackfill.cli.source import RayOption, SplitOption, WorkersOption

if TYPE_CHECKING:
    from nobackfill.gallery import Gallery
    from nobackfill.models import Encoder

gallery = typer.Typer(
    name="gallery",
    no_args_is_help=True,
    help="Galleries that outlive their model: old and new vectors side by side.",
    rich_markup_mode="markdown",
)
STORE_HELP = "faiss:DIR, postgresql://…#table, qdrant:DIR or qdrant+http://host:port#collection."
StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help=STORE_HELP, show_default=False)]
RunOption = Annotated[Path | None, typer.Option("--run", help="Run folder of the model.", show_default=False)]
NameOption = Annotated[
    str | None, typer.Option("--name", help="Instead of --run: the model's name, for vectors from files.")
]
DataOption = Annotated[
    str | None, typer.Option("--data", help="As for `embed`; default: what the gallery was made of.")
]
VectorsOption = Annotated[
    Path | None,
    typer.Option("--vectors", help="Instead of --data: a .npy array [n, dim] (of a fitted run: what it takes)."),
]
IdsOption = Annotated[Path | None, typer.Option("--ids", help="With --vectors: a text file, an item's id a line.")]


@gallery.command()
def create(
    store: StoreArgument,
    run: RunOption = None,
    name: NameOption = None,
    data: DataOption = None,
    split: SplitOption = "test",
    vectors: VectorsOption = None,
    ids: IdsOption = None,
    workers: WorkersOption = None,
    index: Annotated[str | None, typer.Option(help="FAISS: flat (exact, the default), hnsw or ivfpq.")] = None,
    halfvec: Annotated[bool, typer.Option("--halfvec", help="PostgreSQL: store vectors in half precision.")] = False,
) -> None:
    """Embed a data set, or take vectors from a file, into a new gallery.

    Example: `nobackfill gallery create faiss:photos --run runs/digits/old --data digits`
    """
    from nobackfill.cli.gallery_items import (
        array_batches,
        embedded_batches,
        named_generation,
        open_images,
        read_vectors,
    )
    from nobackfill.errors import ConfigError
    from nobackfill.gallery import Gallery, Generation, open_store

    _one_of("--run", run, "--name", name)
    if index is not None and not store.startswith("faiss:"):
        raise ConfigError("--index is for faiss:DIR; the other stores have their own")
    if halfvec and not store.startswith("postgres"):
        raise ConfigError("--halfvec is for postgresql://…#table")
    opened = open_store(store, **({"index": index} if index else {}), **({"halfvec": True} if halfvec else {}))
    if vectors is not None:
        names, array = read_vectors(vectors, ids)
        encoder = _encoder(run)
        generation = Generation.of(encoder.spec) if encoder else named_generation(name or "", array.shape[1])
        made = Gallery.create(opened, generation, array_batches(names, array, encoder))
    else:
        encoder = _encoder(run)
        if encoder is None or data is None:
            raise ConfigError("give --run and --data, or --vectors")
        items = open_images(data, split, workers)
        source = f"{split} {data}"
        made = Gallery.create(opened, Generation.of(encoder.spec), embedded_batches(encoder, items), source)
    counts = opened.counts()
    typer.echo(f"{opened.url}: {sum(counts.values())} vectors of {made.manifest.generations[0].name}")


@gallery.command()
def upgrade(
    store: StoreArgument,
    run: RunOption = None,
    name: NameOption = None,
    data: DataOption = None,
    split: SplitOption = "test",
    vectors: VectorsOption = None,
    ids: IdsOption = None,
    sample: Annotated[int, typer.Option(min=10, help="Items on which scale and expected quality are measured.")] = 2000,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Bring old and new scores to one scale, if the sample shows it helps.")
    ] = False,
    workers: WorkersOption = None,
) -> None:
    """Add a new model's generation: its queries work at once, and no vector is touched.

    A sample of the items is embedded by the new model to measure the scale between old and new scores, and, where the
    items have labels, what backfilling is worth.

    Example: `nobackfill gallery upgrade faiss:photos --run runs/digits/bt2`
    """
    from nobackfill.cli.gallery_items import named_generation, read_vectors
    from nobackfill.errors import ConfigError
    from nobackfill.gallery import Gallery, Generation, open_store
    from nobackfill.gallery.expected import expected_curve, helpful_calibration, labelled_sample, sample_ids

    _one_of("--run", run, "--name", name)
    opened = Gallery.open(open_store(store))
    encoder = _encoder(run)
    if encoder is not None:
        generation = Generation.of(encoder.spec)
    else:
        every = tuple(older.fingerprint for older in opened.manifest.generations)
        generation = named_generation(name or "", read_vectors(_given(vectors, "--vectors"), ids)[1].shape[1], every)
    embed = _embedder(opened, encoder, run, data, split, vectors, ids, workers)
    made = embed(sample_ids(opened.store, sample))
    samples = labelled_sample(opened, generation, made)
    if calibrate and not samples:
        raise ConfigError("--calibrate: needs items with labels, whose old vectors the new model answers")
    curve, calibration = expected_curve(samples), helpful_calibration(samples) if calibrate else {}
    added = opened.upgrade(generation, made.vectors, curve, calibration)
    typer.echo(f"{opened.store.url}: queries of {added.name} work from now on")
    if calibrate:
        typer.echo(
            f"  calibration: {calibration}" if calibration else "  calibration: does not help; scores stay plain"
        )
    if curve is not None:
        typer.echo(f"  expected top-1, measured on {curve.queries} items: {_curve_line(curve)}")


@gallery.command()
def backfill(
    store: StoreArgument,
    run: RunOption = None,
    name: NameOption = None,
    data: DataOption = None,
    split: SplitOption = "test",
    vectors: VectorsOption = None,
    ids: IdsOption = None,
    budget: Annotated[
        str | None, typer.Option(help="A share of the gallery (0.25) or a number of items (10000).")
    ] = None,
    order: Annotated[str, typer.Option(help="random, oldest, hardest, crowded or queried.")] = "random",
    batch_size: Annotated[int, typer.Option(min=1, help="Items exchanged at one moment.")] = 256,
    keep_old: Annotated[bool, typer.Option("--keep-old", help="Keep old vectors, for a rollback.")] = False,
    ray: RayOption = None,
    workers: WorkersOption = None,
) -> None:
    """Embed items anew by the newest model and exchange their vectors, batch by batch.

    It can be stopped or killed at any moment; the same command goes on. Items that are missing or do not decode stay
    old, are listed, and make the exit code 3.

    Example: `nobackfill gallery backfill faiss:photos --run runs/digits/bt2 --budget 0.25`
    """
    from nobackfill.errors import ConfigError
    from nobackfill.gallery import Gallery, open_store
    from nobackfill.gallery import backfill as exchange
    from nobackfill.gallery.backfill import ORDERS

    _one_of("--run", run, "--name", name)
    if order not in ORDERS:
        raise ConfigError(f"--order {order!r}: expected {', '.join(ORDERS)}")
    opened = Gallery.open(open_store(store))
    encoder = _encoder(run)
    embed = _embedder(opened, encoder, run, data, split, vectors, ids, workers, ray)
    fingerprint = encoder.spec.fingerprint if encoder else f"name:{name}"
    job = exchange(
        opened,
        embed,
        fingerprint,
        budget=_budget(budget),
        order=order,
        batch_size=batch_size,
        keep_old=keep_old,
    )
    counts = opened.store.counts()
    newest = opened.manifest.generations[job.generation - 1].name
    typer.echo(
        f"{opened.store.url}: {job.exchanged} items exchanged in {job.seconds:.1f} s; "
        f"{counts.get(job.generation, 0)} of {sum(counts.values())} are of {newest} now"
    )
    for item, reason in job.missing.items():
        typer.echo(f"left old: {item}: {reason}", err=True)
    if job.missing:
        raise typer.Exit(3)


@gallery.command()
def search(
    store: StoreArgument,
    query: Annotated[list[str] | None, typer.Argument(help="Image files, or texts for a text model.")] = None,
    run: RunOption = None,
    name: NameOption = None,
    vectors: Annotated[Path | None, typer.Option("--vectors", help="Query vectors, .npy [n, dim].")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Answers a query.")] = 10,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    remember: Annotated[bool, typer.Option("--remember", help="Count the answers, for --order queried.")] = False,
) -> None:
    """Search with a model of the lineage; items of every generation answer.

    Example: `nobackfill gallery search faiss:photos --run runs/digits/bt2 photo.png -k 5`
    """
    import json
    from dataclasses import asdict

    from nobackfill.cli.gallery_items import as_stored
    from nobackfill.cli.vectors import read_array
    from nobackfill.errors import ConfigError
    from nobackfill.gallery import Gallery, open_store

    _one_of("--run", run, "--name", name)
    opened = Gallery.open(open_store(store))
    encoder = _encoder(run)
    if vectors is not None:
        rows: Any = as_stored(encoder, read_array(vectors, "--vectors"))
        asked = [str(place) for place in range(len(rows))]
    elif encoder is not None and query:
        rows, asked = encoder.encode(query), query
    else:
        raise ConfigError("give image files (or texts) and --run, or --vectors")
    fingerprint = encoder.spec.fingerprint if encoder else f"name:{name}"
    found = opened.search(rows, k, fingerprint, remember=remember)
    if json_:
        answers = [
            {"query": one, "hits": [asdict(hit) for hit in hits]} for one, hits in zip(asked, found, strict=True)
        ]
        typer.echo(json.dumps(answers, indent=2))
        return
    for one, hits in zip(asked, found, strict=True):
        typer.echo(one)
        for rank, hit in enumerate(hits, start=1):
            payload = f"  {hit.payload['class']}" if "class" in hit.payload else ""
            typer.echo(f"  {rank:3}  {hit.score:7.4f}  {hit.id}{payload}  [{hit.generation}]")


@gallery.command()
def status(store: StoreArgument, json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Items by generation, a backfill's progress and remaining time, the expected quality.

    Example: `nobackfill gallery status faiss:photos`
    """
    import json

    from nobackfill.gallery import Gallery, open_store
    from nobackfill.gallery.backfill import read_job

    opened = Gallery.open(open_store(store))
    counts, job = opened.store.counts(), read_job(opened.store)
    total = sum(counts.values())
    newest = opened.manifest.generations[-1]
    share = counts.get(opened.manifest.newest, 0) / total if total else 0.0
    expected = dict(zip(("top1", "mean_ap"), newest.curve.at(share), strict=True)) if newest.curve else None
    generations = [
        {"name": one.name, "dim": one.dim, "items": counts.get(number, 0), "fingerprint": one.fingerprint}
        for number, one in enumerate(opened.manifest.generations, start=1)
    ]
    if json_:
        plain = job.model_dump() if job else None
        typer.echo(json.dumps({"generations": generations, "job": plain, "expected": expected}, indent=2))
        return
    typer.echo(f"{opened.store.url}: {total} items")
    for one in generations:
        typer.echo(f"  {one['items']:>9}  {one['name']}, {one['dim']} values")
    if job and not job.finished:
        exchanged = min(job.items, job.done * job.batch_size)
        left = job.seconds / exchanged * (job.items - exchanged) if exchanged else float("nan")
        rate = exchanged / job.seconds if job.seconds else 0.0
        typer.echo(
            f"  backfill under way or stopped: {exchanged} of {job.items} items, {rate:.0f} a second, "
            f"about {left:.0f} s left; `gallery backfill` goes on"
        )
    if newest.curve:
        typer.echo(f"  expected top-1 with {newest.name}: now ({share:.0%} embedded anew) {expected['top1']:.1%}")  # type: ignore[index]
        typer.echo(f"  by share of the gallery: {_curve_line(newest.curve)}")


@gallery.command()
def verify(store: StoreArgument) -> None:
    """Check counts, sizes, norms, generations and ids of every item; exit code 1 if anything is wrong.

    Example: `nobackfill gallery verify faiss:photos`
    """
    from nobackfill.gallery import Gallery, open_store

    opened = Gallery.open(open_store(store))
    problems = opened.verify()
    for problem in problems:
        typer.echo(problem)
    typer.echo(f"{opened.store.url}: {len(problems) or 'no'} problems in {sum(opened.store.counts().values())} items")
    if problems:
        raise typer.Exit(1)


@gallery.command()
def rollback(
    store: StoreArgument, to: Annotated[str, typer.Option("--to", help="Name of the generation.", show_default=False)]
) -> None:
    """Back to an older generation whose vectors were kept (`backfill --keep-old`).

    Example: `nobackfill gallery rollback faiss:photos --to independent-0123456789ab`
    """
    from nobackfill.gallery import Gallery, open_store

    opened = Gallery.open(open_store(store))
    opened.rollback(to)
    typer.echo(f"{opened.store.url}: back at {to}, {sum(opened.store.counts().values())} items")


@gallery.command()
def compact(store: StoreArgument) -> None:
    """Give back the space of exchanged vectors and rebuild indexes; ends the possibility of a rollback.

    Example: `nobackfill gallery compact faiss:photos`
    """
    from nobackfill.gallery import Gallery, open_store

    opened = Gallery.open(open_store(store))
    opened.compact()
    typer.echo(f"{opened.store.url}: compacted")


def _encoder(run: Path | None) -> Encoder | None:
    from nobackfill.models import load

    return load(run) if run is not None else None


def _embedder(
    opened: Gallery,
    encoder: Encoder | None,
    run: Path | None,
    data: str | None,
    split: str,
    vectors: Path | None,
    ids: Path | None,
    workers: int | None,
    cluster: str | None = None,
) -> Any:
    """Item ids to vectors, from --vectors or else from images."""
    from nobackfill.cli.gallery_items import ImageEmbedder, array_embedder, open_images, read_vectors
    from nobackfill.errors import ConfigError

    if vectors is not None:
        return array_embedder(*read_vectors(vectors, ids), encoder)
    if data is None and opened.manifest.source is not None:
        split, _, data = opened.manifest.source.partition(" ")
    if encoder is None or run is None or data is None:
        raise ConfigError("give --run and --data, or --vectors: this gallery does not say where its items came from")
    return ImageEmbedder(encoder, open_images(data, split, workers), run, cluster)


def _one_of(first: str, one: Any, second: str, other: Any) -> None:
    from nobackfill.errors import ConfigError

    if (one is None) == (other is None):
        raise ConfigError(f"give {first} or {second}, one of them")


def _given(path: Path | None, option: str) -> Path:
    from nobackfill.errors import ConfigError

    if path is None:
        raise ConfigError(f"{option} is missing")
    return path


def _budget(text: str | None) -> float | None:
    from nobackfill.errors import ConfigError

    if text is None:
        return None
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise ConfigError(f"--budget {text!r}: expected a share such as 0.25 or a number such as 10000") from None


def _curve_line(curve: Any) -> str:
    return ", ".join(f"{share:.0%} {top1:.1%}" for share, top1 in zip(curve.shares, curve.top1, strict=True))
