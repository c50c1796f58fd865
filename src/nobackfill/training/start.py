"""Where the weights of a run start from, which of them learn, and at which rate."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nobackfill.config import RunConfig
from nobackfill.errors import ConfigError
from nobackfill.models import Network, load
from nobackfill.models.array_encoder import VECTORS
from nobackfill.models.stages import freeze, rest_frozen, stages
from nobackfill.models.static import StaticBackbone
from nobackfill.models.text_source import SENTENCE, STATIC
from nobackfill.training.precision import Precision

# timm's limits for a matrix that Muon takes.
THIN, ELONGATED = 4, 128


def start_weights(config: RunConfig, network: Network) -> dict[str, object]:
    """Warm start and freezing, as `init_from` and `freeze` have them; returns what `metrics.json` says of it."""
    done: dict[str, object] = {}
    if config.init_from is not None:
        done["init_from"] = _warm_start(network, config.init_from)
    if config.freeze is not None:
        done["frozen_parameters"] = freeze(network.backbone, config.freeze, config.model.backbone)
    return done


def _warm_start(network: Network, run: Path) -> dict[str, object]:
    """Take every tensor of a run that has the same name and shape here; raises `ConfigError` if none has."""
    source = load(run, "cpu").network
    modules = dict(network.named_modules())
    current = network.state_dict()
    taken, fresh = 0, []
    for name, tensor in source.state_dict().items():
        owner, _, leaf = name.rpartition(".")
        module = modules.get(owner)
        if module is not None and parametrize.is_parametrized(module, leaf):
            if getattr(module, leaf).shape == tensor.shape:
                setattr(module, leaf, tensor)  # an orthogonal matrix goes through its parametrization
                taken += 1
                continue
        elif name in current and current[name].shape == tensor.shape:
            current[name].copy_(tensor)
            taken += 1
            continue
        fresh.append(name)
    if not taken:
        raise ConfigError(
            f"key 'init_from': {run}: none of its {len(fresh)} tensors has the name and the shape of one of this run, "
            "which would start from random weights; name a run of the same sizes, or leave it out"
        )
    return {"run": str(run), "tensors_taken": taken, "tensors_that_do_not_fit": fresh}


def require_same_backbone(run: Path, name: str, own: str) -> None:
    """Raises `ConfigError` if a run with the backbone `name` cannot start one with the backbone `own`.

    Where a text model came from (`static:FOLDER`) does not matter, only of which kind it is.
    """
    kinds = [each.partition(":")[0] for each in (name, own)]
    if kinds[0] == kinds[1] and kinds[0] in (SENTENCE, STATIC):
        return
    if name != own and not (name.startswith(VECTORS) and own.startswith(VECTORS)):
        raise ConfigError(
            f"key 'init_from': {run} has the backbone {name!r}, this run {own!r}; they must be equal to share weights"
        )


def make_optimizer(config: RunConfig, network: Network, precision: Precision) -> torch.optim.Optimizer:
    """The optimiser over all that learns; each group's `fraction` times the schedule's rate is its learning rate."""
    settings = config.optimizer
    groups = _groups(config, network)
    lr, weight_decay = settings.lr, settings.weight_decay
    if settings.name == "muon":
        from nobackfill.training.muon import Muon  # needs timm

        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        optimizer: torch.optim.Optimizer = Muon(groups, lr, weight_decay, nesterov=settings.nesterov, dtype=dtype)
        return optimizer
    match settings.name:
        case "sgd":
            return torch.optim.SGD(groups, lr, 0.9, weight_decay=weight_decay, nesterov=settings.nesterov, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, lr, weight_decay=weight_decay, fused=True)
        case "adam":
            return torch.optim.Adam(groups, lr, weight_decay=weight_decay, fused=True)


def _groups(config: RunConfig, network: Network) -> list[dict[str, object]]:
    """Parameters that learn alike: at the same fraction of the rate, with the same decay, by the same rule.

    A table of token vectors is no matrix for Muon: its rows are vectors of their own, and few of them have a gradient.
    """
    settings, stage, last = config.optimizer, {}, 0
    if settings.layer_decay != 1:
        numbers = stages(network.backbone, config.model.backbone)
        stage, last = {f"backbone.{name}": number for name, number in numbers.items()}, max(numbers.values())
    tables = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    tables |= {id(module.table) for module in network.modules() if isinstance(module, StaticBackbone)}
    groups: dict[tuple[int, bool, bool], list[nn.Parameter]] = {}
    for name, value in network.named_parameters():
        if value.requires_grad:
            decayed = settings.decay_norms_and_biases or value.ndim > 1
            of_backbone = name.startswith("backbone.") and id(value) not in tables
            matrix = settings.name == "muon" and of_backbone and _is_matrix(value)
            # The head learns at the rate of the output layer.
            groups.setdefault((stage.get(name, last), not decayed, matrix), []).append(value)
    return [
        {
            "params": params,
            "fraction": settings.layer_decay ** (last - number),
            **({"weight_decay": 0.0} if undecayed else {}),
            **({"use_fallback": not matrix} if settings.name == "muon" else {}),
        }
        for (number, undecayed, matrix), params in sorted(groups.items())
    ]


def _is_matrix(value: Tensor) -> bool:
    """Whether there is something to make orthogonal: not in biases, depthwise convolutions or very thin matrices."""
    if value.ndim < 2 or 1 in value.shape[:2]:
        return False
    thin, wide = sorted(value.flatten(1).shape)
    return thin >= THIN and wide <= ELONGATED * thin


def train_mode(network: nn.Module) -> None:
    """Training mode for what learns."""
    network.train()
    rest_frozen(network)
