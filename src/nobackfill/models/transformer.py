"""Pre-trained transformers from a local folder, by `transformers`: tensors only, never a hub's name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from nobackfill.errors import ConfigError, one_line


@contextmanager
def quiet() -> Iterator[None]:
    """Without its table of tensors that the other tower has, and without its progress bars."""
    from transformers import utils

    logging: ModuleType = utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def from_folder(kind: Any, folder: Path, what: str, model_type: str) -> Any:
    """The model in a folder with `config.json` and `model.safetensors` or `pytorch_model.bin`, for evaluation.

    A pickled `.bin` is read by torch's weights-only loader, which admits tensors alone.

    Args:
        kind: class of transformers.
        folder: must exist on this machine.
        what: name of the thing, for messages.
        model_type: what `config.json` has to say it is.

    Raises:
        ConfigError: if there is no such model, or tensors are missing or misshapen.
    """
    try:
        place = folder.resolve(strict=True)
        given_type = json.loads((place / "config.json").read_text(encoding="utf-8")).get("model_type")
        if given_type != model_type:
            raise ConfigError(f"{folder}: expected a {what}, but its config.json says model_type {given_type!r}")
        with quiet():
            model, report = kind.from_pretrained(
                str(place), local_files_only=True, trust_remote_code=False, output_loading_info=True
            )
    except ConfigError:
        raise
    except Exception as error:  # a reader fed with a stranger's files may raise anything
        raise ConfigError(f"{folder}: no pre-trained {what} there: {one_line(error)}") from error
    absent = sorted(str(name) for name in (*report["missing_keys"], *report["mismatched_keys"]))
    if absent:
        raise ConfigError(
            f"{folder}: incomplete {what}: {len(absent)} tensors missing or of the wrong shape, first {absent[0]}"
        )
    return model.eval()
