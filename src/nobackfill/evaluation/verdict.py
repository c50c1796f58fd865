"""Ship, ship and backfill, or do not ship: in words, with the numbers they rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nobackfill.evaluation.bootstrap import Difference

Advice = Literal["ship", "ship and backfill", "do not ship"]
JUDGED = ("top1", "mean_ap")  # the scores a verdict looks at
_NAMES = {"top1": "top-1", "mean_ap": "mAP"}
_WORDS = {
    "better": "better",
    "worse": "worse",
    "mixed": "better in one and worse in the other",
    "cannot tell": "cannot be told from the status quo",
}


@dataclass(frozen=True)
class Verdict:
    """Words of advice, and the sentences they rest on."""

    word: Advice
    reasons: tuple[str, ...]


def verdict(change: Mapping[str, Mapping[str, Difference]]) -> Verdict:
    """Whether to ship, from the changes of `new/old` and (if known) `new/new` against the status quo.

    Ship if search in the old gallery gets better at once; ship and backfill if it cannot be told from the status quo
    but a full backfill is better; else do not ship. Judged on top-1 and mAP: one better and none worse is better.
    """
    at_once = _together(change["new/old"])
    reasons = [f"Nothing backfilled (new/old against old/old): {_sentence(change['new/old'])}"]
    backfilled = "unknown"
    if "new/new" in change:
        backfilled = _together(change["new/new"])
        reasons.append(f"All backfilled (new/new against old/old): {_sentence(change['new/new'])}")
    if at_once == "better":
        return Verdict("ship", tuple(reasons))
    if at_once == "cannot tell" and backfilled == "better":
        gain = "The gain comes with the backfill; until then searches are about as good as today."
        return Verdict("ship and backfill", (*reasons, gain))
    if backfilled == "better":
        reasons.append("Only after the whole gallery is embedded again would the new model be better.")
    if backfilled == "unknown":
        reasons.append("What a backfill would bring is not known: the gallery by the new model was not given.")
    return Verdict("do not ship", tuple(reasons))


def _together(values: Mapping[str, Difference]) -> str:
    words = {values[score].word for score in JUDGED} - {"cannot tell"}
    return "cannot tell" if not words else "mixed" if len(words) > 1 else words.pop()


def _sentence(values: Mapping[str, Difference]) -> str:
    points = ", ".join(f"{_NAMES[score]} {values[score].points()} points" for score in JUDGED)
    return f"{points}: {_WORDS[_together(values)]}."
