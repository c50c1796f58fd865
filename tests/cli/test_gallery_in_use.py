"""The gallery verbs on a gallery that is written to, upgraded, interrupted, switched and rolled back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nobackfill.cli.app import run
from nobackfill.cli.gallery import items
from nobackfill.gallery import ArrayEmbedder, Generation


def test_a_gallery_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    np.save("old.npy", random.standard_normal((20, 4)))
    np.save("new.npy", random.standard_normal((20, 7)))
    np.save("none.npy", np.empty((0, 4)))
    Path("ids.txt").write_text("\n".join(f"doc {number}" for number in range(20)))
    lines = [json.dumps({"id": f"doc {number}", "payload": {"year": number}}) for number in range(20)]
    Path("payloads.jsonl").write_text("\n".join(lines))
    common = ["--ids", "ids.txt", "--vectors"]

    def call(*arguments: str, code: int = 0) -> str:
        assert run(["gallery", *arguments]) == code
        printed = capsys.readouterr()
        return printed.err if code else printed.out

    assert "has no rows" in call("create", "faiss:g", "--name", "v1", "--vectors", "none.npy", code=2)
    assert call("create", "faiss:g", "--name", "v1", "--empty", "4") == "faiss:g: 0 vectors of v1\n"
    assert "replace the gallery (`gallery create --replace`)" in call(
        "create", "faiss:g", "--name", "v1", "--empty", "4", code=2
    )
    call("create", "faiss:g", "--name", "v1", "--empty", "4", "--replace")
    printed = call("upsert", "faiss:g", "--name", "v1", *common, "old.npy", "--payloads", "payloads.jsonl")
    assert printed == "faiss:g: 20 items upserted\n"
    assert json.loads(call("count", "faiss:g", "--where", '{"year": {">": 16}}', "--json")) == {"count": 3}
    assert call("delete", "faiss:g", "doc 19", "doc 99") == "faiss:g: 1 item removed, 1 not there\n"
    assert call("set-payloads", "faiss:g", "--payloads", "payloads.jsonl").endswith(
        "19 payloads replaced, 1 not there\n"
    )
    found = call("upgrade", "faiss:g", "--name", "v2", "--vectors", "new.npy", code=2)
    assert "none of the ids 0, 1, … is in the gallery; give --ids" in found
    upgrade = call("upgrade", "faiss:g", "--name", "v2", "--unchecked", *common, "new.npy", "--json")
    assert json.loads(upgrade)["name"] == "v2"
    backfill = ("backfill", "faiss:g", "--name", "v2", *common, "new.npy", "--batch-size", "5")
    printed = call(*backfill, "--target", "50%")
    assert printed.startswith(
        "plan: target 50%: 10 items to replace, 0 of 19 are new already; 2 batches of up to 5, order random, old "
        "vectors kept until `compact`\n"
    )
    assert call(*backfill, "--target", "50%").startswith(
        "nothing to do: 10 of 19 items are new already, the target is 50%\n"
    )
    assert "1 item is" not in (printed := call("switch", "faiss:g", code=2))
    assert "9 items are not embedded by v2 yet" in printed
    events = [json.loads(line) for line in call(*backfill, "--log-json").splitlines()]
    assert [event["event"] for event in events] == ["plan", "batch", "batch", "end"]
    assert [event["done"] for event in events] == [0, 5, 9, 9]
    assert json.loads(call(*backfill, "--json"))["new"] == 19
    assert call(*backfill[:2], "--abandon-job") == "faiss:g: nothing to give up\n"
    assert json.loads(call("switch", "faiss:g", "--json")) == {"serves": "v2"}
    assert "v1 is no longer served" in call("search", "faiss:g", "--name", "v1", "--vectors", "old.npy", code=2)
    assert "older than v2 are not served" in call("status", "faiss:g")
    assert json.loads(call("rollback", "faiss:g", "--to", "v1", "--yes", "--json"))["items"] == {"v1": 19, "v2": 0}
    assert json.loads(call("verify", "faiss:g", "--json")) == {"problems": [], "items": 19}


def test_an_upgrade_says_which_models_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("v.npy", np.random.default_rng(0).standard_normal((20, 4)))
    assert run(["gallery", "create", "faiss:g", "--name", "v1", "--vectors", "v.npy"]) == 0
    model = ["--name", "v2", "--vectors", "v.npy"]
    assert run(["gallery", "upgrade", "faiss:g", *model]) == 0
    assert "no longer served" not in capsys.readouterr().err
    assert run(["gallery", "backfill", "faiss:g", *model]) == 0
    third = Generation(name="v3", dim=4, fingerprint="name:v3", compatible_with=("name:v2",))  # as a run may say
    embedder = ArrayEmbedder([str(row) for row in range(20)], np.load("v.npy"), "name:v3")
    monkeypatch.setattr(items, "new_embedder", lambda *_: (third, embedder))
    capsys.readouterr()
    assert run(["gallery", "upgrade", "faiss:g", "--name", "v3", "--vectors", "v.npy"]) == 0
    assert "queries and items older than v2 are no longer served" in capsys.readouterr().err
    assert run(["gallery", "status", "faiss:g"]) == 0
    assert "  queries and items older than v2 are not served" in capsys.readouterr().out


def test_all_of_an_upsert_is_looked_at_before_any_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(items, "BATCH", 8)
    rows = np.random.default_rng(0).standard_normal((20, 4))
    np.save("good.npy", rows)
    rows[17] = np.nan
    np.save("bad.npy", rows)
    np.save("flat.npy", np.empty((3, 0)))
    Path("nan.jsonl").write_text('{"id": "19", "payload": {"x": NaN}}\n')
    Path("other.jsonl").write_text('{"id": "19", "payload": {"tenant": "b"}}\n')
    common = ["faiss:g", "--name", "v1", "--vectors"]
    assert run(["gallery", "create", "faiss:g", "--name", "v1", "--empty", "4"]) == 0
    capsys.readouterr()
    for options, message in (
        (["upsert", *common, "bad.npy"], "bad.npy: row 17 holds a value that is not finite"),
        (["upsert", *common, "flat.npy"], "expected floats [n, dim], found float64 [3, 0]"),
        (["upsert", *common, "good.npy", "--payloads", "nan.jsonl"], "payload of '19'"),
        (["upsert", *common, "good.npy", "--payloads", "other.jsonl", "--scope", '{"tenant": "a"}'], "is held to 'a'"),
        (["create", *common, "bad.npy", "--replace"], "bad.npy: row 17 holds a value that is not finite"),
    ):
        assert run(["gallery", *options]) == 2
        assert message in capsys.readouterr().err
        assert run(["gallery", "count", "faiss:g", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"count": 0}
    # A line for all tenants: what belongs to no item here is left out, whosever it is.
    Path("all.jsonl").write_text('{"id": "no item", "payload": {"tenant": "b"}}\n')
    assert run(["gallery", "upsert", *common, "good.npy", "--payloads", "all.jsonl", "--scope", '{"tenant": "a"}']) == 0
    assert "of 1 id there is no item" in capsys.readouterr().err


def test_ctrl_c_pauses_a_backfill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("old.npy", np.random.default_rng(0).standard_normal((20, 4)))
    model = ["--name", "v2", "--vectors", "old.npy"]
    assert run(["gallery", "create", "faiss:g", "--name", "v1", "--vectors", "old.npy"]) == 0
    assert run(["gallery", "upgrade", "faiss:g", *model]) == 0
    from nobackfill.gallery.embedders.arrays import ArrayEmbedder

    real = ArrayEmbedder.embed

    def interrupted(self: ArrayEmbedder, batches: Any) -> Any:
        yield next(real(self, batches))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ArrayEmbedder, "embed", interrupted)
        assert run(["gallery", "backfill", "faiss:g", *model, "--batch-size", "5"]) == 130
    assert "backfill paused; the same command resumes it" in capsys.readouterr().err
    assert run(["gallery", "status", "faiss:g"]) == 0
    assert "backfill running or stopped: 5 of 20 items" in capsys.readouterr().out
    assert run(["gallery", "backfill", "faiss:g", *model, "--target", "50%"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("resumed: target all: 15 items to replace, 5 of 20 are new already; 3 batch")
    assert "an unfinished backfill goes on as it was planned; repeat this command afterwards" in printed.err


def test_options_that_would_be_ignored_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("v.npy", np.eye(3))
    np.save("one.npy", np.float64(1))
    np.save("none.npy", np.ones(3))
    Path("twice.txt").write_text("a\nb\na\n")
    Path("ids.txt").write_bytes("\ufeffa\r\nb\u2028c\r\nd\r\n".encode())  # as an editor of Windows saves it
    Path("deep.jsonl").write_text('{"id": "a", "payload": ' + "[" * 100_000)
    wrong = [f'{{"id": {each}, "payload": {{}}}}' for each in ("null", "true", '["a"]')]
    wrong += [f'{{"id": "a", "payload": {each}}}' for each in ("[]", '""', '[["a", 1]]')]
    for number, line in enumerate([*wrong, "[1]"]):
        Path(f"wrong{number}.jsonl").write_text(line)
    Path("payloads.jsonl").write_text('{"id": "b\u2028c", "payload": {"x": 1}}\n{"id": "z", "payload": {}}\n')
    model = ["--name", "v1"]

    def refused(*words: str) -> str:
        assert run(["gallery", *words]) == 2
        return capsys.readouterr().err

    create = ["create", "faiss:g", *model, "--vectors", "v.npy"]
    assert "leave out --data and --vectors" in refused(*create, "--empty", "3")
    assert "id 'a': comes twice" in refused(*create, "--ids", "twice.txt")
    assert "give --data or --vectors, not both" in refused(*create, "--data", "digits")
    assert "--ids: goes with --vectors" in refused("create", "faiss:g", *model, "--empty", "3", "--ids", "ids.txt")
    assert not Path("g").exists()
    assert run(["gallery", *create, "--ids", "ids.txt"]) == 0
    upsert = ["upsert", "faiss:g", *model, "--vectors", "v.npy", "--ids", "ids.txt", "--payloads"]
    capsys.readouterr()
    assert run(["gallery", *upsert, "payloads.jsonl"]) == 0
    assert "--payloads: of 1 id there is no item, such as 'z'" in capsys.readouterr().err
    assert "deep.jsonl: line 1: expected" in refused(*upsert, "deep.jsonl")
    for number in range(7):
        assert "line 1: expected {" in refused("set-payloads", "faiss:g", "--payloads", f"wrong{number}.jsonl")
    search = ["search", "faiss:g", *model, "--vectors"]
    assert "give queries or --vectors, not both" in refused(*search, "v.npy", "text")
    assert "one.npy: expected floats [n, dim], found float64 []" in refused(*search, "one.npy")
    assert "expected a JSON object" in refused(*search, "v.npy", "--scope", "[" * 100_000)
    assert run(["gallery", "count", "faiss:g", "--where", '{"x": 1}']) == 0
    assert capsys.readouterr().out == "faiss:g: 1 item\n"
    assert "none of the ids 0, … is in the gallery" in refused("uncertainty", "faiss:g", "--values", "none.npy")


def test_ids_are_looked_for_beyond_the_first_thousands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(items, "BATCH", 100)  # 4,096
    rows = np.random.default_rng(0).standard_normal((1200, 4))
    np.save("all.npy", rows)
    np.save("last.npy", rows[1150:])
    np.save("unsure.npy", rows[:, 0])
    Path("ids.txt").write_text("\n".join(str(number) for number in range(1150, 1200)))
    model = ["--vectors", "last.npy", "--ids", "ids.txt"]
    assert run(["gallery", "create", "faiss:g", "--name", "v1", *model]) == 0
    assert run(["gallery", "upgrade", "faiss:g", "--name", "v2", "--vectors", "all.npy"]) == 0
    assert run(["gallery", "uncertainty", "faiss:g", "--values", "unsure.npy"]) == 0
    assert "uncertainties recorded: 1200" in capsys.readouterr().out
