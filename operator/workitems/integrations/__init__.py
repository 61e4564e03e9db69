"""The outside: forges, trackers, notifiers. One protocol each, one module for every product behind it.

Everything here is I/O that may fail, repeat or be answered late. It raises errors.Transient where waiting helps and
errors.Permanent where a person must act, decides nothing, and never puts a token into an error, a log or a status.
"""

from __future__ import annotations

from collections.abc import Callable

from workitems import errors
from workitems.api.repository import RepositorySpec
from workitems.integrations.forge import Forge
from workitems.integrations.gitea import Gitea
from workitems.integrations.gitea_api import Place
from workitems.integrations.http import Access, Client, Connections


def forges(connections: Connections) -> Callable[[RepositorySpec, str, str], Forge]:
    """Who makes the client of the forge that a Repository names, from its token and its certificates (PEM or "")."""

    def make(spec: RepositorySpec, token: str, ca_pem: str) -> Forge:
        if spec.forge is None or spec.forge.gitea is None:
            raise errors.Permanent("NoForge", "the Repository names no forge: name one in spec.forge")
        gitea = spec.forge.gitea
        access = Access(gitea.url.rstrip("/"), {"Authorization": f"token {token}"}, (token,), ca_pem)
        secret = f"Secret {gitea.token.secret_name} (key {gitea.token.key})"
        return Gitea(Client(connections, access), Place(gitea.owner, gitea.name, secret))

    return make
