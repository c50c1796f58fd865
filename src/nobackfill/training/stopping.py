"""SIGINT and SIGTERM while training: finish the step, write a checkpoint, leave."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from nobackfill.errors import TrainingError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(TrainingError):
    """Training was stopped by a signal; its state is kept. `code` is the exit code, 128 + the signal."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.code: int = 128 + signal_number


@dataclass
class Stop:
    """Which signal has come, 0 if none."""

    number: int = 0


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Within the block a first SIGINT or SIGTERM is noted instead of obeyed; a second one acts at once."""
    stop, owner = Stop(), os.getpid()
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield stop
        return

    def note(number: int, _: FrameType | None) -> None:
        if os.getpid() != owner and number == signal.SIGINT:
            return  # Ctrl-C reaches the workers too; the process they work for tells them when to end
        if os.getpid() != owner or stop.number:  # a worker process, or out of patience
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        stop.number = number

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
