"""Methods compared with each other, as sentences."""

from __future__ import annotations

from nobackfill.evaluation.scores import title
from nobackfill.reports.document import RankingSection


def ranking_sentence(section: RankingSection) -> str:
    """Who leads, and who cannot be told from the leader."""
    ranking = section.ranking
    best = ranking.methods[0]
    level = ranking.level_with(best.method)
    names = ", ".join(f"{each.method} {100 * each.score:.1f}" for each in ranking.methods if each.method in level)
    told = f"cannot be told apart from it: {names}" if level else "better than all others"
    told += " (one seed; others may differ)" if one_seed(section) else ""
    heading = f"{section.query}/{section.gallery}, {title(section.score)}"
    return f"{heading}: {best.method} leads with {100 * best.score:.1f}; {told}."


def one_seed(section: RankingSection) -> bool:
    """Whether there is a single training run of each method: intervals know of the queries' chance alone."""
    return all(each.seeds == 1 for each in section.ranking.methods)
