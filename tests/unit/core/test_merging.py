"""Pull request, ci gate and merge: what is done at the forge, when, and what a person reads where it cannot be."""

from datetime import timedelta
from typing import Any

import pytest

from tests.fake_forge import Pull
from tests.unit.core.world import FORGE, End, World, one_stage, writes
from workitems import errors
from workitems.api import EFFECTS_WAITING, Effect, GateResult, Phase, WorkItemStatus
from workitems.core import effects
from workitems.core.forge import Check, Commit

CI: dict[str, Any] = {
    "name": "ci-green",
    "ci": {"whenAbsent": "Skip", "timeout": "60m"},
    "onFailure": [{"sendBackTo": "build", "maxAttempts": 3}],
}
BEHIND = (Commit("c0ffee" * 6 + "beef", "Prices in cents", files=("src/cart.py",)),)


def pipeline(*gates: dict[str, Any], **merge: Any) -> dict[str, Any]:
    """Build with a pull request and these gates, then a stage that merges."""
    spec = one_stage(*gates, pullRequest={"title": "feat: {branchTail}"})
    spec["stages"].append({"name": "deploy", "agent": "coder", "merge": {"method": "merge", **merge}})
    return spec


def shop(*gates: dict[str, Any], **merge: Any) -> World:
    world = World(
        pipeline(*(gates or (CI,)), **merge),
        {"forge": FORGE},
        externalRef={"id": "ET-12", "url": "https://plane.example.com/ET-12"},
    )
    world.twice = True
    return world


def built(world: World, until: str = "") -> World:
    world.go(until=until)
    world.forge.check()
    return world


def test_a_pull_request_is_opened_its_checks_awaited_and_its_head_merged() -> None:
    world = built(shop())
    assert world.at == ("done", "Done")
    assert world.forge.merges == [(7, world.branch.head)]
    pull = world.status.pull_request
    assert pull is not None
    assert (pull.number, pull.state, pull.head) == (7, "merged", world.branch.head)
    assert pull.merge_commit == world.forge.pulls[7].merge_commit
    assert pull.url == "https://git.example.com/shop/web/pulls/7"
    gate = world.gate("ci-green")
    assert (gate.result, gate.reason) == (GateResult.PASSED, "ChecksPassed")
    assert "build https://ci.example.com/1" in gate.message
    assert gate.covers == f"commit:{world.branch.head}"
    assert f"pull request 7 is merged into main as {str(pull.merge_commit)[:12]}" in world.message
    delivered = next(c for c in world.status.conditions if c.type == "EffectsDelivered")
    assert (delivered.status, delivered.reason) == ("True", "Delivered")
    assert world.status.outbox is None


def test_the_text_names_the_task_and_keeps_the_gates_up_to_date() -> None:
    world = shop({**CI, "ci": {"timeout": "5m"}})
    world.forge.reports = lambda _commit: [Check("build", "pending")]
    built(world)
    pull = world.forge.pulls[7]
    assert pull.title == "feat: et-12-discounts"
    assert 'One code. `$(reboot)` and "quotes" stay $$ text.' in pull.body
    assert "[ET-12](https://plane.example.com/ET-12)" in pull.body
    assert "| build | ci-green | Failed" not in pull.body
    assert world.status.hold is not None, "three attempts are over"
    assert "| build | ci-green | ❌ Failed | not done within 5m" in pull.body
    assert world.forge.requests.count("open 7") == 1


def test_red_checks_send_back_with_their_links() -> None:
    world = shop()
    world.forge.reports = lambda _commit: [
        Check("lint", "success"),
        Check("test", "failure", "https://ci/2", "1 failed"),
    ]
    world.go(until="build")
    world.end_run()
    world.forge.reports = lambda commit: [
        Check("test", "failure" if commit == world.status.runs[0].commit else "success", "https://ci/2", "1 failed")
    ]
    world.rest()
    assert world.status.rework[0].attempts == 1
    assert "ci-green: test (1 failed) https://ci/2 failed" in world.run_job().task.prompt  # type: ignore[union-attr]
    world.go()
    assert world.at == ("done", "Done")
    assert world.forge.merges == [(7, world.branch.head)]


@pytest.mark.parametrize(
    ("absent", "result", "after"),
    [
        ("Skip", GateResult.SKIPPED, timedelta(minutes=2)),
        ("Fail", GateResult.FAILED, timedelta(minutes=2)),
        ("Wait", GateResult.FAILED, timedelta(minutes=60)),
    ],
)
def test_without_any_check(absent: str, result: GateResult, after: timedelta) -> None:
    world = World(one_stage({"name": "ci", "ci": {"whenAbsent": absent}}), {"forge": FORGE})
    world.forge.reports = lambda _commit: []
    world.go(until="build")
    world.end_run()
    world.rest()
    since = world.gate("ci").since
    assert world.gate("ci").result is GateResult.PENDING
    world.now = since + after - timedelta(seconds=1)
    world.rest()
    assert world.gate("ci").result is GateResult.PENDING
    world.now = since + after
    world.rest()
    assert world.gate("ci").result is result


def test_named_contexts_count_and_must_all_be_there() -> None:
    world = World(one_stage({"name": "ci", "ci": {"contexts": ["build", "e2e"]}}), {"forge": FORGE})
    world.forge.reports = lambda _commit: [Check("build", "success"), Check("coverage", "failure")]
    world.go(until="build")
    world.end_run()
    world.rest()
    assert world.gate("ci").message == "1 of 2 checks passed, waits for e2e (not reported yet)"
    world.forge.reports = lambda _commit: [Check("build", "success"), Check("e2e", "success"), Check("x", "failure")]
    world.pass_time(seconds=20)
    world.rest()
    assert world.at == ("done", "Done")


def test_a_forge_that_is_away_costs_its_time_and_nothing_else() -> None:
    world = shop()
    world.go(until="build")
    world.forge.away = "GET https://git.example.com: no answer in time"
    world.end_run()
    world.rest()
    assert (world.gate("ci-green").result, world.gate("ci-green").reason) == (GateResult.ERROR, "ForgeUnreachable")
    assert world.reason == "ForgeUnreachable"
    delivered = next(c for c in world.status.conditions if c.type == "EffectsDelivered")
    assert (delivered.status, delivered.reason) == ("False", "Late")
    assert "forge: 1 waiting, the first is pr-" in delivered.message
    assert world.status.outbox == "Pending"
    for _ in range(30):
        world.pass_time(seconds=120)
        world.rest()
    assert world.status.rework == ()
    assert world.status.infra_retries == 0
    world.forge.away = ""
    world.pass_time(minutes=10)
    world.go()
    assert world.at == ("done", "Done")
    assert world.forge.merges == [(7, world.branch.head)]
    world.forge.check()


def test_a_refused_token_is_for_a_person_and_goes_on_by_itself_once_it_is_mended() -> None:
    world = shop()
    world.go(until="build")
    world.forge.refuses = errors.Permanent("Unauthorized", "Gitea does not accept the token of Secret shop-gitea")
    world.end_run()
    world.rest()
    assert world.at == ("build", "Blocked")
    assert "Secret shop-gitea" in world.message
    assert world.status.hold is None
    world.forge.refuses = None
    world.pass_time(minutes=10)
    world.go()
    assert world.at == ("done", "Done")


def test_a_branch_without_commits_is_no_pull_request_but_a_failed_gate() -> None:
    world = shop()
    world.branch.head = world.branch.base
    world.item["spec"]["adoptBranch"] = True
    world.script("build", End(), End(), End())
    world.go()
    assert world.at == ("build", "Blocked")
    assert (world.gate("ci-green").result, world.gate("ci-green").reason) == (GateResult.FAILED, "NoCommits")
    assert "no commits that main lacks" in world.gate("ci-green").message
    assert world.status.hold is not None
    assert world.status.hold.reason == "ReworkExhausted"
    assert world.forge.pulls == {}


def test_a_closed_pull_request_is_reported_and_not_opened_again() -> None:
    world = built(shop(), until="deploy")
    world.forge.pulls[7].state = "closed"
    world.forge.pulls[7].head = str(world.branch.head)
    world.end_run()
    world.rest()
    assert world.at == ("deploy", "Blocked")
    assert world.reason == "PullRequestClosed"
    assert "reopen it at https://git.example.com/shop/web/pulls/7" in world.message
    runs = world.status.usage.runs
    world.say("retry")
    world.rest()
    assert world.reason == "PullRequestClosed"
    world.forge.pulls[7].state = "open"
    world.say("retry")
    world.go()
    assert world.at == ("done", "Done")
    assert world.status.usage.runs == runs, "what has been done stands"
    assert world.forge.merges == [(7, world.branch.head)]


def test_an_old_pull_request_of_a_branch_of_that_name_is_not_the_items() -> None:
    world = shop()
    world.go(until="build")
    world.branch.push({"old.py": "1\n"})
    old = world.branch.head
    world.forge.merges.clear()
    world.jobs[world.run_job().name].seen_head = old
    world.end_run(writes({"/src/new.py": "2\n"})(world.run_job().task))  # type: ignore[arg-type]
    world.go()
    assert world.status.pull_request is not None
    assert world.forge.merges == [(7, world.branch.head)]


def test_a_push_between_gate_and_merge_is_looked_at_and_judged_before_anything_is_merged() -> None:
    world = built(shop(), until="deploy")
    world.end_run()
    merged: list[str] = []
    world.forge.guard = lambda commit, _base: merged.append(commit)
    # The person's push falls between the forge's last answer and the merge.
    answer = world.forge.checks

    async def checks(commit: str) -> Any:
        found = await answer(commit)
        if not merged and not world.branch.trees.get(str(world.branch.head), {}).get("person.py"):
            world.branch.push({"person.py": "mine\n"})
        return found

    world.forge.checks = checks  # type: ignore[method-assign]
    world.go()
    assert world.at == ("done", "Done")
    assert "person.py" in world.branch.files
    assert merged == [world.branch.head]
    assert world.gate("ci-green").commit == world.branch.head
    assert any("look" in str(plan) for plan in world.plans)


def test_checks_that_turned_red_since_are_seen_before_the_merge() -> None:
    world = built(shop(), until="deploy")
    head = world.branch.head
    assert head is not None
    world.forge.report(head, build="failure")
    world.end_run(End(writes={}))
    world.rest()
    assert world.branch.head == head, "deploy changed nothing"
    assert world.status.rework[0].gate == "ci-green"
    assert world.forge.merges == []


def test_a_conflict_sends_back_with_the_commits_of_the_base() -> None:
    world = built(shop(onConflict=[{"sendBackTo": "build", "maxAttempts": 2}]), until="deploy")
    world.forge.conflicts, world.forge.base_ahead = True, BEHIND
    world.end_run()
    world.rest()
    job = world.run_job()
    assert job.task is not None
    assert job.task.stage == "build"
    assert "main, which has commits that it lacks: c0ffeec0ffee Prices in cents (src/cart.py)" in job.task.prompt
    assert job.task.merge_base, "the base is merged in first, and the agent resolves what conflicts"
    assert [(r.gate, r.attempts) for r in world.status.rework] == [("deploy/merge", 1)]
    world.go(until="deploy")
    world.forge.conflicts, world.forge.base_ahead = True, BEHIND
    world.end_run()
    world.rest()
    assert world.at == ("build", "Blocked")
    assert world.reason == "ReworkExhausted"
    assert world.forge.merges == []


def test_a_forge_that_is_slow_to_look_for_conflicts_costs_no_run() -> None:
    world = built(shop(onConflict=[{"sendBackTo": "build"}]), until="deploy")
    world.forge.undecided, world.forge.base_ahead = True, BEHIND
    world.end_run()
    world.rest()
    assert world.at == ("deploy", "InProgress")
    assert "Please try again later" in world.message
    world.pass_time(minutes=1)
    world.forge.undecided = False
    runs = world.status.usage.runs
    world.go()
    assert world.at == ("done", "Done")
    assert world.status.usage.runs == runs


def test_a_forge_that_goes_on_saying_later_has_found_a_conflict() -> None:
    world = built(shop(onConflict=[{"sendBackTo": "build"}]), until="deploy")
    world.forge.undecided, world.forge.base_ahead = True, BEHIND
    world.end_run()
    for _ in range(2):
        world.rest()
        assert world.at == ("deploy", "InProgress")
        world.pass_time(minutes=1)
    world.rest()
    assert world.run_job().task.stage == "build"  # type: ignore[union-attr]  # it is sent back


def test_a_branch_that_the_forge_does_not_delete_is_told_with_the_merge() -> None:
    world = built(shop(deleteBranch=True), until="deploy")
    world.forge.keeps_branches = "branch feature/et-12-discounts was not deleted: branch protected"
    world.end_run()
    world.go()
    assert world.at == ("done", "Done")
    delivered = next(c for c in world.status.conditions if c.type == "EffectsDelivered")
    assert (delivered.status, delivered.reason) == ("False", "BranchKept")
    assert delivered.message.endswith("is done, but branch feature/et-12-discounts was not deleted: branch protected")


def test_a_conflict_that_the_agent_resolves_is_merged() -> None:
    world = built(shop(onConflict=[{"sendBackTo": "build"}]), until="deploy")
    world.forge.conflicts, world.forge.base_ahead = True, BEHIND
    world.end_run()
    world.rest()
    world.end_run(End(exit_code=1))
    world.rest()
    world.say("retry")
    world.rest()
    task = world.run_job().task
    assert task is not None
    assert task.merge_base, "a run that failed has resolved nothing"
    world.go()
    assert world.at == ("done", "Done")
    assert "Prices in cents" in world.branch.files.values()
    assert world.forge.merges == [(7, world.branch.head)]
    assert [t.merge_base for t in world.tasks] == [False, False, True, True, False]


def test_a_conflict_without_on_conflict_waits_for_a_person_and_a_retry_merges_without_another_run() -> None:
    world = built(shop(), until="deploy")
    world.forge.conflicts, world.forge.base_ahead = True, BEHIND
    world.end_run()
    world.rest()
    assert world.at == ("deploy", "Blocked")
    assert world.reason == "MergeConflict"
    assert "Merge main into feature/et-12-discounts by hand and push it" in world.message
    world.forge.conflicts, world.forge.base_ahead = False, ()
    world.branch.push({"src/cart.py": "merged\n"})
    runs = world.status.usage.runs
    world.say("retry")
    world.go()
    assert world.at == ("done", "Done")
    assert world.status.usage.runs == runs
    assert world.forge.merges == [(7, world.branch.head)]


@pytest.mark.parametrize("style", ["Rebase", "Merge"])
def test_a_base_that_moved_is_brought_into_the_branch_and_the_gates_look_again(style: str) -> None:
    world = built(shop(method="fast-forward-only", updateBranch=style), until="deploy")
    world.forge.base_ahead = BEHIND
    before = world.branch.head
    world.end_run()
    world.go()
    assert world.at == ("done", "Done")
    assert f"update branch of 7 by {style.lower()}" in world.forge.requests
    assert world.branch.head != before
    assert world.gate("ci-green").commit == world.branch.head
    assert world.forge.merges == [(7, world.branch.head)]


def test_a_base_that_moved_and_conflicts_is_a_conflict() -> None:
    world = built(shop(method="fast-forward-only", updateBranch="Rebase"), until="deploy")
    world.forge.base_ahead, world.forge.conflicts = BEHIND, True
    world.end_run()
    world.rest()
    assert (world.at, world.reason) == (("deploy", "Blocked"), "MergeConflict")
    assert "c0ffeec0ffee Prices in cents" in world.message


def test_a_protected_base_that_wants_branches_up_to_date() -> None:
    world = built(shop(updateBranch="Merge"), until="deploy")
    world.forge.base_ahead = BEHIND
    world.forge.protected = "The head branch is behind the base branch"
    world.end_run()
    world.rest(30)
    world.forge.protected = ""
    world.go()
    assert world.at == ("done", "Done")
    assert "update branch of 7 by merge" in world.forge.requests


def test_what_the_forge_refuses_is_said_in_its_words() -> None:
    world = built(shop(), until="deploy")
    world.forge.protected = "Does not have enough approvals"
    world.end_run()
    world.rest()
    assert (world.at, world.reason) == (("deploy", "Blocked"), "MergeRefused")
    assert "Does not have enough approvals" in world.message
    world.forge.protected = ""
    world.say("retry")
    world.go()
    assert world.at == ("done", "Done")


def test_a_person_who_merges_the_very_head_has_done_it() -> None:
    world = built(shop(), until="deploy")
    world.end_run(End())
    world.forge.merge_by_hand(7)
    world.go()
    assert world.at == ("done", "Done")
    assert len(world.forge.merges) == 1
    assert world.status.pull_request is not None
    assert world.status.pull_request.merge_commit == world.forge.pulls[7].merge_commit


def test_a_forge_that_has_not_noted_yet_what_it_merged_has_merged_it() -> None:
    world = built(shop(), until="deploy")
    older = world.status.head or ""
    world.end_run(End(writes={"deployed.md": "yes\n"}))

    def cut(moment: str) -> None:
        if moment == "after merging":
            world.forge.pulls[7].head = older

    world.forge.cut = cut
    world.go()
    assert world.at == ("done", "Done")
    assert world.forge.merges == [(7, world.status.head)]


def test_a_person_who_merges_something_else_is_not_taken_for_the_gates() -> None:
    world = built(shop(), until="deploy")
    world.end_run(End())
    world.branch.push({"person.py": "mine\n"})
    world.forge.merge_by_hand(7)
    world.forge.merges.append((99, world.status.head or ""))
    world.rest(30)
    assert world.status.phase is Phase.BLOCKED
    assert world.reason == "MergedElsewhere"
    assert "create -f -" in world.message


def test_commits_after_a_persons_early_merge_get_a_pull_request_of_their_own() -> None:
    world = built(shop(), until="deploy")
    world.forge.merge_by_hand(7)
    world.end_run(End(writes={"deployed.md": "yes\n"}))
    world.go()
    assert world.at == ("done", "Done")
    assert [number for number, _ in world.forge.merges] == [7, 8]


def test_nothing_is_merged_while_the_item_is_suspended() -> None:
    world = built(shop(), until="deploy")
    world.item["spec"]["suspend"] = True
    world.item["metadata"]["generation"] += 1
    world.end_run()
    world.rest()
    assert world.at == ("deploy", "Suspended")
    assert world.forge.merges == []
    world.item["spec"]["suspend"] = False
    world.item["metadata"]["generation"] += 1
    world.go()
    assert world.forge.merges == [(7, world.branch.head)]


def test_an_announced_merge_is_withdrawn_by_a_suspend_that_comes_before_it() -> None:
    world = built(shop(), until="deploy")
    world.end_run()
    world.forge.away = ""
    while not any(e.kind == "Merge" and e.state == "Intended" for e in world.status.effects):
        # The forge goes away in the moment between its last answer and the merge.
        world.step()
        if world.plans[-1].question is not None:
            world.forge.away = "away"
    assert world.forge.merges == []
    world.item["spec"]["suspend"] = True
    world.item["metadata"]["generation"] += 1
    world.forge.away = ""
    world.pass_time(minutes=10)
    world.rest()
    assert world.at == ("deploy", "Suspended")
    assert world.forge.merges == []


def test_an_abort_closes_the_pull_request_and_keeps_the_branch() -> None:
    world = built(shop(), until="deploy")
    world.say("abort")
    world.rest()
    assert world.at == ("deploy", "Aborted")
    assert world.forge.pulls[7].state == "closed"
    assert world.status.pull_request is not None
    assert world.status.pull_request.state == "closed"
    assert world.status.outbox is None


def test_a_repository_without_a_forge_ends_with_its_branch_ready() -> None:
    world = World(pipeline(CI))
    world.go()
    assert world.at == ("done", "Done")
    assert (world.gate("ci-green").result, world.gate("ci-green").reason) == (GateResult.SKIPPED, "NoForge")
    assert "is ready at" in world.message
    assert world.status.pull_request is None
    assert not any(c.type == "EffectsDelivered" for c in world.status.conditions)


def test_a_push_while_a_person_is_asked_is_looked_at_and_asked_about() -> None:
    approval = {"name": "ok", "approval": {}}
    world = shop({"name": "planned", "files": ["plan.md"]}, approval)
    world.script("build", End(writes={"plan.md": "plan\n"}))
    world.go(approve=False)
    assert world.at == ("build", "InReview")
    assert world.branch.head is not None
    assert world.branch.head[:12] in world.message
    for text in ("better\n", "best\n"):
        head = world.branch.push({f"{world.docs.replace('work-items/', '')}/plan.md": text})
        world.pass_time(seconds=61)
        world.rest()
        assert world.run_job().task is not None
        world.go(approve=False)
        assert world.at == ("build", "InReview")
        assert head[:12] in world.message
    runs = world.status.usage.runs
    world.forge.away = "away"
    world.pass_time(seconds=61)
    world.rest()
    assert world.at == ("build", "InReview"), "a forge that is away keeps nobody from approving"
    world.forge.away = ""
    world.go(until="deploy")
    assert world.status.usage.runs == runs
    assert world.gate("ok").commit == world.branch.head


def test_a_pipeline_that_only_merges_opens_its_pull_request_for_that_under_the_items_title() -> None:
    world = World(one_stage(merge={"deleteBranch": True}), {"forge": FORGE})
    world.script("build", End(writes={"/src/a.py": "1\n"}))
    world.go()
    assert world.at == ("done", "Done")
    assert world.forge.pulls[7].title == "Discount codes at checkout"
    assert world.forge.requests[-1] == "merge 7 and delete the branch"


def test_a_pipeline_that_does_not_merge_ends_with_its_pull_request_open() -> None:
    world = World(one_stage(CI, pullRequest={"title": "{title}"}), {"forge": FORGE})
    world.script("build", End(writes={"/src/a.py": "1\n"}))
    world.go()
    assert world.at == ("done", "Done")
    assert world.forge.pulls[7].state == "open"
    assert "in pull request 7 (https://git.example.com/shop/web/pulls/7): every gate has passed" in world.message
    assert "✅ Passed" in world.forge.pulls[7].body, "the last text is told although the item is over"


# --- a forge that is away, and what people do at it meanwhile


def await_checks(world: World) -> World:
    """Pushed, and the forge goes away before it was asked anything."""
    world.go(until="build")
    world.forge.away = "no answer"
    world.end_run()
    world.rest()
    return world


def out(world: World, minutes: int = 60) -> None:
    """Nothing answers for so long."""
    for _ in range(minutes // 2):
        world.pass_time(minutes=2)
        world.rest()


def back(world: World) -> None:
    """The forge answers, and whoever waits for it asks again."""
    world.forge.away = ""
    world.pass_time(minutes=6)
    world.rest()


def until_merging(world: World) -> None:
    """The merge is announced, and the forge goes away before it is carried out."""

    def leaves(world: World) -> None:
        if any(e.kind == "Merge" and e.state == "Intended" for e in world.status.effects):
            world.forge.away = world.forge.away or "no answer"
            world.meanwhile = lambda _world: None

    world.meanwhile = leaves
    world.end_run()
    world.rest()
    assert world.forge.away
    assert world.forge.merges == []
    assert world.status.outbox == "Pending"


def test_a_ci_that_reports_late_after_an_outage_is_waited_for() -> None:
    world = shop()
    world.forge.reports = lambda _commit: []
    await_checks(world)
    out(world)
    back(world)
    assert world.gate("ci-green").result is GateResult.PENDING, "nobody could report while the forge was away"
    world.pass_time(seconds=100)
    world.rest()
    assert world.gate("ci-green").result is GateResult.PENDING
    world.forge.reports = lambda _commit: [Check("test", "failure")]
    world.pass_time(seconds=21)
    world.rest()
    assert [(r.gate, r.attempts) for r in world.status.rework] == [("ci-green", 1)]
    assert world.forge.merges == []


def test_checks_that_are_pending_have_their_whole_time_after_an_outage() -> None:
    world = shop({**CI, "ci": {"whenAbsent": "Wait", "timeout": "60m"}})
    world.forge.reports = lambda _commit: [Check("test", "pending")]
    world.go(until="build")
    world.end_run()
    world.rest()
    assert world.gate("ci-green").reason == "ChecksPending"
    runs = world.status.usage.runs
    world.forge.away = "no answer"
    out(world, 90)
    assert world.gate("ci-green").result is GateResult.ERROR
    back(world)
    assert (world.gate("ci-green").result, world.status.usage.runs) == (GateResult.PENDING, runs)
    out(world, 50)
    assert (world.gate("ci-green").result, world.status.usage.runs) == (GateResult.PENDING, runs)
    out(world, 12)
    assert [(r.gate, r.attempts) for r in world.status.rework] == [("ci-green", 1)], "then it is late by itself"


def test_the_clock_of_the_checks_starts_once_the_pull_request_is_open() -> None:
    world = shop()
    world.forge.reports = lambda _commit: []
    opens = world.forge.ensure

    async def refused(*_: Any, **__: Any) -> Any:
        raise errors.Permanent("Forbidden", "the token may not write pull requests")

    world.forge.ensure = refused  # type: ignore[method-assign]
    world.go(until="build")
    world.end_run()
    world.rest()
    assert (world.at, world.reason) == (("build", "Blocked"), "Forbidden")
    out(world, 20)
    gate = world.gate("ci-green")
    assert (gate.result, gate.reason) == (GateResult.PENDING, "PullRequestOpening")
    world.forge.ensure = opens  # type: ignore[method-assign]
    world.pass_time(minutes=6)
    world.rest()
    world.pass_time(seconds=100)
    world.rest()
    assert world.gate("ci-green").result is GateResult.PENDING
    world.pass_time(seconds=21)
    world.rest()
    assert world.gate("ci-green").reason == "NoChecks"


def test_an_outage_between_announcing_a_merge_and_carrying_it_out() -> None:
    world = built(shop(), until="deploy")
    until_merging(world)
    runs = world.status.usage.runs
    out(world)
    assert world.reason == "ForgeUnreachable"
    back(world)
    world.go()
    assert world.at == ("done", "Done")
    assert world.forge.merges == [(7, world.branch.head)]
    assert (world.status.usage.runs, world.status.rework) == (runs, ())


def test_checks_that_turn_red_while_a_merge_is_under_way_stop_it() -> None:
    world = built(shop(), until="deploy")
    until_merging(world)
    out(world)
    world.forge.report(str(world.branch.head), build="failure")
    back(world)
    assert world.forge.merges == []
    assert [(r.gate, r.attempts) for r in world.status.rework] == [("ci-green", 1)]


def test_a_pipeline_without_ci_gate_merges_whatever_the_checks_say() -> None:
    world = built(shop({"name": "ok", "approval": {}}), until="deploy")
    until_merging(world)
    world.forge.report(str(world.branch.head), build="failure")
    back(world)
    world.go()
    assert world.at == ("done", "Done")


def test_a_merge_that_was_carried_out_by_an_operator_that_died_is_not_asked_about_its_checks_again() -> None:
    world = built(shop(), until="deploy")
    until_merging(world)
    head = str(world.branch.head)
    world.forge.merge_by_hand(7)
    world.forge.report(head, deployed="failure")
    back(world)
    world.go()
    assert world.at == ("done", "Done")
    assert world.forge.merges == [(7, head)]


@pytest.mark.parametrize("moment", ["before", "announced"])
def test_a_pull_request_that_is_into_another_base_by_now_is_not_merged(moment: str) -> None:
    world = built(shop(), until="deploy")
    if moment == "announced":
        until_merging(world)
        world.forge.pulls[7].base = "release"
        back(world)
    else:
        world.forge.pulls[7].base = "release"
        world.end_run()
        world.rest()
    assert (world.at, world.reason) == (("deploy", "Blocked"), "MergeRefused")
    assert "is into release by now, and the item's base is main" in world.message
    assert world.forge.merges == []
    world.forge.pulls[7].base = "main"
    world.say("retry")
    world.go()
    assert world.at == ("done", "Done")
    assert world.status.pull_request is not None
    assert world.status.pull_request.base == "main"


def test_a_base_that_is_another_one_by_now_is_not_brought_into_the_branch() -> None:
    world = built(shop(method="fast-forward-only", updateBranch="Merge"), until="deploy")
    world.forge.base_ahead = BEHIND

    def retargets(world: World) -> None:
        if any(e.kind == "UpdateBranch" for e in world.status.effects):
            world.forge.pulls[7].base = "release"

    world.meanwhile = retargets
    world.end_run()
    world.rest()
    assert (world.at, world.reason) == (("deploy", "Blocked"), "MergeRefused")
    assert not any(request.startswith("update branch") for request in world.forge.requests)


def test_what_a_person_merged_into_another_base_is_still_to_be_merged() -> None:
    world = built(shop(), until="deploy")
    world.forge.pulls[7].base = "release"
    world.forge.merge_by_hand(7)
    world.end_run(End())
    world.go()
    assert world.at == ("done", "Done")
    assert world.forge.merges == [(7, world.branch.head), (8, world.branch.head)]
    assert world.forge.pulls[8].base == "main"
    assert "pull request 8 is merged into main" in world.message


def test_a_pull_request_that_is_closed_while_its_checks_are_awaited_is_reported() -> None:
    world = shop()
    world.forge.reports = lambda _commit: [Check("test", "pending")]
    world.go(until="build")
    world.end_run()
    world.rest()
    world.forge.pulls[7].state, world.forge.pulls[7].head = "closed", str(world.branch.head)
    world.forge.reports = lambda _commit: [Check("test", "success")]
    world.pass_time(seconds=21)
    world.rest()
    assert (world.at, world.reason) == (("build", "Blocked"), "PullRequestClosed")
    assert world.status.run is None
    world.forge.pulls[7].state = "open"
    world.say("retry")
    world.go()
    assert world.at == ("done", "Done")


@pytest.mark.parametrize("moment", ["checks", "merge"])
def test_a_pull_request_that_a_person_opened_in_the_place_of_a_closed_one_is_taken(moment: str) -> None:
    world = shop()
    if moment == "checks":
        world.forge.reports = lambda _commit: [Check("test", "pending")]
    world.go(until="build" if moment == "checks" else "deploy")
    if moment == "checks":
        world.end_run()
        world.rest()
    old = world.forge.pulls[7]
    old.state, old.head = "closed", str(world.branch.head)
    world.forge.pulls[8] = Pull(8, old.branch, "main", "By hand", "")
    world.forge.reports = lambda _commit: [Check("test", "success")]
    world.pass_time(seconds=21)
    world.go()
    assert world.at == ("done", "Done")
    assert world.forge.merges == [(8, world.branch.head)]
    assert world.status.pull_request is not None
    assert world.status.pull_request.number == 8
    assert "ci-green" in world.forge.pulls[8].body, "its text is the item's from now on"


def test_a_pipeline_that_does_not_merge_is_not_done_with_a_closed_pull_request() -> None:
    world = World(one_stage({"name": "ok", "files": ["a.md"]}, pullRequest={"title": "{title}"}), {"forge": FORGE})
    world.script("build", End(writes={"a.md": "1\n"}))

    def closes(world: World) -> None:
        for pull in world.forge.open():
            pull.state, pull.head = "closed", str(world.branch.head)

    world.meanwhile = closes
    world.go()
    assert (world.at, world.reason) == (("build", "Blocked"), "PullRequestClosed")
    world.meanwhile = lambda _world: None
    world.forge.pulls[7].state = "open"
    world.say("retry")
    world.go()
    assert world.at == ("done", "Done")


def test_a_pipeline_that_does_not_merge_waits_until_its_pull_request_is_open() -> None:
    world = World(one_stage(pullRequest={"title": "{title}"}), {"forge": FORGE})
    world.script("build", End(writes={"/src/a.py": "1\n"}))
    await_checks(world)
    out(world)
    assert (world.at, world.reason) == (("build", "InProgress"), "ForgeUnreachable")
    back(world)
    assert world.at == ("done", "Done")
    assert "in pull request 7" in world.message


def test_what_is_refused_for_good_after_an_outage_has_its_time_all_the_same() -> None:
    world = await_checks(shop())
    out(world, 180)
    world.forge.away, world.forge.refuses = "", errors.Permanent("Unauthorized", "no such token")
    world.pass_time(minutes=6)
    world.rest()
    assert world.status.hold is None
    assert world.status.outbox == "Pending"
    out(world, 30)
    assert world.status.hold is None
    out(world, 180)
    assert (world.status.hold is not None, world.reason) == (True, "Unauthorized")
    world.forge.refuses = None
    world.say("retry")
    world.go()
    assert world.at == ("done", "Done")


def test_a_person_who_puts_the_branch_back_to_an_earlier_run_is_looked_at() -> None:
    world = built(shop(), until="deploy")
    earlier = world.branch.head
    assert earlier is not None
    world.end_run(End(writes={"deployed.md": "yes\n"}))
    # Back before the operator asks the forge: to a commit of its own.
    world.branch.head, world.branch.files = earlier, dict(world.branch.trees[earlier])
    world.rest()
    assert world.reason == "ForgeLagsBehind", "for a moment, the forge may not have heard of the last push"
    world.go()
    assert world.at == ("done", "Done")
    assert world.forge.merges == [(7, earlier)]


def test_news_that_wait_never_keep_the_item_from_its_forge() -> None:
    status = shop().status
    for number in range(EFFECTS_WAITING + 10):
        new = Effect(id=f"say-{number}", kind="Notify", target="notify-0")
        status = status.model_copy(update={"effects": effects.intended(status.effects, new)})
    assert len(status.effects) == EFFECTS_WAITING
    for number in range(60):
        new = Effect(id=f"pr-{number}", kind="PullRequest", target="forge")
        status = status.model_copy(update={"effects": effects.intended(status.effects, new)})
    assert [e.id for e in status.effects if e.target == "forge"] == ["pr-59"], "each says all of it"
    WorkItemStatus.model_validate(status.to_json())


def test_a_forge_that_is_back_and_still_looks_for_conflicts_has_not_found_one() -> None:
    world = built(shop(onConflict=[{"sendBackTo": "build"}]), until="deploy")
    until_merging(world)
    out(world)
    world.forge.undecided, world.forge.base_ahead = True, BEHIND
    back(world)
    assert world.at == ("deploy", "InProgress")
    assert "Please try again later" in world.message
    world.forge.undecided = False
    world.go()
    assert world.forge.merges == [(7, world.branch.head)]
    assert world.status.rework == ()


def test_a_text_that_the_forge_refuses_for_good_is_named_in_a_condition_and_the_merge_comes_after_it() -> None:
    world = shop()
    world.forge.reports = lambda _commit: [Check("build", "pending")]
    world.go(until="build")
    world.end_run()
    world.rest()

    async def refused(*_: Any, **__: Any) -> None:
        raise errors.Permanent("RightsMissing", "the token may not edit pull request 7")

    world.forge.update = refused  # type: ignore[method-assign]
    world.forge.reports = lambda _commit: [Check("build", "success")]
    out(world, 140)
    assert [e.state for e in world.status.effects if e.kind == "PullRequestText"] == ["Failed"]
    delivered = next(c for c in world.status.conditions if c.type == "EffectsDelivered")
    assert (delivered.status, delivered.reason) == ("False", "RightsMissing")
    assert "was not carried out: the token may not edit pull request 7" in delivered.message
    assert world.status.outbox is None
    world.end_run()
    world.go()
    assert world.at == ("done", "Done")
    assert world.forge.merges == [(7, world.branch.head)]
