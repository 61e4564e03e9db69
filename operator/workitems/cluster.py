"""The operator's only way to the API server: a few calls, raw JSON, every failure in the project's error tree.

`kubernetes.aio` contributes what is tedious and easy to get wrong: login (service account, kubeconfig, exec plugins,
tokens that are renewed in their files) and TLS. Its models are skipped: they cost more CPU than the request itself,
and the operator's own models in `workitems.api` say what is read. Nothing is cached and nothing is retried here:
truth is a live read, and `queue.py` alone decides when to try again.
"""

from __future__ import annotations

import asyncio
import collections
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote, urlencode

import aiohttp
import pydantic_core
from kubernetes.aio.client import ApiClient
from kubernetes.aio.config import ConfigException

import workitems
from workitems import errors, login
from workitems.api.common import GROUP, VERSION
from workitems.settings import Settings

JSONObject = dict[str, Any]

CONNECTIONS = 32
"""Requests under way at the same time; the others wait for a connection."""
PAGE = 250
"""Objects a page of a list: a page of WorkItems with long descriptions stays below 20 MB."""
WATCH_SECONDS = 300
"""After which the server is asked to end a watch, so that one that died in silence is noticed some time later."""
WATCH_GRACE_SECONDS = 30
MESSAGE_LIMIT = 500
MERGE_PATCH = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"  # JSON is YAML
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
"""What writes ask for: nobody reads more of an answer to a write, and most of a Job is what we have just sent."""
_WRITES = frozenset({"POST", "PUT", "PATCH"})
MANAGED_FIELDS, STATUS = b',"managedFields":[', b',"status":{'
NO_ANSWER = 0
"""The code under which a request without any answer is counted."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object, as URLs name it."""

    group: str
    version: str
    plural: str

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """URL path of an object, or of the collection if there is no name. No namespace: all of them, or none."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = (*(("namespaces", namespace) if namespace else ()), self.plural, name, subresource)
        return "/".join((root, *(quote(part, safe="") for part in parts if part)))


WORKITEMS = Resource(GROUP, VERSION, "workitems")
UNFINISHED = "status.phase!=Done,status.phase!=Aborted"
"""Field selector of the WorkItems that are not over: what is over costs the operator nothing."""
UNDELIVERED = "status.outbox=Pending"
"""Field selector of the WorkItems, over or not, that still have something to tell the outside."""
REPOSITORIES = Resource(GROUP, VERSION, "repositories")
PIPELINES = Resource(GROUP, VERSION, "pipelines")
DECISIONS = Resource(GROUP, VERSION, "decisions")
JOBS = Resource("batch", "v1", "jobs")
PODS = Resource("", "v1", "pods")
PERSISTENT_VOLUME_CLAIMS = Resource("", "v1", "persistentvolumeclaims")
CONTROLLER_REVISIONS = Resource("apps", "v1", "controllerrevisions")
SECRETS = Resource("", "v1", "secrets")
CONFIG_MAPS = Resource("", "v1", "configmaps")
EVENTS = Resource("", "v1", "events")
NAMESPACES = Resource("", "v1", "namespaces")


@dataclass(frozen=True, slots=True)
class _Call:
    """What is being asked, for the request and for the sentence when it fails."""

    verb: str  # as RBAC names it
    resource: Resource
    namespace: str | None
    name: str = ""
    subresource: str = ""

    @property
    def path(self) -> str:
        # A name that vanishes from the URL would turn a DELETE of one object into one of the whole collection.
        if self.verb not in {"list", "watch", "create"} and self.name in {"", ".", ".."}:
            raise ValueError(f"{self.verb} {self.resource}: {self.name!r} names no object")
        # A collection is asked, and an object is created by a POST to its collection; its name stands in the body.
        return self.resource.path(self.namespace, "" if self.verb == "create" else self.name, self.subresource)

    @property
    def permission(self) -> str:
        resource = f"{self.resource.plural}/{self.subresource}" if self.subresource else self.resource.plural
        return f"{self.verb} on {resource} in group {self.resource.group or 'core'}"

    def __str__(self) -> str:
        what = f"{self.resource}/{self.subresource}" if self.subresource else str(self.resource)
        where = "/".join(part for part in (self.namespace, self.name) if part)
        return f"{self.verb} {what} {where or 'in all namespaces'}"


@dataclass(frozen=True, slots=True)
class _Answer:
    code: int
    body: JSONObject  # an empty one if the answer was no JSON object
    text: str
    retry_after_seconds: float | None

    @property
    def reason(self) -> str:
        return str(self.body.get("reason") or "")

    @property
    def message(self) -> str:
        return " ".join(str(self.body.get("message") or self.text).split())[:MESSAGE_LIMIT] or "no message"

    @property
    def says_gone(self) -> bool:
        """Whether a 404 is about the object, and not about a kind that this server does not have (or a proxy)."""
        return self.body.get("kind") == "Status" and "could not find the requested resource" not in self.message


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
        call = _Call("get", resource, namespace, name)
        answer = await self._request(call, "GET", call.path)
        if answer.code == 404 and answer.says_gone:
            return None
        return _object(call, answer)

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
        call = _Call("list", resource, namespace)
        query = {"limit": str(limit), "fieldSelector": field_selector, "labelSelector": label_selector, "continue": ""}
        while True:
            url = f"{call.path}?{urlencode({key: value for key, value in query.items() if value})}"
            page = _object(call, await self._request(call, "GET", url))
            for item in page.get("items") or ():
                yield item
            query["continue"] = (page.get("metadata") or {}).get("continue") or ""
            if not query["continue"]:
                return

    async def version(self, resource: Resource, namespace: str | None) -> str:
        """The resourceVersion of a collection as it is now: where a watch begins that wants to know what comes."""
        call = _Call("list", resource, namespace)
        page = _object(call, await self._request(call, "GET", f"{call.path}?limit=1"))
        return str(page["metadata"]["resourceVersion"])

    async def watch(
        self, resource: Resource, namespace: str | None, *, label_selector: str, since: str
    ) -> AsyncIterator[tuple[str, JSONObject]]:
        """(ADDED, MODIFIED, DELETED or BOOKMARK, object) for what has changed after `since`, for some minutes.

        An object that has them comes without `metadata.managedFields` and without `spec`.
        Ends when the server ends it, which it does now and then: go on from the last object's resourceVersion.
        Raises errors.Expired where the server has forgotten `since`.
        """
        call = _Call("watch", resource, namespace)
        query = {"watch": "true", "resourceVersion": since, "allowWatchBookmarks": "true"}
        query |= {"timeoutSeconds": str(WATCH_SECONDS), "labelSelector": label_selector}
        # Longer silence than the server was asked for is a connection that is dead without anybody having said so.
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._timeout.sock_connect, sock_read=WATCH_SECONDS + WATCH_GRACE_SECONDS
        )
        response = await self._send(call, ("GET", f"{call.path}?{urlencode(query)}", ""), None, timeout)
        try:
            if response.status != 200:
                raise _refusal(call, _answer(response.status, await response.read(), ""))
            rest = b""
            async for chunk in response.response.content.iter_any():
                # An object may be larger than any line that aiohttp is ready to read.
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield _event(call, line)
        except (aiohttp.ClientError, OSError) as error:
            raise errors.Transient(f"{call}: {str(error)[:MESSAGE_LIMIT] or type(error).__name__}") from error
        finally:
            response.response.close()

    async def create(self, resource: Resource, namespace: str | None, body: JSONObject) -> JSONObject | None:
        """Metadata of the created object; None if one of this name exists already (whoever made it)."""
        call = _Call("create", resource, namespace, body["metadata"].get("name", ""))
        answer = await self._request(call, "POST", call.path, body)
        # The only other 409 of a POST is "Conflict": a quota that was changed at the same moment.
        if answer.code == 409 and answer.reason != "Conflict":
            return None
        return _object(call, answer)

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
        call = _Call("update", resource, metadata.get("namespace"), metadata["name"], subresource)
        answer = await self._request(call, "PUT", call.path, body)
        if answer.code == 404 and answer.says_gone:
            raise errors.Conflict(f"{call}: the object is gone")
        return _object(call, answer)

    async def merge_patch(
        self, resource: Resource, namespace: str | None, name: str, patch: JSONObject, *, subresource: str = ""
    ) -> JSONObject | None:
        """Metadata of the object after an RFC 7386 merge patch; None if there is none."""
        call = _Call("patch", resource, namespace, name, subresource)
        answer = await self._request(call, "PATCH", call.path, patch)
        if answer.code == 404 and answer.says_gone:
            return None
        return _object(call, answer)

    async def apply(self, resource: Resource, namespace: str | None, body: JSONObject, *, manager: str) -> JSONObject:
        """Metadata of the object after a server-side apply by `manager`: created where there is none.

        Raises errors.Conflict if somebody else owns a field that it would change.
        """
        call = _Call("patch", resource, namespace, body["metadata"]["name"])
        url = f"{call.path}?{urlencode({'fieldManager': manager})}"
        return _object(call, await self._request(call, "PATCH", url, body, content_type=APPLY))

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
        call = _Call("delete", resource, namespace, name)
        options: JSONObject = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        answer = await self._request(call, "DELETE", call.path, options)
        if (answer.code == 404 and answer.says_gone) or (answer.code == 409 and uid is not None):
            return False
        _object(call, answer)
        return True

    async def _request(
        self, call: _Call, method: str, url: str, body: JSONObject | None = None, *, content_type: str = ""
    ) -> _Answer:
        response = await self._send(call, (method, url, content_type), body, self._timeout)
        return _answer(response.status, await response.read(), response.headers.get("Retry-After", ""))

    async def _send(
        self, call: _Call, sent: tuple[str, str, str], body: JSONObject | None, limits: aiohttp.ClientTimeout
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


def _event(call: _Call, line: bytes) -> tuple[str, JSONObject]:
    """One line of a watch. Raises errors.WorkItemsError for one that says that the watch is over."""
    try:
        event = pydantic_core.from_json(_without_spec(line))
        kind, body = str(event["type"]), event["object"]
    except (ValueError, TypeError, KeyError) as error:
        # A truncated or foreign answer, as in _refusal.
        raise errors.Transient(f"{call}: a line of {len(line)} bytes is no event") from error
    if kind == "ERROR":
        raise _refusal(call, _Answer(int(body.get("code") or 500), body, "", None))
    return kind, body


def _without_spec(line: bytes) -> bytes:
    """A line of a watch without what nobody here reads of an object with a status, and which is most of it.

    The API server writes the fields in the order of Kubernetes' own types: managedFields end the metadata, spec follows
    and then status. A quote inside of a string is escaped, so neither of the two can be part of one. What is in any
    other order stays as it is.
    """
    start = line.find(MANAGED_FIELDS)
    end = line.find(STATUS, start)
    return line if start < 0 or end < 0 else line[:start] + b"}" + line[end:]


def escaped(value: str) -> str:
    """A value in a field selector: a branch may be called `a,b=c`."""
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")


def _answer(code: int, data: bytes, retry_after: str) -> _Answer:
    try:
        # Three times as fast as the standard library's.
        parsed = pydantic_core.from_json(data)
    except ValueError:
        parsed = None
    text = "" if isinstance(parsed, dict) else data.decode(errors="replace")
    body: JSONObject = parsed if isinstance(parsed, dict) else {}
    seconds: Any = retry_after if retry_after.isdecimal() else None
    if seconds is None and code >= 400:
        seconds = (body.get("details") or {}).get("retryAfterSeconds")
    return _Answer(code, body, text, float(seconds) if seconds else None)


def _object(call: _Call, answer: _Answer) -> JSONObject:
    """The JSON object of a good answer; every other one raises."""
    if answer.code < 300 and answer.body:
        return answer.body
    raise _refusal(call, answer)


def _refusal(call: _Call, answer: _Answer) -> errors.WorkItemsError:
    code = answer.code
    said = f"{call}: the API server answered {code}: {answer.message}"
    if code < 300:
        # A truncated or foreign answer: something between us and the server. Not quoted: it may be half a Secret.
        return errors.Transient(f"{call}: the answer ({len(answer.text)} characters) is no JSON object")
    if code == 409:
        return errors.Conflict(said)
    if code == 410:
        return errors.Expired(said)
    if code in (408, 429) or code >= 500:
        return errors.Transient(said, delay_seconds=answer.retry_after_seconds)
    if code == 401:
        hint = "It does not accept the operator's credentials: check its ServiceAccount or kubeconfig"
        return errors.Permanent("Unauthorized", f"{said}. {hint}")
    if code == 403:
        return _forbidden(call, answer, said)
    if code == 404:
        hint = "Is the namespace there, and are the CRDs installed (kubectl get crd)?"
        return errors.Permanent("NotFound", f"{said}. {hint}")
    return errors.Permanent("Invalid" if code in (400, 413, 422) else "Refused", said)


def _forbidden(call: _Call, answer: _Answer, said: str) -> errors.Permanent:
    """403 has different meanings that need different people: RBAC, a quota, an admission policy."""
    causes = (answer.body.get("details") or {}).get("causes") or ()
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        return errors.Permanent("NamespaceTerminating", said)
    if "exceeded quota" in answer.message:
        return errors.Permanent("QuotaExceeded", said)
    if "cannot" in answer.message:
        hint = f"The operator's ServiceAccount lacks {call.permission}"
        if call.resource == SECRETS:
            hint += f": if the chart's rbac.secretNames names Secrets, add {call.name}"
        return errors.Permanent("Forbidden", f"{said}. {hint}")
    return errors.Permanent("Forbidden", said)
