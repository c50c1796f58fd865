"""The table of methods says of each what its class says, and every method can be described."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nobackfill.cli.app import run
from nobackfill.methods import METHODS
from nobackfill.methods.guide import CHOICE, cards


def test_every_method_is_described() -> None:
    described = {card.name: card for card in cards()}
    assert set(described) == set(METHODS)
    for card in described.values():
        assert card.loss.startswith("L = "), card.name
        assert 20 < len(card.idea) < 130, card.name
        assert card.settings.keys() >= METHODS[card.name].loss_defaults.keys()
    assert len({card.idea for card in described.values()}) == len(described)
    assert described["bt2"].needs[1:] == ("old vectors", "old class means", "an independent new model")
    assert described["bt2"].needs[0].startswith("labels")
    assert (described["bt2"].runs, described["prefix"].runs) == (2, 1)
    assert described["infonce"].needs == ("old vectors",)
    assert described["lce"].needs == ("labels", "statistics of the old classes")
    assert [card.name for card in described.values() if card.beside] == ["advbct", "oca"]
    assert described["concat"].loss == described["bt2"].loss


def test_the_chart_names_only_methods_that_exist() -> None:
    named = {word for line in CHOICE.splitlines() for word in line.split("`")[1::2]}
    keys = {word.removeprefix("loss.").partition(":")[0] for word in named if word.startswith("loss.")}
    assert keys <= set(METHODS["bt2"].loss_defaults)
    assert {word for word in named if not word.startswith(("nobackfill ", "loss."))} <= set(METHODS)


def test_the_page_has_the_same_chart_and_every_method() -> None:
    page = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    for line in CHOICE.splitlines()[2:-1]:
        assert line in page
    frozen = {name for name, method in METHODS.items() if method.kinds == {"vector"}}
    for name in METHODS.keys() - frozen:
        assert f"`{name}`" in page


def test_the_verb_prints_the_table_and_the_chart(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["methods"]) == 0
    printed = capsys.readouterr().out
    for name in METHODS:
        assert f" {name} " in printed
    assert CHOICE in printed
    assert max(len(line) for line in CHOICE.splitlines()) <= 120
    assert run(["methods", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in listed] == list(METHODS)
    assert all(each["runs"] in (1, 2) for each in listed)
