"""YAML from anyone: plain values only, bounded in size, depth and what its aliases expand to."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from nobackfill.errors import ConfigError, one_line, shortened

MAX_BYTES = 2**20
MAX_DEPTH = 50
MAX_VALUES = 10**5
"""Values of a document once its aliases are written out."""
MAX_PLAIN = 1000
"""Characters of a scalar without quotes."""


def parse_yaml(text: str) -> object:
    """The value of one YAML document.

    Aliases share one object while YAML is read, and become copies when it is checked: nine lines of them are as many
    values as memory holds. So they are counted on the stream of events, before anything is built.

    Raises:
        ConfigError: saying what is wrong, without the file's name.
    """
    try:
        _check(text)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {one_line(error, 1000)}") from error
    # What the constructors of timestamps, integers and tagged values raise is no YAMLError.
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise ConfigError(f"not valid YAML: a value cannot be read: {one_line(error, 200)}") from error


@dataclass
class _Open:
    """A list or mapping that is being read: its anchor, the values in it so far (itself included), a mapping's keys."""

    anchor: str | None
    values: int = 1
    keys: set[str] | None = None
    key_next: bool = True

    def take(self, event: yaml.Event) -> None:
        """A value of it has been read. Of two equal keys YAML would keep the last, and a config loses a setting."""
        if self.keys is None:
            return
        if self.key_next and isinstance(event, yaml.ScalarEvent):
            if event.value in self.keys:
                raise ConfigError(f"the key {shortened(event.value)} is there twice; keep one")
            self.keys.add(event.value)
        self.key_next = not self.key_next


def _check(text: str) -> None:
    """Raises `ConfigError` for a document that would not fit in memory, or is nested too deeply to be built."""
    sizes: dict[str, int] = {}  # of what each anchor stands for
    levels = [_Open(None, 0)]
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            levels.append(_Open(event.anchor, keys=set() if isinstance(event, yaml.MappingStartEvent) else None))
            if len(levels) > MAX_DEPTH:
                raise ConfigError(f"nested more than {MAX_DEPTH} levels deep; expected a flat config")
            continue
        size = 0
        if isinstance(event, yaml.AliasEvent):
            if any(level.anchor == event.anchor for level in levels):
                raise ConfigError(f"the alias *{event.anchor} is inside what it stands for; write the value out")
            size = sizes.get(str(event.anchor), 1)
        elif isinstance(event, yaml.ScalarEvent):
            _check_scalar(event)
            size = 1
            sizes |= {event.anchor: size} if event.anchor else {}
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = levels.pop()
            size = closed.values
            sizes |= {closed.anchor: size} if closed.anchor else {}
        levels[-1].take(event)
        levels[-1].values += size
        if levels[-1].values > MAX_VALUES:
            raise ConfigError(f"more than {MAX_VALUES} values with its aliases written out; expected a config")


def _check_scalar(event: yaml.ScalarEvent) -> None:
    """Only a plain scalar can be a number, and an integer of many digits takes long to read and cannot be printed."""
    plain = event.implicit[0] or event.tag is not None
    if plain and len(event.value) > MAX_PLAIN:
        start = event.value[:20]
        raise ConfigError(f"a value of {len(event.value)} characters without quotes ({start!r}…); put it in quotes")
