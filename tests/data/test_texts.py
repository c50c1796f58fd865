"""Texts and pairs from files: what is read, what is refused, and that nothing stands on both sides of a split."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from nobackfill.config import parse_data
from nobackfill.data import PairSamples, Samples, TextSamples, load_split, summarise
from nobackfill.data import text_files as reading
from nobackfill.data.grouping import connected
from nobackfill.errors import DataError, NobackfillError

ROWS = [('é, "quoted"', "b"), ("two\nlines", "a"), ("three", "b"), ("four", "a"), ("three", "b"), ("six", "b")]


def write_csv(path: Path, rows: Sequence[tuple[str, ...]], header: tuple[str, ...] = ("text", "label")) -> Path:
    quoted = ([f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row] for row in (header, *rows))
    path.write_text("\n".join(",".join(row) for row in quoted) + "\n", encoding="utf-8")
    return path


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Sequence[tuple[str, ...]]) -> Path:
    texts, labels = zip(*rows, strict=True)
    parquet.write_table(pa.table({"text": texts, "label": labels, "more": range(len(rows))}), path)
    return path


WRITERS: dict[str, Callable[[Path], Path]] = {
    "csv": lambda path: write_csv(path, ROWS),
    "jsonl": lambda path: write_lines(path, [{"text": text, "label": label} for text, label in ROWS]),
    "parquet": lambda path: write_parquet(path, ROWS),
}


def load(split: str, **section: Any) -> Any:
    data = parse_data({key: str(value) if isinstance(value, Path) else value for key, value in section.items()})
    return load_split(data, split)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_file_says_the_same(tmp_path: Path, kind: str) -> None:
    file = WRITERS[kind](tmp_path / f"texts.{kind}")
    texts = load("train", name="texts", train=file)
    assert isinstance(texts, TextSamples)
    assert list(texts.texts) == [text for text, _ in ROWS]
    assert [texts.class_names[label] for label in texts.labels] == [label for _, label in ROWS]
    summary = summarise(parse_data({"name": "texts", "train": str(file)}))
    assert (summary.count, summary.classes) == (6, 2)


def test_a_long_text_and_labels_that_are_numbers(tmp_path: Path) -> None:
    long = "word " * 200_000
    file = write_lines(tmp_path / "a.jsonl", [{"text": long, "label": 10}, {"text": "b", "label": 9}])
    samples = load("train", name="texts", train=file)
    assert (len(samples.texts[0]), samples.class_names) == (1_000_000, ("10", "9"))
    csv = load("train", name="texts", train=write_csv(tmp_path / "a.csv", [(long, "x"), ("b", "y")]))
    assert csv.texts[0] == long
    assert load("train", name="texts", train=file, label=None).class_names == ("unlabelled",)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=30))
def test_connected__equals_a_slow_closure(rows: list[tuple[int, int]]) -> None:
    groups = connected([one for one, _ in rows], [other for _, other in rows])
    near = np.array([[a == c or b == d for c, d in rows] for a, b in rows])
    for _ in rows:
        near = (near.astype(int) @ near.astype(int)) > 0
    np.testing.assert_array_equal(groups[:, None] == groups, near)


def test_a_text_is_never_on_both_sides(tmp_path: Path) -> None:
    rows = [(f"text {number % 30}", str(number % 3)) for number in range(100)]
    section = {"name": "texts", "train": write_csv(tmp_path / "a.csv", rows), "test_fraction": 0.25}
    train, test = load("train", **section), load("test", **section)
    assert not set(train.texts) & set(test.texts)
    assert len(train) + len(test) == 100
    assert 20 <= len(test) <= 25
    assert load("test", **section).texts == test.texts
    held = load("test", name="texts", train=section["train"], holdout=12)
    assert 9 <= len(held) <= 12


def test_training_rows_that_are_tested_on_are_left_out_and_counted(tmp_path: Path) -> None:
    section = {"name": "texts", "train": write_csv(tmp_path / "a.csv", ROWS)}
    section["test"] = write_csv(tmp_path / "b.csv", [("three", "c"), ("new", "a")])
    train, test = load("train", **section), load("test", **section)
    assert (len(train), test.texts, train.class_names) == (4, ("three", "new"), ("a", "b", "c"))
    assert train.skipped == (f"{section['train']}: 2 rows whose text is in {section['test']} too",)


def test_what_a_file_tests_is_not_held_out_either(tmp_path: Path) -> None:
    """`holdout` is for tuning without the test set: neither side of it has a text of the file."""
    section: dict[str, Any] = {"name": "texts", "holdout": 10}
    section["train"] = write_csv(tmp_path / "a.csv", [(f"t{n}", str(n % 2)) for n in range(40)])
    section["test"] = write_csv(tmp_path / "b.csv", [(f"t{n}", str(n % 2)) for n in range(20)])
    sides = {split: load(split, **section) for split in ("train", "test")}
    assert {split: len(side) for split, side in sides.items()} == {"train": 10, "test": 10}
    assert {text for side in sides.values() for text in side.texts} == {f"t{n}" for n in range(20, 40)}
    line = f"{section['train']}: 20 rows whose text is in {section['test']} too"
    assert [side.skipped for side in sides.values()] == [(line,)] * 2
    assert summarise(parse_data({key: str(value) for key, value in section.items()})).count == 20


PAIRS: list[dict[str, Any]] = [
    {"q": "q1", "d": "d1", "n": ["d1", "x", "d2"], "page": 1},
    {"q": "q1", "d": "d2", "n": [], "page": 2},
    {"q": "q2", "d": "d3", "n": None, "page": 2},
    {"q": "q3", "d": "d1", "n": ["x"], "page": 1},
    {"q": "q4", "d": "d4", "n": ["y"], "page": 3},
]
SECTION = {"name": "pairs", "query": "q", "positive": "d", "negatives": ["n"], "id": "page"}


def test_pairs_know_their_texts_and_who_answers_whom(tmp_path: Path) -> None:
    pairs = load("train", **SECTION, train=write_lines(tmp_path / "p.jsonl", PAIRS))
    assert isinstance(pairs, PairSamples)
    assert pairs.queries.texts == ("q1", "q2", "q3", "q4")
    assert pairs.documents.texts == ("d1", "d2", "d3", "d4", "x", "y")
    assert (pairs.queries.role, pairs.documents.role) == ("query", "document")
    assert [pairs.documents.texts[i] for i in pairs.negatives[0]] == ["d2", "x"]  # its own document is none
    assert pairs.skipped[0].endswith("1 negatives that are the pair's own document, or are tested on")
    assert [each.tolist() for each in pairs.relevant()] == [[0, 1, 2], [1, 2], [0], [3]]
    found = pairs.answers(np.arange(4), np.arange(6))  # d2 and d3 have one id
    assert found.astype(int).tolist() == [
        [1, 1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0, 0],
        [1, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
    ]
    some = pairs.take(np.array([3, 2]))
    assert (some.queries.texts, some.documents.texts) == (("q2", "q3"), ("d1", "d3", "x"))
    assert [some.queries.texts[i] for i in some.query] == ["q3", "q2"]
    assert [some.documents.texts[i] for i in some.document] == ["d1", "d3"]
    assert len(set(some.group.tolist())) == 3
    with pytest.raises(DataError, match="holds pairs of texts"):
        some.inputs("text")


def both(tmp_path: Path, rows: list[dict[str, Any]], **more: Any) -> tuple[Samples, Samples]:
    file = write_lines(tmp_path / "rows.jsonl", rows)
    return load("train", **SECTION, train=file, **more), load("test", **SECTION, train=file, **more)


def test_no_query_document_or_id_is_on_both_sides(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [
        {
            "q": f"q{random.integers(60)}",
            "d": f"d{number % 150}",
            "n": [f"d{random.integers(150)}"],
            "page": number % 75,
        }
        for number in range(160)
    ]
    for number in range(160):  # many small groups
        rows[number]["q"] = f"q{number % 75}-{random.integers(2)}"
    train, test = both(tmp_path, rows, test_fraction=0.2)
    assert isinstance(train, PairSamples)
    assert isinstance(test, PairSamples)
    assert not set(train.queries.texts) & set(test.queries.texts)
    tested = {test.documents.texts[i] for i in test.document}
    assert not set(train.documents.texts) & tested
    page = {row["d"]: row["page"] for row in rows}
    assert not {page[train.documents.texts[i]] for i in train.document} & {page[text] for text in tested}
    assert len(train) + len(test) == 160
    file = write_lines(tmp_path / "test.jsonl", [{"q": "q0-0", "d": "new", "n": [], "page": 999}])
    train, test = both(tmp_path, rows, test=str(file))
    assert len(test) == 1
    assert isinstance(train, PairSamples)
    assert "q0-0" not in train.queries.texts
    assert any("pairs whose query or document is tested on" in line for line in train.skipped)


def test_pairs_that_a_file_tests_are_not_held_out_either(tmp_path: Path) -> None:
    rows = [{"q": f"q{n}", "d": f"d{n}", "n": [f"d{39 - n}"], "page": n} for n in range(40)]
    tested = [{"q": "q0", "d": "new", "n": [], "page": 90}, {"q": "other", "d": "d1", "n": [], "page": 91},
              {"q": "more", "d": "newer", "n": [], "page": 2}]  # fmt: skip
    train, test = both(tmp_path, rows, test=write_lines(tmp_path / "test.jsonl", tested), holdout=10)
    assert (len(train), len(test)) == (27, 10)
    for side in (train, test):
        assert isinstance(side, PairSamples)
        assert not {"q0", "q1", "q2"} & set(side.queries.texts)
        assert not {"d0", "d1", "d2"} & {side.documents.texts[i] for i in side.document}
        assert "d1" not in side.documents.texts
        assert any(line.endswith("3 pairs whose query or document is tested on") for line in side.skipped)


def bad_files(folder: Path) -> dict[str, tuple[Path, dict[str, Any], str]]:
    latin = folder / "latin.csv"
    latin.write_bytes("text,label\ncafé,a\nb,b\n".encode("latin-1"))
    ragged = folder / "ragged.csv"
    ragged.write_text("text,label\na,b\na,b,c\n")
    lines = folder / "bad.jsonl"
    lines.write_text('{"text": "a", "label": "b"}\n{"text": \n')
    damaged = folder / "damaged.parquet"
    damaged.write_bytes(b"PAR1 nothing of the kind PAR1")
    unknown = folder / "a.txt"
    unknown.write_text("a")
    good = write_csv(folder / "good.csv", [("a", "x"), ("b", "y")])
    one = write_csv(folder / "one.csv", [("a", "x")])
    same = write_csv(folder / "same.csv", [("a", "x")] * 9)
    empty = write_csv(folder / "empty.csv", [("a", "x"), ("  ", "y")])
    number = write_lines(folder / "number.jsonl", [{"text": 3, "label": "a"}])
    cut = folder / "cut.jsonl"
    cut.write_text('{"text": "a \\ud83d", "label": "b"}\n')  # an emoji cut in two
    return {
        "a missing column": (good, {"text": "txt"}, "good.csv: no column 'txt'; did you mean 'text'?"),
        "an empty text": (empty, {}, "row 2: column 'text' is empty"),
        "no text": (number, {}, "row 1: column 'text' is int, expected a text"),
        "half an emoji": (cut, {}, "cut.jsonl: row 1: column 'text': half a surrogate pair, which is no Unicode text"),
        "Latin-1": (latin, {}, "latin.csv: not valid UTF-8; convert the file to UTF-8"),
        "ragged": (ragged, {}, "ragged.csv: not valid CSV: .*Expected 2 columns, got 3"),
        "half a line": (lines, {}, "bad.jsonl: row 2: not valid JSON"),
        "no parquet": (damaged, {}, "damaged.parquet: not readable as parquet"),
        "another type": (unknown, {}, "unknown file type '.txt'; expected .csv"),
        "nothing": (folder / "none.csv", {}, "none.csv: cannot be read: No such file"),
        "no rows": (write_csv(folder / "norows.csv", []), {}, "norows.csv: no rows in it"),
        "one row": (one, {"test_fraction": 0.5}, "cannot hold out 0 of 1 rows"),
        "one text": (same, {"test_fraction": 0.5}, "the largest such group has 9"),
        "no test": (good, {}, "no test split; set data.test, data.test_fraction or data.holdout"),
        "both": (good, {"test_fraction": 0.5, "holdout": 3}, "keys 'data.test_fraction', 'data.holdout'"),
        "all tested": (one, {"test": str(one), "split": "train"}, "every text of it is in"),
        "pairs with classes": (good, {"name": "pairs", "classes": 3}, "'data.classes': pairs have no classes"),
    }  # fmt: skip


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    for name, (file, changes, message) in bad_files(tmp_path).items():
        split = changes.pop("split", "test")
        with pytest.raises(NobackfillError, match=message) as caught:
            load(split, **{"name": "texts", "train": file, **changes})
        assert "\n" not in str(caught.value), name


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 10)
    with pytest.raises(DataError, match="expected at most 10; split the file"):
        load("train", name="texts", train=write_csv(tmp_path / "a.csv", ROWS))
