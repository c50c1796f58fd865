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

gallery: typer.Typer = typer.Typer(
    name="gallery",
    no_args_is_help=True,
    help="Galleries that hold vectors of an old and a new model side by side.",
    rich_markup_mode="markdown",
)
SET_UP, USE, UPGRADE, UNDO, LOOK = "Set up", "Use", "Upgrade", "Undo", "Look"
VERBS: dict[str, tuple[str, Callable[..., None]]] = {
    "create": (SET_UP, create),
    "adopt": (SET_UP, adopt),
    "search": (USE, search),
    "upsert": (USE, upsert),
    "set-payloads": (USE, set_payloads),
    "delete": (USE, delete),
    "upgrade": (UPGRADE, upgrade),
    "backfill": (UPGRADE, backfill),
    "switch": (UPGRADE, switch),
    "compact": (UPGRADE, compact),
    "rollback": (UNDO, rollback),
    "abandon": (UNDO, abandon),
    "status": (LOOK, status),
    "count": (LOOK, count),
    "verify": (LOOK, verify),
    "uncertainty": (LOOK, uncertainty),
}
"""The verbs in the order of the help, each with the panel that it is shown in."""
for _name, (_panel, _verb) in VERBS.items():
    gallery.command(_name, rich_help_panel=_panel)(_verb)
