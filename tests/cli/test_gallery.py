"""The gallery verbs, as `nobackfill` runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import tiny_config

import nobackfill
from nobackfill.cli.app import run
from nobackfill.data import ImageSamples, load_split


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Digits as files, in the folders of their classes."""
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    digits = load_split(tiny_config("independent").data, "test")
    assert isinstance(digits, ImageSamples)
    paths = []
    for number in range(60):
        folder = Path("photos", "val", str(digits.labels[number]))
        folder.mkdir(parents=True, exist_ok=True)
        paths.append(folder / f"{number:02d} [red].png")
        assert isinstance(digits.images, np.ndarray)
        Image.fromarray(digits.images[number]).save(paths[-1])
    return sorted(paths, key=lambda path: (path.parent.name, path.name))


def test_from_creation_to_the_last_backfill(
    images: list[Path], runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = str(runs["old"]), str(runs["bt2"])
    names = [nobackfill.load(run).spec.generation for run in (old, new)]
    assert run(["gallery", "create", "faiss:g", "--run", old, "--data", "folder:photos"]) == 0
    assert capsys.readouterr().out == f"faiss:g: 60 vectors of {names[0]}\n"
    assert (
        run(["gallery", "upgrade", "faiss:g", "--unchecked", "--run", new]) == 0
    )  # it remembers where the items came from
    printed = capsys.readouterr().out
    assert f"queries of {names[1]} now work" in printed
    assert "expected top-1, measured on 60 items: 0% " in printed
    query = str(images[7])
    assert run(["gallery", "search", "faiss:g", query, "--run", new, "-k", "3", "--json", "--remember"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert [hit["generation"] for hit in answer["hits"]] == [names[0]] * 3
    assert set(answer["hits"][0]["payload"]) == {"label", "class"}
    assert run(["gallery", "backfill", "faiss:g", "--run", new, "--target", "25%"]) == 0
    assert "15 items replaced" in (printed := capsys.readouterr().out)
    assert f"15 of 60 now embedded by {names[1]}" in printed
    assert run(["gallery", "search", "faiss:g", query, "--run", new, "-k", "60"]) == 0
    printed = capsys.readouterr().out
    assert (printed.count(f"[{names[0]}]"), printed.count(f"[{names[1]}]")) == (45, 15)
    assert "[red].png" in printed
    assert run(["gallery", "status", "faiss:g"]) == 0
    assert "now (25% backfilled)" in capsys.readouterr().out
    assert run(["gallery", "rollback", "faiss:g", "--to", names[0], "--forget", "--yes"]) == 0
    assert run(["gallery", "search", "faiss:g", query, "--run", new]) == 2
    assert "is not of this gallery's lineage" in capsys.readouterr().err
    assert run(["gallery", "upgrade", "faiss:g", "--unchecked", "--run", new]) == 0
    images[3].unlink()
    images[5].write_bytes(b"no image")
    capsys.readouterr()
    assert run(["gallery", "backfill", "faiss:g", "--run", new, "--batch-size", "7", "--order", "isolated"]) == 3
    printed_both = capsys.readouterr()
    assert "58 items replaced" in printed_both.out
    assert f"old vector kept: {images[3]}: not in the data" in printed_both.err
    assert f"old vector kept: {images[5]}: " in printed_both.err
    assert "does not decode as an image" in printed_both.err
    assert run(["gallery", "verify", "faiss:g"]) == 0
    assert capsys.readouterr().out == "faiss:g: no problems in 60 items\n"
    assert run(["gallery", "compact", "faiss:g"]) == 0
    assert run(["gallery", "status", "faiss:g", "--json"]) == 0
    status = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert [one["items"] for one in status["generations"]] == [2, 58]
    assert status["job"]["done"] == status["job"]["items"]
    # The stored vectors are those of the new model.
    encoder = nobackfill.load(new)
    store = nobackfill.Gallery.open("faiss:g").store
    (found,) = store.fetch([str(images[20])])
    wanted = encoder.encode([images[20]])[0]
    np.testing.assert_allclose(found.vectors[0], wanted / np.linalg.norm(wanted), atol=1e-5)


def test_vectors_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    old, new = (random.standard_normal((30, dim)).astype(np.float16) for dim in (4, 7))
    np.save("old.npy", old)
    np.save("new.npy", new)
    np.save("query.npy", new[:2])
    Path("ids.txt").write_text("\n".join(f"doc {number}" for number in range(30)))
    common = ["--ids", "ids.txt", "--vectors"]
    assert run(["gallery", "create", "faiss:g", "--name", "api-v1", "--option", "index=hnsw", *common, "old.npy"]) == 0
    assert run(["gallery", "upgrade", "faiss:g", "--name", "api-v2", *common, "new.npy"]) == 2
    assert "the new vector, as a query, ranks an item's own old vector at" in capsys.readouterr().err  # they are random
    assert run(["gallery", "upgrade", "faiss:g", "--name", "api-v2", "--unchecked", *common, "new.npy"]) == 0
    assert run(["gallery", "backfill", "faiss:g", "--name", "api-v2", "--target", "10", *common, "new.npy"]) == 0
    capsys.readouterr()
    assert (
        run(["gallery", "search", "faiss:g", "--name", "api-v2", "--vectors", "query.npy", "-k", "30", "--json"]) == 0
    )
    first, second = json.loads(capsys.readouterr().out)
    assert {hit["id"] for hit in first["hits"]} == {f"doc {number}" for number in range(30)}
    assert [hit["generation"] for hit in second["hits"]].count("api-v2") == 10
    assert run(["gallery", "search", "faiss:g", "--name", "api-v1", "--vectors", "old.npy", "-k", "1"]) == 0


def test_a_third_model_that_was_not_trained_for_it_is_refused(
    tmp_path: Path, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["gallery", "create", "faiss:g", "--run", str(runs["old"]), "--data", "digits"]) == 0
    assert run(["gallery", "upgrade", "faiss:g", "--run", str(runs["new"])]) == 2
    assert "was not trained to be compatible with" in capsys.readouterr().err
    from nobackfill.training import train

    stranger = train(tiny_config("independent", seed=9), tmp_path / "stranger")
    assert run(["gallery", "backfill", "faiss:g", "--run", str(stranger)]) == 2
    assert "is not of this gallery's lineage" in capsys.readouterr().err


BAD = {
    "no model": (["create", "faiss:g", "--data", "digits"], "give either --run or --name"),
    "both": (["search", "faiss:g", "--run", "x", "--name", "y"], "give either --run or --name"),
    "no data": (["create", "faiss:g", "--run", "RUN"], "give --run and --data, or --vectors"),
    "no gallery": (["status", "faiss:gone"], "faiss:gone: no gallery there"),
    "store": (["status", "redis://me:secret@host"], "store 'redis://host': expected faiss:DIR"),
    "index": (
        ["create", "faiss:g", "--run", "RUN", "--data", "digits", "--option", "index=tree"],
        "expected flat, hnsw or ivfpq",
    ),
    "server": (["status", "postgresql://me:secret@127.0.0.1:1/db#items"], "postgresql://127.0.0.1:1/db#items: "),
    "table": (["status", "postgresql://me:secret@127.0.0.1:1/db"], "expected postgresql://host/db#table"),
    "qdrant": (["status", "qdrant+https://:secret@127.0.0.1:1#items"], "qdrant+https://127.0.0.1:1#items: "),
    "taken": (["create", "faiss:taken", "--run", "RUN", "--data", "digits"], "exists and is not empty"),
    "target": (["backfill", "faiss:good", "--run", "RUN", "--target", "much"], "--target 'much': expected a share"),
    "old target": (["backfill", "faiss:good", "--run", "RUN", "--target", "0.25"], "--target '0.25': expected a share"),
    "filter": (["count", "faiss:good", "--where", '{"a": [1]}'], "filter: key 'a': expected text"),
    "scope": (["count", "faiss:good", "--scope", "tenant=a"], "--scope 'tenant=a': expected a JSON object"),
    "not asked": (["rollback", "faiss:good", "--to", "OLD"], "give --yes to do so"),
    "nothing": (["delete", "faiss:good"], "give ids of items, or --ids"),
    "order": (["backfill", "faiss:good", "--run", "RUN", "--order", "best"], "--order 'best': expected random"),
    "query": (["search", "faiss:good", "--run", "RUN"], "give image files (or texts) and --run, or --vectors"),
    "no image": (["search", "faiss:good", "nothing.png", "--run", "RUN"], "nothing.png: does not decode as an image"),
    "rollback": (["rollback", "faiss:good", "--to", "zero"], "no generation 'zero'; there are independent-"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(
    tmp_path: Path,
    runs: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    command, message = BAD[name]
    Path("taken").mkdir()
    Path("taken", "mine").touch()
    if "faiss:good" in command:
        assert run(["gallery", "create", "faiss:good", "--run", str(runs["old"]), "--data", "digits"]) == 0
        capsys.readouterr()
    words = {"RUN": str(runs["old"]), "OLD": nobackfill.load(runs["old"]).spec.generation}
    assert run(["gallery", *(words.get(word, word) for word in command)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("nobackfill: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err
    assert "secret" not in printed.err + printed.out
    assert printed.out == ""


def test_every_verb_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    verbs = ("create", "upgrade", "backfill", "search", "status", "verify", "rollback", "compact")
    for verb in (*verbs, "upsert", "delete", "set-payloads", "count", "switch"):
        assert run(["gallery", verb, "--help"]) == 0
        assert f"Example: nobackfill gallery {verb}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_embedding_and_backfill_on_a_local_cluster_of_two(images: list[Path], runs: dict[str, Path]) -> None:
    pytest.importorskip("ray")
    old, new = str(runs["old"]), str(runs["bt2"])

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nobackfill", *arguments]
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}  # not 15: CI is busy
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, env=environment)

    done = call("embed", new, "--data", "folder:photos", "--out", "vectors.npy", "--ray", "local", "--batch-size", "20")
    assert done.returncode == 0, done.stderr
    here = nobackfill.load(new).encode(list(images))
    np.testing.assert_allclose(np.load("vectors.npy"), here, atol=1e-5)  # in order
    assert run(["gallery", "create", "faiss:g", "--run", old, "--data", "folder:photos"]) == 0
    assert run(["gallery", "upgrade", "faiss:g", "--unchecked", "--run", new]) == 0
    images[5].write_bytes(b"no image")
    done = call("gallery", "backfill", "faiss:g", "--run", new, "--ray", "local", "--batch-size", "25")
    assert done.returncode == 3, done.stderr
    assert f"old vector kept: {images[5]}: " in done.stderr
    gallery = nobackfill.Gallery.open("faiss:g")
    assert gallery.store.counts() == {1: 1, 2: 59}
    assert gallery.verify() == []
    for items in gallery.store.fetch([str(path) for path in images]):
        if items.generation == 2:
            wanted = here[[images.index(Path(name)) for name in items.ids]]
            np.testing.assert_allclose(items.vectors, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-5)
    done = call("embed", new, "--data", "folder:photos", "--out", "other.npy", "--ray", "127.0.0.1:1")
    assert done.returncode == 2
    assert "--ray 127.0.0.1:1: no cluster there" in done.stderr
