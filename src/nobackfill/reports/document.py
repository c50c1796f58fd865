"""The report as data: what `evaluate --out`, `run` and `fit` write, and what pages and tables are made of.

`report.json` is a `Report` as JSON. Its format number grows when a key changes its name or meaning; files of this
format stay readable, with scores that this version does not know and without those that it has learnt since.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, FailFast, Field

from nobackfill.config import explain
from nobackfill.errors import DataError, one_line, shortened
from nobackfill.evaluation import MeanStd, MethodRanking, RetrievalMetrics, Upgrade
from nobackfill.evaluation.candidates import CandidateResult
from nobackfill.evaluation.distances import Distance
from nobackfill.evaluation.kinds import KINDS, Kind
from nobackfill.evaluation.scores import DECISIVE, MAIN, PAIR_SCORES, SCORES
from nobackfill.evaluation.verdict import UPGRADE_DECISIONS, Verdict
from nobackfill.reports.versions import versions
from nobackfill.untrusted import read_json

FORMAT = 1
MAX_BYTES = 2**26
SURROGATE = re.compile("[\ud800-\udfff]")
Scores = Annotated[dict[str, float], Field(min_length=1)]
Setting = str | int | float | None
ReportSettings = dict[str, Setting | list[Setting]]


class Part(BaseModel):
    """Base of all parts: unknown keys and numbers that are not finite are refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Search(Part):
    """One search: a query generation in a gallery generation; of a scenario also by which method and seed."""

    query: str
    gallery: str
    scores: Scores
    queries: int
    """Counted in the scores."""
    without_match: int
    """Left out of them."""
    method: str | None = None
    seed: int | None = None

    @classmethod
    def of(
        cls,
        metrics: RetrievalMetrics,
        query: str,
        gallery: str,
        method: str | None = None,
        seed: int | None = None,
        *,
        pairs: bool = False,
    ) -> Search:
        """From the metrics of a search; of pairs with recall and reciprocal rank."""
        return cls(
            query=query,
            gallery=gallery,
            scores=metrics.scores(PAIR_SCORES if pairs else ()),
            queries=metrics.queries,
            without_match=metrics.without_match,
            method=method,
            seed=seed,
        )

    @pydantic.model_validator(mode="after")
    def _check(self) -> Search:
        _require(self.scores, "scores")
        return self


class ShownItem(Part):
    """A query or an answer as a page shows it."""

    name: str
    label: str | None
    right: bool | None
    """Whether an answer has the query's label; None for a query, or without labels."""
    image: str | None
    """A `data:` address."""
    text: str | None


class FlipExample(Part):
    """A search whose first answer an upgrade changed, with the nearest answers before and after."""

    flip: Literal["negative", "positive"]
    query: ShownItem
    old: list[ShownItem]
    new: list[ShownItem]


class UpgradeSection(Part):
    """One upgrade, from one generation to a later one."""

    method: str | None = None
    old: str
    new: str
    result: Upgrade
    examples: list[FlipExample] = []

    @pydantic.model_validator(mode="after")
    def _check(self) -> UpgradeSection:
        result = self.result
        if result.verdict.decision not in UPGRADE_DECISIONS:
            raise ValueError(
                f"upgrade {self.old} → {self.new}: verdict: expected one of {', '.join(UPGRADE_DECISIONS)}"
            )
        for cell in ("old/old", "new/old"):
            if cell not in result.scores:
                raise ValueError(f"upgrade {self.old} → {self.new}: scores: expected the cell {cell!r}")
        if "new/old" not in result.change or not set(result.change) <= set(result.scores):
            raise ValueError(f"upgrade {self.old} → {self.new}: change: expected the cells of scores, and new/old")
        for name, cells in (("scores", result.scores), ("change", result.change)):
            for cell, values in cells.items():
                _require(values, f"upgrade {self.old} → {self.new}: {name} of {cell}")
        _require(result.gain, "gain")
        _require(result.loss, "loss")
        if result.curve is not None:
            _require(result.curve.scores, "curve")
            _require(result.curve.area, "curve: area")
            if any(len(values) != len(result.curve.fractions) for values in result.curve.scores.values()):
                raise ValueError("curve: expected as many values of each score as fractions")
        for line in result.classes:
            _require(line.scores, f"class {line.name}")
            if any(not {"old/old", "new/old"} <= set(cells) for cells in line.scores.values()):
                raise ValueError(f"class {line.name}: expected the cells old/old and new/old")
        return self


class CellSummary(Part):
    """One score of one search of a scenario over its seeds."""

    score: str
    method: str
    query: str
    gallery: str
    value: MeanStd
    update_gain: MeanStd | None = None
    """Where the gallery is an older generation's."""
    self_accuracy_loss: MeanStd | None = None
    """Where the gallery is the query's own generation's."""


class LineageSummary(Part):
    """One score over all searches of a method."""

    score: str
    method: str
    compatibility: MeanStd
    """AC: fraction of (newer, older) pairs in which the newer queries do better than the older ones."""
    mean: MeanStd
    """AM: mean of the lower triangle."""


class RankingSection(Part):
    """The methods compared by one score of one search."""

    query: str
    gallery: str
    score: str
    ranking: MethodRanking

    @pydantic.model_validator(mode="after")
    def _check(self) -> RankingSection:
        methods = {each.method for each in self.ranking.methods}
        if not methods or any(not {pair.method, pair.against} <= methods for pair in self.ranking.pairs):
            raise ValueError("ranking: expected pairs of the methods it lists")
        return self


class FitSection(Part):
    """Fitted maps, the status quo and a full backfill first."""

    results: Annotated[list[CandidateResult], Field(min_length=2)]
    verdict: Verdict
    best: str
    """Name of the method whose run folder it is."""
    dropped: int
    """Held-out queries that were left out because they are among the fitted pairs."""
    fitted_on_gallery: bool
    """Whether the gallery searched is what was fitted on."""

    @property
    def labelled(self) -> bool:
        """Whether it is known what is relevant."""
        return bool(self.results[0].scores)

    @property
    def kinds(self) -> list[str]:
        """A sentence for each kind of search: which models embed its queries, what becomes of the gallery."""
        names: dict[Kind, list[str]] = {}
        for each in self.results:
            if each.kind is not None and each.name not in names.setdefault(each.kind, []):
                names[each.kind].append(each.name)
        return [f"{kind.searched}: {kind.words} ({', '.join(names[kind])})." for kind in KINDS if kind in names]


class Report(Part):
    """All that a report says; of a list with wrong entries the first is named, not a million of them."""

    format: Literal[1] = FORMAT  # type: ignore[assignment]
    generations: list[str] = []
    """Names, oldest first."""
    searches: Annotated[list[Search], FailFast()] = []
    upgrades: Annotated[list[UpgradeSection], FailFast()] = []
    fit: FitSection | None = None
    seeds: dict[str, int] = {}
    """Of a scenario: method → training runs."""
    cells: Annotated[list[CellSummary], FailFast()] = []
    lineages: Annotated[list[LineageSummary], FailFast()] = []
    rankings: Annotated[list[RankingSection], FailFast()] = []
    training: dict[str, list[dict[str, float]]] = {}
    """Run → its epochs."""
    distance: Distance = "cosine"
    seconds: float | None = None
    settings: ReportSettings = {}
    versions: dict[str, str] = Field(default_factory=versions)

    @pydantic.model_validator(mode="after")
    def _check(self) -> Report:
        if (self.cells or self.rankings) and not self.generations:
            raise ValueError("generations: expected the names of those that cells and rankings are of")
        summed: dict[tuple[str, str, str], set[str]] = {}
        for line in self.cells:
            summed.setdefault((line.method, line.query, line.gallery), set()).add(line.score)
        for cell, scores in summed.items():
            if missing := set(self.scores()) - scores:
                raise ValueError(f"cells: {' '.join(cell)}: expected the scores {', '.join(sorted(missing))}")
        for run, epochs in self.training.items():
            if any(not {"epoch", "loss"} <= set(epoch) for epoch in epochs):
                raise ValueError(f"training of {run}: expected epoch and loss in every line")
        return self

    def scores(self) -> list[str]:
        """Scores of all its searches that this version knows, in the order of the table."""
        return [key for key in SCORES if all(key in search.scores for search in self.searches)]

    def to_json(self) -> str:
        """As the text of a file. Bytes of names that are no UTF-8 stand as escapes: a file's name may be any bytes."""
        text = json.dumps(self.model_dump(), indent=1, ensure_ascii=False)
        return SURROGATE.sub(lambda found: f"\\\\u{ord(found[0]):x}", text) + "\n"


def read_report(source: Path) -> Report:
    """The report of a folder that `run` or `fit` filled, or of a file that `evaluate --out` wrote.

    Raises:
        DataError: in one line, for a file that is none, of another format, or damaged.
    """
    path = source / "report.json" if source.is_dir() else source
    try:
        tree = read_json(path, MAX_BYTES)
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file; create one with `nobackfill evaluate … --out {path.name}` or `nobackfill run`"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or one_line(error, 120)
        raise DataError(f"{path}: cannot be read as JSON: {reason}") from error
    return parse_report(tree, str(path))


def parse_report(tree: object, origin: str) -> Report:
    """Check a mapping as a `Report`; raises `DataError` with `origin` and the key at fault."""
    if not isinstance(tree, dict) or not {"format", "rows", "searches"} & set(tree):
        raise DataError(f"{origin}: expected a report of `nobackfill evaluate --out`, `nobackfill run` or `fit`")
    if "format" not in tree:
        raise DataError(f"{origin}: a report from before format 1; create it again with the command that made it")
    if tree["format"] != FORMAT:
        raise DataError(
            f"{origin}: a report of format {shortened(tree['format'], 20)}, but this version reads {FORMAT}: "
            "use the nobackfill that wrote it, or a newer one"
        )
    try:
        return Report.model_validate(tree)
    except pydantic.ValidationError as error:
        raise DataError(f"{origin}: not a report of format {FORMAT}: {explain(error, Report)[:200]}") from error


def _require(scores: Iterable[str], where: str) -> None:
    if missing := {MAIN, *DECISIVE} - set(scores):
        raise ValueError(f"{where}: expected the scores {', '.join(sorted(missing))}")
