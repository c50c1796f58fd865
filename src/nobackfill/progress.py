"""Progress on long work: one bar a task on a terminal; elsewhere silence, or a line a minute where asked for."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")
_shown: ContextVar[Progress | None] = ContextVar("shown", default=None)
_quiet: list[bool] = [False]  # of the whole process: a context variable would not reach its threads
_verbose: list[bool] = [False]

LOG_SECONDS, VERBOSE_SECONDS = 60.0, 5.0


def be_quiet(quiet: bool) -> None:
    """Show no progress and no notes from now on in this process, or show them again."""
    _quiet[0] = quiet


def be_verbose(verbose: bool) -> None:
    """Log all work where stderr is no terminal, every five seconds, from now on in this process; or no more."""
    _verbose[0] = verbose


def is_verbose() -> bool:
    """Whether to say where an error is from, too."""
    return _verbose[0]


@contextlib.contextmanager
def bar(description: str, total: int, *, done: int = 0, log: bool = False) -> Iterator[Callable[[str], None]]:
    """A progress bar on stderr; the block calls what it gets after each step, with a few words on its state.

    A bar within a bar is drawn below it. Where stderr is no terminal nothing is printed; with `log`, one line a minute.

    Args:
        description: what is being done.
        total: steps of the whole work.
        done: how many of them were done before.
        log: whether the work is worth a line in a log.
    """
    if _quiet[0]:
        yield lambda _: None
        return
    outer = _shown.get()
    console = Console(stderr=True)
    if outer is None and not console.is_terminal:
        yield _logger(description, total, done) if log or _verbose[0] else lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = outer or Progress(*columns, TextColumn("{task.fields[state]}"), console=console, transient=True)
    token = _shown.set(progress)
    try:
        with contextlib.nullcontext() if outer else progress:
            task = progress.add_task(description, total=total, completed=done, state="")
            yield lambda state: progress.update(task, advance=1, state=state)
            progress.remove_task(task)
    finally:
        _shown.reset(token)


def note(text: str) -> None:
    """One line on stderr, above the bar if one is shown; nothing in quiet mode."""
    if _quiet[0]:
        return
    shown = _shown.get()
    if shown is None:
        print(text, file=sys.stderr)
    else:
        shown.console.print(text, markup=False, highlight=False)


def _logger(description: str, total: int, done: int) -> Callable[[str], None]:
    started = written = time.monotonic()
    steps = 0

    def step(state: str) -> None:
        nonlocal steps, written
        steps += 1
        now = time.monotonic()
        if now - written >= (VERBOSE_SECONDS if _verbose[0] else LOG_SECONDS):
            written = now
            left = (now - started) / steps * (total - done - steps)
            print(f"{description}: {done + steps}/{total}  {state}  {left / 60:.0f} min left", file=sys.stderr)

    return step


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Yield the items under a progress bar."""
    with bar(description, total) as step:
        for item in items:
            yield item
            step("")
