"""The network of the local cluster's only node: bridge, firewall rules, kernel settings; and removing all of it.

Everything listens on the bridge's own address, so that pods reach it and the machine's other networks do not.
Masquerading is one rule of ours instead of a chain per pod from the CNI plugin: pods start faster, and there is one
thing to remove.
"""

from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path

from hack.cluster import shell
from hack.cluster.errors import ClusterError

BRIDGE = "wi0"
NODE_IP = "10.200.0.1"
PODS = "10.200.0.0/22"
SERVICES = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
DNS_SERVICE_IP = "10.96.0.10"
CNI_NETWORK = "workitems"

_COMMENT = "workitem-operator"
_RULES = {
    "filter": (
        f"-I INPUT -i {BRIDGE} -j ACCEPT",
        f"-I FORWARD -i {BRIDGE} -j ACCEPT",
        f"-I FORWARD -o {BRIDGE} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    ),
    "nat": (f"-A POSTROUTING -s {PODS} ! -d {PODS} -j MASQUERADE",),
}
# A Service without endpoints has no address to go to. kube-proxy rejects what is sent to it, but kube-router accepts it
# before that, and the packet would leave the machine by its default route: some stranger would answer.
_AT_HOME = ("priority", "100", "iif", BRIDGE, "to", SERVICES, "unreachable")
# What the cluster needs, and what the kubelet sets by itself: put back as they were by `remove`.
_WANTED_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.bridge.bridge-nf-call-iptables": "1",
    "fs.inotify.max_user_instances": "1024",
}
_KUBELET_SYSCTLS = (
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
)


def ensure(state: Path) -> None:
    """Make the bridge, the rules and the settings.

    Raises ClusterError when the addresses are in use or the kernel refuses.
    """
    _refuse_overlaps()
    for module in ("br_netfilter", "overlay"):
        if shell.find("modprobe"):
            shell.attempt(["modprobe", "-q", module])  # fails where it is built in, which is as good
    _remember_sysctls(state / "sysctls.json")
    for name, value in _WANTED_SYSCTLS.items():
        path = _sysctl(name)
        if path.exists() and path.read_text().strip() != value:
            path.write_text(value)
    if shell.attempt(["ip", "link", "show", BRIDGE]).returncode != 0:
        shell.run(["ip", "link", "add", "name", BRIDGE, "type", "bridge"])
    shell.run(["ip", "address", "replace", f"{NODE_IP}/{ipaddress.ip_network(PODS).prefixlen}", "dev", BRIDGE])
    shell.run(["ip", "link", "set", BRIDGE, "up"])
    for table, rules in _RULES.items():
        for rule in rules:
            verb, chain, rest = rule.split(" ", 2)
            words = [*rest.split(), "-m", "comment", "--comment", _COMMENT]
            if shell.attempt(["iptables", "-w", "-t", table, "-C", chain, *words]).returncode != 0:
                shell.run(["iptables", "-w", "-t", table, verb, chain, *words])
    _keep_services_at_home()


def remove(state: Path) -> None:
    """Take away what `ensure`, the kubelet, kube-proxy and the CNI plugin have made; nothing to take away is fine."""
    if shell.find("iptables-save") and _rules_are_ours():
        for program in ("ip6tables", "iptables"):
            # nat last: its rule with our comment is what tells a second `down`, after a kill, that the rest is ours
            # too.
            for table in ("mangle", "raw", "filter", "nat"):
                _remove_rules(program, table)
        _remove_sets()
    if shell.find("ip"):
        shell.attempt(["ip", "rule", "delete", *_AT_HOME])
        ports = shell.attempt(["ip", "-o", "link", "show", "master", BRIDGE]).stdout
        for name in re.findall(r"^\d+: ([^@:]+)", ports, re.MULTILINE):
            shell.attempt(["ip", "link", "delete", name])
        shell.attempt(["ip", "link", "delete", BRIDGE])
    _restore_sysctls(state / "sysctls.json")


def _keep_services_at_home() -> None:
    if f"from all to {SERVICES} iif {BRIDGE} unreachable" in shell.attempt(["ip", "rule", "show"]).stdout:
        return
    added = shell.attempt(["ip", "rule", "add", *_AT_HOME])
    if added.returncode != 0:
        shell.say(f"a Service without endpoints may be answered from outside this machine: {added.stderr.strip()}")


def has_sets() -> bool:
    """Whether the kernel has ip sets, which NetworkPolicies are enforced with."""
    return shell.attempt(["ipset", "list", "-name"]).returncode == 0


def has_policy_rules() -> bool:
    """Whether kube-router has made its first rules."""
    return shell.attempt(["iptables", "-w", "-S", "KUBE-ROUTER-FORWARD"]).returncode == 0


def refuse_other_kubernetes() -> None:
    """Raises ClusterError when another Kubernetes runs here: the two would rewrite each other's firewall rules."""
    if "KUBE-SERVICES" in shell.run(["iptables-save", "-t", "nat"]) and not _rules_are_ours():
        raise ClusterError(
            "This machine's firewall has the rules of another Kubernetes (chain KUBE-SERVICES), and two cannot share "
            "one; "
            "name that cluster's context with WORKITEMS_CONTEXT, or remove it and try again."
        )


def _rules_are_ours() -> bool:
    return f"--comment {_COMMENT}" in shell.attempt(["iptables-save"]).stdout


def _refuse_overlaps() -> None:
    for line in shell.run(["ip", "-4", "route", "show"]).splitlines():
        destination, _, rest = line.partition(" ")
        if destination == "default" or f"dev {BRIDGE}" in rest:
            continue
        words = destination if destination[0].isdigit() else rest.split(" ")[0]
        route = ipaddress.ip_network(words, strict=False)
        for wanted in (PODS, SERVICES):
            if route.overlaps(ipaddress.ip_network(wanted)):
                raise ClusterError(
                    f"The local cluster needs the addresses {wanted}, and this machine has a route to {route} "
                    f"({rest.strip()}); "
                    "remove that route, or name another cluster with WORKITEMS_CONTEXT."
                )


def _remove_rules(program: str, table: str) -> None:
    saved = shell.attempt([f"{program}-save", "-t", table])
    if saved.returncode != 0:
        return  # this machine has no such table
    ours = re.findall(r"^:(KUBE-\S+)", saved.stdout, re.MULTILINE)
    script = []
    for rule in re.findall(r"^-A .*", saved.stdout, re.MULTILINE):
        jumps_to_ours = re.search(r" -[jg] KUBE-", rule)
        if rule.split(" ")[1] not in ours and (jumps_to_ours or f"--comment {_COMMENT}" in rule):
            script.append("-D" + rule.removeprefix("-A"))
    script += [f"-F {chain}" for chain in ours] + [f"-X {chain}" for chain in ours]
    if script:
        shell.run([f"{program}-restore", "-w", "--noflush"], stdin="\n".join([f"*{table}", *script, "COMMIT", ""]))


def _remove_sets() -> None:
    """kube-router's sets of addresses: nothing refers to them once the rules are gone."""
    if shell.find("ipset"):
        for name in shell.attempt(["ipset", "list", "-name"]).stdout.split():
            if name.startswith(("KUBE-", "kube-router-", "inet6:KUBE-", "inet6:kube-router-")):
                shell.attempt(["ipset", "destroy", name])


def _remember_sysctls(file: Path) -> None:
    if not file.exists():
        names = (*_WANTED_SYSCTLS, *_KUBELET_SYSCTLS)
        before = {name: _sysctl(name).read_text().strip() for name in names if _sysctl(name).exists()}
        shell.write_atomically(file, json.dumps(before, indent=1) + "\n")


def _restore_sysctls(file: Path) -> None:
    if file.exists():
        for name, value in json.loads(file.read_text()).items():
            if _sysctl(name).exists():
                _sysctl(name).write_text(value)


def _sysctl(name: str) -> Path:
    return Path("/proc/sys") / name.replace(".", "/")
