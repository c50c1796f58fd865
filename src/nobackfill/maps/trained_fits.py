"""`mlp`, `infonce`, `bt2` and `bt2_residual`: trained from a closed form in the usual loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from nobackfill.config import parse_config
from nobackfill.errors import ConfigError
from nobackfill.maps import budget
from nobackfill.maps.basis import closed_basis
from nobackfill.maps.folders import basis_encoder, map_encoder
from nobackfill.maps.task import Candidate, Settings, Task, kept
from nobackfill.models import ArrayEncoder, load


def fit_mlp(task: Task) -> Iterator[Candidate]:
    """Ridge and a small net."""
    start = map_encoder("mlp", task.ridge, task.prefix)
    backbone, model = f"vectors/linear+{task.settings.hidden}", {"embedding_dim": task.prefix.dim}
    yield _trained(task, "mlp", start, backbone, model, task.label_loss({}))


def fit_infonce(task: Task) -> Iterator[Candidate]:
    """A linear map that tells each item from the others of its batch."""
    start = map_encoder("infonce", task.ridge, task.prefix)
    loss = {"old": 0.0, "contrast": 1.0}
    yield _trained(task, "infonce", start, "vectors/linear", {"embedding_dim": task.prefix.dim}, loss)


def fit_bt2(task: Task, *, residual: bool = False) -> Iterator[Candidate]:
    """The new vector whole, and k values more; see `basis`."""
    name = "bt2_residual" if residual else "bt2"
    hidden = task.settings.hidden if residual else 0
    loss = task.label_loss({"contrast": 1.0})
    dim, sizes = task.x.shape[1], extra_dims(task.settings, task.x.shape[1], task.prefix.dim)
    for k in sizes:
        for scale in task.settings.scales:
            start = basis_encoder("bt2_vectors", closed_basis(task.moments, task.ridge, k), scale, task.prefix, hidden)
            alone = len(sizes) == len(task.settings.scales) == 1
            model = {"embedding_dim": dim, "extra_dim": k, "scale": scale}
            backbone = f"vectors/keep+{hidden}" if residual else "vectors/keep"
            yield _trained(task, name if alone else f"{name}_k{k}_c{scale:g}", start, backbone, model, loss)


def extra_dims(settings: Settings, dim: int, old_dim: int) -> tuple[int, ...]:
    """The k to try for d and d_o; raises `ConfigError` for one that leaves no room for the old space, or exceeds it."""
    for k in settings.extra_dims or ():
        if not 0 <= k <= old_dim or dim + k < old_dim:
            raise ConfigError(f"--extra-dim {k}: expected {max(0, old_dim - dim)} to {old_dim} for {dim} → {old_dim}")
    return settings.extra_dims or (max(min(32, old_dim), old_dim - dim),)


def fit_bt2_residual(task: Task) -> Iterator[Candidate]:
    """The same, with a small net."""
    yield from fit_bt2(task, residual=True)


def _trained(
    task: Task, name: str, start: ArrayEncoder, backbone: str, model: Mapping[str, object], loss: dict[str, float]
) -> Candidate:
    """Train from a closed-form start at each rate, and keep what does best on the validation rows."""
    before = kept(task, f"{name}-start", start, "closed form; training did not help", task.score(start))
    candidates = [before, *(_at_rate(task, name, before, start, backbone, model, loss, rate) for rate in budget.RATES)]
    return dataclasses.replace(max(candidates, key=lambda one: one.score), name=name)


def _at_rate(
    task: Task,
    name: str,
    before: Candidate,
    start: ArrayEncoder,
    backbone: str,
    model: Mapping[str, object],
    loss: dict[str, float],
    rate: float,
) -> Candidate:
    from nobackfill.training import train  # needs PyTorch, which closed forms do without
    from nobackfill.training.stopping import StoppedError

    epochs = budget.epochs_for(task.rows)
    data = {
        "name": "vectors",
        "vectors": str(task.x_file),
        "old_vectors": str(task.y_file),
        "rows": str(task.rows_file),
        "labels": str(task.labels_file) if task.labels_file and loss.get("prototypes") else None,
        "old_name": task.prefix.generation,
        "old_fingerprint": task.prefix.fingerprint,
    }
    tree = {
        "method": start.spec.generation.rpartition("-")[0],
        "data": data,
        "model": {"backbone": backbone, **model},
        "loss": loss,
        "init_from": str(before.folder),
        "optimizer": {"name": "adam", "lr": rate},
        "epochs": epochs,
        "batch_size": min(budget.BATCH, task.rows),
        "precision": "fp32",
        "seed": task.settings.seed,
    }
    try:
        folder = train(parse_config(tree), task.folder / f"{name}-{task.direction}-{rate:g}", resume=True)
    except StoppedError as error:  # its advice is that of `train`
        raise StoppedError(
            f"{task.folder}: stopped while fitting {name}; the same `fit` command resumes", error.code - 128
        ) from error
    return Candidate(name, task.direction, folder, f"{epochs} epochs at {rate:g}", task.score(load(folder, "cpu")))
