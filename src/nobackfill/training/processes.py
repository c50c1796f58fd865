"""One process or many: how they start, share rows of arrays, and agree."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import GradientAccumulationPlugin, broadcast_object_list, gather_object
from numpy.typing import NDArray
from torch import nn

from nobackfill.config import RunConfig
from nobackfill.data.samples import Samples
from nobackfill.errors import ConfigError
from nobackfill.methods import Batch
from nobackfill.models.encoder import Encoder
from nobackfill.models.network import Network

Value = TypeVar("Value")


def start_processes(config: RunConfig) -> Accelerator:
    """The processes a launcher (`accelerate launch`, `torchrun`) has started, or this one alone.

    The config decides alone what is computed: the launcher's own settings of precision, accumulation and compilation
    are not looked at, since they would change results behind its back.

    Raises:
        ConfigError: if the batch does not divide into processes and micro-batches.
    """
    accelerator = Accelerator(
        cpu=torch.accelerator.current_accelerator(check_available=True) is None,  # else it would not see a launcher
        mixed_precision="no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        dynamo_backend="no",
    )
    micro_batches = accelerator.num_processes * config.accumulate
    if config.batch_size % micro_batches or config.batch_size // micro_batches < 2:  # batch norm needs two
        raise ConfigError(
            f"key 'batch_size': {config.batch_size} does not divide into {accelerator.num_processes} processes × "
            f"{config.accumulate} micro-batches (accumulate) of at least two samples"
        )
    return accelerator


def is_main() -> bool:
    """Whether this process speaks for all."""
    return bool(PartialState().is_main_process)


def synchronise_batch_norm(config: RunConfig, network: Network, accelerator: Accelerator) -> None:
    """Make batch norm see the whole batch of all processes; raises `ConfigError` where torch cannot do it."""
    norms = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.backbone.modules())
    if accelerator.num_processes == 1 or not norms or not config.sync_batch_norm:
        return
    if accelerator.device.type != "cuda":
        raise ConfigError(
            f"key 'sync_batch_norm': the batch norm of {config.model.backbone!r} cannot be synchronised on "
            f"{accelerator.device.type!r}; set it to false, and each process normalises its own part of the batch"
        )
    # In place. The method's own modules see the whole batch already, in every process.
    nn.SyncBatchNorm.convert_sync_batchnorm(network.backbone)  # type: ignore[no-untyped-call]


def of_all_processes(
    accelerator: Accelerator, output: dict[str, torch.Tensor], batch: Batch
) -> tuple[dict[str, torch.Tensor], Batch]:
    """Output and batch of all processes together, in the order of a single process.

    Gradients find their way back: a process gets those of its own samples from every other's loss, and their mean over
    processes, which the network's wrapper takes, is the gradient of one loss over the whole batch.
    """
    if accelerator.num_processes == 1:
        return output, batch
    from torch.distributed.nn.functional import all_gather

    def gathered(rows: torch.Tensor) -> torch.Tensor:
        return torch.cat(all_gather(rows.contiguous()))  # type: ignore[no-untyped-call]

    everything = replace(
        batch,
        labels=gathered(batch.labels),
        old=None if batch.old is None else gathered(batch.old),
        independent=None if batch.independent is None else gathered(batch.independent),
    )
    return {name: gathered(rows) for name, rows in output.items()}, everything


def encode_shared(encoder: Encoder, samples: Samples, workers: int, accelerator: Accelerator) -> NDArray[np.float32]:
    """Embeddings float32 [n, dim] of a data set: each process embeds a part, every one gets all rows, in order."""
    if accelerator.num_processes == 1:
        return encoder.encode_set(samples, workers)
    parts = np.array_split(np.arange(len(samples)), accelerator.num_processes)
    mine = encoder.encode_set(samples.take(parts[accelerator.process_index]), workers)
    return np.concatenate(gather_object([mine]))


def agree(accelerator: Accelerator, *flags: int) -> list[int]:
    """The largest value of each flag over all processes."""
    if accelerator.num_processes == 1:
        return list(flags)
    every: torch.Tensor = accelerator.gather(torch.tensor([flags], device=accelerator.device))
    largest: list[int] = every.amax(dim=0).tolist()
    return largest


def from_main(accelerator: Accelerator, value: Value) -> Value:
    """What the main process has for this value."""
    values: list[Value] = [value]
    return broadcast_object_list(values)[0] if accelerator.num_processes > 1 else value


def from_all(accelerator: Accelerator, value: Value) -> list[Value]:
    """Every process's value, by rank."""
    return list(gather_object([value])) if accelerator.num_processes > 1 else [value]
