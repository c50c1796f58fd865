"""Whatever is in a file: it is read, or refused in one line, without a traceback and without much memory."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save

from nobackfill.cli.app import run
from nobackfill.cli.vectors import read_relevant, read_texts
from nobackfill.config import load_config
from nobackfill.data.captions import _read as read_captions
from nobackfill.data.preprocessing import read_image
from nobackfill.data.text_files import read_columns
from nobackfill.errors import DataError, GalleryError, NobackfillError, visible
from nobackfill.files import read_npy, read_text
from nobackfill.gallery.formats import parse_document
from nobackfill.gallery.lineage import Manifest
from nobackfill.models.runfolder import _header
from nobackfill.models.spec import read_spec
from nobackfill.reports.document import read_report
from nobackfill.reports.html import build_report
from nobackfill.reports.markdown import build_markdown

FIXTURES = Path(__file__).parent / "fixtures"
REPORTS = sorted(FIXTURES.glob("report_*.json"))


def _report(path: Path) -> None:
    report = read_report(path)
    build_markdown(report, "x")
    build_report(report, "x")


def _npy() -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, np.arange(12, dtype=np.float32).reshape(3, 4))
    return buffer.getvalue()


def _parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": ["a", "b"], "label": ["x", "y"]}), sink)
    return bytes(sink.getvalue())


READERS: dict[str, tuple[Callable[[Path], object], bytes]] = {
    "config.yaml": (load_config, b"method: bt2\ndata: {name: digits, classes: [1, 2]}\nepochs: 3\n"),
    "embedding.json": (read_spec, (FIXTURES / "run_format_1" / "embedding.json").read_bytes()),
    "report.json": (_report, REPORTS[0].read_bytes()),
    "a.npy": (read_npy, _npy()),
    "a.parquet": (lambda path: read_columns(path, ["text", "label"]), _parquet()),
    "a.csv": (lambda path: read_columns(path, ["text", "label"]), b'text,label\n"a, b",x\nc,y\n'),
    "a.jsonl": (lambda path: read_columns(path, ["text"]), b'{"text": "a", "n": 1}\n{"text": "b"}\n'),
    "model.safetensors": (_header, save({"a": np.ones((2, 3), np.float32), "b": np.zeros(2, np.int64)})),
    "captions.json": (read_captions, b'{"a.png": "a", "b.png": "b"}'),
    "relevant.json": (lambda path: read_relevant(path, "--relevant"), b"[[1, 2], [3]]"),
    "ids.txt": (lambda path: read_texts(path, 2, "--ids"), b"a\nb\n"),
    "manifest.json": (
        lambda path: parse_document(Manifest, path.read_bytes(), "manifest"),
        b'{"format": 1, "generations": [{"name": "a", "dim": 3, "fingerprint": "f"}]}',
    ),
}
PIECES = [
    b"[" * 5000,
    b"{" * 5000,
    b"9" * 5000,
    b"1e999",
    b"-1",
    b"null",
    b"\x00",
    b"\xff\xfe",
    b"NaN",
    b'"',
    b"\x1b[2J",
    b"&a *a",
]


@pytest.fixture(scope="module", autouse=True)
def bounded() -> Iterator[None]:
    """Not more address space than this process has now and 2 GiB: what is refused must not be allocated first."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**31, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def read(path: Path, reader: Callable[[Path], object]) -> None:
    message = ""
    try:
        reader(path)
    except NobackfillError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 3000


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files(tmp_path: Path, name: str, data: st.DataObject) -> None:
    reader, whole = READERS[name]
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 4))):
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, min(len(content), start + 40)))
        content[start:stop] = data.draw(st.binary(max_size=12) | st.sampled_from(PIECES))
    path = tmp_path / name
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content))
    read(path, reader)


@pytest.mark.parametrize("name", ["report.json", "embedding.json", "manifest.json", "captions.json"])
@given(data=st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_values_of_other_kinds(tmp_path: Path, name: str, data: st.DataObject) -> None:
    """One value anywhere in the tree is replaced by one of another kind."""
    reader, whole = READERS[name]
    tree = json.loads(whole)
    place = tree
    while isinstance(place, dict | list) and place:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.integers(0, 3)) == 0:
            place[key] = data.draw(
                st.none()
                | st.booleans()
                | st.integers()
                | st.just(10**400)
                | st.floats()
                | st.text()
                | st.just([])
                | st.just({})
                | st.just([[]])
                | st.just("\x1b]0;t\x07\u202e")
            )
            break
        place = place[key]
    path = tmp_path / name
    path.write_text(json.dumps(tree))
    read(path, reader)


def test_a_head_that_promises_more_than_the_file_has(tmp_path: Path) -> None:
    head = str({"descr": "<f4", "fortran_order": False, "shape": (10**12, 64)}).encode().ljust(117) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head)
    with pytest.raises(DataError, match=r"a.npy: cannot be read as a \.npy array"):
        read_npy(tmp_path / "a.npy")
    tensor = json.dumps({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(tensor)) + tensor)
    with pytest.raises(NobackfillError, match="not readable as safetensors"):
        _header(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", READERS)
def test_pipes_and_devices_are_refused_at_once(tmp_path: Path, name: str) -> None:
    if name == "manifest.json":
        pytest.skip("stores read it")
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(NobackfillError, match="expected a regular file, found a pipe|not readable"):
        READERS[name][0](path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(NobackfillError, match="expected a regular file, found a pipe|not readable"):
        READERS[name][0](path)


def test_a_pipe_among_images_and_a_device_as_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "f.png")
    with pytest.raises(DataError, match=r"f\.png"):
        read_image(tmp_path / "f.png")
    Image.new("RGB", (2, 2)).save(tmp_path / "g.png")
    (tmp_path / "h.png").symlink_to(tmp_path / "g.png")
    assert read_image(tmp_path / "h.png").shape == (2, 2, 3)
    assert run(["report", "/dev/zero", "--out", str(tmp_path / "r.html")]) == 2
    assert "expected a regular file" in capsys.readouterr().err


def test_bounded_reads(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a\r\nb\rc")
    assert read_text(tmp_path / "a", 6) == "a\nb\nc"
    with pytest.raises(OSError, match="larger than 5 bytes"):
        read_text(tmp_path / "a", 5)


@given(st.text())
def test_visible_text_prints_as_it_is(text: str) -> None:
    shown = visible(text)
    assert not set(shown) & set("\x1b\n\r\x00\x7f\x9b\u202e\u2066\u2028\ufeff")
    assert visible(shown) == shown
    assert visible("Ünïcödé, 你好 👩\u200d🚀") == "Ünïcödé, 你好 👩\u200d🚀"
    assert visible("a\nb\x1b", keep="\n") == "a\nb\\x1b"


def test_a_manifest_without_generations_is_refused_in_a_line() -> None:
    with pytest.raises(GalleryError, match="manifest is damaged"):
        parse_document(Manifest, b'{"format": 1, "generations": []}', "manifest")
