"""What a webhook's delivery is worth: a hint where to look. Nothing else in it is believed.

Each product signs and words its deliveries in its own way; one module for each of them provides a `Source`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

BRANCH = "status.branch"
HEAD = "status.head"


@dataclass(frozen=True)
class Delivery:
    """Which WorkItems a delivery is about, by fields that the API server can select them by."""

    event: str
    """The product's own word, for the log."""
    about: frozenset[tuple[str, str]] = frozenset()
    """Field and value, such as (BRANCH, "feature/x"); none: it is about no item."""


class Source(Protocol):
    """One product that sends deliveries. Both methods work on bytes of strangers: no I/O, no surprises."""

    def verify(self, headers: Mapping[str, str], body: bytes, secret: bytes) -> bool:
        """Whether whoever sent this raw body knows the secret; compared in constant time."""

    def read(self, headers: Mapping[str, str], body: bytes) -> Delivery:
        """What a verified delivery is about. Raises ValueError if it is not what this product sends."""


def signed(body: bytes, secret: bytes, signature: str) -> bool:
    """Whether `signature` is the HMAC-SHA256 of the body in hexadecimal digits; compared in constant time."""
    expected = hmac.new(secret, body, hashlib.sha256).hexdigest()
    # As bytes: compare_digest refuses a text that is not ASCII, and a header may hold any byte.
    return hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogateescape"))
