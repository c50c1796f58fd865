from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nobackfill.data.folder import load_folder
from nobackfill.data.preprocessing import Preprocessing, read_image
from nobackfill.errors import DataError


def write_image(path: Path, size: tuple[int, int] = (6, 5), mode: str = "RGB", **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


@pytest.mark.parametrize(("train", "test"), [("training", "validation"), ("train", "val"), ("train", "test")])
def test_both_names_of_the_splits(tmp_path: Path, train: str, test: str) -> None:
    for name in ("cat/1.png", "cat/2.JPG", "dog/1.jpeg"):
        write_image(tmp_path / train / name, format="PNG")
    write_image(tmp_path / test / "dog/9.png")
    (tmp_path / train / "cat" / "notes.txt").write_text("no image")
    write_image(tmp_path / train / "cat" / "._1.png")
    write_image(tmp_path / train / ".ipynb_checkpoints" / "1.png")
    write_image(tmp_path / train / "cat" / ".ipynb_checkpoints" / "1-checkpoint.png")
    (tmp_path / train / "cat" / "not an image.png").mkdir()
    images = load_folder(tmp_path, "train")
    assert [Path(str(path)).name for path in images.images] == ["1.png", "2.JPG", "1.jpeg"]
    assert images.labels.tolist() == [0, 0, 1]
    assert load_folder(tmp_path, "test").labels.tolist() == [1]  # the same number in both splits
    assert images.class_names == ("cat", "dog")


def test_folders_that_hold_nothing_usable_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        load_folder(tmp_path / "none", "train")
    with pytest.raises(DataError, match="expected a folder named training or train in it"):
        load_folder(tmp_path, "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=r"train: no class folders in it; expected train/<class>/<image>"):
        load_folder(tmp_path, "train")
    (tmp_path / "train" / "cat").mkdir()
    with pytest.raises(DataError, match="no image files"):
        load_folder(tmp_path, "train")


def test_read_image__modes(tmp_path: Path) -> None:
    for mode, name in (("L", "a.png"), ("RGBA", "b.png"), ("P", "c.png"), ("CMYK", "d.jpg"), ("1", "e.png")):
        pixels = read_image(write_image(tmp_path / name, mode=mode))
        assert pixels.shape == (5, 6, 3), mode
        assert pixels.dtype == np.uint8


def test_read_image__sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 256, 0x8000, 0xFFFF]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_read_image__is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90°
    write_image(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (6, 5, 3)


def test_read_image__names_what_does_not_decode(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    whole = write_image(tmp_path / "whole.jpg", size=(64, 64)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").touch()
    for name in ("text.png", "cut.jpg", "empty.png", "none.png"):
        with pytest.raises(DataError, match=rf"{name}: does not decode as an image"):
            read_image(tmp_path / name)


def test_read_image__never_starts_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gs").write_text("#!/bin/sh\ntouch started\nexit 1\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eps.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n")
    with pytest.raises(DataError, match="does not decode"):
        read_image(tmp_path / "eps.png")
    assert not (tmp_path / "started").exists()


def test_read_image__a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(DataError, match="bomb"):
        read_image(write_image(tmp_path / "large.png"))


@pytest.mark.train
def test_fit__stretches_or_cuts_the_centre() -> None:
    import torch

    image = torch.zeros(3, 40, 80, dtype=torch.uint8)
    image[:, :, 40:] = 200
    assert Preprocessing(image_size=8).resized(image).shape == (3, 8, 8)
    cut = Preprocessing(image_size=8, resize=10).resized(image)
    assert cut.shape == (3, 8, 8)
    assert cut[:, :, :3].max() == 0
    assert cut[:, :, 5:].min() == 200
    small = torch.arange(3 * 64, dtype=torch.uint8).view(3, 8, 8)
    assert torch.equal(Preprocessing(image_size=8).resized(small), small)
