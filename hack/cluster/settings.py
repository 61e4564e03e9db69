"""Where things are kept, and what the person chose: the only reader of `WORKITEMS_*` variables in this package.

The cache holds what is slow to make and never changes (binaries, base images) and must outlive a fresh HOME; the state
is one cluster's life (keys, etcd, containers, logs) and is gone after `down`. Neither lies in the checkout.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

CACHE_FOR_ROOT = Path("/var/cache/workitem-operator")
STATE_FOR_ROOT = Path("/var/lib/workitem-operator")
# Sockets: their paths must stay short (108 bytes), so they have a place of their own.
RUN = Path("/run/workitem-operator")
OFFICIAL_GITEA = "docker.io/gitea/gitea:1.26.0-rootless"
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Settings:
    """Folders and choices; the images matter only for an explicitly named context."""

    cache: Path
    state: Path
    context: str | None = None
    operator_image: str | None = None
    agent_image: str | None = None
    claude_image: str | None = None
    apprise_image: str | None = None
    gitea_image: str = OFFICIAL_GITEA

    def for_root(self) -> Settings:
        """The same with root's folders unless a person named others: the local cluster always belongs to root."""
        return replace(
            self,
            cache=_folder("WORKITEMS_CACHE_DIR", CACHE_FOR_ROOT),
            state=_folder("WORKITEMS_STATE_DIR", STATE_FOR_ROOT),
        )


def read() -> Settings:
    """The settings of this process."""
    cache, state = CACHE_FOR_ROOT, STATE_FOR_ROOT
    if os.geteuid() != 0:
        home = Path.home()
        cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "workitem-operator"
        state = Path(os.environ.get("XDG_STATE_HOME") or home / ".local/state") / "workitem-operator"
    return Settings(
        cache=_folder("WORKITEMS_CACHE_DIR", cache),
        state=_folder("WORKITEMS_STATE_DIR", state),
        context=os.environ.get("WORKITEMS_CONTEXT") or None,
        operator_image=os.environ.get("WORKITEMS_OPERATOR_IMAGE") or None,
        agent_image=os.environ.get("WORKITEMS_AGENT_IMAGE") or None,
        claude_image=os.environ.get("WORKITEMS_CLAUDE_IMAGE") or None,
        apprise_image=os.environ.get("WORKITEMS_APPRISE_IMAGE") or None,
        gitea_image=os.environ.get("WORKITEMS_GITEA_IMAGE") or OFFICIAL_GITEA,
    )


def _folder(variable: str, default: Path) -> Path:
    return Path(os.environ.get(variable) or default).absolute()
