"""ViT-B/16 of the BT² paper, its sizes made tiny: import of checkpoints, and the start from a pre-trained folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils.parametrizations import orthogonal

from nobackfill.cli.app import run
from nobackfill.data.preprocessing import Preprocessing
from nobackfill.errors import NobackfillError
from nobackfill.interop.import_reference import ReferenceModel, import_reference
from nobackfill.models import build_backbone, load, reference

transformers = pytest.importorskip("transformers")
SMALL = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "patch_size": 8, "image_size": 16,
}  # fmt: skip
D, K, CLASSES = 6, 2, 5
IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
PREPROCESSING = Preprocessing(image_size=16)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "VIT_B16", SMALL)


def vit(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return transformers.ViTModel(transformers.ViTConfig(**SMALL)).eval()


def named(**modules: nn.Module) -> dict[str, Tensor]:
    return {f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}


def test_a_plain_checkpoint_gives_the_embeddings_of_the_equations(tmp_path: Path) -> None:
    transformer, fc, out = vit(), nn.Linear(24, D), nn.Linear(D, CLASSES)
    torch.save({"model_state_dict": named(transformer=transformer, embedding_fc=fc, output_fc=out)}, tmp_path / "f")
    encoder = import_reference(tmp_path / "f", ReferenceModel("vit_b16", "independent", D), PREPROCESSING)
    with torch.no_grad():
        pooled = transformer(IMAGES).pooler_output
        assert (encoder(IMAGES) - normalize(fc(pooled))).abs().max() <= 1e-5
        assert (encoder.network(IMAGES)["logits"] - out(normalize(fc(pooled)))).abs().max() <= 1e-5


@pytest.mark.parametrize("parametrized", [True, False])
def test_a_bt2_checkpoint_gives_the_embeddings_of_the_equations(tmp_path: Path, parametrized: bool) -> None:
    transformer, fc1, fc2, out = vit(), nn.Linear(24, 2 * D), nn.Linear(2 * D, D), nn.Linear(D, CLASSES)
    p, b = (orthogonal(nn.Linear(D, D, bias=False)) for _ in range(2))
    unused = orthogonal(nn.Linear(D, K, bias=False))
    for layer in (p, b):
        with torch.no_grad():
            layer.parametrizations.weight.original.add_(0.3 * torch.randn(D, D))  # type: ignore[union-attr, operator]
    with torch.no_grad():
        u = fc1(transformer(IMAGES).pooler_output)
        f, o = normalize(u[:, :D]), normalize(fc2(u)[:, :K])  # no relu here, unlike the ResNets
        z = torch.cat([o, p(3.0 * f)], dim=1)
        expected = torch.cat([b(z[:, :D]), z[:, D:]], dim=1)
    state = named(
        transformer=transformer, fc1=fc1, fc2=fc2, fc_out=out,
        ortholinear_p=p, ortholinear_old2=b, ortholinear_old=unused,
    )  # fmt: skip
    if not parametrized:
        state = {key: value for key, value in state.items() if "parametrizations" not in key}
        state |= {"ortholinear_p.weight": p.weight.detach(), "ortholinear_old2.weight": b.weight.detach()}  # type: ignore[operator]
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "file")
    model = ReferenceModel("vit_b16", "bt2", D, old_dim=D, extra_dim=K, scale=3.0)
    encoder = import_reference(tmp_path / "file", model, PREPROCESSING)
    with torch.inference_mode():
        assert (encoder(IMAGES) - expected).abs().max() <= 1e-5


def test_a_run_starts_from_the_weights_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pretrained = vit(seed=1)
    pretrained.save_pretrained("vit")
    backbone = build_backbone("reference/vit_b16", D, weights=Path("vit"))
    found = dict(backbone.get_submodule("transformer").state_dict())
    assert all(torch.equal(found[name], value) for name, value in pretrained.state_dict().items())
    Path("vit.yaml").write_text(
        f"""
method: independent
data: {{name: digits, image_size: 16, train_limit: 64}}
model: {{backbone: reference/vit_b16, weights: vit, embedding_dim: {D}, classifier_bias: true}}
optimizer: {{name: sgd, lr: 0.0001}}
epochs: 1
batch_size: 16
"""
    )
    assert run(["train", "vit.yaml", "--out", "run"]) == 0
    with torch.inference_mode():  # hardly moved by so small a rate, so they are the folder's
        tokens = load("run", "cpu").network.backbone.transformer(IMAGES).pooler_output  # type: ignore[operator]
        assert (tokens - pretrained(IMAGES).pooler_output).abs().max() < 0.05
        assert (vit(seed=2)(IMAGES).pooler_output - pretrained(IMAGES).pooler_output).abs().max() > 0.05


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("gone", "gone: no pre-trained ViT there"),
        ("deep", "num_hidden_layers is 3, expected 2"),
        ("google/vit-base-patch16-224-in21k", "no pre-trained ViT there"),
    ],
)
def test_a_folder_of_another_model_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    transformers.ViTModel(transformers.ViTConfig(**{**SMALL, "num_hidden_layers": 3})).save_pretrained("deep")
    with pytest.raises(NobackfillError, match=message):
        build_backbone("reference/vit_b16", D, weights=Path(folder))
    with pytest.raises(NobackfillError, match="does not use it"):
        build_backbone("reference/resnet18", D, weights=Path("deep"))
