"""The URL of a store: one grammar for all of them, `scheme:location[#name]`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from nobackfill.errors import GalleryError, visible

SCHEME = re.compile(r"[a-z][a-z0-9]*(\+https?)?")
LOCAL = ("faiss", "lance", "milvus", "qdrant")  # the location is a path: nothing in it is secret


@dataclass(frozen=True)
class Address:
    """A store's URL, taken apart.

    Attributes:
        scheme: decides which store it is.
        location: a folder, or `//user:password@host:port/path` of a server; may hold a password.
        name: of the table or collection there; None if the URL has none.
        url: as it may be printed, without credentials.
    """

    scheme: str
    location: str = field(repr=False)
    name: str | None
    url: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Splits at the first ':' and at the first '#' after it.

        Raises:
            GalleryError: for a server that cannot be one, such as `//[::1`; for a folder that begins with `//`; for a
                second '#' after a query string, of which the first one may be of a password.
        """
        scheme, _, rest = url.partition(":")
        location, _, name = rest.partition("#")
        if location.startswith("//"):
            if scheme in LOCAL:
                raise GalleryError(f"store {without_credentials(url)!r}: expected a path after '{scheme}:', not '//'")
            if "?" in location and "#" in name:
                raise GalleryError(
                    f"store '{scheme}://…': has a second '#' after its query string; write a '#' in a password as %23"
                )
            try:
                _ = urlsplit(location).port  # which checks it
            except ValueError:  # what Python says of it quotes the address, a password included
                shown = f"{scheme}://…"
                raise GalleryError(f"store {shown!r}: not a valid address; expected {scheme}://host:port") from None
        return cls(scheme, location, name or None, without_credentials(url))

    @property
    def server(self) -> str:
        """The URL without its name, credentials included: for a client library only."""
        return f"{self.scheme}:{self.location}"


def without_credentials(url: str) -> str:
    """The URL as it may be printed: no user, password or query string.

    Of what is no such URL nothing is printed but its scheme: in `host=h password=p`, where a secret begins and ends,
    nobody knows.
    """
    scheme, colon, rest = url.partition(":")
    if not colon or not SCHEME.fullmatch(scheme):
        return "…"
    if not rest.startswith("//"):
        return visible(url) if scheme in LOCAL else f"{scheme}:…"
    login, _, location = rest.removeprefix("//").rpartition("@")
    if any(sign in login for sign in "/?#@"):  # of a password that is not encoded; where it ends, nobody knows
        return f"{scheme}://…"
    location, _, name = location.partition("#")
    if "?" in location and "#" in name:  # the first one may be of a password
        return f"{scheme}://…"
    return visible(f"{scheme}://{location.partition('?')[0]}" + (f"#{name}" if name else ""))
