"""YAML in, dotted overrides applied, every fault in one line that names the key; YAML out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, TypeVar, get_args, get_origin

import pydantic
import yaml
from pydantic import BaseModel

from nobackfill.config.data import DataConfig
from nobackfill.config.run import RunConfig
from nobackfill.config.section import Section
from nobackfill.config.yaml_text import MAX_BYTES, MAX_DEPTH, parse_yaml
from nobackfill.errors import ConfigError, nearest, one_line, shortened
from nobackfill.files import read_text

AnyConfig = TypeVar("AnyConfig", bound=Section)
QUOTE = "'"  # pydantic quotes the names it reports


def load_config(path: str | Path, overrides: list[str] | None = None) -> RunConfig:
    """Read a YAML config and apply dotted overrides.

    Args:
        path: a YAML file with the keys of `RunConfig`.
        overrides: strings `key.sub=value`; the value is read as YAML.

    Raises:
        ConfigError: naming the file, the key and what was expected.
    """
    return parse_config(read_tree(path, overrides), origin=str(path))


def read_tree(path: str | Path, overrides: list[str] | None = None) -> dict[str, object]:
    """The mapping in a YAML file with overrides applied, its keys not yet checked."""
    path = Path(path)
    try:
        tree = parse_yaml(read_text(path, MAX_BYTES))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {_first_line(error)}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path}: expected a mapping of keys such as 'method' and 'data', found {type(tree).__name__}"
        )
    for override in overrides or []:
        _apply(tree, override)
    return tree


def parse_config(tree: Mapping[str, object], origin: str = "config") -> RunConfig:
    """Check a mapping as a `RunConfig`; raises `ConfigError` with `origin` and the key at fault."""
    return parse_as(RunConfig, tree, origin)


class _OnlyData(Section):
    data: DataConfig


def parse_data(tree: Mapping[str, object], origin: str = "config") -> DataConfig:
    """Check a mapping as the section `data`; raises `ConfigError` with `origin` and the key at fault."""
    return parse_as(_OnlyData, {"data": tree}, origin).data


def parse_as(kind: type[AnyConfig], tree: Mapping[str, object], origin: str) -> AnyConfig:
    """Check a mapping as this kind of config; raises `ConfigError` with `origin` and the key at fault."""
    try:
        return kind.model_validate(tree)
    except pydantic.ValidationError as error:
        raise ConfigError(f"{origin}: {explain(error, kind)}") from error


def dump_config(config: RunConfig) -> str:
    """The config as YAML text that `load_config` reads back equal."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def explain(error: pydantic.ValidationError, model: type[BaseModel]) -> str:
    """The first fault of a validation error in one line, with the dotted key and, for a typo, the nearest key.

    However long the keys and values are that it quotes, the line is not.
    """
    return one_line(_explained(error, model), 600)


def _explained(error: pydantic.ValidationError, model: type[BaseModel]) -> str:
    # A value that fits no member of a union is reported once for each member: the first that names the field will do.
    fault = error.errors()[0]
    keys, known = _keys(model, fault["loc"])
    dotted, context = ".".join(keys)[:200], fault.get("ctx", {})
    found = fault["input"]
    match fault["type"]:
        case "extra_forbidden":
            return f"unknown key {dotted!r}: {nearest(keys[-1][:200], known)}"
        case "missing":
            return f"missing key {dotted!r}"
        case "union_tag_not_found":
            return f"missing key '{dotted}.{context['discriminator'].strip(QUOTE)}'"
        case "union_tag_invalid":
            key = f"{dotted}.{context['discriminator'].strip(QUOTE)}"
            return f"key {key!r}: input should be one of {context['expected_tags']}, found {shortened(context['tag'])}"
        case "no_number":
            dotted = ".".join([*keys, context["key"]])[:200]
            found = context["value"]
        case "value_error":
            return str(fault["msg"]).removeprefix("Value error, ")
    where = f"key {dotted!r}: " if dotted else ""
    message = fault["msg"]  # of which a pattern or a value must stay as it is
    return f"{where}{message[:1].lower()}{message[1:]}, found {shortened(found)}"


def _keys(model: type[BaseModel], location: Iterable[str | int]) -> tuple[list[str], list[str]]:
    """The keys of a fault's location as the file has them, and those that its section knows.

    Pydantic's location also names the member of a union that was tried.
    """
    keys: list[str] = []
    known: list[str] = []
    options: list[type[BaseModel]] = [model]
    told = False  # which member it was; a field may have the same name
    for part in map(str, location):
        chosen = [each for each in options if part in (each.__name__, *_tags(each))]
        if chosen and not told:
            options, told = chosen, True
            continue
        if part.startswith(("constrained-", "literal[", "list[", "function-")):
            continue
        keys.append(part)
        told = False
        known = sorted({name for each in options for name in each.model_fields})
        fields = [each.model_fields[part] for each in options if part in each.model_fields]
        if fields:  # else a key of a mapping, whose values the same sections describe
            options = [each for field in fields for each in _models(field.annotation)]
    return keys, known


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for each in get_args(annotation) for model in _models(each)]


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    """The values of `name` by which a union knows this member."""
    field = model.model_fields.get("name")
    return get_args(field.annotation) if field is not None and get_origin(field.annotation) is Literal else ()


def _apply(tree: dict[str, object], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set {override!r}: expected key=value, for example optimizer.lr=0.001")
    if key.count(".") >= MAX_DEPTH:
        raise ConfigError(f"--set {shortened(override)}: a key of more than {MAX_DEPTH} parts")
    try:
        value = parse_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"--set {override!r}: the value is {error}") from error
    *parents, last = key.split(".")
    for parent in parents:
        child = tree.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override!r}: {parent!r} is a value, not a section")
        tree = child
    tree[last] = value


def _first_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return one_line(error, 1000)
