from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from nobackfill.data.cifar100 import load_cifar100
from nobackfill.errors import DataError

NAMES = tuple(f"class{number:02d}" for number in range(100))
REAL = Path(__file__).parents[3] / "shared" / "data" / "cifar100"


def sample(count: int = 5) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), generator.integers(0, 100, count)


def planes(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    flat: NDArray[np.uint8] = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return flat


def write_parquet(root: Path) -> None:
    images, labels = sample()
    for part, rows in enumerate(np.array_split(np.arange(len(images)), 2)):
        encoded = []
        for row in rows:
            buffer = io.BytesIO()
            Image.fromarray(images[row]).save(buffer, format="WEBP", lossless=True)
            encoded.append({"bytes": buffer.getvalue(), "path": None})
        features = {"info": {"features": {"fine_label": {"names": NAMES}}}}
        table = pa.table({"img": encoded, "fine_label": labels[rows], "coarse_label": labels[rows] // 5})
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
        pq.write_table(table, root / f"train-{part:05d}-of-00002.parquet")


def write_python(folder: Path, protocol: int = 2) -> None:
    images, labels = sample()
    folder.mkdir(parents=True)
    batch = {b"data": planes(images), b"fine_labels": labels.tolist(), b"filenames": [b"a.png"] * len(images)}
    (folder / "train").write_bytes(pickle.dumps(batch, protocol=protocol))
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": [name.encode() for name in NAMES]}, protocol=2))


def write_binary(folder: Path) -> None:
    images, labels = sample()
    folder.mkdir(parents=True)
    records = np.concatenate([np.zeros((len(labels), 1)), labels[:, None], planes(images)], axis=1).astype(np.uint8)
    (folder / "train.bin").write_bytes(records.tobytes())
    (folder / "fine_label_names.txt").write_text("\n".join(NAMES) + "\n")


def pack(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    return archive


def layouts(tmp_path: Path) -> dict[str, Path]:
    roots = {name: tmp_path / name for name in ("parquet", "python", "binary", "tar", "inside")}
    for root in roots.values():
        root.mkdir()
    write_parquet(roots["parquet"])
    write_python(roots["python"] / "cifar-100-python")
    write_binary(roots["binary"] / "cifar-100-binary")
    pack(roots["python"] / "cifar-100-python", roots["tar"] / "cifar-100-python.tar.gz")
    archive = pack(roots["binary"] / "cifar-100-binary", roots["inside"] / "other-name.tgz")
    return {**roots, "archive": archive, "inside": roots["python"] / "cifar-100-python"}


@pytest.mark.parametrize("layout", ["parquet", "python", "binary", "tar", "archive", "inside"])
def test_every_layout_gives_the_same_images(tmp_path: Path, layout: str) -> None:
    found = load_cifar100(layouts(tmp_path)[layout], "train")
    images, labels = sample()
    assert isinstance(found.images, np.ndarray)
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_array_equal(found.labels, labels)
    assert found.class_names == NAMES


def test_a_parquet_file_that_decodes_to_far_more_is_refused(tmp_path: Path) -> None:
    image = pa.array([{"bytes": bytes(20_000)}] * 2000, pa.struct([("bytes", pa.binary())]))
    table = pa.table({"img": image, "fine_label": pa.array(range(2000))})
    path = tmp_path / "train-00000-of-00001.parquet"
    with pq.ParquetWriter(path, table.schema, compression="zstd", use_dictionary=False) as writer:
        for _ in range(10):
            writer.write_table(table)
    with pytest.raises(DataError, match=r"train-00000-of-00001.parquet: \d+ bytes that decode to 4\d+ or more"):
        load_cifar100(tmp_path, "train")


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    folder = layouts(tmp_path)["binary"]
    (names,) = folder.rglob("fine_label_names.txt")
    names.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"fine_label_names.txt: not UTF-8 text"):
        load_cifar100(folder, "train")


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_python_batches_of_other_protocols(tmp_path: Path, protocol: int) -> None:
    write_python(tmp_path / "a", protocol)
    assert len(load_cifar100(tmp_path / "a", "train")) == 5


def test_class_folders(tmp_path: Path) -> None:
    (tmp_path / "training" / "apple").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(tmp_path / "training" / "apple" / "1.png")
    assert load_cifar100(tmp_path, "train").class_names == ("apple",)


class Evil:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "evil",
    [
        Evil(os.system, ("touch owned",)),
        Evil(eval, ("open('owned', 'w')",)),
        Evil(__import__, ("os",)),
        np.array([{"a": 1}], dtype=object),
        np.zeros(3, dtype=[("a", "i4")]),
    ],
)
def test_a_pickle_that_holds_more_than_arrays_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evil: object
) -> None:
    monkeypatch.chdir(tmp_path)
    write_python(tmp_path / "python")
    (tmp_path / "python" / "train").write_bytes(pickle.dumps({b"data": evil, b"fine_labels": [1]}, protocol=2))
    with pytest.raises(DataError, match="not a CIFAR-100 python batch"):
        load_cifar100(tmp_path / "python", "train")
    assert not (tmp_path / "owned").exists()


def damaged_cases(root: Path) -> dict[str, tuple[Path, str]]:
    write_python(root / "python")
    (root / "python" / "train").write_bytes(b"\x80\x02}q")
    write_binary(root / "binary")
    (root / "binary" / "train.bin").write_bytes(b"123")
    write_binary(root / "label")
    record = bytearray((root / "label" / "train.bin").read_bytes())
    record[1] = 200
    (root / "label" / "train.bin").write_bytes(bytes(record))
    (root / "notar.tar.gz").write_text("hello")
    (root / "parquet").mkdir()
    (root / "parquet" / "train-0.parquet").write_text("hello")
    (root / "size").mkdir()
    write_parquet(root / "size")
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, format="PNG")
    table = pa.table({"img": [{"bytes": buffer.getvalue()}], "fine_label": [1]})
    pq.write_table(table, root / "size" / "train-00000-of-00002.parquet")
    (root / "cut").mkdir()
    table = pa.table({"img": [{"bytes": buffer.getvalue()[:40]}], "fine_label": [1]})
    pq.write_table(table, root / "cut" / "train-0.parquet")
    (root / "nothing").mkdir()
    return {
        "pickle": (root / "python", "not a CIFAR-100 python batch"),
        "binary": (root / "binary", "3 bytes, expected a multiple of 3074"),
        "label": (root / "label", r"label 200 of image 0 is outside the range 0…99"),
        "tar": (root / "notar.tar.gz", "not a readable .tar.gz"),
        "parquet": (root / "parquet", "not a CIFAR-100 parquet file"),
        "size": (root / "size", "row 0: expected an image of 32×32, found 16×16"),
        "cut": (root / "cut", "row 0: not a readable image"),
        "nothing": (root / "nothing", "not CIFAR-100; expected train-"),
        "absent": (root / "absent", "no such folder or archive"),
    }


@pytest.mark.parametrize("case", ["pickle", "binary", "label", "tar", "parquet", "size", "cut", "nothing", "absent"])
def test_damage_is_named(tmp_path: Path, case: str) -> None:
    root, message = damaged_cases(tmp_path)[case]
    with pytest.raises(DataError, match=message):
        load_cifar100(root, "train")


def test_an_archive_cannot_reach_outside_itself(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        for name in ("cifar-100-python/meta", "cifar-100-python/train"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
            tar.addfile(link)
    with pytest.raises(DataError, match="not a plain file"):
        load_cifar100(tmp_path / "a.tar.gz", "train")


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real CIFAR-100 is not at {REAL}")
def test_the_real_test_split() -> None:
    found = load_cifar100(REAL, "test")
    assert len(found) == 10_000
    assert np.bincount(found.labels).tolist() == [100] * 100
    assert (found.class_names[0], found.class_names[-1]) == ("apple", "worm")
