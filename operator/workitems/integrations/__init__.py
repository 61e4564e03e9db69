"""The outside: forges, trackers, notifiers. One protocol each, one module for every product behind it.

Everything here is I/O that may fail, repeat or be answered late. It raises errors.Transient where waiting helps and
errors.Permanent where a person must act, decides nothing, and never puts a token into an error, a log or a status.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from workitems import errors
from workitems.api.repository import RepositorySpec
from workitems.integrations import gitea
from workitems.integrations.forge import Forge
from workitems.integrations.gitea_webhooks import GiteaWebhooks
from workitems.integrations.http import Connections
from workitems.integrations.webhook import Source


@dataclass(frozen=True)
class Product:
    """What there is of one kind of forge."""

    client: Callable[[Connections, RepositorySpec, str, str], Forge]
    """From the connections, the Repository, the token and the certificates (PEM or "")."""
    deliveries: Source


FORGES: Mapping[str, Product] = {"gitea": Product(gitea.client, GiteaWebhooks())}
"""By key of `Repository.spec.forge`: another forge is one line here, one key there and one module."""


def forges(connections: Connections) -> Callable[[RepositorySpec, str, str], Forge]:
    """Who makes the client of the forge that a Repository names, from its token and its certificates (PEM or "")."""

    def make(spec: RepositorySpec, token: str, ca_pem: str) -> Forge:
        product = FORGES.get(spec.forge.kind) if spec.forge is not None else None
        if product is None:
            raise errors.Permanent("NoForge", "the Repository names no forge: name one in spec.forge")
        return product.client(connections, spec, token, ca_pem)

    return make
