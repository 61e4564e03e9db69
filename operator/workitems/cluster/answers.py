"""What was asked and what came back: an object, an event, or the sentence for whoever has to mend it.

The same status code wants different people: 403 is RBAC, a quota, an admission policy or a namespace on its way out;
404 is the object, or a kind that this server has not got. So every refusal becomes one of the project's errors here,
with what was asked, what the server said, and where there is one the next step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import pydantic_core

from workitems import errors
from workitems.cluster.resources import SECRETS, Resource

JSONObject = dict[str, Any]

MESSAGE_LIMIT = 500
MANAGED_FIELDS, STATUS = b',"managedFields":[', b',"status":{'


@dataclass(frozen=True, slots=True)
class Call:
    """What is being asked, for the request and for the sentence when it fails."""

    verb: str  # as RBAC names it
    resource: Resource
    namespace: str | None
    name: str = ""
    subresource: str = ""

    @property
    def path(self) -> str:
        """Of the URL. Raises ValueError where one object is meant and none is named."""
        # A name that vanishes from the URL would turn a DELETE of one object into one of the whole collection.
        if self.verb not in {"list", "watch", "create"} and self.name in {"", ".", ".."}:
            raise ValueError(f"{self.verb} {self.resource}: {self.name!r} names no object")
        # A collection is asked, and an object is created by a POST to its collection; its name stands in the body.
        return self.resource.path(self.namespace, "" if self.verb == "create" else self.name, self.subresource)

    @property
    def permission(self) -> str:
        """What RBAC has to grant for it, in words."""
        resource = f"{self.resource.plural}/{self.subresource}" if self.subresource else self.resource.plural
        return f"{self.verb} on {resource} in group {self.resource.group or 'core'}"

    def __str__(self) -> str:
        what = f"{self.resource}/{self.subresource}" if self.subresource else str(self.resource)
        where = "/".join(part for part in (self.namespace, self.name) if part)
        return f"{self.verb} {what} {where or 'in all namespaces'}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said to a call."""

    call: Call
    code: int
    body: JSONObject  # an empty one if the answer was no JSON object
    text: str = ""
    retry_after_seconds: float | None = None

    @classmethod
    def read(cls, call: Call, code: int, data: bytes, retry_after: str = "") -> Self:
        """From the body of a response and its header Retry-After."""
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
        return cls(call, code, body, text, float(seconds) if seconds else None)

    @property
    def reason(self) -> str:
        """In the API's one word, if it gave one."""
        return str(self.body.get("reason") or "")

    @property
    def message(self) -> str:
        """In the API's words, on one line."""
        return " ".join(str(self.body.get("message") or self.text).split())[:MESSAGE_LIMIT] or "no message"

    @property
    def says_gone(self) -> bool:
        """Whether it is a 404 about the object, and not about a kind that this server does not have (or a proxy's)."""
        about_the_object = "could not find the requested resource" not in self.message
        return self.code == 404 and self.body.get("kind") == "Status" and about_the_object

    def object(self) -> JSONObject:
        """The JSON object of a good answer. Raises errors.WorkItemsError for every other one."""
        if self.code < 300 and self.body:
            return self.body
        raise self.refusal()

    def refusal(self) -> errors.WorkItemsError:
        """What an answer that is no object means to the caller: wait, read again, or get a person."""
        code = self.code
        said = f"{self.call}: the API server answered {code}: {self.message}"
        if code < 300:
            # A truncated or foreign answer: something between us and the server. Not quoted: it may be half a Secret.
            return errors.Transient(f"{self.call}: the answer ({len(self.text)} characters) is no JSON object")
        if code == 409:
            return errors.Conflict(said)
        if code == 410:
            return errors.Expired(said)
        if code in (408, 429) or code >= 500:
            return errors.Transient(said, delay_seconds=self.retry_after_seconds)
        if code == 401:
            hint = "It does not accept the operator's credentials: check its ServiceAccount or kubeconfig"
            return errors.Permanent("Unauthorized", f"{said}. {hint}")
        if code == 403:
            return self._forbidden(said)
        if code == 404:
            hint = "Is the namespace there, and are the CRDs installed (kubectl get crd)?"
            return errors.Permanent("NotFound", f"{said}. {hint}")
        return errors.Permanent("Invalid" if code in (400, 413, 422) else "Refused", said)

    def _forbidden(self, said: str) -> errors.Permanent:
        causes = (self.body.get("details") or {}).get("causes") or ()
        if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
            return errors.Permanent("NamespaceTerminating", said)
        if "exceeded quota" in self.message:
            return errors.Permanent("QuotaExceeded", said)
        if "cannot" in self.message:
            hint = f"The operator's ServiceAccount lacks {self.call.permission}"
            if self.call.resource == SECRETS:
                hint += f": if the chart's rbac.secretNames names Secrets, add {self.call.name}"
            return errors.Permanent("Forbidden", f"{said}. {hint}")
        return errors.Permanent("Forbidden", said)


def event(call: Call, line: bytes) -> tuple[str, JSONObject]:
    """One line of a watch: its type and its object, without spec and managedFields where it has a status.

    Raises errors.WorkItemsError for a line that says that the watch is over, or says nothing.
    """
    try:
        told = pydantic_core.from_json(_without_spec(line))
        kind, body = str(told["type"]), told["object"]
    except (ValueError, TypeError, KeyError) as error:
        # A truncated or foreign answer, as in Answer.refusal.
        raise errors.Transient(f"{call}: a line of {len(line)} bytes is no event") from error
    if kind == "ERROR":
        raise Answer(call, int(body.get("code") or 500), body).refusal()
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
