"""`python -m hack.demo`: one work item from idea to release note on a real cluster, in about a minute once built.

It brings the cluster up if there is none, installs the operator, a Gitea and a small shop, creates a WorkItem and shows
how six agents carry it to a merged pull request, with one approval by a person and one rework after the review.
"""

from __future__ import annotations

import sys

from hack.cluster import choose, images, shell
from hack.cluster.errors import ClusterError
from hack.demo import claude, follow, forge, install, view
from hack.demo.cluster import Kubectl, Object
from hack.demo.errors import DemoError
from hack.gitea.client import Repository
from hack.gitea.errors import GiteaError
from hack.gitserver.bundle import BundleError


def main() -> int:
    """Run the demo; return the exit code."""
    started: list[str] = []
    try:
        _demo(started)
    except (DemoError, ClusterError, GiteaError, BundleError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nInterrupted. {_left(started)}", file=sys.stderr)
        return 130
    return 0


def _left(started: list[str]) -> str:
    if not started:
        return "Nothing was started yet; the same command goes on where this one stopped."
    return f"The item goes on without you; watch it with:\n  {started[0]}"


def _demo(started: list[str]) -> None:
    with_claude = claude.wanted()
    cluster = choose.current()
    cluster.up()
    kubectl = Kubectl(cluster.kubectl, install.NAMESPACE)
    built, gitea = images.build_and_load(cluster), images.gitea(cluster)
    install.operator(kubectl, built)
    install.namespace(kubectl)
    with forge.installed(kubectl, gitea).administrator() as admin:
        repository = forge.shop(kubectl, admin, install.DEMO / "repository")
        install.shop(kubectl)
        if with_claude:
            claude.prepare(kubectl, cluster, built)
        item = install.start(kubectl, repository)
        name: str = item["metadata"]["name"]
        started.append(kubectl.line("get", follow.KIND, name, "--watch"))
        shell.say(f"created WorkItem {name}: {item['spec']['title']}, on branch {item['spec']['branch']}")
        stages = [stage["name"] for stage in install.manifest("pipeline")["spec"]["stages"]]
        screen = follow.Screen(stages)
        patience = claude.STALL_SECONDS if with_claude else follow.STALL_SECONDS
        follower = follow.Follower(kubectl, name, follow.user_of(kubectl), screen, repository, patience)
        done = follower.to_the_end()
        install.check_operator(kubectl)
        _summary(kubectl, done, repository)


def _summary(kubectl: Kubectl, item: Object, repository: Repository) -> None:
    name, pull = item["metadata"]["name"], view.pull_request(item)
    print(f"\n{name} is done.\n")
    print(kubectl.run("get", "workitems"))
    print("\n".join([*view.gates_table(item), "", *view.runs_table(item), ""]))
    print(f"The branch {repository.ask('GET')['default_branch']} on Gitea, newest first:")
    print("\n".join(f"  {subject}" for subject in repository.subjects("main")))
    print(f"\n{view.merged(pull)}\n" if pull else "")
    print(next_steps(kubectl, name, pull))


def next_steps(kubectl: Kubectl, name: str, pull: Object | None) -> str:
    """Return what to try now, as commands that work as pasted in any POSIX shell, in any folder."""
    commit = ((pull or {}).get("mergeCommit") or "main")[:10]
    diff = " ".join(forge.git_arguments("diff", f"{commit}~1", commit, "--", "src", "README.md"))
    page = f"http://127.0.0.1:3000/{forge.OWNER}/{install.REPOSITORY}/pulls/{(pull or {}).get('number', '')}"
    reviewer = f"-l workitems.dev/item={name},workitems.dev/agent=reviewer"
    steps = {
        "everything the operator knows about it": f"k describe workitem {name}",
        f"the pull request, then at {page}": "k port-forward service/gitea 3000:80",
        "what the reviewer said, both times": f"k logs {reviewer} -c agent --tail=-1",
        "the code that was merged": f"k exec deployment/gitea -- {diff}",
        "a vague request: the analyst asks": f"k create -f {install.DEMO}/manifests/vague.yaml",
        "see it wait for an answer (NeedsInput)": "k get workitems --watch",
        "then what it asks, and the command that answers": "k describe workitem vague-",
    }
    lines = [f"  # {why}\n  {command}" for why, command in steps.items()]
    head = f'What to try next; paste the first line, then any other:\n  k() {{ {kubectl.line()} "$@"; }}'
    return "\n".join([head, *lines])


if __name__ == "__main__":
    sys.exit(main())
