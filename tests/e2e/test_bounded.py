"""What an agent takes without end is bounded: its output, in its log and on the volume, and its scratch space.

`make soak` writes 10 GB of output instead of 1 GB.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.lab import JSON, Lab, commands, only, said
from workitems.runner import stream

OUTPUT_BYTES = int(os.environ.get("SOAK_OUTPUT_BYTES", "1000000000"))
# Two floods beside each other: on a slow machine some 5 MB a second each.
PATIENCE_SECONDS = 400 + OUTPUT_BYTES // 5_000_000
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3 * PATIENCE_SECONDS)]

LINE = "a line of output " * 20
MEBI = 1 << 20
# The kubelet looks now and then: rotated files are compressed at the next rotation, and the newest is as large as what
# was written in between.
LOG_BYTES = 100 * MEBI
SCRATCH = "32Mi"
# Goes on until the test has seen enough: a log is only rotated while its container runs.
FLOOD = f"""
yes '{LINE}' | head -c {OUTPUT_BYTES}
touch /tmp/flooded
until [ -e /tmp/enough ]; do yes '{LINE}' | head -c {11 * MEBI}; sleep 2; done
"""
# Said until it was read: the log may be rotated right behind it.
THE_END = "until [ -e /tmp/read ]; do printf '\\nthe end\\n'; sleep 0.5; done"
READ = f"""
yes '{LINE}' | head -c {OUTPUT_BYTES}
echo
echo '{{"type": "turn.completed", "usage": {{"output_tokens": 7}}}}'
touch /tmp/flooded
until [ -e /tmp/enough ]; do sleep 0.2; done
"""
WORK = {"src/feature.txt": "a feature\n"}


def _developer(**changes: Any) -> Callable[[JSON], None]:
    def change(spec: JSON) -> None:
        only("development")(spec)
        spec["limits"]["maxInfraRetries"] = 1
        spec["agents"]["developer"].update({"timeout": "2h", **changes})

    return change


@pytest.fixture(scope="module")
def lab(shared_lab: Lab) -> Lab:
    """All items, under way."""
    shared_lab.repository()
    limits = {"memory": "256Mi", "ephemeral-storage": SCRATCH}
    shared_lab.pipeline("plain", _developer())
    shared_lab.pipeline("read", _developer(output="codex"))
    shared_lab.pipeline("small", _developer(resources={"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": limits}))
    fill = "head -c 100000000 /dev/zero > /tmp/large; sleep 600"
    shared_lab.item("scratch", {"development": [{"run": fill}]}, pipeline="small")
    shared_lab.item("loud", {"development": [{"write": WORK, "run": f"{FLOOD}{THE_END}"}]}, pipeline="plain")
    shared_lab.item("read", {"development": [{"write": WORK, "run": READ}]}, pipeline="read")
    return shared_lab


def test_an_endless_log_is_rotated_and_the_item_goes_on(lab: Lab) -> None:
    pod = _flooded(lab, "loud")
    _until(lambda: 0 < _log_bytes(lab, pod) < LOG_BYTES, lambda: f"the log of {pod} has {_log_bytes(lab, pod)} bytes")
    lab.kubectl("exec", pod, "-c", "agent", "--", "touch", "/tmp/enough")
    last = ("logs", pod, "-c", "agent", "--tail=1")
    _until(lambda: lab.kubectl(*last) == "the end\n", lambda: f"the log of {pod} ends with {lab.kubectl(*last)}")
    lab.kubectl("exec", pod, "-c", "agent", "--", "touch", "/tmp/read")
    status = lab.wait_phase("loud", "Done")
    assert [run["result"] for run in status["runs"]] == ["Succeeded"]


def test_of_an_endless_output_that_is_read_a_part_is_kept_and_its_end_is_understood(lab: Lab) -> None:
    pod = _flooded(lab, "read")
    kept = f"/workspace/shop/outputs/read/run-{lab.status('read')['run']['number']}.jsonl"
    size = int(lab.kubectl("exec", pod, "-c", "runner", "--", "stat", "-c", "%s", kept))
    # Less on a small disk: a tenth of what is free.
    assert 0 < size <= stream.KEPT_BYTES
    _until(lambda: _log_bytes(lab, pod) > 0, lambda: f"the kubelet does not count the log of {pod}")
    assert _log_bytes(lab, pod) < 2 * stream.LOG_BYTES
    lab.kubectl("exec", pod, "-c", "agent", "--", "touch", "/tmp/enough")
    status = lab.wait_phase("read", "Done")
    assert [run["result"] for run in status["runs"]] == ["Succeeded"]
    assert status["runs"][0]["usage"]["outputTokens"] == 7
    assert f"… more than {stream.LOG_BYTES} bytes; the last lines:" in lab.kubectl("logs", pod, "-c", "agent")


def test_a_full_scratch_volume_ends_the_run_and_the_limit_is_named(lab: Lab) -> None:
    status = lab.wait_phase("scratch", "Blocked", PATIENCE_SECONDS)
    reason, message = said(status)
    assert reason == "InfraRetriesExhausted"
    assert f"ephemeral local storage usage exceeds the total limit of containers {SCRATCH}. Then: kubectl" in message
    assert "retry: {}" in commands(message)[-1]
    assert [run["result"] for run in status["runs"]] == ["Evicted", "Evicted"]


def _flooded(lab: Lab, item: str) -> str:
    """Wait until the agent has written what it writes at once; its pod."""
    run = lab.wait(item, lambda s: s.get("run") is not None, "a run")["run"]
    selector = ("-l", f"batch.kubernetes.io/job-name={run['job']}")

    def pod() -> str:
        return lab.kubectl("get", "pods", *selector, "-o", "jsonpath={.items[*].metadata.name}")

    look = ("--", "sh", "-c", "! test -e /tmp/flooded || echo yes")
    _until(
        lambda: bool(pod()) and lab.kubectl("exec", pod(), "-c", "agent", *look, check=False) == "yes\n",
        lambda: f"{item} has not written its output: {lab.status(item)}",
    )
    return pod()


def _log_bytes(lab: Lab, pod: str) -> int:
    """All files of the agent's log, as the kubelet counts them against the ephemeral storage; 0: not counted yet."""
    node = lab.kubectl("get", "pod", pod, "-o", "jsonpath={.spec.nodeName}")
    summary = json.loads(lab.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary"))
    found = [
        container["logs"].get("usedBytes", 0)
        for entry in summary["pods"]
        if entry["podRef"]["name"] == pod and entry["podRef"]["namespace"] == lab.namespace
        for container in entry.get("containers") or ()
        if container["name"] == "agent" and "logs" in container
    ]
    return int(sum(found))


def _until(true: Callable[[], bool], otherwise: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(1)
