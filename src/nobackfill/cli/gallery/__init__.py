"""`nobackfill gallery`: galleries that outlive their model; one file a verb."""

from __future__ import annotations

from collections.abc import Callable

import typer

from nobackfill.cli.gallery.abandon import abandon
from nobackfill.cli.gallery.adopt import adopt
from nobackfill.cli.gallery.backfill import backfill
from nobackfill.cli.gallery.compact import compact
from nobackfill.cli.gallery.count import count
from nobackfill.cli.gallery.create import create
from nobackfill.cli.gallery.delete import delete
from nobackfill.cli.gallery.rollback import rollback
from nobackfill.cli.gallery.search import search
from nobackfill.cli.gallery.set_payloads import set_payloads
from nobackfill.cli.gallery.status import status
from nobackfill.cli.gallery.switch import switch
from nobackfill.cli.gallery.uncertainty import uncertainty
from nobackfill.cli.gallery.upgrade import upgrade
from nobackfill.cli.gallery.upsert import upsert
from nobackfill.cli.gallery.verify import verify

gallery = typer.Typer(
    name="gallery",
    no_args_is_help=True,
    help="Galleries that hold vectors of an old and a new model side by side.",
    rich_markup_mode="markdown",
)
VERBS: dict[str, Callable[..., None]] = {
    "create": create,
    "adopt": adopt,
    "upgrade": upgrade,
    "backfill": backfill,
    "search": search,
    "upsert": upsert,
    "delete": delete,
    "set-payloads": set_payloads,
    "count": count,
    "status": status,
    "verify": verify,
    "switch": switch,
    "rollback": rollback,
    "compact": compact,
    "abandon": abandon,
    "uncertainty": uncertainty,
}
for name, verb in VERBS.items():
    gallery.command(name)(verb)
