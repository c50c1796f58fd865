from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.conftest import tiny_config

from nobackfill.config import AugmentConfig
from nobackfill.data.augment import draws, random_view
from nobackfill.data.loader import ImageLoader, resized
from nobackfill.data.preprocessing import Preprocessing, stretched
from nobackfill.errors import ConfigError
from nobackfill.training import train
from nobackfill.training.plan import make_plan

SIZE = 8
PREPROCESSING = Preprocessing(image_size=SIZE)
CROPS = ("none", "padded", "resized")


def images(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (count, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)


@given(st.integers(0, 1000), st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_draws_depend_on_seed_and_epoch_alone(seed: int, epoch: int) -> None:
    first = draws(seed, epoch, 50)
    assert torch.equal(first, draws(seed, epoch, 50))
    assert not torch.equal(first, draws(seed + 1, epoch, 50))
    assert not torch.equal(first, draws(seed, epoch + 1, 50))
    assert first.min() >= 0
    assert first.max() < 1


@pytest.mark.parametrize("crop", CROPS)
def test_a_view_does_not_depend_on_its_batch(crop: str) -> None:
    augment = AugmentConfig.model_validate({"flip": True, "crop": crop})
    batch, numbers = images(12), draws(0, 3, 12)
    whole = random_view(batch, numbers, augment, PREPROCESSING)
    single = [random_view(batch[i : i + 1], numbers[i : i + 1], augment, PREPROCESSING) for i in range(12)]
    assert torch.equal(whole, torch.cat(single))
    assert whole.dtype == torch.uint8
    assert whole.shape == batch.shape


@given(st.integers(0, 1000), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_a_padded_crop_is_a_window_of_the_padded_image(seed: int, padding: int) -> None:
    augment = AugmentConfig(crop="padded", padding=padding)
    image, numbers = images(1, seed), draws(seed, 0, 1)
    view = random_view(image, numbers, augment, PREPROCESSING)[0]
    padded = torch.zeros(3, SIZE + 2 * padding, SIZE + 2 * padding, dtype=torch.uint8)
    padded[:, padding : padding + SIZE, padding : padding + SIZE] = image[0]
    windows = [
        padded[:, top : top + SIZE, left : left + SIZE]
        for top in range(2 * padding + 1)
        for left in range(2 * padding + 1)
    ]
    assert any(torch.equal(view, window) for window in windows)


def test_padded_crops_reach_every_corner_and_half_of_the_images_flip() -> None:
    numbers = draws(0, 0, 4000)
    marked = torch.zeros(4000, 3, SIZE, SIZE, dtype=torch.uint8)
    marked[:, :, 4, 2] = 255
    views = random_view(marked, numbers, AugmentConfig(crop="padded", padding=1), PREPROCESSING)
    places = {tuple(place) for place in views[:, 0].nonzero()[:, 1:].tolist()}
    assert places == {(row, column) for row in (3, 4, 5) for column in (1, 2, 3)}
    flipped = random_view(marked, numbers, AugmentConfig(flip=True), PREPROCESSING)[:, 0, 4, SIZE - 3] == 255
    assert 0.45 < flipped.float().mean() < 0.55


def test_no_augmentation_is_the_evaluation_view() -> None:
    batch = images(3)
    assert torch.equal(random_view(batch, draws(0, 0, 3), AugmentConfig(), PREPROCESSING), PREPROCESSING.resized(batch))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("crop", CROPS)
def test_files_give_the_views_of_arrays(tmp_path: Path, crop: str, workers: int) -> None:
    pixels = images(7).permute(0, 2, 3, 1).numpy()
    paths = []
    for number, image in enumerate(pixels):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(image).save(paths[-1])
    augment, numbers, order = (
        AugmentConfig.model_validate({"flip": True, "crop": crop}),
        draws(1, 2, 7),
        np.arange(6, -1, -1),
    )
    device = torch.device("cpu")
    of_arrays = ImageLoader(pixels, PREPROCESSING, device).views(order, 3, augment, numbers)
    of_files = ImageLoader(paths, PREPROCESSING, device, workers).views(order, 3, augment, numbers)
    for (positions, views), (other_positions, other_views) in zip(of_arrays, of_files, strict=True):
        assert torch.equal(positions, other_positions)
        assert torch.equal(views, other_views)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "shape", [(5, 3, 8, 8), (3, 37, 91), (2, 3, 50, 37), (1, 3, 1, 1), (7, 3, 64, 1), (0, 3, 8, 8)]
)
def test_stretched_images_are_torchvisions(shape: tuple[int, ...], mode: str) -> None:
    from torchvision.transforms.v2 import InterpolationMode, functional

    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for view in (images, images.transpose(-1, -2)):
        for side in (3, 32, 70):
            expected = functional.resize(view, [side, side], InterpolationMode(mode))
            assert torch.equal(stretched(view, [side, side], mode), expected)


@pytest.mark.parametrize("side", [20, 32])
def test_resized_crops_of_a_batch_are_torchvisions_one_by_one(side: int) -> None:
    from torchvision.transforms.v2 import functional

    from nobackfill.data.augment import _boxes, _resized_crops

    batch = torch.randint(
        0, 256, (40, 3, side, side - 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    numbers = draws(0, 0, 40)[:, 1:5]
    boxes = _boxes(numbers.double(), side, side - 3)
    assert ((boxes[:, :2] >= 0) & (boxes[:, 2:] >= 1)).all()
    assert (boxes[:, 0] + boxes[:, 2] <= side).all()
    assert (boxes[:, 1] + boxes[:, 3] <= side - 3).all()
    views = _resized_crops(batch, numbers, 24)
    assert views.shape == (40, 3, 24, 24)
    for view, image, box in zip(views, batch, boxes.tolist(), strict=True):
        exact = functional.resized_crop(image.float(), *box, [24, 24], antialias=True)
        assert (view.float() - exact).abs().max() <= 0.5 + 1e-3  # rounding to bytes, nothing else


def test_alternating_flips_show_each_side_in_turn() -> None:
    augment = AugmentConfig(flip="alternating")
    mirrored = [draws(3, epoch, 200, augment)[:, 0] < 0.5 for epoch in range(4)]
    assert torch.equal(mirrored[1], ~mirrored[0])
    assert torch.equal(mirrored[2], mirrored[0])
    assert torch.equal(mirrored[3], mirrored[1])
    assert 0.3 < mirrored[0].float().mean() < 0.7
    batch = images(200)
    views = [random_view(batch, draws(3, epoch, 200, augment), augment, PREPROCESSING) for epoch in range(2)]
    assert torch.equal(views[0], views[1].flip(-1))


def test_reflected_padding_shows_the_images_own_pixels() -> None:
    batch, numbers = images(20), draws(0, 1, 20)
    views = random_view(batch, numbers, AugmentConfig(crop="padded", padding=3, padding_mode="reflect"), PREPROCESSING)
    for image, view, (_, row, column, *_rest) in zip(batch, views, numbers.tolist(), strict=True):
        padded = np.pad(image.numpy(), [(0, 0), (3, 3), (3, 3)], mode="reflect")
        top, left = int(row * 7), int(column * 7)
        np.testing.assert_array_equal(view.numpy(), padded[:, top : top + SIZE, left : left + SIZE])


def test_the_cut_out_is_a_square_of_the_mean_colour_and_nothing_else_changes() -> None:
    batch, numbers = images(60), draws(0, 1, 60)
    views = random_view(batch, numbers, AugmentConfig(cutout=4), PREPROCESSING)
    colour = [round(255 * mean) for mean in PREPROCESSING.mean]
    for image, view, (down, across) in zip(batch, views, numbers[:, 5:].tolist(), strict=True):
        expected = image.clone()
        top, left = int(down * SIZE) - 2, int(across * SIZE) - 2
        for row in range(max(0, top), min(SIZE, top + 4)):
            for column in range(max(0, left), min(SIZE, left + 4)):
                expected[:, row, column] = torch.tensor(colour)
        assert torch.equal(view, expected)


def test_settings_that_exceed_the_image_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.augment.padding': 8 pixels of reflection do not fit images of 8"):
        tiny_config("independent", data__augment={"crop": "padded", "padding": 8, "padding_mode": "reflect"})
    with pytest.raises(ConfigError, match=r"data.augment.cutout': 9 exceeds the image size of 8"):
        tiny_config("independent", data__augment={"cutout": 9})
    with pytest.raises(ConfigError, match=r"data.resize': expected at least the image size of 8, found 7"):
        tiny_config("independent", data__resize=7)


@given(st.integers(1, 12), st.floats(0.01, 1))
@settings(max_examples=30, deadline=None)
def test_early_epochs_see_small_views(epochs: int, until: float) -> None:
    config = tiny_config("independent", epochs=epochs, data__augment={"small_size": 5, "small_until": until})
    plan, batch = make_plan(config), images(3)
    views = [plan.small_view(epoch) for epoch in range(epochs)]
    small = sum(view is not None for view in views)
    assert all(view is not None for view in views[:small])  # no small one after a whole one
    assert small - 1 < until * epochs <= small + 1e-6
    assert views[0] is not None
    ((positions, seen),) = resized(iter([(torch.arange(3), batch)]), views[0])
    assert torch.equal(positions, torch.arange(3))
    assert torch.equal(seen, Preprocessing(image_size=5).resized(batch))


@pytest.mark.parametrize(("until", "epochs", "small"), [(0.55, 100, 55), (0.07, 100, 7), (0.6, 12, 8), (0.601, 10, 7)])
def test_small_epochs_are_rounded_up_but_not_by_binary_fractions(until: float, epochs: int, small: int) -> None:
    augment = {"small_size": 5, "small_until": until}
    assert make_plan(tiny_config("independent", epochs=epochs, data__augment=augment)).small_epochs == small


def test_without_a_small_size_every_epoch_sees_whole_views() -> None:
    assert make_plan(tiny_config("independent")).small_view() is None


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"small_size": 8, "small_until": 0.5}, "'data.augment.small_size': 8 is not below the image size of 8"),
        ({"small_size": 0}, "data.augment.small_size"),
        ({"small_size": 4, "small_until": 1.5}, "data.augment.small_until"),
        ({"small_until": 0.5}, "'data.augment.small_until': used only with small_size; leave it out"),
        ({"crop": "resized", "padding": 3}, "'data.augment.padding': used only with crop: padded; leave it out"),
        ({"padding_mode": "reflect"}, "'data.augment.padding_mode': used only with crop: padded; leave it out"),
    ],
)
def test_small_views_that_make_no_sense(augment: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_config("independent", data__augment=augment)


def test_small_views_that_the_network_does_not_take(tmp_path: Path) -> None:
    config = tiny_config(
        "independent",
        data__image_size=32,
        data__augment={"small_size": 8, "small_until": 0.5},
        model__backbone="quicknet8",
    )
    with pytest.raises(ConfigError, match=r"'quicknet8' does not take images of 8×8"):
        train(config, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
