"""`nobackfill gallery`: galleries that outlive their model; one file a verb."""

from __future__ import annotations

import typer

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
for verb in (
    create,
    upgrade,
    backfill,
    upsert,
    delete,
    search,
    count,
    status,
    verify,
    switch,
    rollback,
    compact,
    uncertainty,
):
    gallery.command()(verb)
gallery.command("set-payloads")(set_payloads)
