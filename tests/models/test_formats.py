"""Run folders of every format that a release has written: `tests/fixtures/run_format_<n>` stays as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import nobackfill
from nobackfill.config import DigitsData
from nobackfill.data import load_split
from nobackfill.errors import RunError
from nobackfill.models import runfolder, spec

FIXTURE = Path(__file__).parents[1] / "fixtures" / "run_format_1"  # BCT on digits, with its vectors of five of them


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURE, tmp_path / "run"))


def rewrite(run: Path, **changes: object) -> None:
    tree = json.loads((run / "embedding.json").read_text())
    (run / "embedding.json").write_text(json.dumps({**tree, **changes}))


@pytest.mark.train
def test_a_run_of_format_1_gives_the_vectors_it_gave() -> None:
    encoder = nobackfill.load(FIXTURE, "cpu")
    assert [prefix.dim for prefix in encoder.spec.prefixes] == [4]
    digits = load_split(DigitsData(), "test").take(np.arange(5))
    np.testing.assert_allclose(encoder.encode_set(digits), np.load(FIXTURE / "vectors.npy"), atol=1e-5)


@pytest.mark.train
def test_what_is_written_has_a_format_and_reads_back_equal(tmp_path: Path) -> None:
    encoder = nobackfill.load(FIXTURE, "cpu")
    runfolder.save(encoder, tmp_path)
    assert json.loads((tmp_path / "embedding.json").read_text())["format"] == 1
    assert nobackfill.load(tmp_path, "cpu").spec == encoder.spec


@pytest.mark.train
def test_the_format_is_no_part_of_the_fingerprint(run: Path) -> None:
    tree = json.loads((run / "embedding.json").read_text())
    (run / "embedding.json").write_text(json.dumps({key: tree[key] for key in tree if key != "format"}))
    assert nobackfill.load(run, "cpu").spec.fingerprint == tree["fingerprint"]


def test_other_formats_are_refused_in_a_sentence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(run, format=2, something_new=1)
    with pytest.raises(RunError, match=r"embedding.json: has format 2, .* reads format 1: .*; upgrade it") as caught:
        nobackfill.load(run)
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(spec.RELEASES, 0, "0.0.9")
    rewrite(run, format=0)
    with pytest.raises(RunError, match=r"has format 0, .*: open it with nobackfill 0\.0\.9$"):
        nobackfill.load(run)
    rewrite(run, format="1.5")
    with pytest.raises(RunError, match=r"has format '1.5', .* the release that wrote it"):
        nobackfill.load(run)
    rewrite(run, format=[1])
    with pytest.raises(RunError, match=r"has format \[1\]"):
        nobackfill.load(run)
