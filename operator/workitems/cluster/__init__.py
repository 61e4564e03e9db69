"""The operator's only way to the API server: a few calls, raw JSON, every failure in the project's error tree.

`kubernetes.aio` contributes what is tedious and easy to get wrong: login (service account, kubeconfig, exec plugins,
tokens that are renewed in their files) and TLS. Its models are skipped: they cost more CPU than the request itself,
and the operator's own models in `workitems.api` say what is read. Nothing is cached and nothing is retried here:
truth is a live read, and `queue.py` alone decides when to try again. What comes back is judged in `answers`, the kinds
that are asked for are in `resources`.
"""

from __future__ import annotations

import asyncio
import collections
import urllib.request
from collections.abc import AsyncIterator
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import ApiClient
from kubernetes.aio.config import ConfigException

import workitems
from workitems import errors, login
from workitems.cluster.answers import MESSAGE_LIMIT, Answer, Call, JSONObject, event
from workitems.cluster.resources import (
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    DECISIONS,
    EVENTS,
    JOBS,
    NAMESPACES,
    PERSISTENT_VOLUME_CLAIMS,
    PIPELINES,
    PODS,
    REPOSITORIES,
    SECRETS,
    UNDELIVERED,
    UNFINISHED,
    WORKITEMS,
    Resource,
    escaped,
)
from workitems.settings import Settings

__all__ = [
    "CONFIG_MAPS",
    "CONTROLLER_REVISIONS",
    "DECISIONS",
    "EVENTS",
    "JOBS",
    "NAMESPACES",
    "PERSISTENT_VOLUME_CLAIMS",
    "PIPELINES",
    "PODS",
    "REPOSITORIES",
    "SECRETS",
    "UNDELIVERED",
    "UNFINISHED",
    "WORKITEMS",
    "Cluster",
    "JSONObject",
    "Resource",
    "escaped",
]

CONNECTIONS = 32
"""Requests under way at the same time; the others wait for a connection."""
PAGE = 250
"""Objects a page of a list: a page of WorkItems with long descriptions stays below 20 MB."""
WATCH_SECONDS = 300
"""After which the server is asked to end a watch, so that one that died in silence is noticed some time later."""
WATCH_GRACE_SECONDS = 30
MERGE_PATCH = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"  # JSON is YAML
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
"""What writes ask for: nobody reads more of an answer to a write, and most of a Job is what we have just sent."""
_WRITES = frozenset({"POST", "PUT", "PATCH"})
NO_ANSWER = 0
"""The code under which a request without any answer is counted."""


class Cluster:
    """A connection to one API server. All calls raise errors.Transient or errors.Permanent, and nothing else.

    A request that times out may have been carried out: callers repeat only what is idempotent, which is
    everything here, as creates are by name, replaces by resourceVersion and deletes by uid.

    A write is answered with the object's metadata alone, as a PartialObjectMetadata.
    """

    def __init__(self, api: Any, timeout: aiohttp.ClientTimeout) -> None:
        self._api = api
        self._timeout = timeout
        self.calls: collections.Counter[tuple[str, str, int]] = collections.Counter()
        """Requests since the start by (verb, resource, HTTP status code or NO_ANSWER)."""

    @classmethod
    async def connect(cls, settings: Settings, connections: int = CONNECTIONS) -> Self:
        """Log in: as the pod's service account, or by `settings.kubeconfig`. Nothing is requested yet.

        `connections` bounds those that are open at the same time; 0: nothing does.
        """
        configuration = await login.configuration(settings)
        configuration.connection_pool_maxsize = connections
        # Asked once: aiohttp would ask the environment for a proxy before every request, in a thread, for a third of
        # the request's CPU, and send what a ~/.netrc says about the API server's host.
        configuration.client_session_kwargs = {"trust_env": bool(urllib.request.getproxies())}
        api: Any = ApiClient(configuration=configuration)
        api.user_agent = f"workitem-operator/{workitems.__version__}"
        return cls(
            api,
            aiohttp.ClientTimeout(
                total=settings.request_timeout_seconds, sock_connect=settings.connect_timeout_seconds
            ),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def get(self, resource: Resource, namespace: str | None, name: str) -> JSONObject | None:
        """The object as it is now (a quorum read); None if there is none. Cluster-wide kinds: namespace None."""
        call = Call("get", resource, namespace, name)
        answer = await self._request(call, "GET", call.path)
        if answer.says_gone:
            return None
        return answer.object()

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        field_selector: str = "",
        label_selector: str = "",
        limit: int = PAGE,
    ) -> AsyncIterator[JSONObject]:
        """All objects of a namespace, or of all (None), read by pages of `limit`.

        Items of a list carry neither apiVersion nor kind. Raises errors.Transient if the server forgot its place in
        the middle (410): what was yielded may then be incomplete, and the caller lists again.
        """
        call = Call("list", resource, namespace)
        query = {"limit": str(limit), "fieldSelector": field_selector, "labelSelector": label_selector, "continue": ""}
        while True:
            url = f"{call.path}?{urlencode({key: value for key, value in query.items() if value})}"
            page = (await self._request(call, "GET", url)).object()
            for item in page.get("items") or ():
                yield item
            query["continue"] = (page.get("metadata") or {}).get("continue") or ""
            if not query["continue"]:
                return

    async def version(self, resource: Resource, namespace: str | None) -> str:
        """The resourceVersion of a collection as it is now: where a watch begins that wants to know what comes."""
        call = Call("list", resource, namespace)
        page = (await self._request(call, "GET", f"{call.path}?limit=1")).object()
        return str(page["metadata"]["resourceVersion"])

    async def watch(
        self, resource: Resource, namespace: str | None, *, label_selector: str, since: str
    ) -> AsyncIterator[tuple[str, JSONObject]]:
        """(ADDED, MODIFIED, DELETED or BOOKMARK, object) for what has changed after `since`, for some minutes.

        An object that has them comes without `metadata.managedFields` and without `spec`.
        Ends when the server ends it, which it does now and then: go on from the last object's resourceVersion.
        Raises errors.Expired where the server has forgotten `since`.
        """
        call = Call("watch", resource, namespace)
        query = {"watch": "true", "resourceVersion": since, "allowWatchBookmarks": "true"}
        query |= {"timeoutSeconds": str(WATCH_SECONDS), "labelSelector": label_selector}
        # Longer silence than the server was asked for is a connection that is dead without anybody having said so.
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._timeout.sock_connect, sock_read=WATCH_SECONDS + WATCH_GRACE_SECONDS
        )
        response = await self._send(call, ("GET", f"{call.path}?{urlencode(query)}", ""), None, timeout)
        try:
            if response.status != 200:
                raise Answer.read(call, response.status, await response.read()).refusal()
            rest = b""
            async for chunk in response.response.content.iter_any():
                # An object may be larger than any line that aiohttp is ready to read.
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield event(call, line)
        except (aiohttp.ClientError, OSError) as error:
            raise errors.Transient(f"{call}: {str(error)[:MESSAGE_LIMIT] or type(error).__name__}") from error
        finally:
            response.response.close()

    async def create(self, resource: Resource, namespace: str | None, body: JSONObject) -> JSONObject | None:
        """Metadata of the created object; None if one of this name exists already (whoever made it)."""
        call = Call("create", resource, namespace, body["metadata"].get("name", ""))
        answer = await self._request(call, "POST", call.path, body)
        # The only other 409 of a POST is "Conflict": a quota that was changed at the same moment.
        if answer.code == 409 and answer.reason != "Conflict":
            return None
        return answer.object()

    async def replace_status(self, resource: Resource, body: JSONObject) -> JSONObject:
        """Write `body.status` if the object is still the one with `body.metadata.resourceVersion`.

        Raises errors.Conflict if it is not, or if it is gone: the answer to both is to read again.
        """
        return await self.replace(resource, body, subresource="status")

    async def replace(self, resource: Resource, body: JSONObject, *, subresource: str = "") -> JSONObject:
        """Write the whole object if it is still the one with `body.metadata.resourceVersion`; raises as above."""
        metadata = body["metadata"]
        if not metadata.get("resourceVersion"):
            # Without it the server would overwrite whatever is there, unseen.
            raise ValueError(f"{subresource or resource} of {metadata['name']} written without a resourceVersion")
        call = Call("update", resource, metadata.get("namespace"), metadata["name"], subresource)
        answer = await self._request(call, "PUT", call.path, body)
        if answer.says_gone:
            raise errors.Conflict(f"{call}: the object is gone")
        return answer.object()

    async def merge_patch(
        self, resource: Resource, namespace: str | None, name: str, patch: JSONObject, *, subresource: str = ""
    ) -> JSONObject | None:
        """Metadata of the object after an RFC 7386 merge patch; None if there is none."""
        call = Call("patch", resource, namespace, name, subresource)
        answer = await self._request(call, "PATCH", call.path, patch)
        if answer.says_gone:
            return None
        return answer.object()

    async def apply(self, resource: Resource, namespace: str | None, body: JSONObject, *, manager: str) -> JSONObject:
        """Metadata of the object after a server-side apply by `manager`: created where there is none.

        Raises errors.Conflict if somebody else owns a field that it would change.
        """
        call = Call("patch", resource, namespace, body["metadata"]["name"])
        url = f"{call.path}?{urlencode({'fieldManager': manager})}"
        return (await self._request(call, "PATCH", url, body, content_type=APPLY)).object()

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        propagation: str = "Background",
    ) -> bool:
        """Whether the deletion was accepted; False if the object is gone, or has another uid than the one given.

        Raises errors.Conflict for any other conflict: nothing was deleted then.
        """
        call = Call("delete", resource, namespace, name)
        options: JSONObject = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        answer = await self._request(call, "DELETE", call.path, options)
        if answer.says_gone or (answer.code == 409 and uid is not None):
            return False
        answer.object()
        return True

    async def _request(
        self, call: Call, method: str, url: str, body: JSONObject | None = None, *, content_type: str = ""
    ) -> Answer:
        response = await self._send(call, (method, url, content_type), body, self._timeout)
        return Answer.read(call, response.status, await response.read(), response.headers.get("Retry-After", ""))

    async def _send(
        self, call: Call, sent: tuple[str, str, str], body: JSONObject | None, limits: aiohttp.ClientTimeout
    ) -> Any:
        """The answer to (method, URL, content type or ""), read to its end unless it is a watch's."""
        method, url, content_type = sent
        content_type = content_type or (MERGE_PATCH if method == "PATCH" else "application/json")
        code = NO_ANSWER
        try:
            # Inside the deadline too, because a login's plugin may hang.
            async with asyncio.timeout(self._timeout.total):
                accept = METADATA if method in _WRITES else "application/json"
                headers = {"Accept": accept, "Content-Type": content_type, **self._api.default_headers}
                await self._api.update_params_for_auth(headers, [], ["BearerToken"], url, method, body)
                response = await self._api.rest_client.request(
                    method, self._api.configuration.host + url, headers, body, _request_timeout=limits
                )
                if call.verb != "watch":
                    await response.read()
                code = response.status
        except (aiohttp.ClientError, OSError, ConfigException) as error:  # TimeoutError is an OSError
            what = "no answer in time" if isinstance(error, TimeoutError) else f"no answer: {error}"
            raise errors.Transient(f"{call}: {what[:MESSAGE_LIMIT]}") from error
        finally:
            self.calls[call.verb, str(call.resource), code] += 1
        return response
