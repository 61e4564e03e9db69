"""Clients of what a Repository names outside the cluster, made from its manifest and its Secrets as they are now.

The Repository and the Secret are read live at every use: a token that was renewed counts at once, and one that was
taken away is not used again. A client, with its connections, is kept for as long as both stay as they are. Tokens live
in the clients alone: never in status, in a log or in an error.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import ValidationError

from workitems import cluster, errors
from workitems.api import Repository
from workitems.api.common import SecretRef
from workitems.api.repository import RepositorySpec
from workitems.integrations.forge import Forge

CLIENTS_KEPT = 256

MakeForge = Callable[[RepositorySpec, str, str], Forge]
"""A forge's client from the Repository, the token and the certificates to trust besides the machine's (PEM or "")."""


class Clients:
    """One client for every channel of every Repository that is in use."""

    def __init__(self, api: cluster.Cluster, make_forge: MakeForge) -> None:
        """Take the connection to the API server and who makes a forge's client."""
        self._api = api
        self._make_forge = make_forge
        self._kept: dict[tuple[str, str, str], tuple[object, Any, Callable[[], Awaitable[None]]]] = {}

    async def forge(self, namespace: str, name: str) -> Forge:
        """The forge of a Repository. Raises errors.Transient, errors.Permanent."""
        repository = await self.repository(namespace, name)
        spec = repository.spec
        chosen = spec.forge.chosen if spec.forge is not None else None
        if spec.forge is None or chosen is None:
            raise errors.Permanent("NoForge", f"Repository {name} has no forge any more: name one in spec.forge")
        token, version = await self.secret(namespace, chosen.token, f"spec.forge.{spec.forge.kind}.token", name)
        ca_pem = await self.certificates(namespace, spec, name)
        found: Forge | None = self.same((namespace, name, "forge"), (spec, version, ca_pem))
        if found is None:
            found = self._make_forge(spec, token, ca_pem)
            await self.keep((namespace, name, "forge"), (spec, version, ca_pem), found, found.close_client)
        return found

    async def close(self) -> None:
        """Close all connections."""
        for _, _, close in self._kept.values():
            await close()
        self._kept.clear()

    # --- what is kept

    def same(self, key: tuple[str, str, str], made_from: object) -> Any:
        """The client that was made from the same; None: there is none."""
        kept = self._kept.get(key)
        return kept[1] if kept is not None and kept[0] == made_from else None

    async def keep(
        self, key: tuple[str, str, str], made_from: object, client: Any, close: Callable[[], Awaitable[None]]
    ) -> None:
        """Put a client in place of the one before it, whose requests under way fail and are made again."""
        old = self._kept.pop(key, None)
        self._kept[key] = (made_from, client, close)
        if old is None and len(self._kept) > CLIENTS_KEPT:
            old = self._kept.pop(next(iter(self._kept)))
        if old is not None:
            await old[2]()

    # --- live reads

    async def repository(self, namespace: str, name: str) -> Repository:
        """A Repository as it is now. Raises errors.Transient, errors.Permanent."""
        body = await self._api.get(cluster.REPOSITORIES, namespace, name)
        if body is None:
            raise errors.Permanent("RepositoryNotFound", f"there is no Repository {name} in namespace {namespace}")
        try:
            return Repository.parse(body)
        except ValidationError as error:
            raise errors.Invalid("RepositoryUnreadable", f"Repository {name} cannot be read: {error}") from error

    async def secret(self, namespace: str, ref: SecretRef, field: str, repository: str) -> tuple[str, str]:
        """The value of one key, and the version of its Secret. Raises errors.Transient, errors.Permanent."""
        body = await self._api.get(cluster.SECRETS, namespace, ref.secret_name)
        where = f"which Repository {repository} names in {field}"
        which = f"key {ref.key} of Secret {ref.secret_name} in namespace {namespace}"
        if body is None:
            message = f"there is no Secret {ref.secret_name} in namespace {namespace}, {where}: create it"
            raise errors.Permanent("SecretNotFound", message)
        value = (body.get("data") or {}).get(ref.key)
        if not value:
            message = f"Secret {ref.secret_name} in namespace {namespace} has no key {ref.key}, {where}: add it"
            raise errors.Permanent("SecretKeyMissing", message)
        try:
            text = base64.b64decode(value, validate=True).decode().strip()
        except (binascii.Error, UnicodeDecodeError):
            # Without the cause: it would quote what was read.
            raise errors.Permanent("SecretUnreadable", f"{which}, {where}, is no text") from None
        if not text.isprintable():
            message = (
                f"key {ref.key} of Secret {ref.secret_name} in namespace {namespace}, {where}, is more than one line"
            )
            raise errors.Permanent("SecretUnreadable", message)
        return text, str(body["metadata"].get("resourceVersion", ""))

    async def certificates(self, namespace: str, spec: RepositorySpec, repository: str) -> str:
        """What a Repository's caBundle holds; "" without one. Raises errors.Transient, errors.Permanent."""
        if spec.ca_bundle is None:
            return ""
        name, key = spec.ca_bundle.config_map_name, spec.ca_bundle.key
        body = await self._api.get(cluster.CONFIG_MAPS, namespace, name)
        text = ((body or {}).get("data") or {}).get(key)
        if not text:
            message = (
                f"there is no key {key} in ConfigMap {name} of namespace {namespace}, which Repository {repository} "
                "names in spec.caBundle: create it"
            )
            raise errors.Permanent("CABundleMissing", message)
        return str(text)
