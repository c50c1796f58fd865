"""Methods compared with each other, as sentences."""

from __future__ import annotations

from nobackfill.evaluation.scores import title
from nobackfill.reports.document import RankingSection


def ranking_sentence(section: RankingSection) -> str:
    """Who leads, and who cannot be told from the leader."""
    ranking = section.ranking
    best, *others = ranking.methods
    heading = f"{section.query}/{section.gallery}, {title(section.score)}: {best.method}"
    if not others:
        return f"{heading} alone, {100 * best.score:.1f}."
    level = ranking.level_with(best.method)
    ahead = [each.method for each in others if (lead := ranking.difference(best.method, each.method)) and lead.high < 0]
    told = [
        f"{words}: {', '.join(f'{each.method} {100 * each.score:.1f}' for each in others if each.method in names)}"
        for words, names in (
            ("cannot be told apart from it", level),
            ("better than it over the seeds they share", ahead),
        )
        if names
    ]
    told = told or ["better than all others"]
    note = " (one seed; others may differ)" if one_seed(section) else ""
    return f"{heading} leads with {100 * best.score:.1f}; {'; '.join(told)}{note}."


def one_seed(section: RankingSection) -> bool:
    """Whether there is a single training run of each method: intervals know of the queries' chance alone."""
    return all(each.seeds == 1 for each in section.ranking.methods)
