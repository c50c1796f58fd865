"""`nobackfill doctor`: what this installation has, and what it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nobackfill.cli.output import JsonOption, print_json

if TYPE_CHECKING:
    from nobackfill.cli.installation import Cache


def doctor(
    stores: Annotated[
        list[str] | None, typer.Argument(metavar="STORE…", help="Galleries that should answer.", show_default=False)
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Show versions, extras, devices, the cache, and whether galleries answer; paste it into a bug report.

    The exit code is 1 if a gallery that was named does not answer, else 0. Passwords are not shown, and nothing is
    made or changed.

    Example: `nobackfill doctor faiss:photos postgresql://localhost/shop#items`
    """
    import platform
    from dataclasses import asdict

    from nobackfill import __version__
    from nobackfill.cli.installation import ask_stores, cache, devices, packages
    from nobackfill.errors import visible
    from nobackfill.machine import cores

    versions, extras = packages()
    found, why_none = devices()
    kept, asked = cache(), ask_stores(stores or [])
    system = f"{platform.system()} {platform.machine()}"
    if json_:
        document = {
            "nobackfill": __version__,
            "python": platform.python_version(),
            "system": system,
            "cores": cores(),
            "packages": versions,
            "extras": [asdict(extra) for extra in extras],
            "devices": [asdict(device) for device in found],
            "no_devices": why_none,
            "cache": asdict(kept),
            "stores": [asdict(store) for store in asked],
        }
        print_json(document)
    else:
        typer.echo(f"nobackfill {__version__}, Python {platform.python_version()}, {system}, {cores()} cores")
        typer.echo(
            "packages: " + (", ".join(f"{name} {known}" for name, known in versions.items() if known) or "unknown")
        )
        for extra in extras:
            state = "missing " + ", ".join(extra.lacking) if extra.lacking else "installed"
            typer.echo(f"extra {extra.name}: {state}; for {extra.needed_by}")
            if extra.lacking:
                typer.echo(f"  pip install 'nobackfill[{extra.name}]'")
        for device in found:
            typer.echo(
                f"device {device.name}: {device.model}, {'bf16' if device.bf16 else 'no bf16, computes in fp32'}"
            )
        if why_none:
            typer.echo(f"devices: {why_none}; galleries and fits of vectors run on the processor without it")
        typer.echo(visible(f"cache {kept.folder}: {_cache_line(kept)}"))
        for store in asked:
            typer.echo(visible(f"store {store.url}: {'' if store.answers else 'not available: '}{store.state}"))
    if not all(store.answers for store in asked):
        raise typer.Exit(1)


def _cache_line(cache: Cache) -> str:
    if not cache.exists:
        return cache.problem or "not there yet; made when it is needed"
    rights = "" if cache.mode is None else f", owner {cache.owner}, mode {cache.mode}"
    return f"{cache.size / 1e6:,.1f} MB{rights}" + (f"; {cache.problem}" if cache.problem else "")
