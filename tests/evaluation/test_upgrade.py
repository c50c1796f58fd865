from __future__ import annotations

import math

import pytest

from nobackfill.evaluation import (
    MeanStd,
    average_compatibility,
    average_score,
    is_compatible,
    self_accuracy_loss,
    update_gain,
)


def test_update_gain__published_bt2_on_cifar100() -> None:
    # REFERENCE figures: old/old 33.6, new/old 38.7, independent new/new 62.7.
    assert update_gain(0.387, 0.336, 0.627) == pytest.approx(0.175, abs=1e-3)
    assert update_gain(0.336, 0.336, 0.627) == 0
    assert update_gain(0.627, 0.336, 0.627) == 1


def test_update_gain__is_nan_where_there_is_nothing_to_gain() -> None:
    assert math.isnan(update_gain(0.5, 0.6, 0.6))
    assert math.isnan(update_gain(0.5, 0.6, 0.4))


def test_self_accuracy_loss_and_compatibility() -> None:
    assert self_accuracy_loss(0.624, 0.627) == pytest.approx(0.003)
    assert is_compatible(0.387, 0.336)
    assert not is_compatible(0.336, 0.336)


def test_mean_and_deviation() -> None:
    found = MeanStd.of([0.1, 0.2, 0.3])
    assert (found.mean, found.std, found.seeds) == pytest.approx((0.2, 0.1, 3))
    assert found.text(100) == "20.0 ± 10.0"
    assert MeanStd.of([0.5]).text(digits=2, sign="+") == "+0.50"
    assert MeanStd.of([math.nan, 0.5]) == MeanStd(None, None, 2)
    assert MeanStd.of([math.nan, 0.5]).text() == "–"


def test_ac_and_am__published_sequences() -> None:
    # Top-1, AlexNet → VGG → ResNet → ViT: with BT² every cross-test beats its gallery's own model.
    matrix = [[46.6], [56.5, 61.0], [56.7, 61.5, 66.6], [57.9, 62.5, 72.0, 75.6]]
    assert average_compatibility(matrix) == 1
    assert average_score(matrix) == pytest.approx(sum(map(sum, matrix)) / 10)
    bct = [[46.6], [54.4, 58.4], [46.0, 48.9, 64.3], [54.9, 57.5, 70.3, 73.9]]
    assert average_compatibility(bct) == pytest.approx(3 / 6)  # not res/alex, res/vgg, vit/vgg
