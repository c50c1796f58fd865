"""`nobackfill evaluate` on plain arrays and on lineages of run folders; `nobackfill report` on what they write."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nobackfill.cli import evaluate_runs
from nobackfill.cli.app import run
from nobackfill.errors import ConfigError
from nobackfill.evaluation import compare, retrieval_metrics
from nobackfill.reports.document import read_report

N = 120


@pytest.fixture
def arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Vectors by two models as files in the working directory."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    labels = random.integers(0, 6, N)
    centres = random.normal(size=(6, 8))
    found: dict[str, Any] = {
        "old": (centres[labels] + 1.5 * random.normal(size=(N, 8))).astype(np.float32),
        "new": (centres[labels] + random.normal(size=(N, 8))).astype(np.float16),
        "labels": labels,
    }
    for name, array in found.items():
        np.save(f"{name}.npy", array)
    Path("texts.txt").write_text("\n".join(f"<b>text {i}</b>" for i in range(N)))
    Path("lists.json").write_text(json.dumps([np.flatnonzero(labels == label).tolist() for label in labels]))
    np.save("table.npy", labels[:, None] == labels[None])
    return found


SEARCH = ["evaluate", "--query", "new.npy", "--gallery", "old.npy", "--exclude-self"]
LABELS = ["--query-labels", "labels.npy", "--gallery-labels", "labels.npy"]
UPGRADE = [*SEARCH, *LABELS, "--old-query", "old.npy", "--new-gallery", "new.npy"]


def test_one_search_of_arrays(arrays: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    labels = arrays["labels"]
    expected = retrieval_metrics(arrays["new"], arrays["old"], labels, labels, exclude_self=True)
    for how in (LABELS, ["--relevant", "lists.json"], ["--relevant", "table.npy"]):
        assert run([*SEARCH, *how, "--out", "figures.json"]) == 0
        printed = capsys.readouterr().out
        assert f"mAP@R: {100 * expected.mean_ap_at_r:.1f} %" in printed
        assert f"nDCG@5: {100 * expected.ndcg[5]:.1f} %" in printed
        assert "To compare with the status quo, give --old-query" in printed
        (search,) = json.loads(Path("figures.json").read_text())["searches"]
        assert search["scores"]["mean_ap"] == pytest.approx(expected.mean_ap)
        assert search["scores"]["top1"] == expected.cmc[1]
    assert run(["report", "figures.json"]) == 0
    assert "no upgrade to assess" in Path("report.html").read_text()


def test_an_upgrade_of_arrays(arrays: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    expected = compare(arrays["old"], arrays["new"], arrays["labels"], exclude_self=True)
    texts = ["--query-texts", "texts.txt", "--gallery-texts", "texts.txt"]
    assert run([*UPGRADE, *texts, "--out", "figures.json"]) == 0
    printed = capsys.readouterr().out
    assert f"Verdict: {expected.verdict.decision}." in printed
    assert expected.verdict.reasons[0] in printed
    report = read_report(Path("figures.json"))
    (upgrade,) = report.upgrades
    scores = upgrade.result.scores["new/new"]
    assert scores["top1"].mean == pytest.approx(expected.scores["new/new"]["top1"].mean)
    assert upgrade.result.change["new/old"]["mean_ap"].decision == expected.change["new/old"]["mean_ap"].decision
    assert upgrade.result.verdict == expected.verdict
    assert (upgrade.examples[0].query.text or "").startswith("<b>text ")
    assert [search.query for search in report.searches] == ["old.npy", "new.npy", "new.npy"]
    assert run(["report", "figures.json"]) == 0
    page = Path("report.html").read_text()
    assert "&lt;b&gt;text " in page
    assert "<b>text" not in page


def test_a_file_that_searches_itself_is_told(arrays: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    apart = [each for each in UPGRADE if each != "--exclude-self"]
    for command, options in (
        (apart, "--old-query and --gallery are the same file, old.npy"),
        (["evaluate", "--query", "new.npy", "--gallery", "./new.npy", *LABELS], "--query and --gallery are the same"),
    ):
        assert run(command) == 0
        printed = capsys.readouterr().err
        assert options in printed
        assert printed.count("each query finds itself; --exclude-self leaves it out") == 1
    assert run(UPGRADE) == 0
    assert "the same file" not in capsys.readouterr().err


def test_an_out_that_cannot_be_written_is_refused_before_the_searches(
    arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError

    Path("folder").mkdir()
    monkeypatch.setattr("nobackfill.cli.evaluate_arrays.evaluate_arrays", never)
    assert run([*UPGRADE, "--out", "folder"]) == 2
    assert "folder: cannot be written: there is something there that is no file" in capsys.readouterr().err


@pytest.mark.parametrize("galleries", [["new"], ["newer"]])
def test_an_upper_bound_without_an_upgrade_is_refused(monkeypatch: pytest.MonkeyPatch, galleries: list[str]) -> None:
    def loaded(run: Path) -> Any:
        compatible = run.name == "newer"
        return SimpleNamespace(spec=SimpleNamespace(fingerprint=run.name, compatible_with=lambda other: compatible))

    monkeypatch.setattr(evaluate_runs, "load", loaded)
    with pytest.raises(ConfigError, match="--independent bound: the upper bound of an upgrade, but no --gallery is of"):
        evaluate_runs.evaluate_runs(Path("new"), [*map(Path, galleries)], Path("bound"), "digits", "test", "fail", None)


def test_by_euclidean_distance(arrays: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    expected = compare(arrays["old"], arrays["new"], arrays["labels"], exclude_self=True, distance="l2")
    assert run([*UPGRADE, "--distance", "l2", "--out", "figures.json"]) == 0
    report = read_report(Path("figures.json"))
    assert report.distance == "l2"
    (upgrade,) = report.upgrades
    assert upgrade.result.scores == expected.scores
    assert upgrade.result.curve == expected.curve
    assert run(["report", "figures.json"]) == 0
    assert "Euclidean distance ranks old and new" in Path("report.html").read_text()
    assert run([*UPGRADE, "--distance", "l3"]) == 2
    assert "distance 'l3': expected one of cosine, l2" in capsys.readouterr().err


def test_a_config_says_the_distance(
    tmp_path: Path, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"query: {runs['bt2']}\ngallery: {runs['old']}\ndata: {{name: digits, image_size: 8}}\n"
    for name, more in (("plain", ""), ("far", "distance: l2\n"), ("wrong", "distance: dot\n")):
        Path(f"{name}.yaml").write_text(text + more)
    assert run(["evaluate", "plain.yaml", "--out", "plain.json"]) == 0
    assert run(["evaluate", "far.yaml", "--out", "far.json"]) == 0
    assert run(["evaluate", "far.yaml", "--distance", "cosine", "--out", "back.json"]) == 0
    plain, far, back = (read_report(Path(f"{name}.json")) for name in ("plain", "far", "back"))
    assert (plain.distance, far.distance) == ("cosine", "l2")
    assert far.searches != plain.searches  # a prefix of a unit vector is none
    assert (back.searches, back.upgrades) == (plain.searches, plain.upgrades)
    capsys.readouterr()
    assert run(["evaluate", "wrong.yaml"]) == 2
    assert "wrong.yaml: key 'distance'" in capsys.readouterr().err


def test_an_upgrade_without_a_new_gallery(arrays: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*UPGRADE[:-2], "--out", "figures.json"]) == 0
    assert "all backfilled" not in capsys.readouterr().out
    (upgrade,) = read_report(Path("figures.json")).upgrades
    assert upgrade.result.curve is None
    assert run(["report", "figures.json"]) == 0


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([*SEARCH, "--query-labels", "labels.npy"], "expected labels of query and gallery"),
        ([*SEARCH, *LABELS, "--relevant", "lists.json"], "found both"),
        ([*SEARCH, *LABELS, "--new-gallery", "new.npy"], "needs --old-query too"),
        ([*SEARCH, *LABELS, "--data", "digits"], "--data: works only with run folders"),
        ([*SEARCH, *LABELS, "--gallery", "old.npy"], "expected one --gallery FILE.npy"),
        ([*SEARCH, "--relevant", "texts.txt"], "--relevant texts.txt: cannot be read as JSON"),
        (
            [*SEARCH, *LABELS, "--old-query", "gone.npy"],
            "--old-query gone.npy: cannot be read as a .npy array",
        ),
        ([*SEARCH, *LABELS, "--old-query", "pickle.npy"], "--old-query pickle.npy: cannot be read as a .npy array"),
        ([*SEARCH, "--query-labels", "short.npy", "--gallery-labels", "labels.npy"], r"expected integers [120]"),
        ([*SEARCH, *LABELS, "--query-texts", "texts.txt"], "--query-texts: shown with the answers that an upgrade"),
        ([*SEARCH, *LABELS, "--gallery-texts", "texts.txt"], "takes --old-query; add it, or leave --gallery-texts out"),
        ([*UPGRADE, "--query-texts", "short.txt"], "expected one line for each of the 120 items, found 1"),
        (["evaluate", "--query", "nan.npy", "--gallery", "old.npy", *LABELS], "query: row 7 holds a value"),
        (["evaluate", "--query", "zero.npy", "--gallery", "old.npy", *LABELS], "query: row 3 is zero"),
        (
            ["evaluate", "--query", "folder", "--old-query", "old.npy", "--data", "digits"],
            "--old-query works only with arrays",
        ),
        (["evaluate", "--query", "folder"], "with run folders, expected --data"),
    ],
)
def test_arrays_that_do_not_fit(
    arrays: dict[str, Any], capsys: pytest.CaptureFixture[str], command: list[str], message: str
) -> None:
    np.save("short.npy", arrays["labels"][:5])
    np.save("pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    Path("short.txt").write_text("one line")
    for name, row, value in (("nan", 7, np.nan), ("zero", 3, 0)):
        spoiled = arrays["old"].copy()
        spoiled[row] = value
        np.save(f"{name}.npy", spoiled)
    assert run([*command, "--out", "out.json"]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not Path("out.json").exists()


def test_run_folders_with_an_upper_bound_and_two_galleries(
    tmp_path: Path, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    old, new, bt2 = (str(runs[name]) for name in ("old", "new", "bt2"))
    command = ["evaluate", "--query", bt2, "--gallery", old, "--data", "digits", "--out", "one.json"]
    assert run([*command, "--independent", new]) == 0
    printed = capsys.readouterr().out
    assert all(
        words in printed for words in ("status quo", "independent, full backfill", "Self-accuracy loss", "Verdict")
    )
    report = read_report(Path("one.json"))
    assert list(report.training) == [old, bt2]
    assert report.settings["independent"] == new
    (upgrade,) = report.upgrades
    assert set(upgrade.result.scores) == {"old/old", "new/old", "new/new", "independent"}
    assert (upgrade.examples[0].query.image or "").startswith("data:image/png;base64,")

    lineage = ["evaluate", "--query", bt2, "--gallery", old, "--gallery", str(runs["bct"]), "--data", "digits"]
    assert run([*lineage, "--out", "two.json"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("Verdict: ") == 2
    assert "Over the lineage, top-1: AC " in printed
    report = read_report(Path("two.json"))
    assert len(report.searches) == 6
    assert [upgrade.old for upgrade in report.upgrades] == [old, str(runs["bct"])]
    assert run(["report", "two.json"]) == 0
    assert Path("report.html").read_text().count('<table class="matrix">') == 1

    assert run(["evaluate", "--query", old, "--gallery", bt2, "--data", "digits"]) == 0
    printed = capsys.readouterr().out
    assert "no upgrade to assess" in printed
    assert "Verdict" not in printed
    # The query's run among the galleries is a gallery too, and still the newest.
    assert run(["evaluate", "--query", old, "--gallery", old, "--gallery", bt2, "--data", "digits", "--out", "x"]) == 0
    assert "no upgrade to assess" in capsys.readouterr().out
    assert {(each.query, each.gallery) for each in read_report(Path("x")).searches} >= {(old, bt2), (old, old)}
