"""Many clients write to one gallery, are killed and go on: python -m tests.gallery.soak --store faiss --operations 1000

Each process adds, changes, removes and searches items of its own and backfills the items of all; meanwhile new models
come. Before each write a process notes what it will do, so what a killed one left is known to be whole or not there at
all. An item's vectors are made of the text in its payload, so a stale one shows. In the end every item is compared.
Not part of the test suite.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[2]))  # where a child finds this module
from tests.gallery.jobs import CONTEXT
from tests.gallery.restarts import Server, patiently

from nobackfill.errors import GalleryError
from nobackfill.gallery import Gallery, Generation
from nobackfill.gallery.stores.base import LockTakenError, UnreachableError

DIMS = (16, 24, 32)
OWN = 200  # items of each process
MODELS = [
    Generation(name=f"m{place}", dim=dim, fingerprint="abc"[place], compatible_with=tuple("abc"[:place]))
    for place, dim in enumerate(DIMS)
]
# Ends of a backfill that another one goes on with: by another command, or by an outage of the server.
RESUMABLE = ("given up by another command", "progress is saved", "lost the lock")
Items = dict[str, int | None]
"""Item → its text; None: it is not there."""


def vector(text: int, model: int) -> Any:
    row = np.random.default_rng(text).standard_normal(DIMS[-1])[: DIMS[model]].astype(np.float32)
    return row / np.linalg.norm(row)


class Client:
    """One process's items, its journal, and the faults it sees.

    Each line of the journal is an array: texts of items before a write, as they will be, or "done"; or a fault.
    """

    def __init__(self, url: str, journal: Path, number: int) -> None:
        self.gallery, self.number, self.draw = Gallery.open(url), number, random.Random(os.getpid())
        self.names = [f"p{number}-{place}" for place in range(OWN)]
        self.items, self.pending, self.texts = replayed(journal)
        self.journal = journal.open("a", encoding="utf-8")
        patiently(self.settle)

    def note(self, kind: str, content: object = None) -> None:
        self.journal.write(json.dumps([kind, content]) + "\n")
        self.journal.flush()

    def step(self) -> None:
        """One operation."""
        kind = self.draw.choices(["upsert", "delete", "search", "backfill"], weights=[40, 15, 44, 1])[0]
        some = self.draw.sample(self.names, self.draw.randint(1, 8))
        if kind == "upsert":
            model = self.draw.randint(0, len(self._models()) - 1)
            after: Items = {name: self._next() for name in some}
            self._will(after)
            rows = np.stack([vector(int(text or 0), model) for text in after.values()])
            payloads = [{"text": text} for text in after.values()]
            self.gallery.upsert(some, rows, payloads, fingerprint=MODELS[model].fingerprint)
            self._done(after)
        elif kind == "delete":
            self._will(dict.fromkeys(some))
            self.gallery.delete(some)
            self._done(dict.fromkeys(some))
        elif kind == "search":
            self._search()
        else:
            self._backfill()
        self.note("count", kind)

    def _search(self) -> None:
        model = self._models()[-1]
        query = vector(self.draw.randrange(10**9), model)
        (hits,) = self.gallery.search(query[None], 20, MODELS[model].fingerprint)
        names = [hit.id for hit in hits]
        if len(set(names)) < len(names):
            self.note("fault", f"doubled: {names}")
        for hit in hits:
            if hit.id in self.names:
                text, held = self.items.get(hit.id), [one.name for one in MODELS].index(hit.generation)
                if text is None:
                    self.note("fault", f"stale: {hit.id} was removed")
                elif abs(hit.score - float(query[: DIMS[held]] @ vector(text, held))) > 1e-4:
                    self.note("fault", f"stale: {hit.id} has the score of another text")

    def _backfill(self) -> None:
        newest = self._models()[-1]

        def embed(ids: list[str]) -> Any:
            payloads = self.gallery.store.payloads(ids)  # as an application would: the text as it is now
            return np.stack([vector(payloads.get(name, {"text": 0})["text"], newest) for name in ids])  # type: ignore[arg-type]

        target = self.draw.choice(["25%", "50%", "all"])
        try:
            self.gallery.backfill(embed, fingerprint=MODELS[newest].fingerprint, target=target, batch_size=64)
        except GalleryError as error:  # another process has the lock, added a model, or began the next backfill
            if isinstance(error, UnreachableError):
                raise
            if not isinstance(error, LockTakenError) and not any(words in str(error) for words in RESUMABLE):
                raise

    def _models(self) -> list[int]:
        return list(range(len(Gallery.open(self.gallery.store).manifest.generations)))

    def _next(self) -> int:
        self.texts += 1
        return self.texts * 100 + self.number

    def _will(self, after: Items) -> None:
        self.pending = after
        self.note("will", after)

    def _done(self, after: Items) -> None:
        self.items, self.pending = self.items | after, None
        self.note("done", after)

    def settle(self) -> None:
        """Of a write that a kill or an outage interrupted: all of it is there, or nothing."""
        after = self.pending
        if after is None:
            return
        there = self.gallery.store.payloads(list(after))
        now = {name: there[name]["text"] if name in there else None for name in after}
        before = {name: self.items.get(name) for name in after}
        if now not in (after, before):
            self.note("fault", f"lost: half a write: {now}, neither {before} nor {after}")
        self._done(now)  # type: ignore[arg-type]


def replayed(journal: Path) -> tuple[Items, Items | None, int]:
    """A process's items, the write that was not noted as done, and the highest text so far."""
    items: Items = {}
    pending: Items | None = None
    last = 0
    for kind, content in entries(journal):
        if kind == "will":
            pending = content
            last = max([last, *(text // 100 for text in content.values() if text is not None)])
        elif kind == "done":
            items, pending = items | content, None
    return items, pending, last


def entries(journal: Path) -> Iterator[tuple[str, Any]]:
    """Whole lines; a kill may have cut the last one."""
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.exists() else ():
        with contextlib.suppress(ValueError):
            kind, content = json.loads(line)
            yield kind, content


def work(url: str, journal: str, number: int) -> None:
    """A process: operations until it is killed."""
    client = patiently(partial(Client, url, Path(journal), number))
    while True:
        try:
            client.step()
        except UnreachableError:  # the server is down: was it before the write, or after?
            patiently(client.settle)


def final_faults(url: str, journals: list[Path]) -> Iterator[str]:
    """What is not as the journals say."""
    gallery = Gallery.open(url)
    seen: Counter[str] = Counter()
    wanted: Items = {}
    for number, journal in enumerate(journals):
        client = Client(url, journal, number)
        wanted |= client.items
        client.gallery.store.close()
        yield from (content for kind, content in entries(journal) if kind == "fault")
    for some in gallery.store.scan(512):
        payloads = gallery.store.payloads(some.ids)
        for name, row in zip(some.ids, some.vectors, strict=True):
            seen[name] += 1
            text: Any = payloads[name]["text"]
            if text != wanted.get(name):
                yield f"lost: {name} has text {text}, not {wanted.get(name)}"
            elif np.abs(row - vector(text, some.generation - 1)).max() > 1e-4:
                yield f"stale: {name} has the vector of another text"
    yield from (f"doubled: {name}" for name, count in seen.items() if count > 1)
    yield from (f"lost: {name}" for name, text in wanted.items() if text is not None and name not in seen)
    yield from (f"verify: {fault}" for fault in gallery.verify())
    print(f"\n{sum(seen.values())} items, by generation {gallery.store.counts()}")
    gallery.store.close()


class Counts:
    """Operations that journals have noted, read on from where the last look ended.

    Args:
        journals: of all processes.
    """

    def __init__(self, journals: list[Path]) -> None:
        self.ends, self.done = dict.fromkeys(journals, 0), Counter[str]()

    def look(self) -> int:
        """All operations until now."""
        for journal, end in self.ends.items():
            if journal.exists():
                with journal.open("rb") as file:
                    file.seek(end)
                    lines = file.read().rpartition(b"\n")[0].splitlines()
                self.ends[journal] += sum(len(line) + 1 for line in lines)
                self.done.update(json.loads(line)[1] for line in lines if line.startswith(b'["count"'))
        return sum(self.done.values())


def soak(url: str, folder: Path, arguments: argparse.Namespace, server: Server | None) -> list[str]:
    """Runs processes and kills them until there were enough operations; returns the faults."""
    Gallery.create(url, MODELS[0]).store.close()
    journals = [folder / f"journal{number}" for number in range(arguments.processes)]
    draw, kills, started, models = random.Random(arguments.seed), 0, time.monotonic(), 1
    running: dict[int, Any] = {}
    counts = Counts(journals)
    while (done := counts.look()) < arguments.operations:
        for number, journal in enumerate(journals):
            if number not in running or not running[number].is_alive():
                if number in running and running[number].exitcode != -signal.SIGKILL:
                    raise SystemExit(f"process {number} ended with exit code {running[number].exitcode}; see above")
                running[number] = CONTEXT.Process(target=work, args=(url, str(journal), number), daemon=True)
                running[number].start()
        time.sleep(draw.uniform(0.2, 2 * arguments.kill_every))
        running[draw.randrange(len(journals))].kill()
        kills += 1
        if server and done > arguments.operations * (server.restarts + 1) / (arguments.restarts + 1):
            server.restart()
        if models < 3 and done > arguments.operations * models / 3:
            gallery = Gallery.open(url)
            with contextlib.suppress(LockTakenError):
                gallery.add_generation(MODELS[models], np.stack([vector(text, models) for text in range(50)]))
                models += 1
            gallery.store.close()
        restarts = f", {server.restarts} restarts" if server else ""
        print(f"\r{dict(counts.done)}, {kills} kills{restarts}, {time.monotonic() - started:.0f} s", end="", flush=True)
        for process in running.values():
            process.join(0)
    for process in running.values():
        process.kill()
        process.join()
    return list(final_faults(url, journals))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", default="faiss", choices=["faiss", "lance", "postgresql"])
    parser.add_argument("--operations", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--kill-every", type=float, default=2.0, help="seconds between two SIGKILLs, on average")
    parser.add_argument("--restarts", type=int, default=0, help="of the PostgreSQL server, over the whole run")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        url = f"{arguments.store}:{name}/store"
        server = None
        if arguments.store == "postgresql":
            server = Server(Path(name, "pg"), arguments.seed)
            stack.callback(server.close)
            url = f"{server.url}#items"
        faults = soak(url, Path(name), arguments, server)
    kinds = Counter(fault.partition(":")[0] for fault in faults)
    print(
        f"lost {kinds.pop('lost', 0)}, doubled {kinds.pop('doubled', 0)}, stale {kinds.pop('stale', 0)}, {dict(kinds)}"
    )
    print(*faults[:20], sep="\n")
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
