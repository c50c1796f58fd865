"""The upgrades that `text_upgrades.py` compares: data, what is old, what is new, and the weights of each method.

A method has four settings to choose from, tried on held-out training rows with `text_upgrades.py SETTING --tune`. The
first of them is the one used: the best by the mean of the second score in new/old and new/new.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LINEAR = {"optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.01, "decay_norms_and_biases": False},
          "schedule": {"name": "linear", "rise": 0.1}}  # fmt: skip
LABELS = {"model": {"embedding_dim": 384, "classifier_scale": 4}, "epochs": 4, "batch_size": 128, "precision": "fp32",
          **LINEAR}  # fmt: skip
PAIRS = {"model": {"embedding_dim": 384}, "epochs": 3, "batch_size": 512, "precision": "fp32", **LINEAR}
MINILM = {
    **LABELS,
    "model": {"embedding_dim": 384, "classifier_scale": 12},
    "optimizer": {**LINEAR["optimizer"], "lr": 6e-5},
}
MINILM_PAIRS = {**MINILM, "model": {"embedding_dim": 384}, "epochs": 2}


@dataclass(frozen=True)
class Setting:
    """One upgrade.

    Attributes:
        data: the section of the config.
        holdout: training rows to hold out for `--tune`.
        common: what all runs share.
        methods: per method the settings it may choose from, by name; the first is the one used.
        backbone: of the new models.
        old: the config of a run, or empty where the old model is `imported` as it is.
        imported: the old model, as `import-text` takes it, with the names of the folders that are given.
        scores: two, the second decides in `--tune`.
    """

    data: dict[str, Any]
    holdout: int
    common: dict[str, Any]
    methods: dict[str, dict[str, dict[str, Any]]]
    backbone: str
    old: dict[str, Any] = field(default_factory=dict)
    imported: str = "static:{wordllama}"
    scores: tuple[str, str] = ("top1", "mean_ap")

    @property
    def pairs(self) -> bool:
        """Whether the data are pairs."""
        return self.data["name"] == "pairs"


def loss(**weights: float) -> dict[str, Any]:
    """A setting that changes these weights alone."""
    return {"loss": weights}


def with_old(prototypes: float, old: float) -> dict[str, Any]:
    """Weights of `prefix` and BT² with labels."""
    return loss(prototypes=prototypes, prototype_scale=16.0, old=old)


OLD_AND_LABELS = {"3_1": with_old(3, 1), "1_1": with_old(1, 1), "1_5": with_old(1, 5), "3_5": with_old(3, 5)}
BY_LABEL: dict[str, dict[str, dict[str, Any]]] = {
    "independent": {"": loss(label_smoothing=0.0)},
    "bct": {
        "1_16": loss(prototypes=1.0, prototype_scale=16.0),
        "1_8": loss(prototypes=1.0, prototype_scale=8.0),
        "3_8": loss(prototypes=3.0, prototype_scale=8.0),
        "3_16": loss(prototypes=3.0, prototype_scale=16.0),
    },
    "prefix": OLD_AND_LABELS,
    "bt2": OLD_AND_LABELS,
}
OLD_TERMS = {
    "1_5": loss(cross=1.0, old=5.0),
    "1_1": loss(cross=1.0, old=1.0),
    "1_02": loss(cross=1.0, old=0.2),
    "3_1": loss(cross=3.0, old=1.0),
}
BY_PAIR: dict[str, dict[str, dict[str, Any]]] = {
    "independent": {"": {}},
    "bct": {f"{weight:g}": loss(cross=weight) for weight in (3.0, 1.0, 0.3, 10.0)},
    "prefix": OLD_TERMS,
    "prefix_mined": {name: {**each, "method": "prefix", "mine": {"negatives": 2}} for name, each in OLD_TERMS.items()},
    "bt2": OLD_TERMS,
}

BANKING = "../shared/data/banking77/"
BANKING77 = {"name": "texts", "train": f"{BANKING}train.csv", "test": f"{BANKING}test.csv", "label": "category"}
CLINC150 = {"name": "texts", "train": "data/clinc150_train.csv", "test": "data/clinc150_test.csv"}
WORDNET = {"name": "pairs", "train": "data/wordnet_examples_train.jsonl", "test": "data/wordnet_examples_test.jsonl",
           "query": "example", "positive": "entry", "id": "synset"}  # fmt: skip
RECALL = ("mrr", "recall10")
SETTINGS = {
    "banking77": Setting(BANKING77, 1500, LABELS, BY_LABEL, "static:{wordllama}"),
    "clinc150": Setting(CLINC150, 3000, LABELS, BY_LABEL, "static:{wordllama}"),
    "banking77_minilm": Setting(BANKING77, 1500, MINILM, BY_LABEL, "sentence:{minilm}"),
    "banking77_finetune": Setting(
        BANKING77, 1500, MINILM, BY_LABEL, "sentence:{minilm}", imported="sentence:{minilm}"
    ),
    "wordnet": Setting(WORDNET, 4000, PAIRS, BY_PAIR, "static:{wordllama}", scores=RECALL),
    "wordnet_minilm": Setting(
        {**WORDNET, "train_limit": 8000}, 1000, MINILM_PAIRS, BY_PAIR, "sentence:{minilm}", scores=RECALL
    ),
    "wordnet_nothing": Setting(
        WORDNET, 4000, {**PAIRS, "model": {"embedding_dim": 512}}, BY_PAIR, "static",
        {"method": "independent", "model": {"backbone": "static", "embedding_dim": 256}}, scores=RECALL,
    ),
}  # fmt: skip
