"""Items and a real forge in the cluster, with a Gitea that goes away and an operator that dies where it hurts most.

It dies right after a request was carried out, before it can know. What it did must not happen a second time.

All items are under way at the same time, in one Repository. They wait at their `ci` gates until the forge has been away
and is back; from then on the CI server answers for every head, as one does.

The operator is this machine's process, and Gitea's pod reaches its receiver by the bridge of the local cluster. Nothing
is swept meanwhile.
"""

from __future__ import annotations

import collections
import contextlib
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from hack.cluster import images, network, ports
from hack.cluster.local import LocalCluster
from hack.demo.cluster import Kubectl
from hack.gitea import incluster, manifests
from hack.gitea.client import Client, Repository
from hack.gitea.errors import GiteaError
from tests.e2e import session
from tests.e2e.crossing import Crossing, crossing
from tests.e2e.lab import PATIENCE_SECONDS, PATIENTLY, UNTIL_TOLD, Lab, job_of, only, said, until
from tests.e2e.operator_process import OperatorProcess

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(2400)]

NAMESPACE = "wi-e2e-gitea"
MERGED = ("whole", "red", "by-hand", "conflict", "plain", "behind", "reviewed")
GIVEN_UP = "given-up"
NAMES = (*MERGED, GIVEN_UP)
PIPELINES = {"behind": "fast-forward", "reviewed": "reviewed"}
SECONDS = PATIENCE_SECONDS * 2
"""Eight items, and an operator that has to start again ten times."""


@dataclass
class Ci:
    """A CI server: answers once for the head of every open pull request, red for those in `red`."""

    repository: Repository
    red: set[str] = field(default_factory=set)
    answered: dict[str, str] = field(default_factory=dict)
    """What it said, by commit."""
    failure: BaseException | None = None
    _over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Until `stop`, in a thread of its own."""
        while not self._over.wait(1):
            try:
                self._answer()
            except GiteaError:
                # The forge is away: it asks again, as CI servers do.
                continue
            except Exception as error:  # noqa: BLE001 - a thread's errors are nobody's otherwise
                self.failure = error
                return

    def stop(self) -> None:
        """End."""
        self._over.set()

    def _answer(self) -> None:
        for pull in self.repository.pull_requests("open"):
            branch, head = pull["head"]["ref"], pull["head"]["sha"]
            if head in self.answered:
                continue
            first = not any(said.startswith(f"{branch} ") for said in self.answered.values())
            state = "failure" if first and branch in self.red else "success"
            # Two contexts, so that the worse of them counts.
            self.repository.report(head, "lint", "success")
            self.repository.report(head, "build", state, "https://ci.example.com/1")
            self.answered[head] = f"{branch} {state}"


@dataclass
class Story:
    """What the items' way has left to look at."""

    lab: Lab
    repository: Repository
    between: Crossing
    ci: Ci
    waited: dict[str, tuple[str, str]]
    """What an item said while the forge was away."""
    opened: dict[str, dict[str, Any]]
    """The items' statuses while the checks were awaited."""
    base: str
    """The commit that a person pushed to main meanwhile."""
    reviewer: Client
    """Who may approve in the forge."""
    hooks: str
    """The address of the receiver; "": pods have none of this machine that is known here."""


@pytest.fixture(scope="module")
def story(shared_lab: Lab) -> Iterator[Story]:
    lab = shared_lab
    address = network.NODE_IP if isinstance(lab.cluster, LocalCluster) else ""
    server = manifests.Gitea(NAMESPACE, images.gitea(lab.cluster), hooks=(address,) if address else ())
    session.apply(lab.cluster, session.namespace(NAMESPACE))
    gitea = incluster.Installation(Kubectl(lab.cluster.kubectl, NAMESPACE), server)
    gitea.install()
    session.kubectl(lab.cluster, "-n", NAMESPACE, "rollout", "status", f"deploy/{server.name}", PATIENTLY)
    with (
        _listening(lab.operator, address) as hooks,
        gitea.administrator() as admin,
        crossing(admin.url, lab.operator) as between,
    ):
        repository = admin.create_repository("shop", session.ROOT / "tests/e2e/seed")
        # Webhooks are an administrator's.
        bot = incluster.bot(admin, f"bot-{uuid.uuid4().hex[:6]}", repository, "admin")
        ann = incluster.bot(admin, f"ann-{uuid.uuid4().hex[:6]}", repository)
        if hooks:
            between.die_after(r"POST .*/hooks", r"DELETE .*/hooks/\d+")
            lab.apply(_webhook_secret())
        _prepare(lab, server, between, repository, (bot, ann))
        between.die_after(r"PATCH .*/pulls/\d+", said='"state":"closed"')
        between.die_after(r"GET .*/pulls/\d+/reviews", said='"state":"APPROVED"')
        between.die_after(r"POST .*/pulls", r"POST .*/pulls", r"PATCH .*/pulls/\d+", r"POST .*/merge", r"POST .*/merge")
        between.die_after(r"POST .*/pulls/\d+/update")
        _create(lab)
        opened = {name: lab.wait(name, _waits_for_checks, "its checks", SECONDS) for name in NAMES}
        lab.decide(GIVEN_UP, abort={})
        lab.wait(GIVEN_UP, lambda status: status["pullRequest"]["state"] == "closed", "a closed pull request", SECONDS)

        gitea.scale(0)
        away = {name: lab.wait(name, _unreachable, "a forge that is away", SECONDS) for name in ("whole", "plain")}
        gitea.scale(1)
        base = _pushed(repository)
        ci = Ci(repository, red={"workitem/red"})
        thread = threading.Thread(target=ci.run, daemon=True)
        thread.start()
        # In the middle of its last run, so that its merge is left to a person.
        pod = lab.running("by-hand", "deploy", SECONDS)
        lab.suspend("by-hand")
        lab.tell(job_of(pod))
        waited = {name: said(status) for name, status in away.items()}
        yield Story(lab, repository, between, ci, waited, opened, base, ann, hooks)
        ci.stop()
        thread.join()
        assert ci.failure is None, ci.failure
    session.kubectl(lab.cluster, "delete", "namespace", NAMESPACE, "--wait=false")


@contextlib.contextmanager
def _listening(operator: OperatorProcess, address: str) -> Iterator[str]:
    """The operator receives webhooks at this address of the machine, if there is one, and sweeps nothing."""
    port = ports.free()
    hooks = f"http://{address}:{port}" if address else ""
    before = operator.settings
    receiver = {"WORKITEMS_WEBHOOK_PORT": str(port), "WORKITEMS_WEBHOOK_URL": hooks} if hooks else {}
    operator.settings = {**before, "WORKITEMS_SWEEP_SECONDS": "3600", **receiver}
    operator.restart()
    try:
        yield hooks
    finally:
        operator.settings = before
        operator.restart()


def _webhook_secret() -> dict[str, Any]:
    data = {"gitea": uuid.uuid4().hex}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shop-webhooks"}, "stringData": data}


def _prepare(
    lab: Lab, server: manifests.Gitea, between: Crossing, repository: Repository, people: tuple[Client, Client]
) -> None:
    bot, ann = people
    body = _repository(server, between, repository)
    body["spec"]["forge"]["gitea"]["reviewers"] = {ann.user: "team-lead"}
    if lab.operator.settings.get("WORKITEMS_WEBHOOK_URL"):
        body["spec"]["webhooks"] = {"secretName": "shop-webhooks", "manage": True}
    lab.apply(incluster.credentials(lab.namespace, "shop-gitea", bot), body)
    lab.pipeline(change=_two_stages)
    lab.pipeline("fast-forward", _fast_forward)
    lab.pipeline("reviewed", _reviewed)


def _repository(server: manifests.Gitea, between: Crossing, repository: Repository) -> dict[str, Any]:
    """Git goes to the server itself, as the pods reach it; the operator's requests pass by us."""
    name, owner = repository.name, repository.owner
    token = {"secretName": "shop-gitea", "key": "token"}
    spec = {
        "url": f"{server.url}/{owner}/{name}.git",
        "credentials": {"secretName": "shop-gitea"},
        "worktree": {"emptyDir": {}},
        "forge": {"gitea": {"url": between.address, "owner": owner, "name": name, "token": token}},
    }
    return {"apiVersion": "workitems.dev/v1alpha1", "kind": "Repository", "metadata": {"name": "shop"}, "spec": spec}


def _two_stages(spec: dict[str, Any]) -> None:
    only("development", "deploy", gates=("ci-green",))(spec)
    development, deploy = spec["stages"]
    development["gates"][0]["ci"] = {"whenAbsent": "Wait", "timeout": "60m", "contexts": ["build", "lint"]}
    deploy["merge"] = {
        "method": "merge",
        "deleteBranch": True,
        "onConflict": [{"sendBackTo": "development", "maxAttempts": 2}],
    }


def _fast_forward(spec: dict[str, Any]) -> None:
    _two_stages(spec)
    spec["stages"][1]["merge"] |= {"method": "fast-forward-only", "updateBranch": "Rebase"}


def _reviewed(spec: dict[str, Any]) -> None:
    _two_stages(spec)
    # Of the last stage: nothing is written after it that would void it.
    spec["stages"][1]["gates"] = [{"name": "good", "approval": {}}]


def _create(lab: Lab) -> None:
    for name in NAMES:
        writes = [{"write": {f"src/{name}.txt": f"{text} of {name}\n"}} for text in ("first", "second")]
        script: dict[str, Any] = {"development": writes}
        if name == "conflict":
            writes[0]["write"], writes[1]["write"] = {"src/price.txt": "ours\n"}, {"src/price.txt": "theirs\n"}
            script["keepPrompts"] = True
        if name == "by-hand":
            # It is suspended in the middle.
            script["deploy"] = [{"write": {"{docs}/14-deploy.md": "Released.\n"}, "run": UNTIL_TOLD}]
        lab.item(name, script, **({"pipeline": PIPELINES[name]} if name in PIPELINES else {}))


def _pushed(repository: Repository) -> str:
    """A person's push to main, as soon as the way to the server is there again."""

    def back() -> bool:
        try:
            repository.ask("GET")
        except GiteaError:
            return False
        return True

    until(back, "back: the forge")
    return repository.commit("main", "src/price.txt", "theirs\n", "Prices in cents")


def _waits_for_checks(status: dict[str, Any]) -> bool:
    return status.get("pullRequest") is not None and said(status)[0] == "WaitingForChecks"


def _unreachable(status: dict[str, Any]) -> bool:
    return said(status)[0] == "ForgeUnreachable"


def test_every_item_has_exactly_one_pull_request_whenever_the_operator_died(story: Story) -> None:
    assert [asked for asked in story.between.killed if asked.endswith("/pulls")], "it died after opening one"
    heads = collections.Counter(pull["head"]["label"] for pull in story.repository.pull_requests())
    assert sorted(heads.values()) == [1] * len(NAMES)
    numbers = {pull["number"] for pull in story.repository.pull_requests()}
    assert {status["pullRequest"]["number"] for status in story.opened.values()} == numbers


def test_a_forge_that_is_away_is_named_and_costs_nothing_but_time(story: Story) -> None:
    for reason, message in story.waited.values():
        assert reason == "ForgeUnreachable"
        assert "asked again until it answers" in message
    status = story.lab.wait_phase("plain", "Done", SECONDS)
    assert [run["result"] for run in status["runs"]] == ["Succeeded", "Succeeded"]


def test_a_whole_item_ends_done_with_its_branch_merged_and_gone(story: Story) -> None:
    status = story.lab.wait_phase("whole", "Done", SECONDS)
    pull = status["pullRequest"]
    there = story.repository.ask("GET", f"/pulls/{pull['number']}")
    assert (pull["state"], there["merged"]) == ("merged", True)
    assert pull["mergeCommit"] == there["merge_commit_sha"]
    assert pull["head"] == status["head"] == there["head"]["sha"]
    assert "src/whole.txt" in story.repository.files("main")
    assert not story.repository.has("workitem/whole")
    assert "| development | ci-green |" in there["body"]
    gate = next(gate for gate in status["gates"] if gate["name"] == "ci-green")
    assert (gate["result"], gate["commit"]) == ("Passed", status["head"])
    assert "build" in gate["message"]


def test_a_red_check_sends_the_item_back_and_a_green_one_of_the_new_head_lets_it_pass(story: Story) -> None:
    status = story.lab.wait_phase("red", "Done", SECONDS)
    assert [run["stage"] for run in status["runs"]] == ["development", "development", "deploy"]
    assert status["attempts"]["development"] == 2
    assert story.ci.answered[status["runs"][0]["commit"]] == "workitem/red failure"
    assert story.repository.read("src/red.txt") == "second of red\n"


def test_a_merge_by_a_person_finishes_the_item_and_is_not_done_twice(story: Story) -> None:
    lab = story.lab
    status = lab.wait("by-hand", lambda status: "nothing is merged" in said(status)[1], "a held merge", SECONDS)
    number = status["pullRequest"]["number"]
    story.repository.merge(number)
    lab.suspend("by-hand", value=False)
    done = lab.wait_phase("by-hand", "Done", SECONDS)
    there = story.repository.ask("GET", f"/pulls/{number}")
    assert done["pullRequest"]["mergeCommit"] == there["merge_commit_sha"]
    assert not [asked for asked in story.between.requests if asked.startswith("POST") and f"/{number}/merge" in asked]


def test_a_conflict_goes_back_to_development_which_is_told_the_commits_of_the_base(story: Story) -> None:
    status = story.lab.wait_phase("conflict", "Done", SECONDS)
    assert [run["stage"] for run in status["runs"]] == ["development", "deploy", "development", "deploy"]
    documents = "docs/work-items/conflict"
    prompt = story.repository.read(f"{documents}/prompt-development-2.md")
    assert f"{story.base[:12]} Prices in cents (src/price.txt)" in prompt
    assert story.repository.read("src/price.txt") == "theirs\n"


def test_a_branch_that_lacks_commits_of_its_base_is_rebased_once_and_fast_forwarded(story: Story) -> None:
    status = story.lab.wait_phase("behind", "Done", SECONDS)
    assert status["pullRequest"]["mergeCommit"] == status["head"]
    # Gitea was asked, and the operator died before it knew: the new head is looked at, and nothing is rebased again.
    assert [asked for asked in story.between.killed if asked.endswith("/update")]
    assert story.repository.subjects("main").count("developer(behind): run 1") == 1
    assert story.repository.read("src/behind.txt") == "first of behind\n"


def test_an_item_that_is_given_up_closes_its_pull_request_and_keeps_its_branch(story: Story) -> None:
    status = story.lab.wait_phase(GIVEN_UP, "Aborted", SECONDS)
    there = story.repository.ask("GET", f"/pulls/{status['pullRequest']['number']}")
    assert (there["state"], there["merged"]) == ("closed", False)
    assert story.repository.has(f"workitem/{GIVEN_UP}")


def test_a_review_becomes_one_decision_although_the_operator_died_over_it(story: Story) -> None:
    lab = story.lab
    status = lab.wait_phase("reviewed", "InReview", SECONDS)
    number = status["pullRequest"]["number"]
    words = {"event": "APPROVED", "body": "Good to go.", "commit_id": status["head"]}
    story.repository.by(story.reviewer).ask("POST", f"/pulls/{number}/reviews", words)
    done = lab.wait_phase("reviewed", "Done", SECONDS)
    assert [(d["action"], d["by"], d["result"]) for d in done["decisions"]] == [
        ("Approve", "gitea:team-lead", "Accepted")
    ]
    assert [asked for asked in story.between.killed if asked.endswith("/reviews")]


def test_what_happens_at_the_forge_is_told_by_its_one_webhook(story: Story) -> None:
    if not story.hooks:
        pytest.skip("no address of this machine is known by which this cluster's pods reach it")
    lab = story.lab
    for name in MERGED:
        lab.wait_phase(name, "Done", SECONDS)
    # One, although the operator died after it had registered it, and after it had taken a former one away.
    [hook] = story.repository.webhooks()
    assert hook["config"]["url"] == f"{story.hooks}/hooks/{lab.namespace}/shop/gitea"
    known = lab.get("repository", "shop")["status"]
    assert (known["webhook"]["id"], known["webhook"]["url"]) == (str(hook["id"]), hook["config"]["url"])
    assert [(c["type"], c["status"]) for c in known["conditions"]] == [("WebhookRegistered", "True")]
    told = collections.defaultdict(set)
    for line in lab.operator.log.read_text(errors="replace").splitlines():
        if line.startswith("{") and (entry := json.loads(line)).get("event") == "delivery":
            for key in entry["items"]:
                told[key].add(entry["field"])
    ours = {key: fields for key, fields in told.items() if key.startswith(f"{lab.namespace}/")}
    # What comes while the operator is dead is lost, and found by asking; of each item something was heard.
    assert {f"{lab.namespace}/{name}" for name in MERGED} <= ours.keys()
    # Pushes and pull requests name the branch, statuses the commit.
    assert set().union(*ours.values()) == {"status.branch", "status.head"}


def test_nothing_was_merged_or_opened_twice(story: Story) -> None:
    for name in MERGED:
        story.lab.wait_phase(name, "Done", SECONDS)
    story.between.all_died()
    assert len(story.between.killed) == (10 if story.hooks else 8)
    pulls = story.repository.pull_requests()
    assert len(pulls) == len(NAMES)
    assert sum(pull["merged"] for pull in pulls) == len(MERGED)
    merges = [subject for subject in story.repository.subjects("main") if subject.startswith("Merge ")]
    assert len(merges) == len(MERGED) - 1, "a fast-forward makes no commit"
