"""The figures as Markdown tables, for a paper's draft or a pull request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nobackfill.errors import DataError
from nobackfill.evaluation import Difference, Spread
from nobackfill.evaluation.verdict import JUDGED
from nobackfill.reports.figures import SCORES
from nobackfill.reports.lineage import methods_of

Found = dict[str, Any]


def build_markdown(document: Found, origin: str, against: str | None = None) -> str:
    """Tables as text: every search; of a scenario with deviations over seeds, and the methods against one of them.

    Args:
        document: figures as `read_document` returns them.
        origin: where they are from, for messages.
        against: the method to hold a scenario's others against; by default the best of each table.

    Raises:
        DataError: if a figure is missing or of another kind, or there is no such method.
    """
    try:
        methods = methods_of(document["rows"]) if "rankings" in document else []
        if against is not None and against not in methods:
            known = f"one of {', '.join(methods)}" if methods else "none: it holds no scenario's methods"
            raise DataError(f"--against {against}: {origin}: expected {known}")
        if methods:
            rankings = [each for each in document["rankings"] if each["score"] in JUDGED]
            tables = [_scenario(document, methods), *(_ranking(each, against) for each in rankings)]
        else:
            tables = [_fit(document["fit"]) if "fit" in document else _searches(document["rows"])]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{origin}: not the figures that this version writes: {reason}") from error
    return "\n".join(tables)


def _scenario(document: Found, methods: Sequence[str]) -> str:
    first = document["generations"][0]
    change = {}
    for each in document["upgrades"]:
        for cell, gallery in (("new/old", each["old"]), ("new/new", each["new"])):
            change[each["method"], each["new"], gallery] = each["change"][cell]
    cells: dict[tuple[str, str, str], Found] = {}
    for line in document["summary"]:
        if "query" in line:
            cells.setdefault((line["method"], line["query"], line["gallery"]), {})[line["of"]] = line
    lines = []
    for (method, query, gallery), found in cells.items():
        scores = [_spread(found[score], "score", 100) for score in SCORES]
        if query == first:  # one model for every method
            lines += [["status quo", f"{query}/{gallery}", *scores, "", "", "", ""]] if method == methods[0] else []
            continue
        changes = change.get((method, query, gallery))  # of steps from a generation to the next
        points = ["" if changes is None else _difference(changes[score]).points() for score in JUDGED]
        own = query == gallery
        gain = "" if own else _spread(found["top1"], "update_gain", digits=2, sign="+")
        loss = _spread(found["top1"], "self_accuracy_loss", 100, sign="+") if own else ""
        lines.append([method, f"{query}/{gallery}", *scores, *points, gain, loss])
    titles = ["method", "query/gallery", *SCORES.values(), *(f"{SCORES[score]} against before" for score in JUDGED)]
    return _table([*titles, "update gain", "self-accuracy loss"], lines)


def _ranking(ranking: Found, against: str | None) -> str:
    names = [each["method"] for each in ranking["methods"]]
    base = against or names[0]
    lead = {(each["method"], each["against"]): _difference(each) for each in ranking["differences"]}
    lines = []
    for each in ranking["methods"]:
        other = lead.get((base, each["method"]))
        found = lead.get((each["method"], base)) or (other and Difference(-other.mean, -other.high, -other.low))
        lines.append(
            [each["method"], f"{100 * each['score']:.1f}", *((found.points(), found.word) if found else ("", ""))]
        )
    title = f"{ranking['query']}/{ranking['gallery']}, {SCORES[ranking['score']]}"
    return _table([title, "%", f"against {base}", ""], lines)


def _searches(rows: Sequence[Found]) -> str:
    lines = [[row["query"], row["gallery"], *(f"{100 * row[score]:.1f}" for score in SCORES)] for row in rows]
    return _table(["query", "gallery", *SCORES.values()], lines)


def _fit(fit: Found) -> str:
    labelled = fit["lines"][0]["top1"] is not None
    shown = ["top1", "top10", "mean_ap", "overlap"] if labelled else ["overlap"]
    lines = []
    for line in fit["lines"]:
        change = line["change"] and _difference(line["change"]["mean_ap" if labelled else "overlap"]).points()
        scores = [f"{100 * line[score]:.1f}" for score in shown]
        lines.append([line["name"], line["searched"], str(line["dim"]), *scores, change or "", line["word"]])
    titles = ["top-1", "top-10", "mAP", "of the ten"][-len(shown) :]
    return _table(["", "query/gallery", "values", *titles, f"{titles[labelled * 2]} against doing nothing", ""], lines)


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in (titles, ["---"] * len(titles), *lines))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _difference(found: Found) -> Difference:
    return Difference(found["mean"], found["low"], found["high"])


def _spread(line: Found, name: str, factor: float = 1, digits: int = 1, sign: str = "") -> str:
    mean, sd = (float("nan") if line[key] is None else line[key] for key in (name, f"{name}_sd"))
    return Spread(mean, sd).text(factor, digits, sign)
