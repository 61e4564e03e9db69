"""Clients from a Repository and its Secrets as they are now: kept while both stay, made anew when one changes."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest

from tests.unit.core.world import FORGE, NAMESPACE
from workitems import cluster, errors
from workitems.api.repository import RepositorySpec
from workitems.connect import Clients

TOKEN = "8c1f-very-secret"


class Objects:
    """An API server that knows three objects."""

    def __init__(self) -> None:
        spec = {"url": "https://git.example.com/shop/web.git", "forge": copy.deepcopy(FORGE)}
        self.repository: dict[str, Any] | None = {
            "metadata": {"name": "shop", "namespace": NAMESPACE, "resourceVersion": "1"},
            "spec": spec,
        }
        self.secret: dict[str, Any] | None = None
        self.config_map: dict[str, Any] | None = None
        self.say(f"{TOKEN}\n")

    def say(self, token: str | bytes) -> None:
        """The Secret has this token from now on."""
        version = "1" if self.secret is None else str(int(self.secret["metadata"]["resourceVersion"]) + 1)
        data = base64.b64encode(token if isinstance(token, bytes) else token.encode()).decode()
        self.secret = {"metadata": {"name": "shop-gitea", "resourceVersion": version}, "data": {"token": data}}

    async def get(self, resource: cluster.Resource, _namespace: str, _name: str) -> dict[str, Any] | None:
        objects = {
            cluster.REPOSITORIES: self.repository,
            cluster.SECRETS: self.secret,
            cluster.CONFIG_MAPS: self.config_map,
        }
        return objects[resource]


class Client:
    def __init__(self, spec: RepositorySpec, token: str, ca_pem: str) -> None:
        self.spec, self.token, self.ca_pem, self.closed = spec, token, ca_pem, False

    async def close_client(self) -> None:
        self.closed = True


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.fixture
def clients(objects: Objects) -> Clients:
    api: Any = objects
    make: Any = Client
    return Clients(api, make)


async def forge(clients: Clients) -> Any:
    return await clients.forge(NAMESPACE, "shop")


async def test_a_client_is_kept_and_gets_the_token_without_its_line_end(clients: Clients) -> None:
    first = await forge(clients)
    assert (first.token, first.ca_pem) == (TOKEN, "")
    assert await forge(clients) is first


async def test_a_renewed_token_counts_at_once_and_the_old_client_is_let_go(clients: Clients, objects: Objects) -> None:
    first = await forge(clients)
    objects.say("renewed")
    second = await forge(clients)
    assert (second.token, first.closed, second.closed) == ("renewed", True, False)
    await clients.close()
    assert second.closed


async def test_a_changed_repository_makes_another_client(clients: Clients, objects: Objects) -> None:
    first = await forge(clients)
    assert objects.repository is not None
    objects.repository["spec"]["forge"]["gitea"]["name"] = "moved"
    second = await forge(clients)
    assert second is not first
    assert second.spec.forge.gitea.name == "moved"
    objects.repository["metadata"]["resourceVersion"] = "2"
    assert await forge(clients) is second, "a label of the Repository is nobody's business here"


async def test_certificates_are_read_and_followed(clients: Clients, objects: Objects) -> None:
    assert objects.repository is not None
    objects.repository["spec"]["caBundle"] = {"configMapName": "corporate-ca", "key": "ca.crt"}
    objects.config_map = {"metadata": {"name": "corporate-ca"}, "data": {"ca.crt": "PEM 1"}}
    assert (await forge(clients)).ca_pem == "PEM 1"
    objects.config_map["data"]["ca.crt"] = "PEM 2"
    assert (await forge(clients)).ca_pem == "PEM 2"


def without_repository(objects: Objects) -> None:
    objects.repository = None


def with_an_unreadable_repository(objects: Objects) -> None:
    assert objects.repository is not None
    objects.repository["spec"]["url"] = "ext::sh"


def without_forge(objects: Objects) -> None:
    assert objects.repository is not None
    del objects.repository["spec"]["forge"]


def without_secret(objects: Objects) -> None:
    objects.secret = None


def without_key(objects: Objects) -> None:
    assert objects.secret is not None
    objects.secret["data"] = {"other": "eA=="}


def without_map(objects: Objects) -> None:
    assert objects.repository is not None
    objects.repository["spec"]["caBundle"] = {"configMapName": "corporate-ca", "key": "ca.crt"}


@pytest.mark.parametrize(
    ("change", "reason", "says"),
    [
        (without_repository, "RepositoryNotFound", "no Repository shop in namespace team-a"),
        (with_an_unreadable_repository, "RepositoryUnreadable", "Repository shop cannot be read"),
        (without_forge, "NoForge", "spec.forge"),
        (without_secret, "SecretNotFound", "no Secret shop-gitea in namespace team-a, which Repository shop names in"),
        (without_key, "SecretKeyMissing", "has no key token"),
        (lambda objects: objects.say(f"{TOKEN}\nsecond line"), "SecretUnreadable", "more than one line"),
        (lambda objects: objects.say(b"\xff\xfe" + TOKEN.encode()), "SecretUnreadable", "is no text"),
        (without_map, "CABundleMissing", "no key ca.crt in ConfigMap corporate-ca"),
    ],
)
async def test_what_is_missing_is_said_and_the_token_never(
    clients: Clients, objects: Objects, change: Any, reason: str, says: str
) -> None:
    change(objects)
    with pytest.raises(errors.Permanent) as raised:
        await forge(clients)
    assert raised.value.reason == reason
    assert says in str(raised.value)
    assert TOKEN not in str(raised.value)
    assert TOKEN not in repr(raised.value.__cause__)
