"""Methods against each other, as sentences and as plain values for JSON."""

from __future__ import annotations

from typing import Any

from nobackfill.evaluation import Ranking
from nobackfill.reports.figures import SCORES
from nobackfill.reports.upgrades import plain

Ranked = tuple[str, str, str, Ranking]
"""Query generation, gallery generation, score, and the methods' ranking there."""


def ranking_values(ranked: Ranked) -> dict[str, Any]:
    """As JSON: the methods, best first, with their scores; every pair's difference, the higher one first."""
    query, gallery, score, ranking = ranked
    return {
        "query": query,
        "gallery": gallery,
        "score": score,
        "seeds": ranking.seeds,
        "methods": [{"method": method, "score": ranking.scores[method]} for method in ranking.methods],
        "differences": [
            {"method": method, "against": against, **plain(difference)}
            for (method, against), difference in ranking.differences.items()
        ],
    }


def ranking_sentence(ranked: Ranked) -> str:
    """Who leads, and who cannot be told from the leader."""
    query, gallery, score, ranking = ranked
    best = ranking.methods[0]
    level = ", ".join(f"{method} {100 * ranking.scores[method]:.1f}" for method in ranking.level_with(best))
    told = f"cannot be told from it: {level}" if level else "better than every other"
    told += " (one seed: another may say otherwise)" if ranking.seeds == 1 else ""
    return f"{query}/{gallery}, {SCORES[score]}: {best} leads with {100 * ranking.scores[best]:.1f}; {told}."
