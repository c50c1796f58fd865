"""Connections that several threads share: each is used by one thread at a time, and there are as many as are needed.

A process that was forked (gunicorn's preload, multiprocessing) opens connections of its own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar


class _Closable(Protocol):
    def close(self) -> None: ...


_INHERITED: list[object] = []  # held for good: the parent goes on with them, and closing them here would disturb it
Connection = TypeVar("Connection", bound=_Closable)


class Pool(Generic[Connection]):
    """Lends connections.

    Args:
        make: opens one.
        usable: whether one that was used before may be used again; if not, it is closed.
    """

    def __init__(self, make: Callable[[], Connection], usable: Callable[[Connection], bool]) -> None:
        self.make, self.usable = make, usable
        self._idle: list[Connection] = []  # append and pop are atomic
        self._owner = os.getpid()

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[Connection]:
        """A connection that no other thread uses meanwhile."""
        connection, owner = self._take(), os.getpid()
        try:
            yield connection
        finally:
            if owner != os.getpid():
                _INHERITED.append(connection)
            elif self.usable(connection):
                self.add(connection)
            else:
                connection.close()

    def add(self, connection: Connection) -> None:
        """Lend one that is open already."""
        self._own()
        self._idle.append(connection)

    def close(self) -> None:
        """Close those that nobody uses; another use opens one again."""
        self._own()
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop().close()

    def _own(self) -> None:
        """Forget the connections that a forked process inherited, without closing them."""
        if self._owner != os.getpid():
            _INHERITED.extend(self._idle)
            self._idle = []
            self._owner = os.getpid()

    def _take(self) -> Connection:
        self._own()
        while self._idle:
            with contextlib.suppress(IndexError):
                connection = self._idle.pop()
                if self.usable(connection):
                    return connection
                connection.close()
        return self.make()
