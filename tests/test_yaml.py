"""Hostile YAML is refused in one line, before it takes memory or time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nobackfill.config import load_config, parse_config
from nobackfill.config.yaml_text import MAX_BYTES, MAX_DEPTH, MAX_VALUES, parse_yaml
from nobackfill.errors import ConfigError, visible


def bomb(levels: int, each: int = 9) -> str:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * each)}]" for level in range(1, levels)]
    return "\n".join(lines)


RUN = "method: bt2\ndata: {name: digits}\n"
HOSTILE = {
    "aliases": (bomb(10), "with its aliases written out"),
    "merges": ("a: &a {x: 1}\n" + "b: {<<: [" + "*a, " * 10**5 + "*a]}\n", "written out"),
    "alias to itself": ("a: &a [*a]", r"the alias \*a is inside what it stands for"),
    "lists nested": ("a: " + "[" * 10**5, "levels deep"),
    "blocks nested": ("- " * 10**4, "levels deep"),
    "digits": ("epochs: " + "9" * 5000, "5000 characters without quotes"),
    "hexadecimal digits": ("epochs: 0x" + "f" * 5000, "characters without quotes"),
    "sexagesimal digits": ("epochs: 1" + ":10" * 5000, "characters without quotes"),
    "many digits": ("method: 0x" + "f" * 900, "an integer of 3600 bits"),
    "equal keys": ("epochs: 1\nepochs: 3\n", "the key 'epochs' is there twice; keep one"),
    "equal keys below": ("data: {a: [{x: 1, 'x': 2}]}", "the key 'x' is there twice; keep one"),
    "yes for a number": (RUN + "epochs: yes", "key 'epochs': input should be a number, found True"),
    "yes below": (
        "method: bct\ndata: {name: digits, augment: {cutout: on}}",
        "key 'data.augment.cutout': input should",
    ),
    "yes in a list": ("method: bct\ndata: {name: digits, classes: [3, true]}", "key 'data.classes': input should"),
    "no deviation": ("method: bct\ndata: {name: digits, std: 1.0e-40}", "key 'data.std': expected at least 0.001"),
    "many epochs": (RUN + "epochs: 10000000000", "key 'epochs': .*10000000, found 10000000000"),
    "date": ("epochs: 2001-13-45", "a value cannot be read: month"),
    "timestamp": ("epochs: !!timestamp x", "a value cannot be read"),
    "bool": ("epochs: !!bool x", "a value cannot be read"),
    "int": ("epochs: !!int x", "a value cannot be read"),
    "long key": (RUN + f"? {'k' * 900}\n: 1", "unknown key"),
    "long value": (RUN + f"epochs: '{'k' * 10**5}'", "key 'epochs': .*, found 'kkk"),
    "size": ("#" * (MAX_BYTES + 1), "cannot be read: larger than"),
    "control characters": (RUN + 'epochs: "\\e]0;title\\a\\u202e"', r"\\u202e"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_a_line(tmp_path: Path, name: str) -> None:
    text, message = HOSTILE[name]
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 1500
    assert str(caught.value).isprintable()


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.yaml")
    with pytest.raises(ConfigError, match="expected a regular file, found a pipe"):
        load_config(tmp_path / "run.yaml")


@pytest.mark.parametrize("value", ["[" * 1000, "9" * 5000, "!!int x", "2001-13-45", "&a [*a]"])
def test_hostile_overrides_are_refused_in_a_line(tmp_path: Path, value: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("method: bt2\ndata: {name: digits}")
    with pytest.raises(ConfigError, match=r"^--set "):
        load_config(path, [f"epochs={value}"])


def test_a_key_of_many_parts_is_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("method: bt2\ndata: {name: digits}")
    with pytest.raises(ConfigError, match=r"^--set 'loss\.a.*a key of more than 50 parts$"):
        load_config(path, ["loss" + ".a" * 5000 + "=1"])


def test_a_path_with_a_nul_is_refused_in_a_line() -> None:
    with pytest.raises(ConfigError, match="cannot be read: its path has a nul character in it"):
        load_config("a\0b")


def test_equal_keys_of_other_mappings_are_fine() -> None:
    assert parse_yaml("a: {x: 1}\nb: {x: 2, y: {x: 3}}\nx: [x, x]\ny: x") == {
        "a": {"x": 1}, "b": {"x": 2, "y": {"x": 3}}, "x": ["x", "x"], "y": "x",
    }  # fmt: skip
    assert parse_yaml("a: &k x\n*k : 1\nb: {<<: {c: 1}}") == {"a": "x", "x": 1, "b": {"c": 1}}


def test_aliases_and_depth_that_a_config_has_are_fine() -> None:
    assert parse_yaml("a: &x [1, 2]\nb: *x\nc: &y 5\nd: *y") == {"a": [1, 2], "b": [1, 2], "c": 5, "d": 5}
    assert parse_yaml("a: &x {k: 1}\nb: {<<: *x, m: 2}") == {"a": {"k": 1}, "b": {"k": 1, "m": 2}}
    deep: object = parse_yaml("[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1))
    for _ in range(MAX_DEPTH - 2):
        assert isinstance(deep, list)
        (deep,) = deep
    assert deep == []


@given(
    st.recursive(st.integers() | st.booleans() | st.none(), lambda inner: st.lists(inner, max_size=4), max_leaves=30),
    st.integers(1, 60),
)
@settings(max_examples=50, deadline=None)
def test_the_values_counted_are_those_written_out(tree: object, times: int) -> None:
    """A document is refused exactly if a slow count of its values, after loading, is above the limit."""
    import nobackfill.config.yaml_text as module

    inner = yaml.safe_dump(tree, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
    text = f"- &a {inner}\n" + "- *a\n" * times
    loaded = yaml.safe_load(text)

    def count(value: object) -> int:
        return 1 + sum(map(count, value)) if isinstance(value, list) else 1

    assert count(loaded) <= MAX_VALUES
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_VALUES", count(loaded))
        assert parse_yaml(text) == loaded
        patch.setattr(module, "MAX_VALUES", count(loaded) - 1)
        with pytest.raises(ConfigError, match="written out"):
            parse_yaml(text)


@given(st.text(st.sampled_from("[]{}&*a1:,-!|>'\"\n \t#0x.e_<?%@"), max_size=60) | st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_value_or_one_line(text: str) -> None:
    message = ""
    try:
        tree = parse_yaml(text)
        if isinstance(tree, dict):
            parse_config(tree)
    except ConfigError as error:
        message = str(error)
    assert visible(message) == message
