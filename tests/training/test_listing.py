"""A finished run is reused only for the images it was trained on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
from tests.conftest import tiny_config

from nobackfill.config import ImageData, RunConfig
from nobackfill.errors import RunError
from nobackfill.training import train
from nobackfill.training.listing import present_listing

pytestmark = pytest.mark.train


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(len(str(path))).integers(0, 256, (8, 8, 3), np.uint8)).save(path)


def folder_config(root: Path, **more: Any) -> RunConfig:
    data = {"name": "folder", "root": str(root), "image_size": 8, "workers": 0, **more}
    return tiny_config("independent", data=data, batch_size=4)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(8):
        for name in "ab":
            image(tmp_path / "images" / "train" / name / f"{number}.png")
    return tmp_path / "images"


@pytest.mark.parametrize("more", [{"holdout": 4}, {"on_bad_image": "skip"}])
def test_a_finished_run_is_not_reused_for_other_images(root: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    """Other images are held out of a data set of another size, so a reused run would be tested on its training set."""
    (root / "train" / "a" / "cut.png").write_bytes(b"")
    if "holdout" in more:
        (root / "train" / "a" / "cut.png").unlink()
    config, run = folder_config(root, **more), tmp_path / "run"
    train(config, run)
    assert train(config, run, resume=True) == run
    for name in "ab":
        image(root / "train" / name / "more.png")
    with pytest.raises(RunError, match=rf"{run}: was trained on other images than are there now \(labels and names "):
        train(config, run, resume=True)
    unpublished = run.rename(tmp_path / "run.unfinished")  # killed before its last rename
    with pytest.raises(RunError, match="was trained on other images"):
        train(config, run, resume=True)
    unpublished.rename(run)
    (run / "data.json").unlink()  # as older runs have none
    assert train(config, run, resume=True) == run


def test_the_digest_is_the_same_wherever_the_images_lie(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "elsewhere")

    def digest(place: Path) -> str:
        data = folder_config(place).data
        assert isinstance(data, ImageData)
        return present_listing(data)

    assert digest(root) == digest(tmp_path / "elsewhere")
    (root / "train" / "a" / "0.png").rename(root / "train" / "b" / "9.png")
    assert digest(root) != digest(tmp_path / "elsewhere")
