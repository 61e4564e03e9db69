"""The command line: `python -m hack.cluster COMMAND`; see `_COMMANDS`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from hack.cluster import binaries, choose, claude, elevation, gitea, helm, images, packages, settings
from hack.cluster.errors import ClusterError
from hack.cluster.local import LocalCluster
from hack.cluster.model import Cluster

_COMMANDS = {
    "up": "make the cluster run; safe to repeat after a kill or a reboot",
    "down": "remove the cluster and all it made; the cache stays",
    "status": "one line; exit code 0 if it is ready, else 1",
    "env": "print what to `eval` in a shell to use the cluster",
    "test-tools": "install the Debian packages that the unit tests need, where they are missing",
    "gitea": "build Gitea, the forge of the tests and the demo, once for this machine; prints its folder",
    "helm": "find helm, or build it for the chart's tests and the demo, once for this machine; prints where it is",
    "kstatus": "build the reference for what GitOps tools read in a status, once for this machine; prints where it is",
    "gitea-image": "the image of Gitea for this cluster, built and loaded where it cannot be fetched; prints its name",
    "images": "build the operator's and the agent's image and load them; prints their names",
    "claude-image": "the same for the image with the Claude Code CLI; prints its name",
    "apprise-image": "the operator's image with the extra apprise; prints its name",
    "claude-cli": "fetch the Claude Code CLI for the tests, where it is missing; prints where it is",
    "restart-apiserver": "kill the local cluster's API server and start it again, as the tests of faults do",
    "stop-kubelet": "kill the local cluster's kubelet, as the test of a lost node does; up starts it again",
}


_PREPARES: dict[str, Callable[[Cluster], object]] = {
    "gitea": lambda _cluster: gitea.ensure(),
    "helm": lambda _cluster: helm.helm(settings.read().cache),
    "kstatus": lambda _cluster: binaries.build(binaries.KSTATUS, settings.read().cache) / "kstatus",
    "gitea-image": images.gitea,
    "claude-image": lambda cluster: f"CLAUDE_IMAGE={images.claude(cluster)}",
    "apprise-image": lambda cluster: f"APPRISE_IMAGE={images.apprise(cluster)}",
    "claude-cli": lambda _cluster: claude.folder(settings.read().cache) / "claude",
}
"""What makes one thing ready and prints where it is."""


def main() -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m hack.cluster", description="A Kubernetes cluster for the demo and the tests."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in _COMMANDS.items():
        commands.add_parser(name, help=text, description=text)
    command = parser.parse_args().command
    try:
        return _run(command, choose.current())
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: Interrupted; run the command again to go on where it stopped.", file=sys.stderr)
        return 130


def _run(command: str, cluster: Cluster) -> int:
    match command:
        case "up":
            cluster.up()
        case "down":
            cluster.down()
        case "status":
            return _status(cluster)
        case "test-tools":
            _test_tools()
        case "env":
            print("\n".join(_environment(cluster)))
        case "restart-apiserver":
            _ours(cluster).restart_api_server()
        case "stop-kubelet":
            _ours(cluster).stop_kubelet()
        case "images":
            built = images.build_and_load(cluster)
            print(f"OPERATOR_IMAGE={built.operator}\nAGENT_IMAGE={built.agent}")
        case _:
            print(_PREPARES[command](cluster))
    return 0


def _ours(cluster: Cluster) -> LocalCluster:
    if not isinstance(cluster, LocalCluster):
        raise ClusterError(f"The context {cluster.context} is not the local cluster: its parts are not ours to stop.")
    return cluster


def _test_tools() -> None:
    if not packages.tests_missing():
        return
    if elevation.is_root():
        packages.ensure_tests()
    else:
        elevation.again("test-tools")


def _status(cluster: Cluster) -> int:
    ready = cluster.is_ready()
    what = {"context": "the named cluster", "kind": "the kind cluster", "local": "the local cluster"}[cluster.kind]
    print(
        f"{what} (context {cluster.context}, kubeconfig {cluster.kubeconfig}) is {'ready' if ready else 'not running'}"
    )
    return 0 if ready else 1


def _environment(cluster: Cluster) -> list[str]:
    program = Path(cluster.kubectl[0])
    lines = [
        f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}",
        f"export KUBE_CONTEXT={shlex.quote(cluster.context)}",
        f"export HELM_KUBECONTEXT={shlex.quote(cluster.context)}",
    ]
    if program.parent != Path("/usr/bin"):
        lines.append(f"export PATH={shlex.quote(str(program.parent))}:$PATH")
    if cluster.kind == "local" and any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy")):
        lines.append(
            "export NO_PROXY=$NO_PROXY,10.200.0.0/22,10.96.0.0/16 no_proxy=$no_proxy,10.200.0.0/22,10.96.0.0/16"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
