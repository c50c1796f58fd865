from __future__ import annotations

import pytest
import torch
from tests.conftest import tiny_config
from torch.nn.functional import cosine_similarity, normalize

from nobackfill.errors import ConfigError
from nobackfill.methods import METHODS
from nobackfill.models.classifier import CosineClassifier, make_classifier
from nobackfill.models.heads import HEADS


def test_logits_are_scaled_cosines_whatever_the_rows_norms() -> None:
    vectors, classifier = normalize(torch.randn(5, 6)), CosineClassifier(6, 3, scale=7.0)
    with torch.no_grad():
        classifier.weight.mul_(torch.tensor([[0.1], [1.0], [30.0]]))
    logits = classifier(vectors)
    for row, vector in enumerate(vectors):
        for column, weight in enumerate(classifier.weight):
            assert logits[row, column].item() == pytest.approx(
                7 * cosine_similarity(vector, weight, dim=0).item(), abs=1e-5
            )


@pytest.mark.parametrize("method", ["independent", "bct", "bt2", "concat", "prefix"])
def test_every_method_with_labels_takes_it_and_keeps_it(method: str) -> None:
    config = tiny_config(
        method,
        model__classifier_scale=7,
        model__embedding_dim=6,
        **({"model__extra_dim": 2, "model__scale": 2, "model__rectify": True} if method == "bt2" else {}),
        **({"model__scale": 2} if method == "concat" else {}),
    )
    head = METHODS[method]({}).head(config.model, 4, classes=3)
    assert isinstance(head.classifier, CosineClassifier)
    assert head.options["classifier_scale"] == 7
    again = HEADS[head.kind](**head.options)
    assert isinstance(again.classifier, CosineClassifier)
    assert again.classifier.scale == 7


def test_without_a_scale_it_is_the_linear_layer_it_was() -> None:
    head = METHODS["independent"]({}).head(tiny_config("independent").model, 0, classes=3)
    assert type(head.classifier) is torch.nn.Linear
    assert "classifier_scale" not in head.options  # fingerprints of older runs hold


def test_no_bias_on_cosines() -> None:
    with pytest.raises(ConfigError, match="a cosine classifier has no bias"):
        make_classifier(6, 3, bias=True, scale=7.0)
