"""How a gallery compares scores of two generations: chosen with the upgrade, kept, renewed, told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.gallery.galleries import FIRST, LAST, SECOND, unit, vectors
from typer.testing import CliRunner

from nobackfill.cli.app import app
from nobackfill.errors import ConfigError, GalleryError
from nobackfill.evaluation.rule_choice import RuleChoice, RuleCurve, choose_rule
from nobackfill.evaluation.scoring_rules import PLAIN, ScoringRule, VectorMoments
from nobackfill.gallery import ArrayEmbedder, Gallery, ItemBatch, Store, open_store, pair_rules
from nobackfill.gallery.expected import check_rule
from nobackfill.gallery.status import rule_warning

COUNT, OLD, NEW = 300, 6, 9
IDS = [f"item {number}" for number in range(COUNT)]


def pair() -> tuple[np.ndarray, np.ndarray]:
    """Vectors of two generations whose plain scores have different scales."""
    random = np.random.default_rng(0)
    content = random.standard_normal((COUNT, OLD))
    new = np.hstack([content, np.full((COUNT, 1), 3.0), random.standard_normal((COUNT, NEW - OLD - 1))])
    return unit(content + 0.3 * random.standard_normal(content.shape)), unit(new)


OLD_VECTORS, NEW_VECTORS = pair()
EMBEDDER = ArrayEmbedder(IDS, NEW_VECTORS, SECOND.fingerprint)


def unlabelled(store: Store | str) -> Gallery:
    return Gallery.create(store, FIRST, [(IDS, OLD_VECTORS, [{} for _ in IDS])])


def backfill_some(store: Store, places: range) -> None:
    ids = [IDS[place] for place in places]
    store.replace(ItemBatch(ids, 2, NEW_VECTORS[places.start : places.stop], []), keep_old=False)


def test_an_upgrade_chooses_without_labels_and_a_half_backfilled_gallery_uses_it(store: Store) -> None:
    gallery = unlabelled(store)
    gallery.upgrade(SECOND, EMBEDDER)
    backfill_some(store, range(150))
    (kept,) = Gallery.open(store).manifest.rules
    choice = choose_rule(OLD_VECTORS, NEW_VECTORS)
    assert kept.rule == choice.rule.name != "plain"
    assert (kept.query, kept.stored, kept.may_fall, kept.curve) == (2, 1, False, choice.curve)
    queries = vectors(NEW, 5, 4)
    scores = np.hstack(
        [queries @ NEW_VECTORS[:150].T, choice.rule.apply(queries, queries[:, :OLD] @ OLD_VECTORS[150:].T)]
    )
    for _ in range(2):  # from the store, and as it was read before
        found = gallery.search(queries, COUNT, SECOND.fingerprint)
        for hits, wanted in zip(found, scores, strict=True):
            places = [IDS.index(hit.id) for hit in hits]
            assert sorted(places) == list(range(COUNT))
            np.testing.assert_allclose([hit.score for hit in hits], wanted[places], atol=2e-3)
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        pair_rules._read.clear()
    agreement = gallery.status().expected
    assert agreement is not None
    assert choice.agreement is not None
    assert agreement == {"overlap": pytest.approx(choice.agreement.values[5])}


@pytest.mark.parametrize(
    ("labels", "score", "queries"),
    [
        ([None] * COUNT, "deep_overlap", 150),
        ([7] * 12 + [None] * (COUNT - 12), "deep_overlap", 150),  # a dozen queries decide nothing
        ([place % 3 for place in range(200)] + [None] * 100, "mean_ap", None),
    ],
)
def test_an_item_without_a_label_is_of_no_class_and_few_labels_decide_nothing(
    tmp_path: Path, labels: list[int | None], score: str, queries: int | None
) -> None:
    payloads: list[dict[str, object]] = [{"label": label} for label in labels]
    if labels[0] == 0:
        payloads[250:] = [{}] * 50
    gallery = Gallery.create(f"faiss:{tmp_path / 'store'}", FIRST, [(IDS, OLD_VECTORS, payloads)])
    added = gallery.upgrade(SECOND, EMBEDDER)
    (kept,) = gallery.manifest.rules
    assert kept.curve is not None
    assert kept.curve.score == score
    assert queries == kept.curve.queries or (queries is None and 50 <= kept.curve.queries < 150)
    labelled = sum(label is not None for label in labels)
    assert (added.curve.queries if added.curve else 0) == labelled


def test_a_rule_can_be_asked_for(tmp_path: Path) -> None:
    gallery = unlabelled(f"faiss:{tmp_path / 'store'}")
    gallery.upgrade(SECOND, EMBEDDER, rule="plain")
    (kept,) = gallery.manifest.rules
    assert (kept.rule, kept.document, kept.may_fall) == ("plain", None, True)
    assert kept.curve is not None
    message = rule_warning(gallery.manifest)
    assert message is not None
    assert message.startswith("warning: searches by second may get worse during the backfill (on the sample, agreement")
    assert "search with first until the backfill is complete, then switch" in message
    assert "\n" not in message
    assert check_rule("z_score") == "z_score"
    with pytest.raises(ConfigError, match="--rule 'best': expected auto, plain, quantiles"):
        check_rule("best")


def test_rules_of_two_older_generations_and_a_rollback(tmp_path: Path) -> None:
    store = open_store(f"faiss:{tmp_path / 'store'}")
    gallery = unlabelled(store)
    moments = VectorMoments.of(OLD_VECTORS), VectorMoments.of(NEW_VECTORS)
    between = RuleChoice(ScoringRule("z_score", moments=moments), {}, None)
    gallery.add_generation(SECOND, NEW_VECTORS, rules={1: between})
    newest = vectors(LAST.dim, 4, COUNT)
    rules = {1: RuleChoice(ScoringRule("quantiles", 2.0, 0.1), {}, None), 2: RuleChoice(PLAIN, {}, None)}
    gallery.add_generation(LAST, newest, rules=rules)
    assert [(rule.query, rule.stored, rule.rule) for rule in gallery.manifest.rules] == [
        (2, 1, "z_score"), (3, 1, "quantiles"), (3, 2, "plain"),
    ]  # fmt: skip
    backfill_some(store, range(100))
    query = vectors(LAST.dim, 6, 1)
    scores = {hit.id: hit.score for hit in gallery.search(query, COUNT, LAST.fingerprint)[0]}
    for place in (0, 99, 100, 299):
        plain = query[0, :NEW] @ NEW_VECTORS[place] if place < 100 else query[0, :OLD] @ OLD_VECTORS[place]
        wanted = plain if place < 100 else 2 * plain + 0.1
        assert scores[IDS[place]] == pytest.approx(wanted, abs=1e-5)
    middle = {hit.id: hit.score for hit in gallery.search(query[:, :NEW], COUNT, SECOND.fingerprint)[0]}
    asked = unit(query[:, :NEW])
    wanted = between.rule.apply(asked, asked[:, :OLD] @ OLD_VECTORS[200:201].T)[0, 0]
    assert middle[IDS[200]] == pytest.approx(wanted, abs=2e-3)  # an older client keeps its rule


def test_rules_are_renewed_on_what_is_still_old(store: Store) -> None:
    gallery = unlabelled(store)
    gallery.upgrade(SECOND, EMBEDDER, rule="z_score")
    before = gallery.manifest.rules
    backfill_some(store, range(150))
    (renewed,) = gallery.renew_rules(EMBEDDER, rule="z_score", seed=3)
    assert gallery.manifest.rules == Gallery.open(store).manifest.rules == (renewed,)
    assert renewed.curve is not None
    assert renewed.curve.queries == 75  # half of the items that are still old
    assert before[0].document is not None
    assert store.read(before[0].document) is None
    queries = vectors(NEW, 5, 1)
    wanted = choose_rule(OLD_VECTORS[150:], NEW_VECTORS[150:], names=("z_score",)).rule
    scores = {hit.id: hit.score for hit in gallery.search(queries, COUNT, SECOND.fingerprint)[0]}
    expected = wanted.apply(queries, queries[:, :OLD] @ OLD_VECTORS[200:201].T)[0, 0]
    assert scores[IDS[200]] == pytest.approx(expected, abs=2e-3)
    backfill_some(store, range(150, COUNT))
    assert gallery.renew_rules(EMBEDDER) == ()


def test_a_search_beside_a_renewal_takes_the_new_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"faiss:{tmp_path / 'store'}")
    gallery = unlabelled(store)
    gallery.upgrade(SECOND, EMBEDDER, rule="z_score")
    pair_rules._read.clear()
    search = store.search

    def late(*arguments: object) -> object:
        backfill_some(store, range(150))
        gallery.renew_rules(EMBEDDER, rule="z_score")
        return search(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "search", late)
    query = vectors(NEW, 5, 1)
    (hits,) = Gallery.open(store).search(query, COUNT, SECOND.fingerprint)
    wanted = choose_rule(OLD_VECTORS[150:], NEW_VECTORS[150:], names=("z_score",)).rule
    expected = wanted.apply(query, query[:, :OLD] @ OLD_VECTORS[200:201].T)[0, 0]
    assert {hit.id: hit.score for hit in hits}[IDS[200]] == pytest.approx(expected, abs=2e-3)


def test_damaged_moments_are_reported(tmp_path: Path) -> None:
    store = open_store(f"faiss:{tmp_path / 'store'}")
    gallery = unlabelled(store)
    gallery.upgrade(SECOND, EMBEDDER, rule="z_score")
    (kept,) = gallery.manifest.rules
    assert kept.document is not None
    whole = store.read(kept.document)
    assert whole is not None
    for data in (None, b"", whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        pair_rules._read.clear()
        store.write(kept.document, data)
        with pytest.raises(GalleryError, match="damaged: the document 'scoring-2-1-"):
            gallery.search(NEW_VECTORS[:1], 3, SECOND.fingerprint)
    store.write(kept.document, whole)
    assert gallery.search(NEW_VECTORS[:1], 3, SECOND.fingerprint)[0]


def test_the_command_line_tells_rule_quality_and_warning(tmp_path: Path) -> None:
    url = f"faiss:{tmp_path / 'store'}"
    unlabelled(url)
    np.save(tmp_path / "new.npy", NEW_VECTORS)
    (tmp_path / "ids.txt").write_text("\n".join(IDS))
    options = ["--name", "m2", "--vectors", str(tmp_path / "new.npy"), "--ids", str(tmp_path / "ids.txt")]
    upgraded = CliRunner().invoke(app, ["gallery", "upgrade", url, *options])
    assert upgraded.exit_code == 0, upgraded.output
    shown = CliRunner().invoke(app, ["gallery", "status", url])
    for output in (upgraded.output, shown.output):
        assert "scores of first and m2 compared by" in output
        assert "agreement with a full backfill, nearest 10 and 30: " in output
        assert "(on 150 queries)" in output
        assert "warning" not in output
    assert "expected agreement with a full backfill, nearest ten of m2: now " in shown.output
    falling = RuleChoice(PLAIN, {"plain": RuleCurve("overlap", (0.0, 0.5, 1.0), (0.5, 0.2, 1.0), 9)}, None)
    gallery = Gallery.open(url)
    gallery.add_generation(LAST.model_copy(update={"compatible_with": ("a" * 64, "name:m2")}),
                           vectors(LAST.dim, 4, COUNT), rules={1: falling})  # fmt: skip
    shown = CliRunner().invoke(app, ["gallery", "status", url])
    assert "agreement with a full backfill falls by 30.0 points" in shown.output
    assert json.loads(CliRunner().invoke(app, ["gallery", "status", url, "--json"]).stdout)["rules"][0]["may_fall"]
