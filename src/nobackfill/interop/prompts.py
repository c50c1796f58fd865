"""The prompts of a text run as a `SentenceTransformer` has them."""

from __future__ import annotations

from typing import TypedDict

from nobackfill.models.encoder import Encoder


class Prompts(TypedDict):
    """What the constructor of a `SentenceTransformer` is given.

    Attributes:
        prompts: by name, such as `query`.
        default_prompt_name: of the one that goes before texts of which no more is known.
    """

    prompts: dict[str, str]
    default_prompt_name: str | None


def prompts_of(encoder: Encoder) -> Prompts:
    """The prompts of a text run."""
    settings = encoder.spec.preprocessing
    keys = {"default": "prompt", "query": "query_prompt", "document": "document_prompt"}
    prompts = {name: getattr(settings, key, None) for name, key in keys.items()}
    given = {name: prompt for name, prompt in prompts.items() if prompt is not None and (prompt or name != "default")}
    return Prompts(prompts=given, default_prompt_name="default" if "default" in given else None)
