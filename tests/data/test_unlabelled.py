"""What galleries are filled with: images and texts without classes."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from nobackfill.data.unlabelled import load_image_files, load_text_column
from nobackfill.errors import DataError

ROWS = [{"id": "b", "text": "eins"}, {"id": "a", "text": "zwei, drei"}, {"id": "ü\n", "text": "vier"}]


def test_images_at_any_depth(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "sub/c.png", ".hidden.png", ".trash/d.png", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(path, "PNG")
    (tmp_path / "folder.png").mkdir()
    samples = load_image_files(tmp_path)
    assert list(samples.ids) == [str(tmp_path / name) for name in ("a.JPG", "b.png", "sub/c.png")]
    assert len(samples) == 3
    with pytest.raises(DataError, match="no such folder"):
        load_image_files(tmp_path / "none")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no image files in it; known extensions"):
        load_image_files(empty)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_texts_with_ids_of_their_own_or_their_positions(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"notes{suffix}"
    if suffix == ".parquet":
        parquet.write_table(pa.table({name: [row[name] for row in ROWS] for name in ("id", "text")}), path)
    elif suffix == ".csv":
        path.write_text("id,text\n" + "".join(f'"{row["id"]}","{row["text"]}"\n' for row in ROWS), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    ids, samples = load_text_column(path, "text", "id")
    assert ids == [row["id"] for row in ROWS]
    assert samples.texts == tuple(row["text"] for row in ROWS)
    assert load_text_column(path, "text", None)[0] == ["0", "1", "2"]
    with pytest.raises(DataError, match="no column 'txt'"):
        load_text_column(path, "txt", None)


def test_whole_numbers_are_ids_and_no_id_comes_twice(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text('{"key": 7, "body": "x"}\n{"key": "8", "body": "y"}\n')
    assert load_text_column(path, "body", "key")[0] == ["7", "8"]
    path.write_text('{"key": 7, "body": "x"}\n{"key": 1, "body": "z"}\n{"key": "7", "body": "y"}\n')
    with pytest.raises(DataError, match="rows 1 and 3 have the same 'key', '7'; expected unique ids"):
        load_text_column(path, "body", "key")
    path.write_text('{"key": 7, "body": "x"}\n{"key": null, "body": "y"}\n')
    with pytest.raises(DataError, match="row 2: column 'key' is empty"):
        load_text_column(path, "body", "key")
