"""What to do, in words, with the numbers it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nobackfill.evaluation.comparison import Change, overall, sentence

Decision = Literal["ship", "ship and backfill", "do not ship", "use it", "cannot tell", "do nothing"]
"""On an upgrade one of the first three; on a fitted map one of the last three."""
UPGRADE_DECISIONS: tuple[Decision, ...] = ("ship", "ship and backfill", "do not ship")  # best first
STATUS_QUO = "the status quo"


@dataclass(frozen=True)
class Verdict:
    """A decision, and the sentences it rests on."""

    decision: Decision
    reasons: tuple[str, ...]


def upgrade_verdict(change: Mapping[str, Change]) -> Verdict:
    """Whether to ship, from the changes of `new/old` and (if known) `new/new` against the status quo.

    Ship if search in the old gallery gets better at once; ship and backfill if it cannot be told from the status quo
    but a full backfill is better; else do not ship. The scores that decide are marked in the table of scores.
    """
    at_once = overall(change["new/old"])
    reasons = [f"Nothing backfilled (new/old against old/old): {sentence(change['new/old'], STATUS_QUO)}"]
    backfilled = "unknown"
    if "new/new" in change:
        backfilled = overall(change["new/new"])
        reasons.append(f"All backfilled (new/new against old/old): {sentence(change['new/new'], STATUS_QUO)}")
    if at_once == "better":
        return Verdict("ship", tuple(reasons))
    if at_once == "cannot tell" and backfilled == "better":
        gain = "The gain comes with the backfill; until then, searches are about as good as today."
        return Verdict("ship and backfill", (*reasons, gain))
    if backfilled == "better":
        reasons.append("The new model is better only after a full backfill.")
    if backfilled == "unknown":
        reasons.append("The gain of a backfill is unknown: the gallery embedded by the new model was not given.")
    return Verdict("do not ship", tuple(reasons))
