"""Progress on long work: one bar a task on a terminal, silence elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")
_shown: ContextVar[Progress | None] = ContextVar("shown", default=None)


@contextlib.contextmanager
def bar(description: str, total: int) -> Iterator[Callable[[str], None]]:
    """A progress bar on stderr; the block calls what it gets after each step, with a few words on its state.

    A bar within a bar is drawn below it. Nothing is printed when stderr is not a terminal.
    """
    outer = _shown.get()
    console = Console(stderr=True)
    if outer is None and not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = outer or Progress(*columns, TextColumn("{task.fields[state]}"), console=console, transient=True)
    token = _shown.set(progress)
    try:
        with contextlib.nullcontext() if outer else progress:
            task = progress.add_task(description, total=total, state="")
            yield lambda state: progress.update(task, advance=1, state=state)
            progress.remove_task(task)
    finally:
        _shown.reset(token)


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Yield the items under a progress bar."""
    with bar(description, total) as step:
        for item in items:
            yield item
            step("")
