"""Reading a file of unknown origin takes at most ten times its size and 200 MB, whatever it claims to hold."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nobackfill.untrusted import cells, parse_json

pytest.importorskip("resource", reason="this system does not tell a process's peak memory")
MB = 2**20
# The peak is measured in a process of its own, after a small file of the same kind has loaded all that reading needs.
# They are forks of one process, which has imported everything and read nothing.
SCRIPT = """
import os, sys
from pathlib import Path
import tests.test_hostile_files as hostile
from nobackfill.errors import NobackfillError
from nobackfill.cli.fit_inputs import _parquet
readers = {name: reader for name, (reader, _) in hostile.READERS.items()}
readers["pairs.parquet"] = _parquet
def peak():
    # Not ru_maxrss: it starts with what the parent had when it forked.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
def taken(kind, *paths):
    error = ""
    for path in paths:
        before = peak()
        try:
            kept = readers[kind](Path(path))
        except NobackfillError as refused:
            error = str(refused)
            assert "\\n" not in error
    return f"{peak() - before} {error}"
for line in sys.stdin:
    child = os.fork()
    if not child:
        print(taken(*line.rstrip("\\n").split("\\t")), flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(flush=True)
"""
BIG = 12 * MB


def repeated(text: str) -> str:
    return text * (BIG // len(text))


def npy(path: Path) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 512), }"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(BIG))


def safetensors(path: Path) -> None:
    entry = {"dtype": "F32", "shape": [10**9, 512], "data_offsets": [0, 4 * 512 * 10**9]}
    header = json.dumps({"model": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(BIG))


def long_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**40) + b"{" * BIG)


def one_text(path: Path) -> None:
    """A gigabyte of texts in some kilobytes: one entry of a dictionary, a million times."""
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10**6, np.int32)), pa.array(["x" * 1000]))
    pq.write_table(pa.table({"text": column, "label": column}), path)


def zeros(path: Path) -> None:
    """Eight hundred megabytes of vectors in some kilobytes."""
    with pq.ParquetWriter(path, pa.schema({"id": pa.int64(), "vector": pa.list_(pa.float32(), 512)})) as writer:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(512 * 50_000, np.float32)), 512)
        for _ in range(8):
            writer.write_table(pa.table({"id": pa.array(range(50_000)), "vector": vectors}, writer.schema))


def rows(path: Path) -> None:
    path.write_text("text,label\n" + repeated("ab,cd\n"))


def text(content: Callable[[], str]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(content())

    return write


ATTACKS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "npy that claims 2 TB": ("a.npy", npy),
    "safetensors that claims 2 TB": ("model.safetensors", safetensors),
    "safetensors with a header of 1 TB": ("model.safetensors", long_header),
    "parquet of one text": ("a.parquet", one_text),
    "parquet of zeros": ("pairs.parquet", zeros),
    "csv of short cells": ("a.csv", rows),
    "jsonl in one line": ("a.jsonl", text(lambda: '{"text": [' + repeated("[],") + "[]]}")),
    "report of lists": ("report.json", text(lambda: '{"format": 1, "searches": [' + repeated("[],") + "[]]}")),
    "report of objects": ("report.json", text(lambda: '{"format": 1, "searches": [' + repeated('{"a":1},') + "{}]}")),
    "report nested deeply": ("report.json", text(lambda: "[" * BIG)),
    "relevance of lists": ("relevant.json", text(lambda: "[" + repeated("[],") + "[]]")),
    "captions of lists": ("captions.json", text(lambda: '{"a.png": [' + repeated("{},") + "{}]}")),
    "ids of short lines": ("ids.txt", text(lambda: repeated("ab\n"))),
    "config of lists": ("config.yaml", text(lambda: "[" + repeated("[],") + "[]]")),
    "embedding.json of lists": ("embedding.json", text(lambda: "[" + repeated("[],") + "[]]")),
}


@pytest.fixture(scope="module")
def reader() -> Iterator[subprocess.Popen[str]]:
    """Takes lines of a kind, a small file and a large one; gives the bytes that reading the large one took."""
    command = [sys.executable, "-c", SCRIPT]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        yield process
        process.communicate()
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("attack", ATTACKS)
def test_reading_takes_no_more_than_the_size_explains(
    tmp_path: Path, attack: str, reader: subprocess.Popen[str]
) -> None:
    from tests.test_hostile_files import READERS

    kind, make = ATTACKS[attack]
    small, large = tmp_path / "small" / kind, tmp_path / "large" / kind
    for path in (small, large):
        path.parent.mkdir()
    small.write_bytes(READERS["a.parquet" if kind == "pairs.parquet" else kind][1])
    make(large)
    assert reader.stdin
    assert reader.stdout
    reader.stdin.write(f"{kind}\t{small}\t{large}\n")
    reader.stdin.flush()
    taken, _, error = reader.stdout.readline().partition(" ")
    assert taken.isdigit(), "the reading process ended; its stderr says why"
    assert int(taken) <= 10 * large.stat().st_size + 200 * MB, f"{int(taken) / MB:.0f} MB: {error}"


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_what_is_no_attack_is_read(value: object) -> None:
    assert parse_json(json.dumps(value)) == value


@given(st.lists(st.none() | st.sampled_from(["a", "bc", "ü", ""])), st.booleans(), st.integers(1, 3))
def test_cells_are_those_of_the_column(values: list[str | None], encoded: bool, chunks: int) -> None:
    array = pa.array(values, pa.string())
    column = pa.chunked_array([array] * chunks)
    assert cells(column.dictionary_encode() if encoded else column) == values * chunks


def test_cells_of_other_types() -> None:
    for values in ([1, None, 3], [1.5, None], [[1, 2], None], [True, False]):
        assert cells(pa.chunked_array([pa.array(values)])) == values
