"""A node that is lost in the middle of a run: what a person is told, what they say to Kubernetes, and what comes after.

The only node loses its kubelet, as seen from the API server the same as a machine that lost power or network. What it
ran is deleted once a person declares it lost for good; the run is repeated and nobody's rework is counted.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from hack.cluster.local import LocalCluster
from tests.e2e.lab import JSON, PATIENTLY, UNTIL_TOLD, Lab, only, said

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(900)]

# It writes at its end alone: once the kubelet is back it has a second to end, which may be enough for a push. Nobody
# ever tells it to go on, and no timeout does: it would push while it is thought to be lost.
FIRST_RUN_WAITS = {"run": f"[ $WORKITEM_RUN != 1 ] || {UNTIL_TOLD}; mkdir -p src; echo a feature > src/feature.txt"}
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"


def test_a_run_on_a_lost_node_is_repeated_once_the_node_is_declared_lost(lab: Lab) -> None:
    if not isinstance(lab.cluster, LocalCluster):
        pytest.skip("only the local cluster's node is ours to lose")
    git = lab.repository()
    lab.pipeline(change=_an_hour)
    item = lab.item("lost", {"development": [FIRST_RUN_WAITS]})
    pod = lab.running(item, "development")
    node = pod["spec"]["nodeName"]
    with lost(lab, lab.cluster, node):
        # Out of reach is not dead: nothing runs twice, and nothing is given up, on a suspicion.
        assert lab.status(item)["run"]["number"] == 1
        assert len(_jobs(lab)) == 1

        lab.kubectl("taint", "nodes", node, OUT_OF_SERVICE)
        status = lab.wait(item, lambda s: (s.get("run") or {}).get("number") == 2, "a second run")
        first = status["runs"][0]
        assert (first["result"], first["reason"]) == ("Evicted", "Evicted")
        assert pod["metadata"]["name"] in first["message"]
        # It waits for a node, and says so.
        status = lab.wait(item, lambda s: said(s)[0] == "Unschedulable", "a message about the node")
        assert "untolerated taint" in said(status)[1]
    status = lab.wait_phase(item, "Done")
    assert [(run["result"], run["attempt"]) for run in status["runs"]] == [("Evicted", 1), ("Succeeded", 1)]
    assert status.get("rework", []) == []
    assert status["usage"]["runs"] == 1
    assert git.subjects("workitem/lost") == ["developer(lost): run 2"]
    assert [job["metadata"]["labels"]["workitems.dev/run"] for job in _jobs(lab)] == ["1", "2"]


def _an_hour(spec: JSON) -> None:
    only("development")(spec)
    spec["agentDefaults"]["timeout"] = "1h"


@contextlib.contextmanager
def lost(lab: Lab, cluster: LocalCluster, node: str) -> Iterator[None]:
    """The node without its kubelet, and NotReady for everybody to see; afterwards a node as before."""
    cluster.stop_kubelet()
    try:
        lab.kubectl("wait", f"node/{node}", "--for=condition=Ready=Unknown", PATIENTLY)
        yield
    finally:
        lab.kubectl("taint", "nodes", node, f"{OUT_OF_SERVICE}-", check=False)
        cluster.up()


def _jobs(lab: Lab) -> list[JSON]:
    jobs = json.loads(lab.kubectl("get", "jobs", "-l", "workitems.dev/item=lost", "-o", "json"))["items"]
    return sorted(jobs, key=lambda job: int(job["metadata"]["labels"]["workitems.dev/run"]))
