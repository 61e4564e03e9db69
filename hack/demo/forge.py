"""The demo's forge: a Gitea with the shop's repository, and the operator's bot there."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from hack.cluster import shell
from hack.demo import install
from hack.gitea import incluster, manifests
from hack.gitea.client import Client, Repository

if TYPE_CHECKING:
    from pathlib import Path

    from hack.demo.cluster import Kubectl

OWNER = "ada"
BOT = "workitem-bot"
SECRET = "shop-gitea"  # noqa: S105 - the name of a Secret, not one
WEBHOOK_SECRET = "shop-webhooks"  # noqa: S105


def installed(kubectl: Kubectl, image: str) -> incluster.Installation:
    """Install Gitea and wait until it is ready; an earlier installation's content stays."""
    shell.say(f"installing Gitea in namespace {kubectl.namespace}")
    server = manifests.Gitea(kubectl.namespace, image, hooks=(install.WEBHOOKS,))
    installation = incluster.Installation(kubectl, server)
    installation.install()
    install.rollout(kubectl, server.name)
    return installation


def shop(kubectl: Kubectl, admin: Client, content: Path) -> Repository:
    """The shop's repository with `content`, and the Secret of a bot that may write to it; both made once."""
    if admin.send("GET", f"/users/{OWNER}").status_code == 404:
        admin.create_user(OWNER)
    repository = admin.repository(OWNER, install.REPOSITORY)
    if repository.send("GET").status_code == 404:
        # Public inside this Gitea, so that its pages can be read without a password; pushing takes one all the same.
        admin.ask("POST", f"/admin/users/{OWNER}/repos", {"name": install.REPOSITORY, "private": False})
        repository.push(content)
    elif repository.restore(content, "The shop as the demo begins with it"):
        shell.say("the shop has the feature of an earlier demo: taken out of main again")
    if kubectl.find("secret", SECRET) is None:
        bot = incluster.bot(admin, BOT, repository, "admin")  # which registering a webhook takes
        kubectl.apply([incluster.credentials(kubectl.namespace, SECRET, bot)])
    if kubectl.find("secret", WEBHOOK_SECRET) is None:
        metadata = {"name": WEBHOOK_SECRET, "namespace": kubectl.namespace}
        data = {"gitea": secrets.token_hex(32)}
        kubectl.apply([{"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}])
    return repository


def git_arguments(*arguments: str) -> list[str]:
    """The command that runs git on the server's own copy, inside Gitea's container."""
    return ["git", "-C", f"{manifests.DATA}/repositories/{OWNER}/{install.REPOSITORY}.git", *arguments]
