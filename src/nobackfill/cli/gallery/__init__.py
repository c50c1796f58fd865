"""`nobackfill gallery`: galleries that outlive their model; one file a verb."""

from __future__ import annotations

import typer

from nobackfill.cli.gallery.abandon import abandon
from nobackfill.cli.gallery.adopt import adopt
from nobackfill.cli.gallery.backfill import backfill
from nobackfill.cli.gallery.compact import compact
from nobackfill.cli.gallery.create import create
from nobackfill.cli.gallery.rollback import rollback
from nobackfill.cli.gallery.search import search
from nobackfill.cli.gallery.status import status
from nobackfill.cli.gallery.upgrade import upgrade
from nobackfill.cli.gallery.verify import verify

gallery = typer.Typer(
    name="gallery",
    no_args_is_help=True,
    help="Galleries that hold vectors of an old and a new model side by side.",
    rich_markup_mode="markdown",
)
for verb in (create, upgrade, backfill, search, status, verify, rollback, compact):
    gallery.command()(verb)
for verb in (adopt, abandon):
    gallery.command()(verb)
