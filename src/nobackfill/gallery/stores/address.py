"""The URL of a store: one grammar for all of them, `scheme:location[#name]`."""

from __future__ import annotations

from dataclasses import dataclass, field

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
        """Splits at the first ':' and at the first '#' after it; never fails."""
        scheme, _, rest = url.partition(":")
        location, _, name = rest.partition("#")
        return cls(scheme, location, name or None, without_credentials(url))

    @property
    def server(self) -> str:
        """The URL without its name, credentials included: for a client library only."""
        return f"{self.scheme}:{self.location}"


def without_credentials(url: str) -> str:
    """The URL as it may be printed: no user, password or query string."""
    head, slashes, tail = url.partition("://")
    if not slashes:
        scheme, _, rest = url.partition(":")
        return url if scheme in LOCAL else f"{scheme}:{rest.rpartition('@')[2]}"
    login, _, location = tail.rpartition("@")
    if any(sign in login for sign in "/?#@"):  # of a password that is not encoded; where it ends, nobody knows
        return f"{head}://…"
    location, _, name = location.partition("#")
    return f"{head}://{location.partition('?')[0]}" + (f"#{name}" if name else "")
