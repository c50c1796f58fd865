"""Which number format the backbone computes in, and why."""

from __future__ import annotations

from typing import Literal

import torch

from nobackfill.errors import ConfigError

Precision = Literal["fp32", "bf16"]


def choose_precision(wanted: Literal["auto", "fp32", "bf16"], device: torch.device) -> tuple[Precision, str]:
    """The precision to use and the reason; raises `ConfigError` if bf16 is asked for where it cannot run."""
    if wanted == "fp32":
        return "fp32", "as configured"
    if device.type == "cuda":
        available, what = torch.cuda.is_bf16_supported(including_emulation=False), torch.cuda.get_device_name(device)
    elif device.type == "cpu":
        available, what = _cpu_has_bf16(), "this processor"
    else:
        available, what = False, f"device {device.type!r}"
    if wanted == "bf16":
        if not available and device.type != "cpu":
            raise ConfigError(f"key 'precision': bf16 does not run on {what}; use fp32 or auto")
        return "bf16", "as configured"
    return ("bf16", f"{what} computes in bf16") if available else ("fp32", f"{what} has no bf16 arithmetic")


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
