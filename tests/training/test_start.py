"""Warm starts, frozen stages, rates by depth."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import tiny_config

from nobackfill.errors import ConfigError
from nobackfill.models import Network, build_backbone
from nobackfill.models.heads import PlainHead
from nobackfill.models.stages import freeze, stages
from nobackfill.training import train
from nobackfill.training.muon import Muon
from nobackfill.training.plan import make_plan
from nobackfill.training.resolving import resolve
from nobackfill.training.start import make_optimizer


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


STILL: dict[str, Any] = {
    "optimizer__lr": 1e-12,
    "optimizer__name": "sgd",
}  # training that leaves weights where they are


def test_a_warm_start_takes_what_fits_and_says_what_does_not(tmp_path: Path, runs: dict[str, Path]) -> None:
    before = weights(runs["new"])
    run = train(tiny_config("independent", init_from=str(runs["new"]), seed=5, **STILL), tmp_path / "same")
    for name, tensor in weights(run).items():
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(tensor, before[name], atol=1e-6, rtol=0)
    wider = tiny_config("independent", init_from=str(runs["new"]), seed=5, model__embedding_dim=9, **STILL)
    run = train(wider, tmp_path / "wider")
    after = weights(run)
    torch.testing.assert_close(after["backbone.stem.0.weight"], before["backbone.stem.0.weight"], atol=1e-6, rtol=0)
    told = json.loads((run / "metrics.json").read_text())["init_from"]
    unfit = {"backbone.project.bias", "backbone.project.weight", "head.classifier.weight"}
    assert set(told["tensors_that_do_not_fit"]) == unfit
    assert told["tensors_taken"] == len(before) - 3
    assert json.loads((run / "teachers.json").read_text())["init_from"]
    with pytest.raises(ConfigError, match="has the backbone 'smallnet8', this run 'smallnet9'"):
        train(tiny_config("independent", init_from=str(runs["new"]), model__backbone="smallnet9"), tmp_path / "other")


def test_a_warm_start_is_one(tmp_path: Path, runs: dict[str, Path]) -> None:
    """A run that takes nothing would start from random weights."""
    with pytest.raises(ConfigError, match="has the backbone 'smallnet8', this run 'smallnet9'"):
        make_plan(tiny_config("independent", init_from=str(runs["new"]), model__backbone="smallnet9"))
    random = np.random.default_rng(0)
    sizes, found = {"narrow": 4, "wide": 6}, {}
    np.save(tmp_path / "labels.npy", np.arange(60) % 3)
    for name, size in sizes.items():
        np.save(tmp_path / f"{name}.npy", random.normal(size=(60, size)).astype(np.float32))
        files = {key: str(tmp_path / f"{file}.npy") for key, file in (("vectors", name), ("labels", "labels"))}
        model = {"backbone": "vectors/linear", "embedding_dim": size}
        data = {"name": "vectors", **files, "holdout": 12}
        found[name] = tiny_config("independent", data=data, model=model, batch_size=16)
    run = train(found["narrow"], tmp_path / "run")
    with pytest.raises(ConfigError, match=r"'init_from': .*run: none of its \d tensors has the name and the shape of"):
        train(found["wide"].model_copy(update={"init_from": run}), tmp_path / "warm")


def test_an_orthogonal_matrix_stays_one_in_a_warm_start(tmp_path: Path, runs: dict[str, Path]) -> None:
    config = tiny_config(
        "bt2",
        old=str(runs["old"]),
        independent=str(runs["new"]),
        model__extra_dim=2,
        init_from=str(runs["bt2"]),
        **STILL,
    )
    before, after = weights(runs["bt2"]), weights(train(config, tmp_path / "run"))
    for name in ("head.basis.P.weight", "head.basis.B.weight"):
        torch.testing.assert_close(after[name], before[name], atol=1e-5, rtol=0)
        torch.testing.assert_close(after[name] @ after[name].T, torch.eye(len(after[name])), atol=1e-5, rtol=0)


LEARNING = {"backbone": {"project"}, "stages<2": {"stages.1", "stages.2", "project"}}


@pytest.mark.parametrize("what", LEARNING)
def test_frozen_stages_keep_their_weights_and_statistics(tmp_path: Path, runs: dict[str, Path], what: str) -> None:
    before, learning = weights(runs["new"]), LEARNING[what]
    run = train(tiny_config("independent", init_from=str(runs["new"]), freeze=what, epochs=2), tmp_path / "run")
    changed = {name for name, tensor in weights(run).items() if not torch.equal(tensor, before[name])}
    moved = {name for name in changed if name.startswith("backbone.")}
    assert moved
    assert {name for name in moved if not any(name.startswith(f"backbone.{part}") for part in learning)} == set()
    for part in learning:
        assert any(name.startswith(f"backbone.{part}") for name in moved)
    assert json.loads((run / "metrics.json").read_text())["frozen_parameters"] > 0


BACKBONES = {
    "smallnet8": (5, {"stem.0.weight": 0, "stages.1.residual.0.weight": 2, "project.weight": 4}),
    "reference/resnet18": (6, {"conv1.weight": 0, "layer1.0.conv1.weight": 1, "layer4.1.conv1.weight": 5}),
    "reference/resnet50": (6, {"layer4.1.conv1.weight": 4, "layer4.2.conv3.weight": 5}),
    "reference/alexnet": (8, {"features.0.weight": 0, "classifier.6.bias": 7}),
    "resnet18": (6, {"conv1.weight": 0, "layer4.1.conv1.weight": 4, "fc.weight": 5}),
    "test_vit": (8, {"patch_embed.proj.weight": 0, "blocks.0.attn.qkv.weight": 1, "head.weight": 7}),
}  # fmt: skip


@pytest.mark.parametrize("name", BACKBONES)
def test_stages_run_from_the_stem_to_the_output_layer(name: str) -> None:
    count, some = BACKBONES[name]
    backbone = build_backbone(name, 10)
    found = stages(backbone, name)
    assert set(found) == {name for name, _ in backbone.named_parameters()}
    assert set(found.values()) == set(range(count))
    assert {key: found[key] for key in some} == some
    frozen = freeze(backbone, "stages<2", name)
    assert frozen == sum(value.numel() for key, value in backbone.named_parameters() if found[key] < 2)
    assert all(value.requires_grad == (found[key] >= 2) for key, value in backbone.named_parameters())
    with pytest.raises(ConfigError, match=f"is stage {count - 1}, so at most stages<{count - 1} can freeze"):
        freeze(backbone, f"stages<{count}", name)


def test_stages_of_the_vit_of_the_paper() -> None:
    pytest.importorskip("transformers")
    with torch.device("meta"):
        backbone = build_backbone("reference/vit_b16", 10)
    found = stages(backbone, "reference/vit_b16")
    assert max(found.values()) == 13
    assert found["embedding_fc.weight"] == 13
    assert {
        number for name, number in found.items() if "pooler" in name or name.startswith("transformer.layernorm")
    } == {12}
    assert {number for name, number in found.items() if "embeddings" in name} == {0}


def test_unknown_stages_are_refused() -> None:
    with pytest.raises(ConfigError, match="the stages of 'odd' are not known"):
        stages(torch.nn.Linear(2, 2), "odd")
    with pytest.raises(ConfigError, match="key 'freeze'"):
        tiny_config("independent", freeze="everything")


def test_rates_fall_with_depth() -> None:
    from nobackfill.methods import method_class
    from nobackfill.models import Network

    config = resolve(tiny_config("independent", optimizer__layer_decay=0.5))
    head = method_class("independent")(config.loss).head(config.model, 0, 3)
    network = Network(build_backbone("smallnet8", head.in_features), head, "smallnet8")
    groups = make_optimizer(config, network, "fp32").param_groups
    assert [group["fraction"] for group in groups] == [0.5**4, 0.5**3, 0.5**2, 0.5, 1]
    assert {id(value) for group in groups for value in group["params"]} == {id(value) for value in network.parameters()}
    names = {id(value): name for name, value in network.named_parameters()}
    learned = [{names[id(value)] for value in group["params"]} for group in groups]
    assert {"head.classifier.weight", "backbone.project.weight"} <= learned[-1]
    assert "backbone.stem.0.weight" in learned[0]


def new_network() -> Network:
    head = PlainHead(6, classes=3)
    return Network(build_backbone("smallnet8", head.in_features), head, "smallnet8")


def test_norms_and_biases_can_go_without_decay() -> None:
    config = tiny_config("independent", optimizer__weight_decay=0.1, optimizer__decay_norms_and_biases=False)
    network = new_network()
    optimizer = make_optimizer(config, network, "fp32")
    decays = {id(value): group["weight_decay"] for group in optimizer.param_groups for value in group["params"]}
    for name, value in network.named_parameters():
        assert decays[id(value)] == (0.1 if value.ndim > 1 else 0.0), name


def test_muon_takes_the_backbones_matrices_alone_and_its_updates_are_orthogonal() -> None:
    config, network = tiny_config("independent", optimizer__name="muon", optimizer__lr=1.0), new_network()
    optimizer = make_optimizer(config, network, "fp32")
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    for value in network.parameters():
        value.grad = torch.randn_like(value)
    optimizer.step()
    ruled = {id(value): not group["use_fallback"] for group in optimizer.param_groups for value in group["params"]}
    for name, value in network.named_parameters():
        assert ruled[id(value)] == (value.ndim > 1 and name.startswith("backbone.")), name
        if ruled[id(value)]:
            change = (value.detach() - before[name]).flatten(1)
            singular = torch.linalg.svdvals(change)
            assert singular.max() < 2.5 * singular.min(), name  # Newton-Schulz makes them all about one


def test_a_table_of_token_vectors_is_no_matrix_for_muon() -> None:
    config = tiny_config("independent", optimizer__name="muon")
    table = build_backbone("static", 4, options={"vocabulary": 40, "width": 16, "output": 1})
    groups = make_optimizer(config, Network(table, PlainHead(4, 3), "static", {}), "fp32").param_groups
    ruled = {tuple(value.shape): not group["use_fallback"] for group in groups for value in group["params"]}
    assert not ruled[40, 16]
    assert ruled[4, 16]


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_in_bf16_is_timms(nesterov: bool) -> None:
    from timm.optim.muon import Muon as TimmMuon

    def trained(make: Callable[..., torch.optim.Optimizer]) -> list[torch.Tensor]:
        torch.manual_seed(0)
        values = [torch.nn.Parameter(torch.randn(shape)) for shape in ((6, 9), (9, 6), (8, 3, 2, 2), (8,), (2, 5))]
        groups = [{"params": values[:3], "use_fallback": False}, {"params": values[3:], "use_fallback": True}]
        optimizer = make(groups, 0.02, 0.1, nesterov=nesterov)
        for _ in range(3):
            for value in values:
                value.grad = torch.randn_like(value)
            optimizer.step()
            optimizer.zero_grad()
        return [value.detach() for value in values]

    for ours, theirs in zip(trained(partial(Muon, dtype=torch.bfloat16)), trained(TimmMuon), strict=True):
        assert torch.equal(ours, theirs)


def test_muon_in_fp32_turns_a_matrix_as_its_singular_vectors_say() -> None:
    torch.manual_seed(0)
    matrix = torch.nn.Parameter(torch.zeros(6, 10))
    optimizer = Muon([{"params": [matrix], "use_fallback": False}], 1.0, 0.0, nesterov=False, dtype=torch.float32)
    left, values, right = torch.linalg.svd(torch.randn(6, 10), full_matrices=False)
    matrix.grad = left @ torch.diag(values) @ right
    optimizer.step()
    # Newton-Schulz is an odd polynomial of the singular values: the singular vectors stay.
    turned = left.T @ matrix.detach() @ right.T
    assert torch.allclose(turned, torch.diag(turned.diagonal()), atol=1e-4)
    assert torch.allclose(turned.diagonal(), torch.tensor(-0.2 * 10**0.5), rtol=0.3)  # timm's scale of the rate


@pytest.mark.parametrize(
    "shape", [(8,), (3, 40), (4, 40), (4, 600), (1, 40), (16, 1, 3, 3), (16, 2, 3, 3), (2, 8, 3, 3), (4, 512)], ids=str
)
def test_muon_takes_the_matrices_that_timm_would(shape: tuple[int, ...]) -> None:
    from timm.optim.muon import Muon as TimmMuon

    network = new_network()
    network.backbone = torch.nn.Module()
    network.backbone.weight = value = torch.nn.Parameter(torch.randn(shape))
    groups = make_optimizer(tiny_config("independent", optimizer__name="muon"), network, "fp32").param_groups
    (ours,) = [not group["use_fallback"] for group in groups if any(each is value for each in group["params"])]
    theirs: Any = TimmMuon([value])
    value.grad = torch.randn(shape)
    theirs.step()
    assert ours == theirs.state[value]["use_muon"]


def test_nesterov_belongs_to_momentum() -> None:
    with pytest.raises(ConfigError, match="'optimizer.nesterov': 'adam' does not use it"):
        resolve(tiny_config("independent", optimizer__nesterov=True))
