"""`nobackfill gallery status`."""

from __future__ import annotations

import typer

from nobackfill.cli.gallery.options import JsonOption, StoreArgument


def status(store: StoreArgument, json_: JsonOption = False) -> None:
    """Show items by generation, backfill progress and time left, and expected quality.

    Example: `nobackfill gallery status faiss:photos`
    """
    import json

    from nobackfill.cli.gallery.items import curve_line
    from nobackfill.evaluation.scores import AGREEMENT, title
    from nobackfill.gallery import Gallery
    from nobackfill.gallery.pair_rules import rule_line, rule_warning

    gallery = Gallery.open(store)
    now = gallery.status()
    if json_:
        generations = [
            {"name": one.name, "dim": one.dim, "items": items, "fingerprint": one.fingerprint}
            for one, items in zip(now.generations, now.items, strict=True)
        ]
        job = now.job.model_dump() if now.job else None
        rules = [rule.model_dump() for rule in now.rules]
        report = {"generations": generations, "job": job, "expected": now.expected, "rules": rules}
        typer.echo(json.dumps(report, indent=2))
        return
    typer.echo(f"{gallery.store.url}: {now.total} items")
    for one, items in zip(now.generations, now.items, strict=True):
        typer.echo(f"  {items:>9}  {one.name}, {one.dim} values")
    if now.job and not now.job.finished:
        typer.echo(
            f"  backfill running or stopped: {now.job.items_done} of {now.job.items} items, {now.items_per_second:.0f} "
            f"per second, about {now.seconds_left:.0f} s left; `gallery backfill` resumes it"
        )
    name, expected = now.newest.name, now.expected or {}
    if now.newest.curve:
        typer.echo(f"  expected top-1 with {name}: now ({now.fraction:.0%} backfilled) {expected['top1']:.1%}")
        typer.echo(f"  by fraction backfilled: {curve_line(now.newest.curve)}")
    if AGREEMENT in expected:
        typer.echo(f"  expected {title(AGREEMENT)}, nearest ten of {name}: now {expected[AGREEMENT]:.1%}")
    for rule in now.rules:
        typer.echo(f"  {rule_line(rule, gallery.manifest.name)}")
    if warning := rule_warning(gallery.manifest):
        typer.echo(warning, err=True)
