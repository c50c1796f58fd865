"""A gallery that was opened before a process forks, as gunicorn's preload and multiprocessing do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.gallery.galleries import table_name

from nobackfill.gallery.stores.pool import Pool

SCRIPT = """
import os, sys
import numpy as np
from nobackfill.gallery import Gallery, Generation

rows = np.eye(8, dtype="f4")
ids = [str(number) for number in range(8)]
gallery = Gallery.create(sys.argv[1], Generation.named("old", 8), [(ids, rows, [{} for _ in ids])])
gallery.search(rows[:1], 1, "name:old")
children = []
for number in range(3):  # the last one is the parent itself
    child = os.fork() if number < 2 else None
    if not child:
        wrong = 0
        for turn in range(60):
            place = (turn + number) % 8
            wrong += gallery.search(rows[place : place + 1], 1, "name:old")[0][0].id != ids[place]
        if child == 0:
            os._exit(wrong)
    children.append(child)
print([os.waitpid(child, 0)[1] for child in children[:2]], wrong)
gallery.store.close()
"""


class Line:
    """A connection."""

    closed = False

    def close(self) -> None:
        self.closed = True


def test_a_forked_process_has_connections_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(Line, lambda one: not one.closed)
    with pool.borrowed() as held, pool.borrowed() as idle:
        pass
    with pool.borrowed() as held, monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        with pool.borrowed() as new:
            assert new not in (idle, held)
        pool.close()
        assert (new.closed, idle.closed) == (True, False)
    assert not held.closed


@pytest.mark.parametrize("kind", ["faiss", "postgresql"])
def test_a_gallery_that_was_opened_before_answers_in_each_process(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"faiss:{tmp_path / 'store'}"
    if kind == "postgresql":
        url = f"{request.getfixturevalue('server')}#{table_name()}"
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, url]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=200)
    assert ended.stdout == "[0, 0] 0\n", ended.stderr
