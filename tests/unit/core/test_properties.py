"""What must hold whatever happens: random ends of runs, decisions, kills, pushes and failures, in any order."""

import functools
import os
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.core.truth import accepted_approvals, check_done, check_may_merge
from tests.unit.core.world import (
    DOCUMENTS,
    EVICTED,
    FINISHED,
    FORGE,
    End,
    FakeJob,
    World,
    forge_pipeline,
    good,
    one_stage,
    review,
    small_pipeline,
)
from workitems import errors
from workitems.api import Phase, RunKind, WorkItem
from workitems.core import begin, effects, manifests, volumes
from workitems.core.facts import Admission, PodView
from workitems.core.forge import Check, Commit
from workitems.protocol import Problem

Event = Callable[[World], None]

PLAN = f"{DOCUMENTS}/plan.md"
BAD_ENDS = {
    "nothing": End(),
    "questions": End(writes={"questions.md": "?\n"}),
    "changes": review("REQUEST_CHANGES"),
    "nonsense": review("LGTM"),
    "code": End(writes={"/src/cart.py": "by the reviewer\n", "12-review.md": "Verdict: APPROVED\n"}),
    "failed": End(exit_code=1, tail="x" * 5000),
    "timeout": End(exit_code=124),
    "memory": End(exit_code=137, reason="OOMKilled"),
    "evicted": End(disrupted=EVICTED, reported=False, exit_code=None),
    "lost": End(reported=False),
    "lost unworked": End(reported=False, exit_code=None),
    "deadline": End(deadline=True),
    "garbage": End(raw="{" * 900),
    "no remote": End(problem=Problem(reason="RemoteUnreachable", message="away", retry=True)),
    "no prompt": End(problem=Problem(reason="PromptFileNotFound", message="not a file")),
    "lie": End(problem=Problem(reason="HeadMoved", message="it did not")),
    "cost": End(cost="NaN"),
}
ENDS: st.SearchStrategy[End | None] = st.one_of(st.none(), st.none(), st.sampled_from(list(BAD_ENDS.values())))
COMMENTS = st.sampled_from(["", "words", "ж" * 16_000])


def ends(end: End | None) -> Event:
    def event(world: World) -> None:
        run = world.status.run
        if run is not None and run.job in world.live_runs():
            job = world.jobs[run.job]
            assert job.task is not None
            world.end(job, end or End(writes=good(job.task)))

    return event


def gate_ends(code: int | None) -> Event:
    def event(world: World) -> None:
        if world.live_gates():
            world.end_gate(code, tail="tests: 1 failed\n" * 100)

    return event


def says(action: str, body: dict[str, Any], comment: str) -> Event:
    def event(world: World) -> None:
        content = dict(body)
        if action == "approve" and "commit" not in content:
            content["commit"] = world.status.head or "1" * 40
        world.say(action, content, comment=f"{comment or 'words'} no. {world.said}.")

    return event


def pushes(path: str) -> Event:
    def event(world: World) -> None:
        if world.branch.head is not None:
            world.branch.push({path: f"by a person, {len(world.branch.trees)}\n"})

    return event


def approves_what_is_there(world: World) -> None:
    """A person approves the branch's head, which nobody may have reported yet."""
    if world.branch.head is not None:
        world.approve("approved", commit=world.branch.head)


def killed(after: int) -> Event:
    def event(world: World) -> None:
        world.kill_at |= {world.boundaries + after}

    return event


def passes(seconds: int) -> Event:
    return lambda world: world.pass_time(seconds=seconds)


def suspends(value: bool) -> Event:
    def event(world: World) -> None:
        if world.item["spec"].get("suspend", False) != value:
            world.item["spec"]["suspend"] = value
            world.item["metadata"]["generation"] += 1

    return event


def queues(granted: bool) -> Event:
    def event(world: World) -> None:
        world.admission = Admission(granted=granted, message="behind others")

    return event


def repository(there: bool) -> Event:
    def event(world: World) -> None:
        world.repository = world.home if there else None

    return event


def goes_on(world: World) -> None:
    """Whoever is next does the right thing."""
    ends(None)(world)
    gate_ends(0)(world)
    if world.status.phase is Phase.IN_REVIEW:
        world.approve("approved")


def deletes_a_job(world: World) -> None:
    for name in [*world.live_runs(), *world.live_gates()]:
        del world.jobs[name]
        # Made again under its name it is no second Job of that run: a person took the first one away.
        world.created[name] -= 1


def replaces_a_job(world: World) -> None:
    for name in world.live_runs():
        job = world.jobs[name]
        world.jobs[name] = FakeJob(
            name, f"{job.uid}-anew", job.owner_uid, job.manifest, job.task, job.pod, job.seen_head
        )


def takes_the_pod(world: World) -> None:
    for name in world.live_runs():
        world.jobs[name].pod = PodView("pod", "Pending", created=world.now, unschedulable="no node")


def loses_acknowledgements(value: bool) -> Event:
    def event(world: World) -> None:
        world.lose_acknowledgements = value

    return event


DECISIONS = st.sampled_from(
    [
        ("approve", {"gate": "approved"}),
        ("approve", {"gate": "approved"}),
        ("approve", {"gate": "approved", "commit": "2" * 40}),
        ("approve", {"gate": "tests"}),
        ("reject", {"gate": "approved"}),
        ("answer", {}),
        ("retry", {}),
        ("retry", {}),
        ("sendBack", {"stage": "plan"}),
        ("sendBack", {"stage": "build"}),
        ("sendBack", {"stage": "review"}),
        *[("retry", {})] * 6,
        ("abort", {}),
    ]
)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    ENDS.map(ends),
    ENDS.map(ends),
    st.just(goes_on),
    st.just(goes_on),
    st.just(goes_on),
    st.sampled_from([0, 0, 0, 1, 124, None]).map(gate_ends),
    st.builds(lambda d, c: says(d[0], d[1], c), DECISIONS, COMMENTS),
    st.builds(lambda d, c: says(d[0], d[1], c), DECISIONS, COMMENTS),
    st.sampled_from([PLAN, f"{DOCUMENTS}/12-review.md", "src/cart.py"]).map(pushes),
    st.just(approves_what_is_there),
    st.integers(1, 12).map(killed),
    st.sampled_from([5, 60, 600, 86_400]).map(passes),
    st.booleans().map(suspends),
    st.booleans().map(queues),
    st.booleans().map(repository),
    st.booleans().map(loses_acknowledgements),
    st.sampled_from([deletes_a_job, replaces_a_job, takes_the_pod]),
)


def together(events: list[Event]) -> Event:
    """All of them before the operator looks again, as while it is away."""

    def event(world: World) -> None:
        for each in events:
            each(world)

    return event


HISTORIES = st.lists(
    st.one_of(EVENTS, EVENTS, EVENTS, st.lists(EVENTS, min_size=2, max_size=4).map(together)), min_size=20, max_size=60
)


def away(value: bool) -> Event:
    def event(world: World) -> None:
        world.forge.away = "GET https://git.example.com: no answer in time" if value else ""

    return event


def refuses(value: bool) -> Event:
    def event(world: World) -> None:
        world.forge.refuses = errors.Permanent("Unauthorized", "no such token") if value else None

    return event


def reports(*states: Any) -> Event:
    """What the CI says of the head, and of all that come after it."""

    def event(world: World) -> None:
        checks = [Check(f"check-{n}", state, "https://ci.example.com") for n, state in enumerate(states)]
        world.forge.reports = lambda _commit: checks

    return event


def base(*, ahead: bool, conflicts: bool, protected: bool) -> Event:
    def event(world: World) -> None:
        world.forge.base_ahead = (Commit("c0ffee" * 6 + "beef", "Prices in cents"),) if ahead else ()
        world.forge.conflicts = conflicts
        world.forge.protected = "not enough approvals" if protected else ""

    return event


def closes(world: World) -> None:
    for pull in world.forge.open():
        pull.head, pull.state = str(world.branch.head), "closed"


def reopens(world: World) -> None:
    if world.status.phase in FINISHED:
        # Whoever reopens the pull request of an item that is over has it for themselves.
        return
    for pull in world.forge.pulls.values():
        if pull.state == "closed" and not world.forge.open():
            pull.state = "open"


def merges_by_hand(world: World) -> None:
    for pull in world.forge.open():
        world.forge.merge_by_hand(pull.number)


def retargets(base: str) -> Event:
    def event(world: World) -> None:
        for pull in world.forge.open():
            pull.base = base

    return event


def before_it_is_carried_out(event: Event) -> Event:
    """Between the write that announces the next effect at the forge, and the request."""

    def arrange(world: World) -> None:
        def happens(world: World) -> None:
            if any(e.target == effects.FORGE and e.state == "Intended" for e in world.status.effects):
                world.meanwhile = lambda _world: None
                event(world)

        world.meanwhile = happens

    return arrange


AT_THE_FORGE: st.SearchStrategy[Event] = st.one_of(
    st.booleans().map(away),
    st.booleans().map(refuses),
    st.sampled_from(["release", "main", "main"]).map(retargets),
    st.sampled_from([(), ("success",), ("success",), ("success", "failure"), ("pending",)]).map(lambda s: reports(*s)),
    st.builds(
        lambda a, c, p: base(ahead=a, conflicts=c, protected=p),
        st.booleans(),
        st.booleans(),
        st.sampled_from([0, 0, 1]),
    ),
    st.sampled_from([closes, reopens, reopens, merges_by_hand]),
)
FORGE_EVENTS: st.SearchStrategy[Event] = st.one_of(
    EVENTS,
    st.just(goes_on),
    st.just(goes_on),
    st.just(passes(30)),
    st.sampled_from([600, 7200]).map(passes),
    AT_THE_FORGE,
    AT_THE_FORGE,
    AT_THE_FORGE.map(before_it_is_carried_out),
)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@given(st.lists(FORGE_EVENTS, min_size=20, max_size=60))
@example([ends(None), says("approve", {"gate": "approved"}, ""), ends(None), gate_ends(0), ends(None)])
@example([ends(None), goes_on, reports(), ends(None), pushes(PLAN), before_it_is_carried_out(merges_by_hand), goes_on])
def test_whatever_happens_nothing_is_merged_that_a_gate_did_not_pass(history: list[Event]) -> None:
    world = World(forge_pipeline(), {"forge": FORGE})
    world.forge.guard = functools.partial(check_may_merge, world)
    over: dict[str, Any] | None = None
    for event in [lambda _: None, *history]:
        event(world)
        plan = world.rest(steps=60)
        world.forge.check()
        check_shape(world)
        check_slot(world)
        check_nothing_is_stranded(world, plan.requeue_seconds)
        assert (world.status.outbox == "Pending") == any(e.state == "Intended" for e in world.status.effects)
        if over is not None:
            check_over(world, over, but=("effects", "outbox", "pullRequest", "conditions"))
        elif world.status.phase in FINISHED:
            over = world.item["status"]
            check_end_at_the_forge(world)
    heal(world)
    check_end_at_the_forge(world)
    hypothesis.event(str(world.status.phase))
    hypothesis.event(f"{len(world.forge.merges)} merges, {len(world.forge.pulls)} pull requests")
    assert world.status.phase in (*FINISHED, Phase.BLOCKED, Phase.NEEDS_INPUT), world.at


def check_end_at_the_forge(world: World) -> None:
    """Done is merged, by us or by a person, at a head for which every gate holds."""
    status = world.status
    if status.phase is Phase.DONE:
        check_done(world, accepted_approvals(world))
        assert status.pull_request is not None
        assert (status.pull_request.state, status.pull_request.head) == ("merged", status.head)
        assert status.pull_request.base == "main"
        assert (status.pull_request.number, status.head) in world.forge.merges
    elif status.outbox is None and status.phase is Phase.ABORTED:
        assert world.forge.open() == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@given(HISTORIES)
@example([ends(None), says("approve", {"gate": "approved"}, ""), ends(None), gate_ends(0), ends(None)])
@example([ends(None), pushes(PLAN), approves_what_is_there, says("reject", {"gate": "approved"}, ""), ends(None)])
@example([ends(BAD_ENDS["questions"]), together([says("answer", {}, ""), says("sendBack", {"stage": "plan"}, "")])])
def test_whatever_happens(history: list[Event]) -> None:
    world = World(small_pipeline())
    world.twice = True
    approved: set[str] = set()
    rejected: set[str] = set()
    heard = Heard(world)
    over: dict[str, Any] | None = None
    for event in [lambda _: None, *history]:
        event(world)
        plan = world.rest(steps=40)
        approved |= accepted_approvals(world)
        rejected = check_rejects(world, rejected)
        heard.check()
        check_shape(world)
        check_limits(world)
        check_slot(world)
        check_nothing_is_stranded(world, plan.requeue_seconds)
        if over is not None:
            check_over(world, over)
        elif world.status.phase in FINISHED:
            over = world.item["status"]
            if world.status.phase is Phase.DONE:
                check_done(world, approved)
    heal(world)
    if over is None and world.status.phase is Phase.DONE:
        check_done(world, approved | accepted_approvals(world))
    hypothesis.event(str(world.status.phase))
    hypothesis.event(f"{min(world.status.usage.runs // 5 * 5, 40)} runs or more")
    assert world.status.phase in (*FINISHED, Phase.BLOCKED, Phase.NEEDS_INPUT), world.at


def check_rejects(world: World, before: set[str]) -> set[str]:
    """Who is told that their Reject counts sees the stage run again; the uids of all that counted so far."""
    status = world.status
    now = {d.uid for d in status.decisions if (d.action, d.result) == ("Reject", "Accepted")}
    if now - before and status.phase not in FINISHED:
        assert "plan" not in status.completed
    return before | now


class Heard:
    """Whoever is told that their words count sees them in the next agent's prompt, whatever else was said."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._told: set[str] = set()
        self._runs = 0
        self._waiting: list[str] = []

    def check(self) -> None:
        world = self._world
        for record in world.status.decisions:
            if record.uid not in self._told and record.result == "Accepted":
                self._told.add(record.uid)
                if record.action in ("Answer", "Reject", "SendBack", "Retry"):
                    self._waiting.append(world.decisions[record.name]["spec"]["comment"])
        runs = [task for task in world.tasks if task.kind is RunKind.AGENT]
        if len(runs) > self._runs:
            self._runs = len(runs)
            # The newest words, where they are too many.
            if sum(len(words.encode()) for words in self._waiting) < 60_000:
                for words in self._waiting:
                    assert words in runs[-1].prompt, words[-30:]
            self._waiting.clear()


def check_shape(world: World) -> None:
    """One run at a time (the world refuses a second), no run number twice, conditions as kstatus reads them."""
    assert all(count <= 1 for count in world.created.values()), world.created
    numbers = [task.run for task in world.tasks]
    assert numbers == sorted(numbers)
    status = world.status
    names = {manifest["metadata"]["name"] for manifest in (job.manifest for job in world.jobs.values())}
    assert all(len(name) <= 63 for name in names)
    assert len(status.runs) <= 20
    conditions = {c.type: c for c in status.conditions}
    assert {"Ready", "Reconciling", "Stalled"} <= conditions.keys()
    # What is over is never looked at again: no generation is named that could grow old.
    observed = None if status.phase in FINISHED else world.item["metadata"]["generation"]
    assert {status.observed_generation, *(c.observed_generation for c in status.conditions)} == {observed}
    ready, stalled = conditions["Ready"].status == "True", conditions["Stalled"].status == "True"
    reconciling = conditions["Reconciling"].status == "True"
    assert ready == (status.phase is Phase.DONE)
    assert stalled == (status.phase in (Phase.BLOCKED, Phase.ABORTED))
    assert [ready, stalled, reconciling].count(True) == 1
    assert ("Succeeded" in conditions) == (status.phase in FINISHED)
    assert conditions["Ready"].message
    assert all(c.reason for c in status.conditions)
    if status.hold is not None:
        assert "kubectl -n team-a create -f - <<<" in conditions["Ready"].message


def check_limits(world: World) -> None:
    status = world.status
    limits = {"approved": 2, "tests": 3, "reviewed": 2, "review/run": 3}
    for rework in status.rework:
        # The count that reaches the limit is the send-back that was not followed by a run.
        assert rework.attempts <= limits[rework.gate] + (rework.gate == "review/run") * 100
    for gate, limit in limits.items():
        used = next((r.attempts for r in status.rework if r.gate == gate), 0)
        if used == limit and gate != "review/run":
            assert status.hold is not None or status.phase in FINISHED
    assert status.usage.runs <= 40 + 1
    assert status.infra_retries <= 3


def check_nothing_is_stranded(world: World, requeue: float | None) -> None:
    status = world.status
    if status.phase in FINISHED:
        return
    waits = (
        world.live_runs() != []
        or world.live_gates() != []
        or requeue is not None
        or status.phase in (Phase.QUEUED, Phase.SUSPENDED)
        or status.hold is not None
        or (status.phase is Phase.IN_REVIEW and any(g.reason == "WaitingForApproval" for g in status.gates))
    )
    assert waits, f"{world.at} waits for nothing: {world.message}"


def check_slot(world: World) -> None:
    """Who waits for a person, or is over, keeps nobody else waiting."""
    status = world.status
    if status.hold is not None or status.phase in FINISHED:
        assert not begin.occupies(status)
    waited_for = {gate.job for gate in status.gates if begin.occupies(status)}
    assert set(world.live_gates()) <= waited_for, "a command whose result nobody waits for"


def check_over(world: World, over: dict[str, Any], but: tuple[str, ...] = ()) -> None:
    """Only acknowledgements, and what is still to be told to the outside."""
    now = world.item["status"]
    for key in now.keys() | over.keys():
        if key not in ("decisions", *but):
            assert now.get(key) == over.get(key), key
    assert world.live_runs() == []


def heal(world: World) -> None:
    """With everything mended and everybody doing their part, an item comes to its end or to a person."""
    world.kill_at = frozenset()
    world.lose_acknowledgements = False
    world.admission = Admission(granted=True)
    world.repository = world.home
    world.meanwhile = lambda _world: None
    mended = base(ahead=False, conflicts=False, protected=False)
    for mend in (away(False), refuses(False), reports("success"), retargets("main"), mended):
        mend(world)
    world.pass_time(minutes=10)
    world.item["spec"]["suspend"] = False
    world.rest(steps=40)
    for name in world.live_runs():
        pod = world.jobs[name].pod
        if pod is None or pod.unschedulable:
            del world.jobs[name]
    world.go()


# Everything that is bounded (20 runs, 50 Decisions, 16 findings) is full after fifty of them.
MANY_RUNS = 500 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 80


@pytest.mark.slow
def test_status_stays_small_however_many_runs_there_are() -> None:
    world = World(one_stage(onRunFailure=[]), limits={"maxRuns": 1000})
    words = "ж" * 16_000
    bad = End(exit_code=1, tail="щ" * 2000)
    for number in range(MANY_RUNS):
        world.step()
        run = world.status.run
        assert run is not None
        assert run.number == number + 1
        world.end_run(bad)
        world.step()
        # What is over is of no interest, and looking through five hundred of each takes its time.
        world.jobs.clear()
        world.decisions.clear()
        world.say("retry", name=f"retry-{number}", comment=words if number > MANY_RUNS - 40 else "go on")
    assert len(world.status.runs) == 20
    assert len(world.status.decisions) == 50
    assert world.status.usage.runs == MANY_RUNS


LABELS = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
STAGES = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?\Z")


@pytest.mark.slow
@given(LABELS, STAGES, LABELS, st.integers(1, 10**6), st.integers(1, 10**6))
@settings(max_examples=100)
def test_every_name_is_a_dns_label_of_at_most_63_characters(
    item: str, stage: str, gate: str, attempt: int, number: int
) -> None:
    world = World(one_stage({"name": "g", "files": ["x"]}))
    world.item["metadata"]["name"] = item
    model = WorkItem.parse(world.item)
    gate_status = {
        "name": gate,
        "stage": stage,
        "result": "Pending",
        "reason": "x",
        "since": world.now,
        "checkedAt": world.now,
    }
    parsed = WorkItem.parse({**world.item, "status": {"gates": [gate_status]}}).status.gates[0]
    names = [
        manifests.run_job_name(model, stage, attempt, number),
        manifests.gate_job_name(model, parsed, number, attempt),
        volumes.claim_name(model),
        manifests.snapshot_name(model, "sha256:x"),
    ]
    for name in names:
        assert len(name) <= 63
        assert name[0].isalnum()
        assert name[-1].isalnum()
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert len(set(names)) == 4
    assert manifests.run_job_name(model, stage, attempt, number + 1) != names[0]
