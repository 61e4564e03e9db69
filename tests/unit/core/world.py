"""A small world around `decide`: one item, one branch, a fake cluster and a clock, and nothing that is not simulated.

`step()` does what the real operator does: look, decide, before-actions, one guarded write, after-actions. The status
goes through JSON at each write, as at the API server; a kill may fall at every boundary between two of these calls.
Agents are scripts: an `End` says what a run wrote and how its pod ended; the report is computed from the fake tree.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tests.fake_forge import FakeForge
from workitems import errors, outbox, protocol
from workitems.api import (
    CurrentRun,
    Decision,
    DecisionSpec,
    Effect,
    Gate,
    GateResult,
    GateStatus,
    Phase,
    PipelineSpec,
    Repository,
    RunKind,
    RunReport,
    RunTask,
    WorkItem,
    WorkItemStatus,
)
from workitems.core import effects, manifests, runs, verdicts
from workitems.core.decide import decide
from workitems.core.facts import (
    Admission,
    ContainerView,
    Defaults,
    EffectOutcome,
    Facts,
    JobView,
    PipelineView,
    PodView,
    Problem,
)
from workitems.core.forge import Check, Checks, Question, Reading
from workitems.core.plan import (
    Acknowledge,
    Action,
    CreateJob,
    DeleteJob,
    EnsureClaim,
    EnsureSnapshot,
    Plan,
    ReleaseJobs,
)
from workitems.forge_effects import ForgeEffects

JSON = dict[str, Any]
T = TypeVar("T")
START = datetime(2026, 11, 22, 14, 0, 0, 123456, tzinfo=UTC)
DOCUMENTS = "docs/work-items/et-12"
NAMESPACE = "team-a"
CONTRACT = Path(__file__).parents[2] / "contract"
FINISHED = (Phase.DONE, Phase.ABORTED)
DEFAULTS = Defaults(runner_image="registry.example.com/operator:1", agent_image="registry.example.com/agent:1")

FORGE: JSON = {
    "gitea": {
        "url": "https://git.example.com",
        "owner": "shop",
        "name": "web",
        "token": {"secretName": "shop-gitea", "key": "token"},
    }
}
EVICTED = "The node was low on resource: memory."


class Killed(Exception):  # noqa: N818 - not an error: what the test asked for
    """The operator's process is gone."""


@dataclass(frozen=True)
class End:
    """How one run of an agent ends."""

    writes: Mapping[str, str | None] = field(default_factory=dict)
    """Text by path (None: deleted), relative to the item's documents, or to the root with a leading slash."""
    exit_code: int | None = 0
    reason: str = ""
    """Reason of the agent's container, e.g. OOMKilled."""
    tail: str = ""
    """The end of the agent's log, as the container's termination message."""
    disrupted: str = ""
    reported: bool = True
    runner_reason: str = ""
    """Of the runner's container."""
    raw: str | None = None
    """Instead of the report: what stands in the runner's termination message."""
    problem: protocol.Problem | None = None
    """The runner could not prepare or publish: nothing of `writes` happens."""
    worked: bool = False
    """With a problem: the agent had worked before it."""
    cost: str = "0.01"
    turns: int = 1
    ending: protocol.AgentEnding | None = None
    """What the agent's own output says, where it is read."""
    deadline: bool = False
    """The Job ran into its deadline: it is Failed, and its pod is gone."""

    @property
    def fine(self) -> bool:
        """Whether nothing went wrong."""
        return self == End(writes=self.writes, cost=self.cost)


Script = Callable[[RunTask], End]


@dataclass
class FakeJob:
    """A Job of the fake cluster."""

    name: str
    uid: str
    owner_uid: str
    manifest: JSON
    task: RunTask | None
    pod: PodView | None
    seen_head: str | None = None
    """Where the branch was when the Job began."""
    failed: str = ""

    @property
    def gate(self) -> str | None:
        """The command gate's name, for a gate's Job."""
        name = self.manifest.get("metadata", {}).get("labels", {}).get(protocol.GATE_LABEL)
        return str(name) if name is not None else None

    @property
    def live(self) -> bool:
        """Whether a container of it may still run."""
        return not self.failed and (self.pod is None or not self.pod.terminal)


@functools.cache
def _contract() -> JSON:
    spec: JSON = yaml.safe_load((CONTRACT / "pipeline-default.yaml").read_text())["spec"]
    return spec


def default_pipeline() -> JSON:
    """The contract's six-agent Pipeline, its agents as commands."""
    spec = copy.deepcopy(_contract())
    spec["agentDefaults"].pop("claudeCode")
    spec["agentDefaults"]["command"] = ["agent", "--headless"]
    for agent in spec["agents"].values():
        agent.pop("claudeCode", None)
    return spec


def small_pipeline() -> JSON:
    """Three stages with every kind of gate and outcome, quick enough for hundreds of ways through it."""
    return {
        "documents": "docs/work-items/{item}",
        "limits": {"maxRuns": 40},
        "agents": {"worker": {"command": ["agent"], "commitPaths": ["."]}},
        "stages": [
            {
                "name": "plan",
                "agent": "worker",
                "gates": [
                    {
                        "name": "planned",
                        "files": ["plan.md"],
                        "onFailure": [{"whenFile": "questions.md", "hold": "NeedsInput"}, {"hold": "Blocked"}],
                    },
                    {"name": "approved", "approval": {}, "onFailure": [{"sendBackTo": "plan", "maxAttempts": 2}]},
                ],
            },
            {
                "name": "build",
                "agent": "worker",
                "gates": [
                    {
                        "name": "tests",
                        "command": {"run": ["make", "test"]},
                        "onFailure": [{"sendBackTo": "build", "maxAttempts": 3}],
                    }
                ],
            },
            {
                "name": "review",
                "agent": "worker",
                "gates": [
                    {
                        "name": "reviewed",
                        "verdict": {"file": "12-review.md", "pass": ["APPROVED"], "fail": ["REQUEST_CHANGES"]},
                        "onFailure": [{"sendBackTo": "build", "maxAttempts": 2}],
                    }
                ],
                "onRunFailure": [{"sendBackTo": "build", "hold": "Blocked"}],
            },
        ],
    }


def forge_pipeline(**merge: Any) -> JSON:
    """The small Pipeline with a pull request after the build, its checks as a gate, and a merge at the end."""
    spec = small_pipeline()
    _, build, review_stage = spec["stages"]
    build["pullRequest"] = {"title": "feat: {title}"}
    checks = {
        "name": "checks",
        "ci": {"whenAbsent": "Skip", "timeout": "30m"},
        "onFailure": [{"sendBackTo": "build", "maxAttempts": 3}],
    }
    build["gates"].insert(0, checks)
    review_stage["merge"] = {
        "method": "fast-forward-only",
        "updateBranch": "Rebase",
        "deleteBranch": True,
        "onConflict": [{"sendBackTo": "build", "maxAttempts": 2}],
        **merge,
    }
    return spec


def good(task: RunTask) -> dict[str, str | None]:
    """What an agent that does its job writes in each stage of the default Pipeline; other words in every run."""
    words = f"by run {task.run}\n"
    files: dict[str, dict[str, str | None]] = {
        "analysis": dict.fromkeys(("02-brd.md", "03-trz.md", "04-acceptance-criteria.md", "05-test-plan.md"), words),
        "architecture": {"11-architecture.md": words},
        "development": {"/src/cart.py": words},
        "plan": {"plan.md": words},
        "build": {"/src/cart.py": words},
        "review": {"12-review.md": f"# Review\n\nVerdict: APPROVED\n\n{words}"},
        "testing": {"13-test-report.md": f"---\nverdict: PASS\n---\n{words}"},
    }
    return files.get(task.stage, {})


def _sha(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def blob_of(text: str) -> str:
    """Git's id of a file."""
    content = text.encode()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Branch:
    """The item's branch on the remote: a tree of files, and who made each commit."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {"README.md": "shop\n"}
        self.base = _sha("base")
        self.head: str | None = None
        self.ours: set[str] = set()
        self.trees: dict[str, dict[str, str]] = {}
        """The files of every commit."""
        self.not_fetched: tuple[protocol.NotFetched, ...] = ()
        self._count = 0

    def commit(self, files: dict[str, str], *, ours: bool) -> str:
        """A new head with exactly these files, unless nothing changed."""
        if files != self.files or self.head is None:
            self._count += 1
            self.files = dict(files)
            self.head = _sha(f"{self._count} {self.head} {sorted(files.items())}")
            self.trees[self.head] = dict(files)
            if ours:
                self.ours.add(self.head)
        if self.head is None:
            raise AssertionError("a commit makes a head")
        return self.head

    def push(self, writes: Mapping[str, str | None]) -> str:
        """A person's push; paths from the root."""
        return self.commit(_changed(self.files, writes), ours=False)

    def describe(self, task: RunTask) -> JSON:
        """What a report says about the head."""
        if self.head is None:
            return {"base_commit": self.base}
        code = json.dumps(sorted((p, t) for p, t in self.files.items() if not p.startswith(f"{task.documents}/")))
        excerpts = [
            protocol.Excerpt(p, self.files[p][:500], cut=len(self.files[p]) > 500 or None)
            for p in task.excerpts
            if p in self.files
        ]
        return {
            "base_commit": self.base,
            "head": self.head,
            "tree": _sha(json.dumps(sorted(self.files.items()))),
            "code": f"sha256:{hashlib.sha256(code.encode()).hexdigest()}",
            "blobs": tuple(blob_of(self.files[p]) if p in self.files else None for p in task.watch),
            "verdicts": tuple(
                protocol.Verdict(p, verdicts.find(self.files[p])) for p in task.verdicts if p in self.files
            ),
            "excerpts": tuple(excerpts[:8]),
            "not_fetched": self.not_fetched,
        }


def _changed(files: Mapping[str, str], writes: Mapping[str, str | None]) -> dict[str, str]:
    after = dict(files)
    for path, text in writes.items():
        if text is None:
            after.pop(path, None)
        else:
            after[path] = text
    return after


class World:
    """One item and all that surrounds it."""

    def __init__(self, pipeline: JSON | None = None, repository: JSON | None = None, **spec: Any) -> None:
        self.now = START
        self.pipeline: JSON | None = default_pipeline() if pipeline is None else pipeline
        self.generation = 1
        self.repository: JSON | None = {
            "metadata": {"name": "shop", "namespace": NAMESPACE},
            "spec": {"url": "https://git.example.com/shop/web.git", **(repository or {})},
        }
        self.home = self.repository
        """The Repository, should it be taken away for a while."""
        self.item: JSON = {
            "metadata": {
                "name": "et-12",
                "namespace": NAMESPACE,
                "uid": "0d4b7b1f-6a10-4f0e-9a51-7b0f7c3e6f0e",
                "generation": 1,
                "creationTimestamp": "2026-11-22T13:59:00Z",
            },
            "spec": {
                "repository": "shop",
                "title": "Discount codes at checkout",
                "description": 'One code. `$(reboot)` and "quotes" stay $$ text.\n',
                "branch": "feature/et-12-discounts",
                **spec,
            },
            "status": {},
        }
        self.branch = Branch()
        self.jobs: dict[str, FakeJob] = {}
        self.decisions: dict[str, JSON] = {}
        self.said = 0
        self.revisions: dict[str, JSON] = {}
        self.claims: dict[str, JSON] = {}
        self.admission = Admission(granted=True)
        self.defaults = DEFAULTS
        self.problem: Problem | None = None
        self.released: int | None = None
        self.lose_acknowledgements = False
        self.twice = False
        """Whether every decision is taken twice, to see that it is the same."""
        self.scripts: dict[str, list[Script]] = {}
        """Ends of the next runs by stage; where none is left, the agent does its job."""
        self.gate_scripts: dict[str, list[int | None]] = {}
        """Exit codes of the next Jobs by gate (None: the pod is lost); where none is left, 0."""
        self._read: tuple[JSON, WorkItemStatus] | None = None
        self._specs: dict[str, PipelineSpec] = {}
        self.kill_at: frozenset[int] = frozenset()
        """Boundaries, counted from 1, at which the operator's process ends."""
        self.boundaries = 0
        self.changes = 0
        self.created: Counter[str] = Counter()
        self.acknowledged: Counter[str] = Counter()
        self.tasks: list[RunTask] = []
        """The task of every agent Job that was created, in order."""
        self.phases: list[tuple[str, str]] = []
        """Every (stage, phase) that was written, without repetitions."""
        self.plans: list[Plan] = []
        self.forge = FakeForge(lambda _branch: self.branch)
        """Of a Repository that names one."""
        self.forge.cut = lambda _moment: self._boundary()
        self.forge.reports = lambda _commit: [Check("build", "success", "https://ci.example.com/1")]
        self.meanwhile: Callable[[World], None] = lambda _world: None
        """Happens between what a step has announced and its being carried out."""
        self._carriers = ForgeEffects(self._forge_of).carriers()
        self._outcomes: list[EffectOutcome] = []
        self._reading: Reading | None = None

    # What the operator sees.

    @property
    def status(self) -> WorkItemStatus:
        """The status as the API server has it."""
        raw = self.item["status"]
        if self._read is None or self._read[0] is not raw:
            self._read = (raw, WorkItemStatus.model_validate(raw))
        return self._read[1]

    @property
    def message(self) -> str:
        """What the Ready condition says."""
        return next((c.message for c in self.status.conditions if c.type == "Ready"), "")

    @property
    def reason(self) -> str:
        """Why, as the Ready condition says it."""
        return next((c.reason for c in self.status.conditions if c.type == "Ready"), "")

    @property
    def at(self) -> tuple[str, str]:
        """Stage and phase."""
        status = self.status
        return status.stage, str(status.phase)

    @property
    def docs(self) -> str:
        """The item's folder of documents."""
        return DOCUMENTS

    def gate(self, name: str) -> GateStatus:
        """A gate's status by its name."""
        return next(g for g in self.status.gates if g.name == name)

    def facts(self) -> Facts:
        """What observe.py would read now."""
        item = WorkItem.parse(self.item)
        facts = Facts(now=self.now, item=item, defaults=self.defaults, admission=self.admission)
        pending = tuple(Decision.parse(d) for d in self.decisions.values() if not d.get("status", {}).get("result"))
        view, problem = self._pipeline_view(item)
        repository = Repository.parse(self.repository) if self.repository is not None else None
        if repository is None:
            message = "there is no Repository shop in namespace team-a: apply it; the item goes on by itself"
            problem = problem or Problem("RepositoryNotFound", message)
        facts = replace(facts, decisions=pending, pipeline=view, repository=repository, problem=problem or self.problem)
        facts = replace(facts, outcomes=tuple(self._outcomes), reading=self._reading)
        if item.status.run is not None:
            return replace(facts, run_job=self._view(item.status.run.job))
        names = [g.job for g in item.status.gates if g.job is not None and g.result is GateResult.PENDING]
        return replace(facts, gate_jobs={name: self._view(name) for name in names})

    def _pipeline_view(self, item: WorkItem) -> tuple[PipelineView | None, Problem | None]:
        snapshot = item.status.pipeline
        if snapshot is not None:
            data = self.revisions.get(snapshot.revision)
            if data is None:
                message = "the item's copy of its Pipeline was deleted: restore it"
                return None, Problem("SnapshotMissing", message, blocked=True)
            spec = self._specs.get(snapshot.revision) or PipelineSpec.model_validate(data)
            self._specs[snapshot.revision] = spec
            view = PipelineView(snapshot.name, NAMESPACE, snapshot.generation, snapshot.digest, snapshot.revision, spec)
            return view, None
        if self.pipeline is None:
            return None, Problem("PipelineNotFound", "there is no Pipeline default in namespace team-a: apply it")
        spec = PipelineSpec.model_validate(self.pipeline)
        digest = "sha256:" + hashlib.sha256(json.dumps(self.pipeline, sort_keys=True).encode()).hexdigest()
        revision = manifests.snapshot_name(item, digest)
        return PipelineView("default", NAMESPACE, self.generation, digest, revision, spec), None

    def _view(self, name: str) -> JobView:
        job = self.jobs.get(name)
        if job is None:
            return JobView(name)
        return JobView(name=name, uid=job.uid, owner_uid=job.owner_uid, failed=job.failed, pod=job.pod)

    # What the operator does.

    def step(self) -> Plan:
        """One look, one decision, carried out."""
        facts = self.facts()
        plan = decide(facts)
        assert not self.twice or decide(facts) == plan, "the same facts gave two plans"
        announced = any(effect.state == "Intended" and not effect.target for effect in plan.status.effects)
        assert not announced or plan.requeue_seconds == 0, "an announced effect waits for an event that may be lost"
        self.plans.append(plan)
        for action in plan.before:
            self._carry_out(action)
        self._reading = None
        self._write(facts.item, plan.status)
        self._outcomes = []
        for action in plan.after:
            self._carry_out(action)
        self.meanwhile(self)
        self._deliver()
        if plan.question is not None:
            self._reading = self._read_forge(plan.question)
        return plan

    def _deliver(self) -> None:
        """What the executor of the outbox does meanwhile: strictly in order, as far as the forge answers."""
        for effect in effects.waiting(self.status.effects):
            if effect.next_attempt_at is not None and effect.next_attempt_at > self.now:
                return
            # The item as a live read shows it.
            item = WorkItem.parse(json.loads(json.dumps(self.item)))
            self._boundary()
            try:
                result = _driven(self._carriers[effect.kind](item, effect))
            except errors.WorkItemsError as error:
                self._outcomes.append(self._failed(effect, error))
                if self._outcomes[-1].state == "Failed":
                    continue
                return
            if result is None:
                return
            self._boundary()
            self._outcomes.append(
                EffectOutcome(
                    effect.id,
                    result.state,
                    effect.attempts + 1,
                    result.ref,
                    reason=result.reason,
                    error=result.error,
                    values=result.values,
                )
            )

    def _failed(self, effect: Effect, error: errors.WorkItemsError) -> EffectOutcome:
        """Tried again later, and not for ever where it is refused."""
        reason = error.reason if isinstance(error, errors.Permanent) else None
        refusals = effect.refusals + isinstance(error, errors.Permanent | errors.Undecided)
        final = reason is not None and refusals >= outbox.REFUSALS
        return EffectOutcome(
            effect.id,
            "Failed" if final else "Intended",
            effect.attempts + 1,
            next_attempt_at=None if final else self.now + timedelta(seconds=5 * 2 ** min(effect.attempts, 6)),
            reason=reason,
            error=str(error),
            refusals=refusals,
        )

    def _read_forge(self, question: Question) -> Reading:
        try:
            pull = _driven(self.forge.get(question.number)) if question.number is not None else None
            head = _driven(self.forge.head(question.branch)) if question.branch else None
            checks = _driven(self.forge.checks(question.commit)) if question.checks else Checks(question.commit)
            return Reading(question, pull, head, checks)
        except errors.WorkItemsError as error:
            reason = error.reason if isinstance(error, errors.Permanent) else ""
            return Reading(question, error=str(error), reason=reason, again_seconds=10)

    async def _forge_of(self, _namespace: str, _repository: str) -> FakeForge:
        return self.forge

    def rest(self, steps: int = 24) -> Plan:
        """Step, and start again after a kill, until nothing changes any more at this moment."""
        for _ in range(steps):
            before = self.changes
            try:
                plan = self.step()
            except Killed:
                self._outcomes, self._reading = [], None
                continue
            news = self._outcomes or self._reading is not None
            if self.changes == before and plan.requeue_seconds != 0 and not news:
                return plan
        raise AssertionError(f"no rest after {steps} steps: {[str(p) for p in self.plans[-4:]]}")

    def _boundary(self) -> None:
        self.boundaries += 1
        if self.boundaries in self.kill_at:
            raise Killed

    def _write(self, item: WorkItem, status: WorkItemStatus) -> None:
        if status == item.status:
            return
        self._boundary()
        written = json.loads(json.dumps(status.to_json()))
        # What the API server would refuse: the CRD's limits are those of the models.
        parsed = WorkItemStatus.model_validate(written)
        assert parsed.to_json() == written, "a status that changes on its way through the API server"
        assert len(json.dumps(written, ensure_ascii=False).encode()) < 200_000
        self.item["status"] = written
        self.changes += 1
        if not self.phases or self.phases[-1] != self.at:
            self.phases.append(self.at)
        self._boundary()

    def _carry_out(self, action: Action) -> None:
        self._boundary()
        match action:
            case EnsureSnapshot(manifest):
                if manifest["metadata"]["name"] not in self.revisions:
                    self.revisions[manifest["metadata"]["name"]] = json.loads(json.dumps(manifest["data"]))
                    self.changes += 1
            case EnsureClaim(manifest):
                if manifest["metadata"]["name"] not in self.claims:
                    self.claims[manifest["metadata"]["name"]] = manifest
                    self.changes += 1
            case CreateJob(manifest):
                self._create(manifest)
            case DeleteJob(name):
                if self.jobs.pop(name, None) is not None:
                    self.changes += 1
            case ReleaseJobs(ttl_seconds):
                self.changes += self.released is None
                self.released = ttl_seconds
            case Acknowledge():
                self._acknowledge(action)
        self._boundary()

    def _create(self, manifest: JSON) -> None:
        name = manifest["metadata"]["name"]
        if name in self.jobs:
            return
        assert self.live_runs() == [], "a second live run of one item"
        template = manifest["spec"]["template"]
        task = RunTask.loads(template["metadata"]["annotations"][protocol.TASK_ANNOTATION])
        self.created[name] += 1
        self.changes += 1
        job = FakeJob(
            name=name,
            uid=f"job-{name}-{self.created[name]}",
            owner_uid=manifest["metadata"]["ownerReferences"][0]["uid"],
            manifest=json.loads(json.dumps(manifest)),
            task=task,
            pod=PodView(
                name=f"{name}-x1",
                phase="Running",
                node="node-1",
                created=self.now.replace(microsecond=0),
                containers={"runner": ContainerView(running=True), "agent": ContainerView(running=True)},
            ),
            seen_head=self.branch.head,
        )
        self.jobs[name] = job
        if job.gate is None:
            self.tasks.append(task)

    def _acknowledge(self, action: Acknowledge) -> None:
        decision = self.decisions.get(action.name)
        if decision is None or decision["metadata"]["uid"] != action.uid or self.lose_acknowledgements:
            return
        decision["status"] = action.status.to_json()
        self.acknowledged[action.name] += 1
        self.changes += 1

    # What happens around it.

    def pass_time(self, **delta: float) -> None:
        """Move the clock."""
        self.now += timedelta(**delta)

    def say(self, action: str, body: JSON | None = None, comment: str = "", **meta: Any) -> str:
        """A person creates a Decision; its name."""
        self.said += 1
        name = meta.pop("name", f"{action.lower()}-{self.said}")
        self.pass_time(seconds=1)
        created = meta.pop("created", self.now)
        spec: JSON = {"workItem": "et-12", "by": "team-lead", action: body or {}}
        if comment:
            spec["comment"] = comment
        self.decisions[name] = {
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "uid": f"decision-{self.said}-{name}",
                "creationTimestamp": created.isoformat(),
            },
            "spec": json.loads(json.dumps(DecisionSpec.model_validate(spec).to_json())),
        }
        return str(name)

    def approve(self, gate: str = "analysis-approved", commit: str | None = None) -> str:
        """An Approve of the head, or of another commit."""
        return self.say("approve", {"gate": gate, "commit": commit or self.status.head})

    def answer_to(self, name: str) -> tuple[str, str]:
        """What the operator replied to a Decision: result and reason."""
        status = self.decisions[name]["status"]
        return status["result"], status["reason"]

    def live_runs(self) -> list[str]:
        """Names of agent Jobs that may still run."""
        return [job.name for job in self.jobs.values() if job.gate is None and job.task is not None and job.live]

    def live_gates(self) -> list[str]:
        """Names of gates' Jobs that may still run."""
        return [job.name for job in self.jobs.values() if job.gate is not None and job.live]

    def run_job(self) -> FakeJob:
        """The Job of the current run."""
        run = self.status.run
        assert run is not None, self.at
        return self.jobs[run.job]

    def end_run(self, end: End | None = None) -> None:
        """The current run's Job ends."""
        self.end(self.run_job(), end)

    def end(self, job: FakeJob, end: End | None = None) -> None:
        """An agent's Job ends."""
        task = job.task
        assert task is not None
        end = end or End(writes=good(task))
        self.pass_time(seconds=40)
        report = self._work(job, task, end)
        message = end.raw if end.raw is not None else json.dumps(report.to_json()) if end.reported else ""
        assert job.pod is not None
        if end.deadline:
            job.failed, job.pod = "DeadlineExceeded", None
            return
        finished = self.now.replace(microsecond=0)
        agent = {"agent": ContainerView(end.exit_code, end.reason, end.tail, finished_at=finished)}
        job.pod = replace(
            job.pod,
            phase="Succeeded" if end.exit_code == 0 and end.reported else "Failed",
            disrupted=end.disrupted,
            containers={
                "runner": ContainerView(
                    exit_code=0 if end.reported else 137,
                    reason=end.runner_reason,
                    message=message,
                    finished_at=finished,
                ),
                # A look at the branch has no agent.
                **(agent if task.kind is RunKind.AGENT else {}),
            },
        )

    def _work(self, job: FakeJob, task: RunTask, end: End) -> RunReport:
        """The runner's part: checkout, the agent's writes, commit and push under a lease; the report."""
        expected, head = task.expected_head, self.branch.head
        facts: JSON = {"run": task.run, "uid": task.uid, "usage": protocol.Usage(3, cost_usd=end.cost, turns=end.turns)}
        if end.problem is not None:
            # Where nobody answered nothing was seen, but what was fetched before an agent began.
            unseen = end.problem.reason == runs.REMOTE_AWAY and not end.worked
            seen = {"base_commit": task.base_commit} if unseen else self.branch.describe(task)
            return RunReport(**{**facts, **seen, "problem": end.problem, "agent_started": end.worked})
        if task.kind is RunKind.LOOK:
            return RunReport(**{**facts, **self.branch.describe(task)})
        moved = protocol.Problem(reason="HeadMoved", message="somebody pushed")
        if expected is not None and job.seen_head != expected and job.seen_head not in self.branch.ours:
            return RunReport(**{**facts, **self.branch.describe(task), "problem": moved})
        facts |= {"agent_started": True, "ending": end.ending}
        if head != job.seen_head:
            update = {"problem": moved, "diverted_to": f"workitems/{task.item}/run-{task.run}"}
            return RunReport(**{**facts, **self.branch.describe(task), **update})
        writes = {p.lstrip("/") if p.startswith("/") else f"{task.documents}/{p}": t for p, t in end.writes.items()}
        files = _changed(_changed(self.branch.files, dict.fromkeys(task.remove)), writes)
        if task.merge_base:
            # The runner merges the base in, and the agent resolves what conflicts.
            files |= {f"src/{commit.id[:8]}.py": commit.subject for commit in self.forge.base_ahead}
            self.forge.base_ahead, self.forge.conflicts = (), False
        self.branch.commit(files, ours=True)
        pushed = head != self.branch.head
        return RunReport(**{**facts, **self.branch.describe(task), "committed": pushed, "pushed": pushed})

    def end_gate(
        self, code: int | None = 0, *, tail: str = "", reason: str = "Error", problem: protocol.Problem | None = None
    ) -> None:
        """The Job of the gate that is under way ends; None: its pod is lost, or its checkout met a `problem`."""
        (name,) = self.live_gates()
        job = self.jobs[name]
        assert job.pod is not None
        self.pass_time(seconds=20)
        agent = ContainerView(code, "Completed" if code == 0 else reason, tail)
        lost = code is None
        task = job.task
        assert task is not None
        said = json.dumps(RunReport(run=task.run, uid=task.uid, problem=problem).to_json()) if problem else ""
        job.pod = replace(
            job.pod,
            phase="Failed" if code != 0 else "Succeeded",
            disrupted=EVICTED if lost and problem is None else "",
            containers={
                "runner": ContainerView(exit_code=0 if problem is None else 1, message=said),
                "agent": ContainerView() if lost else agent,
            },
        )

    # The way on.

    def go(self, *, until: str = "", approve: bool = True, most: int = 400) -> None:
        """Let everything happen by its scripts until the item is over, waits for a person, or a run of `until` runs."""
        for _ in range(most):
            plan = self.rest()
            status = self.status
            if status.phase in FINISHED or (status.run is not None and status.run.stage == until):
                return
            if not self._go_on(status, plan, approve=approve):
                return
        raise AssertionError("it goes on for ever")

    def _go_on(self, status: WorkItemStatus, plan: Plan, *, approve: bool) -> bool:
        if self.live_gates():
            job = self.jobs[self.live_gates()[0]]
            codes = self.gate_scripts.get(job.gate or "", [])
            self.end_gate(codes.pop(0) if codes else 0)
        elif status.run is not None and status.run.job in self.live_runs():
            self._end_by_script(status.run)
        elif status.phase is Phase.IN_REVIEW and approve:
            waiting = next(g for g in status.gates if g.reason == "WaitingForApproval" and g.stage == status.stage)
            self.approve(waiting.name)
        elif plan.requeue_seconds is not None and status.hold is None and self._waits_a_while(status):
            self.pass_time(seconds=plan.requeue_seconds + 1)
        else:
            return False
        return True

    def _waits_a_while(self, status: WorkItemStatus) -> bool:
        """For the end of a backoff, or for the forge."""
        return status.next_attempt_at is not None or (status.phase is Phase.IN_PROGRESS and status.run is None)

    def _end_by_script(self, run: CurrentRun) -> None:
        job = self.jobs[run.job]
        scripts = self.scripts.get(run.stage, [])
        assert job.task is not None
        if run.kind == "Look":
            self.end(job)
            return
        self.end(job, scripts.pop(0)(job.task) if scripts else None)

    def script(self, stage: str, *ends: End | Script) -> None:
        """How the next runs of a stage end."""
        self.scripts.setdefault(stage, []).extend(_script(end) for end in ends)


def _driven(coroutine: Awaitable[T]) -> T:
    """What a coroutine that never waits returns."""
    if not isinstance(coroutine, Coroutine):
        raise TypeError("only a coroutine can be driven")
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    raise AssertionError("it waits for something")


def _script(end: End | Script) -> Script:
    if not isinstance(end, End):
        return end

    def fixed(_task: RunTask) -> End:
        return end

    return fixed


def writes(files: Mapping[str, str | None] | None = None, **options: Any) -> Script:
    """An agent that does its job and then writes these files as well (None: deletes them)."""
    return lambda task: End(writes={**good(task), **(files or {})}, **options)


def review(word: str) -> End:
    """A review with this verdict."""
    return End(writes={"12-review.md": f"Verdict: {word}\n\nThe price type is wrong.\n"})


def one_stage(*gates: JSON, **stage: Any) -> JSON:
    """A Pipeline of one stage, `build`, with these gates."""
    return {
        "documents": "docs/{item}",
        "agents": {"coder": {"command": ["agent"]}},
        "stages": [{"name": "build", "agent": "coder", "gates": list(gates), **stage}],
    }


__all__ = ["End", "Gate", "Killed", "World", "forge_pipeline", "one_stage", "review", "writes"]
