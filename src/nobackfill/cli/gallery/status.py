"""`nobackfill gallery status`."""

from __future__ import annotations

from nobackfill.cli.gallery.options import JsonOption, ScopeOption, StoreArgument, counted, read_scope, say
from nobackfill.cli.output import print_json


def status(store: StoreArgument, scope: ScopeOption = None, json_: JsonOption = False) -> None:
    """Show items by generation, backfill progress and time left, and expected quality.

    Example: `nobackfill gallery status faiss:photos`
    """
    import math

    from nobackfill.cli.gallery.items import curve_line
    from nobackfill.evaluation.scores import AGREEMENT, title
    from nobackfill.gallery import Gallery
    from nobackfill.gallery.pair_rules import rule_line
    from nobackfill.gallery.status import rule_warning

    gallery = Gallery.open(store, scope=read_scope(scope))
    now = gallery.status()
    if json_:
        generations = [
            {"name": one.name, "dim": one.dim, "items": items, "fingerprint": one.fingerprint}
            for one, items in zip(now.generations, now.items, strict=True)
        ]
        job = now.job.model_dump() if now.job else None
        rules = [rule.model_dump() for rule in now.rules]
        left = None if math.isnan(now.seconds_left) else round(now.seconds_left, 1)
        serves = now.generations[now.serves_from - 1].name
        document = {"generations": generations, "serves_from": serves, "job": job, "seconds_left": left}
        print_json({**document, "expected": now.expected, "rules": rules})
        return
    say(f"{gallery.store.url}: {counted(now.total, 'item')}")
    for one, items in zip(now.generations, now.items, strict=True):
        say(f"  {items:>9}  {one.name}, {one.dim} values")
    if now.serves_from > 1:
        name = now.generations[now.serves_from - 1].name
        say(f"  queries and items older than {name} are not served")
    if now.job and not now.job.finished:
        eta = "time left unknown" if math.isnan(now.seconds_left) else f"about {now.seconds_left:.0f} s left"
        say(
            f"  backfill running or stopped: {now.job.done} of {now.job.items} items, {now.items_per_second:.0f} "
            f"per second, {eta}; `gallery backfill` resumes it"
        )
    name, expected = now.newest.name, now.expected or {}
    if now.newest.curve:
        say(f"  expected top-1 with {name}: now ({now.fraction:.0%} backfilled) {expected['top1']:.1%}")
        say(f"  by fraction backfilled: {curve_line(now.newest.curve)}")
    if AGREEMENT in expected:
        say(f"  expected {title(AGREEMENT)}, nearest ten of {name}: now {expected[AGREEMENT]:.1%}")
    for rule in now.rules:
        say(f"  {rule_line(rule, gallery.manifest.name)}")
    if warning := rule_warning(gallery.manifest):
        say(warning, err=True)
