"""Connections that several threads share: each is used by one thread at a time, and there are as many as are needed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar


class _Closable(Protocol):
    def close(self) -> None: ...


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

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[Connection]:
        """A connection that no other thread uses meanwhile."""
        connection = self._take()
        try:
            yield connection
        finally:
            if self.usable(connection):
                self.add(connection)
            else:
                connection.close()

    def add(self, connection: Connection) -> None:
        """Lend one that is open already."""
        self._idle.append(connection)

    def close(self) -> None:
        """Close those that nobody uses; another use opens one again."""
        while self._idle:
            with contextlib.suppress(IndexError):
                self._idle.pop().close()

    def _take(self) -> Connection:
        while self._idle:
            with contextlib.suppress(IndexError):
                connection = self._idle.pop()
                if self.usable(connection):
                    return connection
                connection.close()
        return self.make()
