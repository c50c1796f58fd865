from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import tiny_config

from nobackfill.cli.app import run
from nobackfill.config import FolderData
from nobackfill.data import load_split
from nobackfill.errors import DataError
from nobackfill.models import load
from nobackfill.training import train


def awkward(root: Path) -> dict[str, Path]:
    """A class folder of images as they come: ten that decode, four that do not."""
    folder = root / "training" / "a"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "00_plain.jpg")
    image.convert("L").save(folder / "01_grey.png")
    image.convert("CMYK").save(folder / "02_cmyk.jpg")
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 109).save(folder / "03_deep.png")
    image.save(folder / "04_turned.jpg", exif=exif)
    Image.fromarray(pixels[:1, :1]).save(folder / "05_one.png")
    image.save(folder / "06_really_png.jpg", format="PNG")
    image.convert("RGBA").save(folder / "07_alpha.png")
    image.quantize(8).save(folder / "08_palette.gif")
    image.convert("1").save(folder / "09_bits.png")
    whole = (folder / "00_plain.jpg").read_bytes()
    (folder / "10_cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "11_text.png").write_text("hello")
    (folder / "12_empty.jpg").touch()
    (folder / "13_head.png").write_bytes((folder / "01_grey.png").read_bytes()[:40])
    (root / "validation").symlink_to(root / "training")
    return {path.name: path for path in folder.iterdir()}


def config(root: Path, on_bad_image: str) -> FolderData:
    return FolderData.model_validate({"name": "folder", "root": str(root), "on_bad_image": on_bad_image})


def test_skip_leaves_out_just_what_does_not_decode_and_lists_it(tmp_path: Path) -> None:
    awkward(tmp_path)
    images = load_split(config(tmp_path, "skip"), "train")
    assert [Path(path).name[:2] for path in images.ids] == [f"{number:02d}" for number in range(10)]
    assert [line.split(": ")[0].rpartition("/")[2] for line in images.skipped] == [
        "10_cut.jpg", "11_text.png", "12_empty.jpg", "13_head.png",
    ]  # fmt: skip
    assert images.take(np.array([0])).skipped == images.skipped
    assert len(load_split(config(tmp_path, "fail"), "train")) == 14


def test_nothing_that_decodes_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "1.png").touch()
    with pytest.raises(DataError, match="none of its 1 images decode"):
        load_split(config(tmp_path, "skip"), "train")


def test_the_verbs_fail_or_skip(tmp_path: Path, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    awkward(tmp_path / "data")
    out = tmp_path / "v.npy"
    embed = ["embed", str(runs["new"]), "--data", f"folder:{tmp_path / 'data'}", "--out", str(out)]
    assert run(embed) == 2
    assert "10_cut.jpg: does not decode as an image" in capsys.readouterr().err
    assert not out.exists()
    assert run([*embed, "--on-bad-image", "skip"]) == 0
    printed = capsys.readouterr().err
    assert "images skipped: 4; images left: 10" in printed
    assert printed.count("\nskipped") + printed.startswith("skipped") == 4
    vectors = np.load(out)
    assert vectors.shape == (10, 6)
    # The turned picture is the plain one turned upright, the mislabelled one is itself: vectors are of what one sees.
    plain = np.asarray(Image.open(tmp_path / "data" / "training" / "a" / "06_really_png.jpg").copy())
    np.testing.assert_allclose(load(runs["new"]).encode(plain[None])[0], vectors[6], atol=1e-6)
    assert run([*embed, "--on-bad-image", "maybe"]) == 2
    assert "on_bad_image" in capsys.readouterr().err


def test_a_run_lists_what_it_skipped(tmp_path: Path) -> None:
    files = awkward(tmp_path / "data")
    other = tmp_path / "data" / "training" / "b"
    other.mkdir()
    files["01_grey.png"].rename(other / "01_grey.png")
    settings = tiny_config(
        "independent", data__name="folder", data__root=str(tmp_path / "data"), data__on_bad_image="skip", batch_size=4
    )
    metrics = json.loads((train(settings, tmp_path / "run") / "metrics.json").read_text())
    assert metrics["training_images"] == 10
    assert len(metrics["skipped_training_images"]) == len(metrics["skipped_test_images"]) == 4
