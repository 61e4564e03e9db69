"""The outside: forges, trackers, notifiers. One protocol each, one module for every product behind it.

Everything here is I/O that may fail, repeat or be answered late. It raises errors.Transient where waiting helps and
errors.Permanent where a person must act, decides nothing, and never puts a token into an error, a log or a status.
"""

from __future__ import annotations

from workitems import errors
from workitems.api.repository import RepositorySpec
from workitems.integrations.forge import Forge


def make_forge(spec: RepositorySpec, token: str, ca_pem: str) -> Forge:  # noqa: ARG001 - for the client to come
    """The client of the forge that a Repository names."""
    raise errors.Permanent("ForgeUnsupported", "this version cannot talk to a Gitea server yet: remove spec.forge")
