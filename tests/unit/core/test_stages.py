"""Reading a Pipeline: what agents inherit, what placeholders stand for, and every mistake at once."""

from typing import Any

import pytest

from tests.unit.core.world import World, default_pipeline, one_stage
from workitems.api import PipelineSpec, WorkItem
from workitems.core import stages


def spec_of(**changes: Any) -> PipelineSpec:
    return PipelineSpec.model_validate({**one_stage(), **changes})


def item_of(**spec: Any) -> WorkItem:
    return WorkItem.parse(World(**spec).item)


MERGES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "what an agent does not say it inherits": ({"timeout": "9m"}, {}, {"timeout": "9m"}),
    "what it says wins": ({"timeout": "9m"}, {"timeout": "1m"}, {"timeout": "1m"}),
    "lists replace": ({"commitPaths": ["docs/"]}, {"commitPaths": ["src/"]}, {"commitPaths": ["src/"]}),
    "maps merge": (
        {"nodeSelector": {"a": "1", "b": "1"}},
        {"nodeSelector": {"b": "2", "c": "2"}},
        {"nodeSelector": {"a": "1", "b": "2", "c": "2"}},
    ),
    "maps in maps merge": (
        {"resources": {"limits": {"memory": "1Gi", "cpu": "1"}, "requests": {"cpu": "1"}}},
        {"resources": {"limits": {"memory": "2Gi"}}},
        {"resources": {"limits": {"memory": "2Gi", "cpu": "1"}, "requests": {"cpu": "1"}}},
    ),
    "a command displaces an inherited claudeCode": (
        {"claudeCode": {"model": "opus"}},
        {"command": ["x"]},
        {"command": ["x"]},
    ),
    "claudeCode displaces an inherited command": (
        {"command": ["x"]},
        {"claudeCode": {"model": "opus"}},
        {"claudeCode": {"model": "opus"}},
    ),
    "claudeCode merges with claudeCode": (
        {"claudeCode": {"model": "opus", "tools": ["Read"]}},
        {"claudeCode": {"tools": ["Bash"], "maxTurns": 3}},
        {"claudeCode": {"model": "opus", "tools": ["Bash"], "maxTurns": 3}},
    ),
}


@pytest.mark.parametrize(("defaults", "own", "merged"), MERGES.values(), ids=MERGES)
def test_merging(defaults: dict[str, Any], own: dict[str, Any], merged: dict[str, Any]) -> None:
    spec = spec_of(agentDefaults=defaults, agents={"coder": own})
    agent = stages.agent_of(spec, "coder")
    assert agent.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True) == merged


def test_placeholders_are_replaced_once_and_other_braces_stay() -> None:
    words = {"item": "et-12", "title": "{item}", "branch": "b"}
    assert stages.expand("a {item} {title} ${HOME} {} {other} {1}", words) == "a et-12 {item} ${HOME} {} {other} {1}"


def test_what_each_placeholder_stands_for() -> None:
    assert stages.values(item_of(), "build") == {
        "item": "et-12",
        "branch": "feature/et-12-discounts",
        "branchTail": "et-12-discounts",
        "stage": "build",
        "repository": "shop",
        "title": "Discount codes at checkout",
    }


def test_the_branch_is_named_after_the_item_unless_it_says_otherwise() -> None:
    assert stages.branch_of(item_of(branch=None)) == "workitem/et-12"


@pytest.mark.parametrize("title", ["../../etc/cron.d/x", "/abs", ".git", "a/../../b", "..", "con\\tent"])
def test_a_title_never_leads_out_of_its_folder(title: str) -> None:
    gate = {"name": "g", "files": ["{title}/x.md", "/{title}"]}
    spec = PipelineSpec.model_validate({**one_stage(gate), "documents": "docs/{title}"})
    paths = stages.Paths(spec, item_of(title=title))
    for path in (paths.documents, *paths.watched(), paths.root("{title}", "build")):
        assert not {"..", ".git", "."} & set(path.split("/"))
        assert not path.startswith("/")
        assert "\\" not in path


def test_paths_are_relative_to_the_documents_or_with_a_slash_to_the_root() -> None:
    paths = stages.Paths(PipelineSpec.model_validate(default_pipeline()), item_of())
    assert paths.document("12-review.md", "review") == "docs/work-items/et-12/12-review.md"
    assert paths.document("/CHANGELOG.md", "review") == "CHANGELOG.md"
    assert paths.root("prompts/{stage}.md", "review") == "prompts/review.md"


def test_each_document_is_watched_once() -> None:
    paths = stages.Paths(PipelineSpec.model_validate(default_pipeline()), item_of())
    names = [path.rsplit("/", 1)[1] for path in paths.watched()]
    assert sorted(names) == sorted(set(names))
    assert set(names) == {
        "01-questions.md",
        "02-brd.md",
        "03-trz.md",
        "04-acceptance-criteria.md",
        "05-test-plan.md",
        "10-conflict.md",
        "11-architecture.md",
        "12-review.md",
        "13-test-report.md",
    }


def test_the_default_pipeline_has_no_mistakes() -> None:
    assert stages.mistakes(PipelineSpec.model_validate(default_pipeline())) == ()


def gate(name: str = "g", **more: Any) -> dict[str, Any]:
    return {"name": name, "files": ["x"], **more}


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "an agent that is not there": (
        {"stages": [{"name": "build", "agent": "nobody"}]},
        "stage build: agent 'nobody' is not under agents (there are: coder)",
    ),
    "an agent without anything to run": (
        {"agents": {"coder": {}}},
        "agent coder: neither command nor claudeCode is given, here or in agentDefaults",
    ),
    "a mount without a volume": (
        {"agents": {"coder": {"command": ["x"], "volumeMounts": [{"name": "cache", "mountPath": "/cache"}]}}},
        "agent coder: volumeMount 'cache' names no volume of the agent",
    ),
    "a mount of one of our volumes": (
        {
            "agents": {
                "coder": {"command": ["x"], "volumeMounts": [{"name": "workitem-credentials", "mountPath": "/c"}]}
            }
        },
        "agent coder: volumeMount 'workitem-credentials' names no volume of the agent",
    ),
    "more than is allowed once merged": (
        {
            "agentDefaults": {"nodeSelector": {f"a{n}": "x" for n in range(30)}},
            "agents": {"coder": {"command": ["x"], "nodeSelector": {f"b{n}": "x" for n in range(30)}}},
        },
        "agent coder: too much of nodeSelector once agentDefaults is merged in",
    ),
    "two gates with one name": (
        {"stages": [{"name": "build", "agent": "coder", "gates": [gate(), gate()]}]},
        "gate 'g' is in stages build and build: a gate's name must be unique in the Pipeline",
    ),
    "two gates with one name in two stages": (
        {
            "stages": [
                {"name": "a", "agent": "coder", "gates": [gate()]},
                {"name": "b", "agent": "coder", "gates": [gate()]},
            ]
        },
        "gate 'g' is in stages a and b: a gate's name must be unique in the Pipeline",
    ),
    "sending back to nowhere": (
        {"stages": [{"name": "build", "agent": "coder", "gates": [gate(onFailure=[{"sendBackTo": "plan"}])]}]},
        "stage build, gate g: sendBackTo 'plan' is no stage (there are: build)",
    ),
    "sending back forwards": (
        {
            "stages": [
                {"name": "a", "agent": "coder", "onRunFailure": [{"sendBackTo": "b"}]},
                {"name": "b", "agent": "coder"},
            ]
        },
        "stage a, onRunFailure: sendBackTo 'b' comes after stage a",
    ),
    "a merge before the last stage": (
        {"stages": [{"name": "a", "agent": "coder", "merge": {}}, {"name": "b", "agent": "coder"}]},
        "stage a: merge belongs to the last stage: what a later one commits would not be merged",
    ),
    "a conflict that is sent to nowhere": (
        {"stages": [{"name": "a", "agent": "coder", "merge": {"onConflict": [{"sendBackTo": "plan"}]}}]},
        "stage a, merge.onConflict: sendBackTo 'plan' is no stage (there are: a)",
    ),
    "an unknown placeholder in the documents": (
        {"documents": "docs/{itme}"},
        "placeholder {itme} is unknown (there are: item, branch, branchTail, stage, repository, title)",
    ),
    "an unknown placeholder in a file": (
        {"stages": [{"name": "build", "agent": "coder", "gates": [gate(files=["{Item}.md"])]}]},
        "placeholder {Item} is unknown (there are: item, branch, branchTail, stage, repository, title)",
    ),
}


@pytest.mark.parametrize(("changes", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_found_before_anything_runs(changes: dict[str, Any], sentence: str) -> None:
    found = stages.mistakes(spec_of(**changes))
    assert sentence in found
    world = World({**one_stage(), **changes})
    world.rest()
    assert (world.at, world.reason) == (("created", "Blocked"), "PipelineInvalid")
    assert sentence in world.message
    assert world.jobs == {}


def test_all_mistakes_are_told_at_once() -> None:
    spec = spec_of(documents="{a}/{b}", stages=[{"name": "x", "agent": "nobody"}])
    assert len(stages.mistakes(spec)) == 3


def test_placeholders_in_a_command_are_the_shells_own() -> None:
    spec = spec_of(agents={"coder": {"command": ["sh", "-c", "echo ${HOME} {anything}"]}})
    assert stages.mistakes(spec) == ()


def test_more_documents_than_a_report_can_describe_are_refused() -> None:
    gates = [gate(f"g{n}", files=[f"{n}-{m}.md" for m in range(30)]) for n in range(2)]
    world = World(one_stage(*gates))
    world.rest()
    assert (world.at, world.reason) == (("created", "Blocked"), "PipelineInvalid")
    assert "name 60 documents" in world.message


def test_a_path_that_grows_too_long_is_refused() -> None:
    world = World({**one_stage(gate()), "documents": "{title}/{title}/{title}"}, title="t" * 250)
    world.rest()
    assert (world.at, world.reason) == (("created", "Blocked"), "PipelineInvalid")
    assert "longer than 512 characters" in world.message
