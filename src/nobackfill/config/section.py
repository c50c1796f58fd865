"""What all sections of a config share."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, get_args

import pydantic
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

MOST = 10_000_000
"""Of whatever a config counts."""
Positive = Annotated[int, Field(gt=0, le=MOST)]


class Section(BaseModel):
    """Base of all sections: typos are refused, values cannot be changed after reading."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _refuse_booleans(cls, tree: Any) -> Any:
        """`cutout: yes` is no number, though Python takes True for 1."""
        for name, value in tree.items() if isinstance(tree, dict) else ():
            kinds = _kinds(cls.model_fields[name].annotation) if name in cls.model_fields else set()
            if not kinds & {int, float} or bool in kinds:
                continue
            each = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
            if wrong := [one for one in each if isinstance(one, bool)]:
                raise PydanticCustomError("no_number", "input should be a number", {"key": name, "value": wrong[0]})
        return tree


def _kinds(annotation: object) -> set[object]:
    """The types that a field's annotation is made of."""
    parts = get_args(annotation)
    return {kind for part in parts for kind in _kinds(part)} if parts else {annotation}
