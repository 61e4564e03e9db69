"""Pipelines that admission must refuse, and edge cases that it must not."""

from __future__ import annotations

from typing import Any

from tests.e2e.admission.cases import Bad, Good, Manifest, agent, contract, gate, outcome, spec, stage

KIND = "Pipeline"
UNION = "a gate takes exactly one of files/absent, verdict, approval, ci, command"
OUTSIDE = "must stay inside the repository and out of .git"
VOLUME = "a volume takes exactly one of configMap, secret, emptyDir, persistentVolumeClaim"
STAGE = {"name": "build", "agent": "worker"}


def claude(output: str | None = None, **settings: Any) -> Manifest:
    """The Pipeline with a claudeCode agent."""
    return agent(command=None, claudeCode=settings, output=output)


BAD = (
    Bad("no stages", KIND, spec(stages=[]), "spec.stages", "at least 1 item"),
    Bad("no agents", KIND, spec(agents=None), "spec.agents", "Required value"),
    Bad(
        "too many stages", KIND, spec(stages=[{**STAGE, "name": f"s{n}"} for n in range(21)]), "spec.stages", "20 items"
    ),
    Bad("two stages of one name", KIND, spec(stages=[STAGE, STAGE]), "spec.stages[1]", "Duplicate value"),
    Bad("the reserved stage created", KIND, stage(name="created"), "spec.stages[0].name", "reserved"),
    Bad("the reserved stage done", KIND, stage(name="done"), "spec.stages[0].name", "reserved"),
    Bad("a stage's name of 41 characters", KIND, stage(name="s" * 41), "spec.stages[0].name", "40"),
    Bad("a stage's name in capitals", KIND, stage(name="Build"), "spec.stages[0].name", "should match"),
    Bad("a stage without agent", KIND, spec(stages=[{"name": "build"}]), "spec.stages[0].agent", "Required value"),
    Bad("an agent that is not there", KIND, stage(agent="nobody"), "spec.stages", "must be one of spec.agents"),
    Bad("an agent's name in capitals", KIND, spec(agents={"Worker": {}}), "spec.agents", "DNS label"),
    Bad("a gate of no kind", KIND, gate(), "spec.stages[0].gates[0]", UNION),
    Bad("a gate of two kinds", KIND, gate(ci={}, approval={}), "spec.stages[0].gates[0]", UNION),
    Bad("files and an approval in one gate", KIND, gate(files=["a"], approval={}), "spec.stages[0].gates[0]", UNION),
    Bad("no files at all", KIND, gate(files=[]), "gates[0].files", "at least 1 item"),
    Bad("too many files", KIND, gate(files=[f"{n}.md" for n in range(33)]), "gates[0].files", "32 items"),
    Bad(
        "two gates of one name",
        KIND,
        stage(gates=[{"name": "a", "ci": {}}, {"name": "a", "approval": {}}]),
        "spec.stages[0].gates[1]",
        "Duplicate value",
    ),
    Bad("a file outside", KIND, gate(files=["../x"]), "gates[0].files[0]", OUTSIDE),
    Bad("a file that climbs out", KIND, gate(files=["a/../../b"]), "gates[0].files[0]", OUTSIDE),
    Bad("git's own file", KIND, gate(files=[".git/config"]), "gates[0].files[0]", OUTSIDE),
    Bad("git's own file from the root", KIND, gate(absent=["/.GIT/config"]), "gates[0].absent[0]", OUTSIDE),
    Bad("a file with a NUL", KIND, gate(files=["a\x00b"]), "gates[0].files[0]", "control characters"),
    Bad("a file with a line break", KIND, gate(files=["a\nb"]), "gates[0].files[0]", "control characters"),
    Bad("a folder as file", KIND, gate(files=["docs/"]), "gates[0].files[0]", "write the path of a file"),
    Bad("a path of 201 characters", KIND, gate(files=["x" * 201]), "gates[0].files[0]", "200"),
    Bad(
        "a verdict outside",
        KIND,
        gate(verdict={"file": "../v.md", "pass": ["YES"], "fail": ["NO"]}),
        "gates[0].verdict.file",
        OUTSIDE,
    ),
    Bad(
        "a verdict that both passes and fails",
        KIND,
        gate(verdict={"file": "v.md", "pass": ["YES"], "fail": ["YES"]}),
        "gates[0].verdict.fail",
        "the same word is in pass and in fail",
    ),
    Bad(
        "a verdict that never passes",
        KIND,
        gate(verdict={"file": "v.md", "pass": [], "fail": ["NO"]}),
        "gates[0].verdict.pass",
        "at least 1 item",
    ),
    Bad("an empty command", KIND, gate(command={"run": []}), "gates[0].command.run", "at least 1 item"),
    Bad("a command as one text", KIND, gate(command={"run": "make test"}), "gates[0].command.run", "array"),
    Bad("an absent CI that is ignored", KIND, gate(ci={"whenAbsent": "Ignore"}), "gates[0].ci.whenAbsent", '"Skip"'),
    Bad("a CI that never times out", KIND, gate(ci={"timeout": "0s"}), "gates[0].ci.timeout", "more than zero"),
    Bad("an outcome of nothing", KIND, outcome(whenFile="a.md"), "onFailure[0]", "needs sendBackTo, hold, or both"),
    Bad("maxAttempts alone", KIND, outcome(hold="Blocked", maxAttempts=3), "onFailure[0]", "add sendBackTo"),
    Bad("no attempts at all", KIND, outcome(sendBackTo="build", maxAttempts=0), "maxAttempts", "equal to 1"),
    Bad("a hold of another kind", KIND, outcome(hold="Wait"), "onFailure[0].hold", '"NeedsInput", "Blocked"'),
    Bad("questions after a send-back", KIND, outcome(sendBackTo="build", hold="NeedsInput"), "hold", "hold: Blocked"),
    Bad("a send-back to no stage", KIND, outcome(sendBackTo="plan"), "spec.stages", "own stage or an earlier one"),
    Bad(
        "a send-back to a later stage",
        KIND,
        spec(
            stages=[
                {**STAGE, "gates": [{"name": "g", "ci": {}, "onFailure": [{"sendBackTo": "later"}]}]},
                {**STAGE, "name": "later"},
            ]
        ),
        "spec.stages",
        "own stage or an earlier one",
    ),
    Bad(
        "a failed run that goes to no stage",
        KIND,
        stage(onRunFailure=[{"sendBackTo": "plan"}]),
        "spec.stages",
        "the stage itself or an earlier one",
    ),
    Bad("a file outside decides", KIND, outcome(whenFile="/../x", hold="Blocked"), "onFailure[0].whenFile", OUTSIDE),
    Bad(
        "a merge before the last stage",
        KIND,
        spec(stages=[{**STAGE, "merge": {}}, {**STAGE, "name": "after"}]),
        "spec.stages",
        "merge belongs to the last stage",
    ),
    Bad(
        "a conflict that is sent to nowhere",
        KIND,
        stage(merge={"onConflict": [{"sendBackTo": "nowhere"}]}),
        "spec.stages",
        "a merge's onConflict must name",
    ),
    Bad("a merge by other means", KIND, stage(merge={"method": "force"}), "merge.method", '"squash"'),
    Bad("claudeCode and command", KIND, agent(claudeCode={}), "spec.agents", "claudeCode or command, not both"),
    Bad("claudeCode and output", KIND, claude(output="codex"), "output", "claudeCode has its own"),
    Bad("output of a CLI that nobody knows", KIND, agent(output="copilot"), "output", '"opencode"'),
    Bad("an effort of another kind", KIND, claude(effort="huge"), "effort", '"xhigh"'),
    Bad("no tools at all", KIND, claude(tools=[]), "claudeCode.tools", "at least 1 item"),
    Bad("a tool that is an option", KIND, claude(tools=["--dangerously"]), "tools[0]", "as in Read or Bash"),
    Bad("no turns", KIND, claude(maxTurns=0), "maxTurns", "equal to 1"),
    Bad("a budget as a number", KIND, claude(maxBudgetUSD=5), "maxBudgetUSD", "string"),
    Bad(
        "two keys",
        KIND,
        claude(credentials={"secretName": "s", "apiKey": "a", "authToken": "b"}),
        "credentials",
        "apiKey or authToken, not both",
    ),
    Bad(
        "a password in an address",
        KIND,
        claude(credentials={"secretName": "s", "baseURL": "https://u:p@example.com"}),
        "baseURL",
        "without user or password",
    ),
    Bad("an MCP server of no kind", KIND, claude(mcpServers={"x": {}}), "mcpServers", "exactly one of command, url"),
    Bad(
        "an MCP server's address without type",
        KIND,
        claude(mcpServers={"x": {"url": "https://example.com"}}),
        "type",
        "http or sse",
    ),
    Bad(
        "an MCP server with a name of words", KIND, claude(mcpServers={"a b": {"command": "x"}}), "mcpServers", "digits"
    ),
    Bad("an agent without program", KIND, agent(command=[]), "spec.agents.worker.command", "at least 1 item"),
    Bad("a system prompt from the node", KIND, agent(systemPromptFile="/etc/p"), "systemPromptFile", "leading '/'"),
    Bad("a task file in .git", KIND, agent(taskFile=".git/hooks/post-commit"), "taskFile", OUTSIDE),
    Bad("commits of git's own files", KIND, agent(commitPaths=["a/.git/"]), "commitPaths[0]", OUTSIDE),
    Bad("commits outside", KIND, agent(commitPaths=["../"]), "commitPaths[0]", OUTSIDE),
    Bad("commits by pathspec magic", KIND, agent(commitPaths=[":(top)"]), "commitPaths[0]", "leading '/' or ':'"),
    Bad("a timeout in words", KIND, agent(timeout="half an hour"), "spec.agents[worker].timeout", "as in 1h30m"),
    Bad(
        "an operator's variable",
        KIND,
        agent(env=[{"name": "WORKITEM_NAME", "value": "x"}]),
        "env[0].name",
        "set by the operator",
    ),
    Bad(
        "a variable that rules git",
        KIND,
        agent(env=[{"name": "GIT_SSH_COMMAND", "value": "x"}]),
        "env[0].name",
        "set by the operator",
    ),
    Bad("a variable twice", KIND, agent(env=[{"name": "A"}, {"name": "A"}]), "env[1]", "Duplicate value"),
    Bad("a variable's odd name", KIND, agent(env=[{"name": "A=B"}]), "env[0].name", "letters, digits and '_'"),
    Bad(
        "a variable from two sources",
        KIND,
        agent(env=[{"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
        "env[0]",
        "value or valueFrom",
    ),
    Bad("a variable from nowhere", KIND, agent(env=[{"name": "A", "valueFrom": {}}]), "valueFrom", "exactly one of"),
    Bad(
        "the node's files", KIND, agent(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), "hostPath", "unknown field"
    ),
    Bad("a volume of no kind", KIND, agent(volumes=[{"name": "v"}]), "volumes[0]", VOLUME),
    Bad(
        "a volume of two kinds",
        KIND,
        agent(volumes=[{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}]),
        "volumes[0]",
        VOLUME,
    ),
    Bad(
        "an operator's volume",
        KIND,
        agent(volumes=[{"name": "workitem-exchange", "emptyDir": {}}]),
        "volumes[0].name",
        "belong to the operator",
    ),
    Bad(
        "a mount over the worktree",
        KIND,
        agent(volumeMounts=[{"name": "v", "mountPath": "/workspace/shop"}]),
        "volumeMounts[0].mountPath",
        "mount it elsewhere",
    ),
    Bad(
        "a mount that climbs",
        KIND,
        agent(volumeMounts=[{"name": "v", "mountPath": "/cache/../workitem"}]),
        "volumeMounts[0].mountPath",
        "mount it elsewhere",
    ),
    Bad("privileges", KIND, agent(securityContext={"privileged": True}), "securityContext", "unknown field"),
    Bad("memory in words", KIND, agent(resources={"limits": {"memory": "lots"}}), "limits[memory]", "write a quantity"),
    Bad("fewer CPUs than none", KIND, agent(resources={"limits": {"cpu": -1}}), "limits[cpu]", "write a quantity"),
    Bad(
        "half a CPU as number", KIND, agent(resources={"limits": {"cpu": 0.5}}), "limits.cpu", "must be of type integer"
    ),
    Bad("documents outside", KIND, spec(documents="../docs"), "spec.documents", "inside the repository"),
    Bad("documents from the root", KIND, spec(documents="/docs"), "spec.documents", "without '/' at either end"),
    Bad("negative retries", KIND, spec(limits={"maxInfraRetries": -1}), "maxInfraRetries", "equal to 0"),
    Bad("no concurrency", KIND, spec(limits={"maxConcurrentRuns": 0}), "maxConcurrentRuns", "equal to 1"),
    Bad("a negative lifetime", KIND, spec(ttlSecondsAfterFinished=-1), "ttlSecondsAfterFinished", "equal to 0"),
)

GOOD = (
    Good("the contract's default", KIND, {"spec": None} | contract("pipeline-default.yaml")[0]),
    Good("files and absent in one gate", KIND, gate(files=["a.md"], absent=["b.md"])),
    Good("a file from the repository's root", KIND, gate(files=["/README.md"])),
    Good("dots that lead nowhere", KIND, gate(files=["a..b/...", ".gitignore", "x.git/y"])),
    Good("a placeholder in a file", KIND, gate(files=["{item}-report.md"])),
    Good("a placeholder that only reading can judge", KIND, spec(documents="docs/{unknown}")),
    Good("everything may be committed", KIND, agent(commitPaths=["."])),
    Good("a number of CPUs without quotes", KIND, agent(resources={"requests": {"cpu": 2, "memory": "1.5Gi"}})),
    Good("a send-back to the own stage", KIND, outcome(sendBackTo="build", hold="Blocked", maxAttempts=1)),
    Good("a mount beside the worktree", KIND, agent(volumeMounts=[{"name": "v", "mountPath": "/workspaces"}])),
    Good(
        "as many files in as many gates as there may be",
        KIND,
        spec(
            stages=[
                {**STAGE, "name": f"s{n}", "gates": [{"name": f"g{m}", "files": ["a.md"] * 32} for m in range(16)]}
                for n in range(20)
            ]
        ),
    ),
)
