"""`nobackfill gallery backfill`."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from nobackfill.cli.gallery.options import (
    DataOption,
    IdsOption,
    JsonOption,
    NameOption,
    RunOption,
    ScopeOption,
    StoreArgument,
    VectorsOption,
    counted,
    read_scope,
    require_model,
    say,
    show,
)
from nobackfill.cli.panels import ADVANCED
from nobackfill.cli.source import RayOption, SplitOption, WorkersOption

if TYPE_CHECKING:
    from nobackfill.gallery import Gallery, Plan
    from nobackfill.gallery.job import Progress


def backfill(
    store: StoreArgument,
    run: RunOption = None,
    name: NameOption = None,
    data: DataOption = None,
    split: SplitOption = "test",
    vectors: VectorsOption = None,
    ids: IdsOption = None,
    target: Annotated[
        str,
        typer.Option(help="How much is to have new vectors in the end: 25%, all, or a number of items (10000)."),
    ] = "all",
    order: Annotated[
        str, typer.Option(help="Which items first: random, oldest, isolated, dense, popular or uncertain.")
    ] = "random",
    batch_size: Annotated[int, typer.Option(min=1, help="Items per transaction.", rich_help_panel=ADVANCED)] = 256,
    discard_old: Annotated[
        bool,
        typer.Option(
            "--discard-old", help="Do not keep old vectors; a rollback is then impossible.", rich_help_panel=ADVANCED
        ),
    ] = False,
    max_rate: Annotated[
        float | None, typer.Option("--max-rate", min=0.001, help="Items per second at most.", show_default=False)
    ] = None,
    scope: ScopeOption = None,
    abandon_job: Annotated[
        bool,
        typer.Option(
            "--abandon-job", help="Give up the unfinished backfill instead; new vectors stay.", rich_help_panel=ADVANCED
        ),
    ] = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Print a JSON line for each batch.", rich_help_panel=ADVANCED)
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            min=1,
            max=65535,
            help="Show counters for Prometheus there, on all interfaces (extra `metrics`).",
            show_default=False,
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    json_: JsonOption = False,
    ray: RayOption = None,
    workers: WorkersOption = None,
) -> None:
    """Re-embed items with the newest model and replace their vectors, batch by batch.

    Stop it at any time (Ctrl-C): the same command resumes it. Several processes may run the same command and share the
    work. Old vectors are kept until `compact`. Items that are missing or do not decode keep their old vectors and are
    listed; the exit code is then 3.

    Example: `nobackfill gallery backfill faiss:photos --run runs/digits/bt2 --target 25%`
    """
    from nobackfill.cli.gallery.fit_verdict import fit_warning
    from nobackfill.cli.gallery.items import new_embedder
    from nobackfill.errors import ConfigError
    from nobackfill.gallery import Gallery
    from nobackfill.gallery.orders import ORDERS
    from nobackfill.gallery.status import rule_warning

    gallery = Gallery.open(store, scope=read_scope(scope))
    if abandon_job:
        dropped = gallery.drop_job()
        text = f"{gallery.store.url}: " + (
            f"backfill to {dropped.target} given up" if dropped else "nothing to give up"
        )
        show(json_, {"abandoned": dropped is not None}, text)
        return
    require_model(run, name)
    if order not in ORDERS:
        raise ConfigError(f"--order {order!r}: expected {', '.join(ORDERS)}")
    _, embedder = new_embedder(gallery, run, name, data, split, vectors, ids, workers, ray)
    for warning in (fit_warning(run), rule_warning(gallery.manifest)):
        if warning:
            say(warning, err=True)
    try:
        with _shown(gallery, metrics_port) as shown:
            job = shown.backfill(
                embedder,
                target=target,
                order=order,
                batch_size=batch_size,
                keep_old=not discard_old,
                max_rate=max_rate,
                announce=partial(_announce, log_json, json_, (target, order, not discard_old)),
                on_batch=_log_batch if log_json else None,
            )
    except KeyboardInterrupt:
        say(f"{gallery.store.url}: backfill paused; the same command resumes it", err=True)
        raise typer.Exit(130) from None
    status = gallery.status()
    text = (
        f"{gallery.store.url}: {counted(job.replaced, 'item')} replaced in {job.seconds:.1f} s; "
        f"{status.items[-1]} of {status.total} now embedded by {status.newest.name}"
    )
    if job.missing:
        text += f"; {counted(job.missing, 'item')} removed meanwhile"
    if log_json:
        typer.echo(json.dumps({"event": "end", **job.model_dump()}))
    else:
        show(json_, {**job.model_dump(), "new": status.items[-1], "total": status.total}, text)
    for item, reason in job.errors.items():
        say(f"old vector kept: {item}: {reason}", err=True)
    if job.failed > len(job.errors):
        say(f"old vector kept: {job.failed - len(job.errors)} more", err=True)
    if job.failed:
        raise typer.Exit(3)


def _shown(gallery: Gallery, port: int | None) -> AbstractContextManager[Gallery]:
    """The gallery, with its counters at a port if there is one."""
    if port is None:
        return nullcontext(gallery)
    from nobackfill.gallery.metrics import serving

    return serving(gallery, port)


def _announce(log_json: bool, json_: bool, asked: tuple[str, str, bool], plan: Plan) -> None:
    job = plan.job
    if plan.resumed and (job.target, job.order, job.keep_old) != asked:
        say(
            "an unfinished backfill goes on as it was planned; repeat this command afterwards, or --abandon-job first",
            err=True,
        )
    if json_:
        return
    if log_json:
        done = {"event": "plan", "total": plan.total, "new": plan.new, "resumed": plan.resumed}
        typer.echo(json.dumps({**done, "batches": plan.batches, **job.model_dump()}))
        return
    if job.ended:
        say(f"nothing to do: {plan.new} of {plan.total} items are new already, the target is {job.target}")
        return
    left, batches = counted(job.items - job.done, "item"), "1 batch" if plan.batches == 1 else f"{plan.batches} batches"
    say(
        f"{'resumed' if plan.resumed else 'plan'}: target {job.target}: {left} to replace, {plan.new} of {plan.total} "
        f"are new already; {batches} of up to {job.batch_size}, order {job.order}, old vectors "
        + ("kept until `compact`" if job.keep_old else "discarded")
    )


def _log_batch(piece: int, progress: Progress) -> None:
    counts = progress.model_dump(exclude={"format", "errors", "error_versions", "at"})
    typer.echo(json.dumps({"event": "batch", "piece": piece, **counts, "failed": len(progress.errors)}))
