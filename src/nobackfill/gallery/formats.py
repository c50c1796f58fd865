"""Documents that carry a format number: read if this release knows it, else refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from nobackfill.errors import GalleryError

FORMAT = 1
Document = TypeVar("Document", bound=BaseModel)


def parse_document(kind: type[Document], data: bytes, what: str) -> Document:
    """A document of JSON; `what` names it and where it is.

    Raises:
        GalleryError: if it is damaged or of another format.
    """
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise GalleryError(f"{what} is damaged: {str(error).lower()}") from error
    if not isinstance(tree, dict):
        raise GalleryError(f"{what} is damaged: expected an object, found {type(tree).__name__}")
    number = tree.get("format")
    if number != FORMAT:
        raise GalleryError(
            f"{what} has format {number if isinstance(number, int) else 'unknown'}; this release reads format "
            f"{FORMAT}: use the release that wrote it, or create the gallery again"
        )
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise GalleryError(f"{what} is damaged: {error.errors()[0]['msg'].lower()}") from error


def parse_payload(text: str) -> Mapping[str, object]:
    """An item's payload, as a store keeps it; raises `GalleryError` if it is damaged."""
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError, TypeError):
        payload = None
    if not isinstance(payload, dict):
        raise GalleryError(f"damaged: the payload {str(text)[:40]!r} is no JSON object; write the item again")
    return payload
