"""The training curves of a run folder."""

from __future__ import annotations

import json
from pathlib import Path

Line = dict[str, float]


def history(run: Path) -> list[Line]:
    """The epochs in `history.jsonl`: numbers by name; empty where there is none (imported models) or it is damaged."""
    path = run / "history.jsonl"
    if not path.is_file():
        return []
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []
    return [
        {str(name): value for name, value in line.items() if isinstance(value, int | float)}
        for line in lines
        if isinstance(line, dict)
    ]
