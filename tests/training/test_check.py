from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tests.conftest import tiny_config
from torch import nn

from nobackfill.cli.app import run
from nobackfill.config import RunConfig, VectorData, load_config
from nobackfill.errors import ConfigError, NobackfillError
from nobackfill.experiments.config import load_scenario
from nobackfill.experiments.runs import changed_configs
from nobackfill.training import setup, train
from nobackfill.training.check import check_config, mean_of_epochs
from nobackfill.training.plan import plan_without_teachers

CONFIGS = Path(__file__).parents[2] / "configs"
REFERENCE = sorted((CONFIGS / "reference").glob("*.yaml"))
# A folder of weights is not needed to check, but transformers is.
VIT_NEEDS_TRANSFORMERS = "vit"


# Check reads their data and the models that they start from; see below.
TEXT = sorted((CONFIGS / "text").rglob("*.yaml"))
OTHERS = sorted({*CONFIGS.rglob("*.yaml")} - {*TEXT})


def _large_again() -> set[Path]:
    """The configs whose large backbone an earlier one has as well."""
    again, seen = set(), set()
    for path in REFERENCE:
        tree = yaml.safe_load(path.read_text())
        name = tree.get("model", {}).get("backbone")
        if name in seen:
            again.add(path)
        seen.add(name)
    return {*again, CONFIGS / "reference" / "sequence_scenario.yaml"}


LARGE_AGAIN = _large_again()


class StandIn(nn.Module):
    """A backbone of as many outputs that costs nothing."""

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3, out_features)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear(images.mean(dim=(2, 3)))
        return out


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the vectors that `configs/vectors` name, some thousands of each model."""
    folder = tmp_path_factory.mktemp("vectors")
    place = folder / "vectors" / "cifar100"
    place.mkdir(parents=True)
    numbers = np.random.default_rng(0)
    for model in ("lite0", "lite1", "lite2"):
        np.save(place / f"{model}.npy", numbers.normal(size=(7000, 64)).astype(np.float16))
    np.save(place / "labels.npy", np.arange(7000) % 100)
    np.save(place / "test_rows.npy", np.arange(6000, 7000))
    return folder


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_config_passes_check(
    path: Path, vectors: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large backbone is built and stepped once; the other configs that name it have a stand-in."""
    if "vectors" in path.parts:
        monkeypatch.chdir(vectors)
    if path in LARGE_AGAIN:
        monkeypatch.setattr(setup, "build_backbone", lambda _name, out_features, **_options: StandIn(out_features))
    if VIT_NEEDS_TRANSFORMERS in path.stem:
        pytest.importorskip("transformers", reason="the extra 'text' is not installed")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="transformers|huggingface_hub")  # of its own imports
        code = run(["check", str(path)])
    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    kinds = {"scenario": "scenario, valid", "eval": "evaluation config, valid"}
    assert next((words for part, words in kinds.items() if part in path.stem), "M parameters") in printed.out


@pytest.mark.parametrize("path", TEXT, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_text_config_passes_check_with_data_of_its_form(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the extra 'text' is not installed")
    if "generations" in path.read_text():
        configs = list(changed_configs(load_scenario(path)).values())
        assert configs
    else:
        configs = [load_config(path)]
    for config in configs:
        assert math.isfinite(sum(check_config(_with_made_texts(config, tmp_path)).loss.values()))


def _with_made_texts(config: RunConfig, folder: Path) -> RunConfig:
    """The config with a hundred rows of its form, and words of its own in place of a model's."""
    data, rows = config.data, folder / "rows.jsonl"
    columns = [getattr(data, key) for key in ("text", "label", "query", "positive", "id") if getattr(data, key, None)]
    rows.write_text("".join(json.dumps({name: f"{name} {n}" for name in columns}) + "\n" for n in range(100)))
    sizes = {"old_dim": config.model.old_dim or 64} if config.old else {}
    return config.model_copy(
        update={
            "data": data.model_copy(update={"train": rows, "test": None, "holdout": None}),
            "model": config.model.model_copy(update={"backbone": "static", **sizes}),
        }
    )


def test_the_configs_of_the_repository_are_all_there() -> None:
    names = ["backbone_old", "backbone_new", "transfer", "BCT", "eval_old_old", "eval_old_new", "eval_new_new"]
    for data in ("cifar100", "imagenet"):
        for name in [*names, "bct_fair", "vit_new", "vit_transfer"]:
            assert CONFIGS / "reference" / f"{data}_{name}.yaml" in REFERENCE


# Learning rate, weight decay, batch, epochs, warm-up epochs, schedule.
PUBLISHED: dict[str, tuple[float, float, int, int, int, str]] = {
    "cifar100_transfer": (1e-3, 2**-15, 128, 100, 5, "cosine"),
    "cifar100_BCT": (1e-3, 2**-15, 128, 100, 0, "constant"),
    "cifar100_bct_fair": (1e-3, 2**-15, 128, 100, 5, "cosine"),
    "imagenet_transfer": (1e-3, 0, 256, 100, 20, "cosine"),
    "cifar100_vit_transfer": (1e-2, 0, 64, 30, 2, "cosine"),
    "imagenet_vit_transfer": (1e-2, 0, 256, 25, 2, "cosine"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings(name: str) -> None:
    config = load_config(CONFIGS / "reference" / f"{name}.yaml")
    optimizer, schedule = config.optimizer, config.schedule
    found = (optimizer.lr, optimizer.weight_decay, config.batch_size, config.epochs)
    assert PUBLISHED[name] == (*found, schedule.warmup_epochs, schedule.name)


def test_a_sequence_grows_and_each_step_holds_the_one_before() -> None:
    dims = [128]
    for step, name in ((2, "vgg13_bn"), (3, "resnet50"), (4, "vit_b16")):
        model = load_config(CONFIGS / "reference" / f"sequence_{step}_{name}_bt2.yaml").model
        assert model.old_dim == dims[-1]
        assert model.extra_dim is not None
        dims.append(model.embedding_dim + model.extra_dim)
    assert dims == [128, 160, 192, 224]


def test_check_counts() -> None:
    found = check_config(tiny_config("bt2", old="gone", independent="gone", model__old_dim=4, model__extra_dim=2))
    assert found.dim == 8
    assert found.steps == 200 // 64
    assert set(found.loss) == {"labels", "independent", "prototypes", "old"}
    # smallnet8 at 8 px: stem 4×4, stages 4×4, 2×2, 1×1; the last layer gives 6 + 4 features.
    stem = 16 * 8 * 3 * 9
    first = 2 * 16 * 8 * 8 * 9
    second = 4 * (16 * 8 * 9 + 16 * 16 * 9 + 16 * 8)
    third = 32 * 16 * 9 + 32 * 32 * 9 + 32 * 16
    assert found.macs == stem + first + second + third + 32 * 10


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("bct", {"old": "gone"}, "key 'model.old_dim': required, to check without the old run gone"),
        (
            "independent",
            {"data__name": "folder", "data__root": "x"},
            "key 'data.classes': `check` does not read 'folder'",
        ),
        ("independent", {"data__classes": 11}, r"data.classes: 11 has classes outside the range 0…9"),
    ],
)
def test_what_cannot_be_checked_is_said(method: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NobackfillError, match=message):
        check_config(tiny_config(method, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulate": 3},
        {"accumulate": 64},
        {"freeze": "stages<9"},
        {"freeze": "stages<9", "init_from": "new"},
        {"model__pretrained": True},
        {"optimizer__layer_decay": 0.5, "model__backbone": "vectors/linear+4"},
    ],
)
def test_check_refuses_what_training_refuses(tmp_path: Path, runs: dict[str, Path], changes: dict[str, Any]) -> None:
    if "init_from" in changes:
        changes = {**changes, "init_from": str(runs[changes["init_from"]])}
    config = tiny_config("independent", **changes)
    if config.model.backbone.startswith("vectors/"):
        np.save(tmp_path / "vectors.npy", np.random.default_rng(0).normal(size=(100, 6)))
        np.save(tmp_path / "labels.npy", np.arange(100) % 3)
        data = VectorData(vectors=tmp_path / "vectors.npy", labels=tmp_path / "labels.npy", holdout=9)
        config = config.model_copy(update={"data": data})
    with pytest.raises(ConfigError) as trained:
        train(config, tmp_path / "run")
    with pytest.raises(ConfigError) as checked:
        check_config(config)
    assert str(checked.value) == str(trained.value)


def test_a_batch_is_no_larger_than_the_data() -> None:
    found = check_config(tiny_config("independent", batch_size=1_000_000))
    assert (found.batch_size, found.steps) == (200, 1)
    assert check_config(tiny_config("independent", epochs=10_000_000)).steps == 3  # and no epoch is counted by hand


def test_the_size_of_the_old_embedding_comes_from_its_run(runs: dict[str, Path]) -> None:
    config = tiny_config("bt2", old=str(runs["old"]), independent="gone", model__extra_dim=2)
    assert check_config(config).dim == 8
    folder = tiny_config("independent", data__name="folder", data__root="gone", data__classes=7, data__train_limit=None)
    assert check_config(folder).hours is None


def test_small_views_count_as_what_they_take() -> None:
    config = tiny_config("independent", epochs=5, data__augment={"small_size": 6})
    plan = plan_without_teachers(config)
    assert mean_of_epochs(plan, [10.0, 1.0]) == pytest.approx((3 * 1 + 2 * 10) / 5)
    assert mean_of_epochs(plan_without_teachers(tiny_config("independent")), [10.0]) == 10


def test_a_small_view_that_does_not_fit_is_found() -> None:
    config = tiny_config(
        "independent", data__image_size=32, data__augment={"small_size": 8}, model__backbone="quicknet8"
    )
    with pytest.raises(ConfigError, match="key 'model.backbone': 'quicknet8' does not take images of 8×8"):
        check_config(config)


def test_overrides_are_checked_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text("{method: independent, data: {name: digits, image_size: 8}, epochs: 2}")
    scenario = "{generations: {old: {independent: run.yaml}, new: {independent: run.yaml}}}"
    (tmp_path / "scenario.yaml").write_text(scenario)
    paths = [str(tmp_path / name) for name in ("run.yaml", "scenario.yaml")]
    assert run(["check", *paths, "--set", "epochs=7", "--set", "model.embedding_dim=24"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("embedding of 24 values, 7 ×") == 3  # the run, and both of the scenario
    assert run(["check", *paths, "--set", "epoch=7"]) == 2
    assert "unknown key 'epoch': did you mean 'epochs'" in capsys.readouterr().err


def test_a_term_of_weight_0_needs_no_prototypes() -> None:
    """Check gives a loss what training gives it, and no more."""
    check = check_config(tiny_config("prefix", old="none", model__old_dim=4, loss__prototypes=0))
    assert set(check.loss) == {"labels", "old"}
