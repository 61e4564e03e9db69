"""Repositories that admission must refuse, and edge cases that it must not."""

from __future__ import annotations

from tests.e2e.admission.cases import Bad, Good, Manifest, spec

KIND = "Repository"
URL = "write https://host/path, ssh://user@host/path or user@host:path"
UNION = "worktree takes exactly one of volumeClaimTemplate, emptyDir, claimName"


def url(address: str) -> Manifest:
    """A patch of spec.url."""
    return spec(url=address)


BAD = (
    Bad("no url", KIND, spec(url=None), "spec.url", "Required value"),
    Bad(
        "a password in the url", KIND, url("https://u:secret@git.example.com/x.git"), "spec.url", "belong in the Secret"
    ),
    Bad("a token in the url", KIND, url("https://token@git.example.com/x.git"), "spec.url", "belong in the Secret"),
    Bad("a password for ssh", KIND, url("ssh://u:secret@git.example.com/x.git"), "spec.url", "belong in the Secret"),
    Bad("a program as transport", KIND, url("ext::sh -c reboot"), "spec.url", URL),
    Bad("a file address", KIND, url("file:///etc"), "spec.url", URL),
    Bad("a local path", KIND, url("/srv/git/web.git"), "spec.url", URL),
    Bad("an option of ssh", KIND, url("-oProxyCommand=reboot"), "spec.url", URL),
    Bad("an option of ssh as host", KIND, url("ssh://-oProxyCommand=reboot/x"), "spec.url", URL),
    Bad("an option of ssh behind a user", KIND, url("git@-oProxyCommand=reboot:x"), "spec.url", URL),
    Bad("a url with a line break", KIND, url("https://git.example.com/x\ny"), "spec.url", URL),
    Bad("a url with an escaped line break", KIND, url("https://git.example.com/x%0ay"), "spec.url", "must not contain"),
    Bad("a url that climbs", KIND, url("https://git.example.com/a/../b"), "spec.url", "must not contain '..'"),
    Bad("two worktrees", KIND, spec(worktree={"emptyDir": {}}), "spec.worktree", UNION),
    Bad("no worktree", KIND, spec(worktree={"volumeClaimTemplate": None}), "spec.worktree", UNION),
    Bad(
        "a worktree on the node",
        KIND,
        spec(worktree={"hostPath": {"path": "/"}}),
        "spec.worktree.hostPath",
        "unknown field",
    ),
    Bad(
        "an access mode that nobody has",
        KIND,
        spec(worktree={"volumeClaimTemplate": {"accessModes": ["ReadOnlyMany"]}}),
        "accessModes[0]",
        "ReadWriteOncePod",
    ),
    Bad(
        "storage in words",
        KIND,
        spec(worktree={"volumeClaimTemplate": {"resources": {"requests": {"storage": "plenty"}}}}),
        "requests.storage",
        "Gi",
    ),
    Bad("a forge of no kind", KIND, spec(forge={"gitea": None}), "spec.forge", "exactly one of: gitea"),
    Bad("a tracker of no kind", KIND, spec(tracker={"plane": None}), "spec.tracker", "exactly one of: plane"),
    Bad("a notifier of no kind", KIND, spec(notify=[{}]), "spec.notify[0]", "exactly one of: telegram"),
    Bad(
        "a forge with a password in its address",
        KIND,
        spec(forge={"gitea": {"url": "https://u:p@git.example.com"}}),
        "spec.forge.gitea.url",
        "without user, password",
    ),
    Bad("a token in the clear", KIND, spec(forge={"gitea": {"token": "abc"}}), "spec.forge.gitea.token", "object"),
    Bad(
        "a chat's name",
        KIND,
        spec(notify=[{"telegram": {"chatId": "team", "token": {"secretName": "a", "key": "b"}}}]),
        "spec.notify[0].telegram.chatId",
        "in quotes",
    ),
    Bad(
        "too many notifiers",
        KIND,
        spec(notify=[{"telegram": {"chatId": "1", "token": {"secretName": "a", "key": "b"}}}] * 21),
        "spec.notify",
        "20 items",
    ),
    Bad("a bot's name with a mark-up", KIND, spec(commit={"name": "bot <x>"}), "spec.commit.name", "without '<'"),
    Bad("a bot without address", KIND, spec(commit={"email": "bot"}), "spec.commit.email", "bot@example.com"),
    Bad("a Secret's path", KIND, spec(credentials={"secretName": "../x"}), "secretName", "should match"),
    Bad("a default branch like an option", KIND, spec(defaultBranch="--x"), "spec.defaultBranch", "branch name"),
)

GOOD = (
    Good("ssh with a port", KIND, url("ssh://git@git.example.com:2222/shop/web.git")),
    Good("an scp-like address", KIND, url("git@git.example.com:shop/web.git")),
    Good("plain http inside the cluster", KIND, url("http://gitea.gitea.svc:3000/shop/web.git")),
    Good("the worktree's default", KIND, spec(worktree=None)),
    Good("nothing kept", KIND, spec(worktree={"volumeClaimTemplate": None, "emptyDir": {}})),
    Good("one shared claim", KIND, spec(worktree={"volumeClaimTemplate": None, "claimName": "worktrees"})),
    Good("neither forge nor tracker nor notifiers", KIND, spec(forge=None, tracker=None, notify=None)),
)
