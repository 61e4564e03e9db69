"""What the API server remembers, and what it refuses: the part of Kubernetes that the operator depends on.

kmock's server keeps plain dicts: it ignores resourceVersion, preconditions, selectors, subresources and schemas
(read in its source, 0.8). An operator whose correctness rests on exactly these cannot be tested against that, so this
is a store of our own. It does what a real API server does (checked against 1.34's source or by the e2e tests) or
refuses; whatever it does not know it refuses too.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from workitems.api import Decision, Pipeline, Repository, WorkItem
from workitems.api.common import Model

JSON = dict[str, Any]
CRDS = Path(__file__).parents[2] / "crds"
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")


@dataclass(frozen=True)
class Kind:
    """One kind of object. `model`: a custom resource, with a status subresource."""

    group: str
    version: str
    plural: str
    name: str
    fields: tuple[str, ...] = ()
    """Selectable beside metadata.name and metadata.namespace."""
    model: type[Model] | None = None
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


def _custom(plural: str, name: str, model: type[Model], *fields: str) -> Kind:
    return Kind("workitems.dev", "v1alpha1", plural, name, fields, model)


WORKITEMS = _custom(
    "workitems",
    "WorkItem",
    WorkItem,
    "spec.repository",
    "status.branch",
    "status.phase",
    "status.outbox",
    "status.head",
)
DECISIONS = _custom("decisions", "Decision", Decision, "spec.workItem")
PIPELINES = _custom("pipelines", "Pipeline", Pipeline)
REPOSITORIES = _custom("repositories", "Repository", Repository)
JOBS = Kind("batch", "v1", "jobs", "Job", ("status.successful",))
PODS = Kind("", "v1", "pods", "Pod", ("spec.nodeName", "status.phase"))
CLAIMS = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
SECRETS = Kind("", "v1", "secrets", "Secret", ("type",))
CONFIG_MAPS = Kind("", "v1", "configmaps", "ConfigMap")
NAMESPACES = Kind("", "v1", "namespaces", "Namespace", ("status.phase",), namespaced=False)
REVISIONS = Kind("apps", "v1", "controllerrevisions", "ControllerRevision")
EVENTS = Kind("", "v1", "events", "Event", ("reason", "type"))
KINDS = (
    WORKITEMS,
    DECISIONS,
    PIPELINES,
    REPOSITORIES,
    JOBS,
    PODS,
    CLAIMS,
    SECRETS,
    CONFIG_MAPS,
    NAMESPACES,
    REVISIONS,
    EVENTS,
)


class Refused(Exception):  # noqa: N818 - an answer
    """What the API server says instead of doing it."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message

    @property
    def body(self) -> JSON:
        """The Status object."""
        said = {"code": self.code, "reason": self.reason, "message": self.message}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", **said}


@dataclass(frozen=True)
class Change:
    """One write. Objects are never changed in place. No `old`: created; no `new`: deleted."""

    version: int
    kind: Kind
    old: JSON | None
    new: JSON | None


Key = tuple[Kind, str, str]
Selector = Callable[[JSON], bool]


@dataclass
class Store:
    """All objects and their history."""

    clock: Callable[[], datetime]
    objects: dict[Key, JSON] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    listeners: list[Callable[[Change], None]] = field(default_factory=list)
    """Called after each write; they must not write themselves but later."""
    version: int = 100
    oldest: int = 0
    """Watches from before this resourceVersion are answered by 410."""
    _uids: int = 0

    # --- reading

    def find(self, kind: Kind, namespace: str, name: str) -> JSON | None:
        return self.objects.get((kind, namespace, name))

    def get(self, kind: Kind, namespace: str, name: str) -> JSON:
        body = self.find(kind, namespace, name)
        if body is None:
            raise Refused(404, "NotFound", f'{kind} "{name}" not found')
        return body

    def list(self, kind: Kind, namespace: str | None = None) -> Iterator[JSON]:
        """In the order of their names, as etcd has them."""
        for (other, where, name), body in sorted(self.objects.items(), key=lambda entry: entry[0][1:]):
            if other == kind and namespace in (None, where) and name:
                yield body

    # --- writing

    def create(self, kind: Kind, namespace: str, body: JSON) -> JSON:
        metadata = dict(body.get("metadata") or {})
        self._check_type(kind, body)
        if metadata.get("namespace", namespace) != namespace:
            raise Refused(400, "BadRequest", "the namespace of the provided object does not match the request")
        if kind.namespaced and self.find(NAMESPACES, "", namespace) is None:
            raise Refused(404, "NotFound", f'namespaces "{namespace}" not found')
        if metadata.get("resourceVersion"):
            raise Refused(400, "BadRequest", "resourceVersion should not be set on objects to be created")
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = f"{metadata['generateName']}{self._uids:05x}"
        _check_metadata(kind, metadata)
        name = metadata["name"]
        if (kind, namespace, name) in self.objects:
            raise Refused(409, "AlreadyExists", f'{kind} "{name}" already exists')
        self._uids += 1
        metadata |= {
            "uid": f"{self._uids:08d}-0000-4000-8000-000000000000",
            "creationTimestamp": self.clock().strftime("%Y-%m-%dT%H:%M:%SZ"),
            "generation": 1,
            **({"namespace": namespace} if kind.namespaced else {}),
        }
        body = {**body, "metadata": metadata}
        if kind.model is not None:
            body.pop("status", None)
        return self._commit(kind, None, self._admit(kind, body))

    def replace_status(self, kind: Kind, namespace: str, name: str, body: JSON) -> JSON:
        """PUT …/status."""
        self._check_type(kind, body)
        old, metadata = self.get(kind, namespace, name), body.get("metadata") or {}
        if (metadata.get("name"), metadata.get("namespace", namespace)) != (name, namespace):
            raise Refused(400, "BadRequest", "the name of the object does not match the name on the URL")
        if not metadata.get("resourceVersion"):
            message = f'{kind} "{name}" is invalid: metadata.resourceVersion: must be specified for an update'
            raise Refused(422, "Invalid", message)
        self._check_preconditions(kind, old, metadata)
        return self._commit(kind, old, self._admit(kind, {**old, "status": body.get("status")}, old))

    def patch(self, kind: Kind, namespace: str, name: str, patch: JSON, *, subresource: str = "") -> JSON:
        """An RFC 7386 merge patch."""
        old = self.get(kind, namespace, name)
        self._check_preconditions(kind, old, patch.get("metadata") or {})
        new: JSON = _merge(old, patch)
        if new["metadata"].get("name") != name:
            raise Refused(400, "BadRequest", "the name of the object does not match the name on the URL")
        if subresource == "status":
            new = {**old, "status": new.get("status")}
        elif "status" in old:
            new["status"] = old["status"]
        else:
            new.pop("status", None)
        for fixed in ("uid", "creationTimestamp", "generation", "deletionTimestamp"):
            new["metadata"] = {k: v for k, v in new["metadata"].items() if k != fixed}
            if fixed in old["metadata"]:
                new["metadata"][fixed] = old["metadata"][fixed]
        _check_metadata(kind, new["metadata"])
        if kind is JOBS and _without_ttl(new) != _without_ttl(old):
            raise Refused(422, "Invalid", f'Job.batch "{name}" is invalid: spec: field is immutable')
        if kind.model is not None and new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] += 1
        return self._commit(kind, old, self._admit(kind, new, old))

    def delete(self, kind: Kind, namespace: str, name: str, options: JSON | None = None) -> JSON:
        old = self.get(kind, namespace, name)
        self._check_preconditions(kind, old, (options or {}).get("preconditions") or {})
        if (options or {}).get("propagationPolicy", "Background") != "Background":
            raise Refused(400, "BadRequest", "this stand-in only knows propagationPolicy Background")
        # Pods end gracefully: somebody who knows that they have ended removes them.
        if old["metadata"].get("finalizers") or (kind is PODS and old.get("status", {}).get("phase") == "Running"):
            stamp = self.clock().strftime("%Y-%m-%dT%H:%M:%SZ")
            return self._commit(kind, old, {**old, "metadata": {**old["metadata"], "deletionTimestamp": stamp}})
        self.remove(kind, old)
        return old

    def remove(self, kind: Kind, body: JSON) -> None:
        """Gone for good; a kubelet does this for a pod."""
        self._commit(kind, body, None)

    def put(self, kind: Kind, body: JSON) -> JSON:
        """What a controller or an older schema left there, unchecked."""
        return self._commit(kind, self.find(kind, body["metadata"]["namespace"], body["metadata"]["name"]), body)

    def copy(self) -> Store:
        """Everything as it is now, and nobody who listens. Objects are never changed in place."""
        return replace(self, objects=dict(self.objects), changes=list(self.changes), listeners=[])

    def compact(self) -> None:
        """Forget the history, as etcd does every five minutes."""
        self.oldest = self.version

    # --- checks

    def _check_type(self, kind: Kind, body: JSON) -> None:
        if (body.get("apiVersion"), body.get("kind")) != (kind.api_version, kind.name):
            found = f"{body.get('apiVersion')}, {body.get('kind')}"
            raise Refused(400, "BadRequest", f"{found} does not match the expected {kind.api_version}, {kind.name}")

    def _check_preconditions(self, kind: Kind, old: JSON, wanted: JSON) -> None:
        mine = old["metadata"]
        for what in ("uid", "resourceVersion"):
            if wanted.get(what) and wanted[what] != mine[what]:
                message = f'Operation cannot be fulfilled on {kind} "{mine["name"]}": the {what} is {mine[what]}'
                raise Refused(409, "Conflict", message)

    def _admit(self, kind: Kind, body: JSON, old: JSON | None = None) -> JSON:
        """Prune, default and validate by the CRD; what is wrong in `old` already may stay (CRDValidationRatcheting)."""
        if kind is EVENTS:
            _check_event(body)
        if kind.model is None:
            return body
        admitted: JSON = {k: body[k] for k in ("apiVersion", "kind", "metadata")}
        for part, schema in _schema(kind)["properties"].items():
            if part in ("spec", "status") and body.get(part) is not None:
                admitted[part] = _structural(schema, body[part])
            elif part == "status" and "default" in schema:
                admitted[part] = schema["default"]  # set when it is read, but nobody can tell
        try:
            kind.model.model_validate(admitted)
        except ValidationError as error:
            if old is not None and all(_stays(entry, old, admitted) for entry in error.errors()):
                return admitted
            message = f'{kind.name} "{body["metadata"]["name"]}" is invalid: {error}'
            raise Refused(422, "Invalid", message) from error
        return admitted

    def _commit(self, kind: Kind, old: JSON | None, new: JSON | None) -> JSON:
        if new is not None and old is not None and new == old:
            return old  # a write that changes nothing is none: no new version, no event
        self.version += 1
        shown = new if new is not None else old
        if shown is None:
            raise AssertionError("a change has an object")
        shown = {**shown, "metadata": {**shown["metadata"], "resourceVersion": str(self.version)}}
        key = (kind, shown["metadata"].get("namespace", ""), shown["metadata"]["name"])
        finalized = new is not None and "deletionTimestamp" in shown["metadata"] and kind is not PODS
        if new is None or (finalized and not shown["metadata"].get("finalizers")):
            del self.objects[key]
            change = Change(self.version, kind, shown, None)
        else:
            self.objects[key] = shown
            change = Change(self.version, kind, old, shown)
        self.changes.append(change)
        for listener in tuple(self.listeners):
            listener(change)
        return shown


def _stays(error: Any, old: JSON, new: JSON) -> bool:
    """Whether what is wrong was there before. That a field is missing is wrong with the object that lacks it."""
    path = error["loc"][:-1] if error["type"] == "missing" else error["loc"]
    return bool(path) and _at(old, path) == _at(new, path)


def _at(value: Any, path: tuple[int | str, ...]) -> Any:
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return None
    return value


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


def _without_ttl(job: JSON) -> JSON:
    return {key: value for key, value in job["spec"].items() if key not in ("ttlSecondsAfterFinished", "suspend")}


def _check_metadata(kind: Kind, metadata: JSON) -> None:
    name = metadata.get("name") or ""
    longest = 63 if kind in (JOBS, WORKITEMS, NAMESPACES) else 253
    if not SUBDOMAIN.fullmatch(name) or len(name) > longest:
        raise Refused(422, "Invalid", f'{kind.name} "{name}" is invalid: metadata.name: Invalid value')
    for label, value in (metadata.get("labels") or {}).items():
        if not isinstance(value, str) or len(value) > 63 or not LABEL_VALUE.fullmatch(value):
            raise Refused(422, "Invalid", f'{kind.name} "{name}" is invalid: metadata.labels: {label}: {value!r}')
    for reference in metadata.get("ownerReferences") or ():
        if not all(reference.get(part) for part in ("apiVersion", "kind", "name", "uid")):
            raise Refused(422, "Invalid", f'{kind.name} "{name}" is invalid: metadata.ownerReferences: Required value')


def _check_event(body: JSON) -> None:
    """pkg/apis/core/validation/events.go, as far as events of core/v1 are concerned."""
    about, metadata = body.get("involvedObject") or {}, body["metadata"]
    if about.get("namespace") != metadata["namespace"]:
        raise Refused(422, "Invalid", "involvedObject.namespace: Invalid value: does not match event.namespace")
    if len(body.get("message", "")) > 1024 or len(body.get("reason", "")) > 128:
        raise Refused(422, "Invalid", "message or reason: Too long")


@functools.cache
def _schema(kind: Kind) -> JSON:
    crd = yaml.load((CRDS / f"{kind.group}_{kind.plural}.yaml").read_text(), yaml.CSafeLoader)
    schema: JSON = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _structural(schema: JSON, value: Any) -> Any:
    """Unknown fields pruned and defaults set, as the API server does on every write."""
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [_structural(schema["items"], entry) for entry in value]
    if not isinstance(value, dict) or schema.get("x-kubernetes-preserve-unknown-fields"):
        return value
    if isinstance(schema.get("additionalProperties"), dict):
        return {key: _structural(schema["additionalProperties"], entry) for key, entry in value.items()}
    known = schema.get("properties") or {}
    with_defaults = {**{k: s["default"] for k, s in known.items() if "default" in s and k not in value}, **value}
    return {key: _structural(known[key], entry) for key, entry in with_defaults.items() if key in known}
