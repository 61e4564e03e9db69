"""An agent with a service account, and every right that RBAC can give it, writes none of our kinds.

Under the policies of an installation that serves all namespaces; test_chart.py has one that serves some.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator

import pytest

from tests.e2e.admission.cases import BASES
from tests.e2e.lab import JSON, Lab, only, until
from tests.e2e.session import OPERATOR_NAMESPACE

pytestmark = pytest.mark.e2e

PERSON = "anna"
ELSEWHERE = "system:serviceaccount:flux-system:kustomize-controller"
COLLECTOR = "system:serviceaccount:kube-system:namespace-controller"
"""Deletes what is in a namespace that somebody has deleted: without it that would never end."""
REFUSED = "agents write no"
TAKEN_UP = "known to the API server's authorizer, which hears of new rights a moment later"
LABEL = json.dumps({"metadata": {"labels": {"written-by": "an-agent"}}})
TRIES: dict[str, list[str]] = {
    "create": ["create", "-f", "-"],
    "update": ["patch", "{kind}", "{name}", "--type=merge", "-p", LABEL],
    "update the status": ["patch", "{kind}", "{name}", "--subresource=status", "--type=merge", "-p", LABEL],
    "delete": ["delete", "{kind}", "{name}"],
}
WITH_STATUS = {"WorkItem", "Repository", "Decision"}
CASES = [(kind, verb) for kind in BASES for verb in TRIES if kind in WITH_STATUS or "status" not in verb]


def rights(*users: str) -> list[JSON]:
    """A role with every right on our kinds, and who has it."""
    name = f"everything-{uuid.uuid4().hex[:6]}"
    group = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": ["workitems.dev"], "resources": ["*"], "verbs": ["*"]}]
    subjects = [{"kind": "User", "apiGroup": group, "name": user} for user in users]
    role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": name}}
    reference = {"apiGroup": group, "kind": "Role", "name": name}
    binding = {**role, "kind": "RoleBinding", "roleRef": reference, "subjects": subjects}
    return [{**role, "rules": rules}, binding]


def account(lab: Lab) -> str:
    return f"system:serviceaccount:{lab.namespace}:deployer"


def named(kind: str, name: str, by: str) -> JSON:
    """A good manifest of this kind; a Decision is said in the name of who sends it."""
    body = json.loads(json.dumps(BASES[kind]))
    body["metadata"] = {"name": name}
    if kind == "Decision":
        body["spec"] |= {"by": by}
    return dict(body)


def attempt(lab: Lab, who: str, kind: str, verb: str) -> str:
    """What the API server says to it; nothing is written."""
    words = [word.format(kind=kind, name="there") if word != LABEL else word for word in TRIES[verb]]
    body = json.dumps(named(kind, "new", who))
    return lab.kubectl(*words, "--dry-run=server", f"--as={who}", stdin=body, check=False)


@pytest.fixture(scope="module")
def written(shared_lab: Lab) -> Lab:
    """One object of each kind, and three who may do everything with them as far as RBAC goes."""
    shared_lab.apply(*rights(PERSON, ELSEWHERE, account(shared_lab)))
    # The item stays Pending: there is no Secret behind its Repository.
    for kind in BASES:
        body = named(kind, "there", "team-lead")
        shared_lab.apply(body, user=("--as=team-lead", "--as-group=system:masters"))
    until(lambda: "created" in attempt(shared_lab, PERSON, "WorkItem", "create"), TAKEN_UP)
    return shared_lab


@pytest.mark.parametrize(("kind", "verb"), CASES, ids=[f"{verb} {kind}" for kind, verb in CASES])
def test_an_agent_cannot(written: Lab, kind: str, verb: str) -> None:
    assert REFUSED in attempt(written, account(written), kind, verb)
    # It is the policy that refuses, and it refuses nobody else.
    for who in (PERSON, ELSEWHERE) if kind != "Decision" else (PERSON,):
        done = attempt(written, who, kind, verb)
        assert re.search("created|patched|deleted", done), done


@pytest.fixture
def in_the_operators_namespace(written: Lab) -> Iterator[None]:
    """The same rights there."""
    where = ("-n", OPERATOR_NAMESPACE)
    binding = rights(PERSON, ELSEWHERE, COLLECTOR, account(written))
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": binding})
    written.kubectl(*where, "apply", "-f", "-", stdin=text)
    can = ("auth", "can-i", "create", "pipelines.workitems.dev", f"--as={PERSON}")
    until(lambda: written.kubectl(*where, *can, check=False).startswith("yes"), TAKEN_UP)
    yield
    written.kubectl(*where, "delete", "-f", "-", stdin=text)


def test_the_pipelines_that_others_fall_back_to_are_closed_to_every_account(
    written: Lab, in_the_operators_namespace: None
) -> None:
    def answer(who: str) -> str:
        text = json.dumps(named("Pipeline", "another", who))
        words = ("-n", OPERATOR_NAMESPACE, "create", "-f", "-", "--dry-run=server", f"--as={who}")
        return written.kubectl(*words, stdin=text, check=False)

    for who in (account(written), ELSEWHERE):
        assert "of the operator's namespace, which hold for all" in answer(who), who
    for who in (PERSON, COLLECTOR):
        assert "created" in answer(who), who


AGENT = r"""
import json, os, pathlib, ssl, urllib.error, urllib.request
folder = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
token, trust = (folder / "token").read_text(), ssl.create_default_context(cafile=folder / "ca.crt")
space = (folder / "namespace").read_text()
root = "https://" + os.environ.get("API", "kubernetes.default.svc") + "/apis/workitems.dev/v1alpha1/namespaces/" + space
def ask(method, path, body=None):
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    headers = {"Authorization": "Bearer " + token, "Content-Type": kind}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(root + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, context=trust, timeout=20) as answer:
            return [answer.status, ""]
    except urllib.error.HTTPError as error:
        return [error.code, json.loads(error.read())["message"]]
item = os.environ["WORKITEM_NAME"]
approve = {"apiVersion": "workitems.dev/v1alpha1", "kind": "Decision", "metadata": {"name": "mine"},
           "spec": {"workItem": item, "by": "system:serviceaccount:" + space + ":deployer", "retry": {}}}
found = {
    "read the item": ask("GET", "/workitems/" + item),
    "raise its limits": ask("PATCH", "/pipelines/default", {"spec": {"limits": {"maxRuns": 99}}}),
    "rewrite its task": ask("PATCH", "/workitems/" + item, {"spec": {"title": "another"}}),
    "pass its gates": ask("PATCH", "/workitems/" + item + "/status", {"status": {"phase": "Done"}}),
    "move its repository": ask("PATCH", "/repositories/shop", {"spec": {"defaultBranch": "other"}}),
    "decide": ask("POST", "/decisions", approve),
    "delete it": ask("DELETE", "/workitems/" + item),
}
path = pathlib.Path(os.environ["WORKITEM_DOCUMENTS"], "tries.json")
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text(json.dumps(found))
"""


def _with_account(spec: JSON) -> None:
    only("development")(spec)
    agent = spec["agents"]["developer"]
    agent |= {"command": ["python3", "-c", AGENT], "serviceAccountName": "deployer", "commitPaths": ["docs/"]}


def test_the_pod_of_an_agent_with_an_account_is_refused_by_the_api_server(lab: Lab) -> None:
    lab.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "deployer"}})
    lab.apply(*rights(account(lab)))
    git = lab.repository()
    lab.pipeline(change=_with_account)
    item = lab.item("et-1")
    status = lab.wait_phase(item, "Done")
    (path,) = [name for name in git.files(status["branch"]) if name.endswith("tries.json")]
    tries = json.loads(git.show(status["branch"], path))
    assert tries.pop("read the item") == [200, ""], "the token works"
    assert len(tries) == 6
    for what, (code, message) in tries.items():
        assert code == 403, (what, message)
        assert REFUSED in message, (what, message)
