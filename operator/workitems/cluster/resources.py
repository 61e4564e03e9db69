"""Which kinds of objects the operator works with, and how the API server's URLs and selectors name them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from workitems.api.common import GROUP, VERSION


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


def escaped(value: str) -> str:
    """A value in a field selector: a branch may be called `a,b=c`."""
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
