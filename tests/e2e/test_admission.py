"""The API server refuses bad manifests with the field and what is allowed, and takes the edge cases that are right."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.cluster.model import Cluster
from tests.e2e.admission import decisions, pipelines, repositories, workitems
from tests.e2e.admission.cases import BASES, Bad, Good, Manifest, contract, merged, spec
from tests.e2e.evidence import OPERATOR
from tests.e2e.lab import TEAM_LEAD, until

pytestmark = pytest.mark.e2e

CRDS = Path(__file__).parents[2] / "crds"
KINDS = (workitems, repositories, pipelines, decisions)
BAD = [case for kind in KINDS for case in kind.BAD]
GOOD = [case for kind in KINDS for case in kind.GOOD]

Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def kubectl(cluster: Cluster) -> Kubectl:
    """On the tests' cluster, to which the fixture has applied crds/."""

    def run(*args: str, manifest: Manifest | None = None) -> subprocess.CompletedProcess[str]:
        text = None if manifest is None else json.dumps(manifest)
        return subprocess.run(
            [*cluster.kubectl, *TEAM_LEAD, *args], input=text, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture(scope="module")
def namespace(kubectl: Kubectl) -> Iterator[str]:
    name = f"admission-{secrets.token_hex(3)}"
    assert kubectl("create", "namespace", name).returncode == 0
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def stored(kubectl: Kubectl, namespace: str) -> str:
    """The namespace, with one object of each kind in it; the WorkItem is past its start."""
    for manifest in BASES.values():
        applied = apply(kubectl, namespace, manifest)
        assert applied.returncode == 0, applied.stderr
    status = {"stage": "development", "pipeline": {"name": "default", "digest": "sha256:0", "revision": "et-12-1"}}
    assert replace_status(kubectl, namespace, status).returncode == 0
    return namespace


def apply(kubectl: Kubectl, namespace: str, manifest: Manifest, *flags: str) -> subprocess.CompletedProcess[str]:
    return kubectl("-n", namespace, "apply", "--server-side", *flags, "-f", "-", manifest=manifest)


def create(kubectl: Kubectl, namespace: str, manifest: Manifest) -> subprocess.CompletedProcess[str]:
    return kubectl("-n", namespace, "create", "--dry-run=server", "-f", "-", manifest=manifest)


def change(kubectl: Kubectl, namespace: str, case: Good) -> subprocess.CompletedProcess[str]:
    """Patch the stored object; the API server itself tries again when somebody else writes it meanwhile."""
    name, patch = case.manifest["metadata"]["name"], json.dumps(case.patch)
    return kubectl("-n", namespace, "patch", case.kind, name, "--dry-run=server", "--type=merge", "-p", patch)


def replace_status(kubectl: Kubectl, namespace: str, status: Manifest) -> subprocess.CompletedProcess[str]:
    """By JSON patch: unlike a merge patch it sends null as null."""
    patch = json.dumps([{"op": "add", "path": "/status", "value": status}])
    return kubectl("-n", namespace, "patch", "workitem", "et-12", "--subresource=status", "--type=json", "-p", patch)


def refused(result: subprocess.CompletedProcess[str], field: str, words: str) -> None:
    assert result.returncode != 0, f"was admitted: {result.stdout}"
    # Both on one line: the words must be about the field.
    lines = [line for line in result.stderr.splitlines() if field in line and words in line]
    assert lines, f"no line with {field!r} and {words!r} in:\n{result.stderr[:4000]}"


@pytest.mark.parametrize("case", BAD, ids=lambda case: f"{case.kind}: {case.sentence}")
def test_refused(kubectl: Kubectl, namespace: str, case: Bad) -> None:
    refused(create(kubectl, namespace, case.manifest), case.field, case.words)


@pytest.mark.parametrize("case", GOOD, ids=lambda case: f"{case.kind}: {case.sentence}")
def test_admitted(kubectl: Kubectl, namespace: str, case: Good) -> None:
    result = create(kubectl, namespace, case.manifest)
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr


def test_only_a_bridge_speaks_for_its_user(kubectl: Kubectl, namespace: str) -> None:
    manifest = decisions.BRIDGED.manifest
    refused(create(kubectl, namespace, manifest), "spec.by", "nobody decides in the name of another")
    # The group stays team-lead's: it may create Decisions.
    sent = kubectl(f"--as={OPERATOR}", "-n", namespace, "create", "--dry-run=server", "-f", "-", manifest=manifest)
    assert sent.returncode == 0, sent.stderr


CHANGES = (
    Bad(
        "the repository", "WorkItem", spec(repository="other"), "spec.repository", "immutable: create another WorkItem"
    ),
    Bad("the branch", "WorkItem", spec(branch="feature/other"), "spec.branch", "immutable: create another WorkItem"),
    Bad(
        "the base branch", "WorkItem", spec(baseBranch="trunk"), "spec.baseBranch", "immutable: create another WorkItem"
    ),
    Bad("no branch any more", "WorkItem", spec(branch=None), "spec.branch", "immutable: create another WorkItem"),
    Bad("no base branch any more", "WorkItem", spec(baseBranch=None), "spec.baseBranch", "create another WorkItem"),
    Bad("a started item's Pipeline", "WorkItem", spec(pipeline="other"), "spec.pipeline", "snapshotted when the item"),
    Bad("the url", "Repository", spec(url="https://git.example.com/b.git"), "spec.url", "create another Repository"),
    Bad(
        "the worktree's size",
        "Repository",
        spec(worktree={"volumeClaimTemplate": {"resources": {"requests": {"storage": "9Gi"}}}}),
        "spec.worktree",
        "create another Repository",
    ),
    Bad(
        "the worktree's kind",
        "Repository",
        spec(worktree={"volumeClaimTemplate": None, "emptyDir": {}}),
        "spec.worktree",
        "create another Repository",
    ),
    Bad("the words of a Decision", "Decision", spec(comment="other"), "spec", "immutable: create another one"),
    Bad("who decided", "Decision", spec(by="somebody-else"), "spec", "immutable: create another one"),
    Bad("what was decided", "Decision", spec(retry=None, abort={}), "spec", "immutable: create another one"),
)


@pytest.mark.parametrize("case", CHANGES, ids=lambda case: case.sentence)
def test_change_refused(kubectl: Kubectl, stored: str, case: Bad) -> None:
    refused(change(kubectl, stored, case), case.field, case.words)


CHANGES_ADMITTED = (
    Good("what is left of an item", "WorkItem", spec(title="x", description="x", suspend=True, limits={"maxRuns": 40})),
    Good("credentials and base", "Repository", spec(defaultBranch="trunk", credentials={"secretName": "other"})),
    Good("the order of stages", "Pipeline", spec(stages=list(reversed(BASES["Pipeline"]["spec"]["stages"])))),
)


@pytest.mark.parametrize("case", CHANGES_ADMITTED, ids=lambda case: case.sentence)
def test_change_admitted(kubectl: Kubectl, stored: str, case: Good) -> None:
    result = change(kubectl, stored, case)
    assert result.returncode == 0, result.stderr


def test_the_pipeline_may_change_before_the_start(kubectl: Kubectl, namespace: str) -> None:
    waiting = merged(BASES["WorkItem"], {"metadata": {"name": "waiting"}})
    assert apply(kubectl, namespace, waiting).returncode == 0
    result = apply(kubectl, namespace, merged(waiting, spec(pipeline="other")))
    assert result.returncode == 0, result.stderr


def test_stages_keep_the_order_of_the_last_apply(kubectl: Kubectl, namespace: str) -> None:
    def order(*names: str) -> str:
        manifest = merged(BASES["Pipeline"], {"metadata": {"name": "ordered"}})
        manifest["spec"]["stages"] = [{"name": name, "agent": "worker"} for name in names]
        assert apply(kubectl, namespace, manifest).returncode == 0
        return kubectl("-n", namespace, "get", "wipl", "ordered", "-o", "jsonpath={.spec.stages[*].name}").stdout

    # A list with keys is merged by the API server: a stage moved or put in between must end up where it was written.
    assert order("one", "two", "three") == "one two three"
    assert order("three", "new", "one", "two") == "three new one two"


def test_the_crds_apply_without_a_warning(kubectl: Kubectl) -> None:
    for way in (["--server-side", "--force-conflicts"], ["--server-side=false"]):
        applied = kubectl("apply", "--dry-run=server", *way, "-f", str(CRDS))
        assert applied.returncode == 0, applied.stderr
        warnings = [line for line in applied.stderr.splitlines() if "last-applied-configuration" not in line]
        assert not [line for line in warnings if "Warning" in line]


@pytest.mark.parametrize("name", ["workitem.yaml", "repository.yaml", "pipeline-default.yaml", "decisions.yaml"])
def test_the_contract_applies(kubectl: Kubectl, namespace: str, name: str) -> None:
    for manifest in contract(name):
        result = apply(
            kubectl, namespace, merged(manifest, {"metadata": {"name": f"c-{manifest['metadata']['name']}"}})
        )
        assert result.returncode == 0, result.stderr
        assert "Warning" not in result.stderr


def test_the_contract_s_status_is_stored_and_shown(kubectl: Kubectl, stored: str) -> None:
    before = json.loads(kubectl("-n", stored, "get", "wi", "et-12", "-o", "json").stdout)["status"]
    wanted = ["et-12", "development", "InProgress", "RunInProgress", "4", "7"]
    shown: list[list[str]] = []

    def shows(*flags: str) -> bool:
        written = replace_status(kubectl, stored, times(contract("workitem-status.yaml")[0]["status"]))
        assert written.returncode == 0, written.stderr
        shown[:] = map(str.split, kubectl("-n", stored, "get", "workitems", "et-12", *flags).stdout.splitlines())
        return shown[1][:6] == wanted

    # The operator of the tests beside this one writes what it thinks of such an item: the one or the other is shown.
    until(shows, f"shown: {wanted}")
    assert shown[0] == ["NAME", "STAGE", "PHASE", "REASON", "RUNS", "PR", "AGE"]
    until(lambda: shows("-o", "wide"), f"shown: {wanted}")
    assert shown[0][7:] == ["AGENT", "BRANCH", "HEAD", "COST", "MESSAGE"]
    assert shown[1][7:9] == ["developer", "feature/et-12-discounts"]
    assert replace_status(kubectl, stored, before).returncode == 0


def test_objects_are_found_by_their_fields(kubectl: Kubectl, stored: str) -> None:
    def names(kind: str, selector: str) -> str:
        return kubectl("-n", stored, "get", kind, "--field-selector", selector, "-o", "name").stdout

    assert "et-12" in names("workitems", "spec.repository=shop,status.phase!=Done")
    assert names("workitems", "status.phase=Done") == ""
    assert "decision.workitems.dev/one" in names("decisions", "spec.workItem=et-12")
    assert names("decisions", "spec.workItem=other") == ""


@pytest.mark.parametrize("kind", ["workitem", "repository", "pipeline", "decision"])
def test_explain_explains(kubectl: Kubectl, kind: str) -> None:
    result = kubectl("explain", f"{kind}.spec", "--api-version=workitems.dev/v1alpha1")
    assert result.returncode == 0, result.stderr
    assert "FIELDS:" in result.stdout


def test_all_kinds_share_a_category(kubectl: Kubectl, stored: str) -> None:
    listed = kubectl("-n", stored, "get", "workitems-all", "-o", "name").stdout
    assert {line.partition(".")[0] for line in listed.splitlines()} == {
        "workitem",
        "repository",
        "pipeline",
        "decision",
    }


def times(value: Any, key: str = "") -> Any:
    """The contract's `…` stands for anything; a time must be a time."""
    match value:
        case dict():
            return {name: times(each, name) for name, each in value.items()}
        case list():
            return [times(each) for each in value]
        case "…" if key.endswith("At") or key in {"at", "since", "phaseSince"}:
            return "2026-11-22T14:00:00Z"
    return value
