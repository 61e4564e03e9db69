"""Reading a Pipeline: which agent a stage runs, which documents its gates name, what the placeholders stand for.

Also finds what admission cannot: agents or stages that are named but not there, and unknown placeholders. Everything
here is computed from the Pipeline's spec and the item's names alone, so that a person gets the whole list of mistakes
at once, before anything has run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from workitems.api import Agent, Gate, Outcome, PipelineSpec, Stage, WorkItem

DOCUMENTS_WATCHED = 48
"""Blob ids of as many documents fit into a termination message, with SHA-256 too."""
PATH_CHARACTERS = 512

CREATED = "created"
DONE = "done"

# Braces around one word: what a person meant as a placeholder. Commands are never expanded: `${HOME}` is theirs.
_PLACEHOLDER = re.compile(r"\{([A-Za-z][A-Za-z0-9_]*)\}")
PLACEHOLDERS = ("item", "branch", "branchTail", "stage", "repository", "title")


def branch_of(item: WorkItem) -> str:
    """The item's branch: as written, or `workitem/<name>`."""
    return item.spec.branch or f"workitem/{item.metadata.name}"


def values(item: WorkItem, stage: str) -> dict[str, str]:
    """What each placeholder stands for."""
    branch = branch_of(item)
    return {
        "item": item.metadata.name,
        "branch": branch,
        "branchTail": branch.rsplit("/", 1)[-1],
        "stage": stage,
        "repository": item.spec.repository,
        "title": item.spec.title,
    }


def expand(text: str, words: dict[str, str]) -> str:
    """`text` with its placeholders replaced, once: a title that contains `{item}` stays as it is written."""
    return _PLACEHOLDER.sub(lambda match: words.get(match.group(1), match.group(0)), text)


def stage_named(spec: PipelineSpec, name: str) -> Stage | None:
    """The stage of that name."""
    return next((stage for stage in spec.stages if stage.name == name), None)


def index_of(spec: PipelineSpec, name: str) -> int:
    """Position of a stage; `created` is before all of them, `done` after."""
    if name == DONE:
        return len(spec.stages)
    return next((index for index, stage in enumerate(spec.stages) if stage.name == name), -1)


def from_stage(spec: PipelineSpec, name: str) -> tuple[str, ...]:
    """Names of a stage and of all later ones."""
    return tuple(stage.name for stage in spec.stages[max(index_of(spec, name), 0) :])


def agent_of(spec: PipelineSpec, name: str) -> Agent:
    """The agent as it runs: defaults merged in (maps merge, lists replace; `command` displaces `claudeCode`)."""
    own = spec.agents[name].model_dump(exclude_none=True, exclude_unset=True)
    inherited = spec.agent_defaults.model_dump(exclude_none=True, exclude_unset=True)
    if "command" in own:
        inherited.pop("claude_code", None)
    if "claude_code" in own:
        inherited.pop("command", None)
        inherited.pop("output", None)
    return Agent.model_validate(_merge(inherited, own))


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


class Paths:
    """Paths that a Pipeline names, as paths from the repository's root, for one item."""

    def __init__(self, spec: PipelineSpec, item: WorkItem) -> None:
        """Take the Pipeline and the item whose names the placeholders stand for."""
        self._spec = spec
        words = values(item, "")
        # Anybody who may create an item writes the title: it names one folder or file, it does not lead anywhere.
        self._fixed = {**words, "title": "".join(c if c.isalnum() or c in " _-" else "-" for c in words["title"])}
        self.documents = expand(spec.documents, self._words("")).rstrip("/")

    def document(self, name: str, stage: str) -> str:
        """A gate's file: relative to `documents`, or to the root where it starts with a slash."""
        path = expand(name, self._words(stage))
        return path.lstrip("/") if path.startswith("/") else f"{self.documents}/{path}"

    def root(self, name: str, stage: str) -> str:
        """An agent's file (prompt, task, commit path): always relative to the root."""
        return expand(name, self._words(stage)).lstrip("/")

    def _words(self, stage: str) -> dict[str, str]:
        return {**self._fixed, "stage": stage}

    def mistakes(self) -> tuple[str, ...]:
        """What only shows with this item's names in the placeholders."""
        watched = self.watched()
        found = [
            f"the path {path[:60]}… of a document is longer than {PATH_CHARACTERS} characters"
            for path in watched
            if len(path) > PATH_CHARACTERS
        ]
        if len(watched) > DOCUMENTS_WATCHED:
            found.append(
                f"the gates name {len(watched)} documents, and a run's report has room for {DOCUMENTS_WATCHED}"
            )
        return tuple(found)

    def named_by(self, stage: Stage) -> tuple[str, ...]:
        """Documents that a stage's gates judge: what an approval of that stage covers."""
        return _unique(self.document(name, stage.name) for gate in stage.gates for name in _judged(gate))

    def outcome_files(self, stage: Stage) -> tuple[str, ...]:
        """Files whose presence or words decide; removed before the stage's agent starts."""
        names: list[str] = []
        for gate in stage.gates:
            names += gate.absent or ()
            names += [gate.verdict.file] if gate.verdict else []
            names += [o.when_file for o in gate.on_failure if o.when_file]
        names += [o.when_file for o in _of_stage(stage) if o.when_file]
        return _unique(self.document(name, stage.name) for name in names)

    def watched(self) -> tuple[str, ...]:
        """All documents of all stages whose presence or content some gate or outcome depends on."""
        return _unique(
            path for stage in self._spec.stages for path in (*self.named_by(stage), *self.outcome_files(stage))
        )


def _of_stage(stage: Stage) -> tuple[Outcome, ...]:
    """What a stage's own failures lead to, apart from its gates'."""
    return (*stage.on_run_failure, *(stage.merge.on_conflict if stage.merge is not None else ()))


def _judged(gate: Gate) -> Iterator[str]:
    yield from gate.files or ()
    yield from gate.absent or ()
    if gate.verdict:
        yield gate.verdict.file


def _unique(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(paths))


def mistakes(spec: PipelineSpec) -> tuple[str, ...]:
    """What is wrong with a Pipeline that admission let through; empty: it can be used. One sentence each."""
    found: list[str] = []
    stages = [stage.name for stage in spec.stages]
    for stage in spec.stages:
        where = f"stage {stage.name}"
        if stage.agent not in spec.agents:
            found.append(f"{where}: agent {stage.agent!r} is not under agents (there are: {', '.join(spec.agents)})")
        else:
            found += _agent_mistakes(spec, stage.agent)
        for gate in stage.gates:
            found += _outcome_mistakes(f"{where}, gate {gate.name}", gate.on_failure, stages, stage.name)
        found += _outcome_mistakes(f"{where}, onRunFailure", stage.on_run_failure, stages, stage.name)
        if stage.merge is not None:
            found += _outcome_mistakes(f"{where}, merge.onConflict", stage.merge.on_conflict, stages, stage.name)
            if stage.name != stages[-1]:
                found.append(f"{where}: merge belongs to the last stage: what a later one commits would not be merged")
    holders: dict[str, list[str]] = {}
    for stage in spec.stages:
        for gate in stage.gates:
            holders.setdefault(gate.name, []).append(stage.name)
    # Decisions and rework counters name a gate without its stage.
    found += [
        f"gate {name!r} is in stages {' and '.join(names)}: a gate's name must be unique in the Pipeline"
        for name, names in holders.items()
        if len(names) > 1
    ]
    found += [
        f"placeholder {{{word}}} is unknown (there are: {', '.join(PLACEHOLDERS)})"
        for word in dict.fromkeys(_words(spec))
        if word not in PLACEHOLDERS
    ]
    return tuple(dict.fromkeys(found))


def _agent_mistakes(spec: PipelineSpec, name: str) -> list[str]:
    try:
        agent = agent_of(spec, name)
    except ValidationError as error:
        places = ", ".join(".".join(to_camel(str(part)) for part in entry["loc"]) for entry in error.errors()[:3])
        return [f"agent {name}: too much of {places} once agentDefaults is merged in"]
    if agent.command is None and agent.claude_code is None:
        return [f"agent {name}: neither command nor claudeCode is given, here or in agentDefaults"]
    volumes = {volume.name for volume in agent.volumes or ()}
    return [
        f"agent {name}: volumeMount {mount.name!r} names no volume of the agent"
        for mount in agent.volume_mounts or ()
        if mount.name not in volumes
    ]


def _outcome_mistakes(where: str, outcomes: tuple[Outcome, ...], stages: list[str], current: str) -> list[str]:
    found = []
    for outcome in outcomes:
        target = outcome.send_back_to
        if target is None:
            continue
        if target not in stages:
            found.append(f"{where}: sendBackTo {target!r} is no stage (there are: {', '.join(stages)})")
        elif stages.index(target) > stages.index(current):
            found.append(f"{where}: sendBackTo {target!r} comes after stage {current}")
    return found


def _words(spec: PipelineSpec) -> Iterator[str]:
    for text in _expanded_strings(spec):
        yield from _PLACEHOLDER.findall(text)


def _expanded_strings(spec: PipelineSpec) -> Iterator[str]:
    yield spec.documents
    for agent in (spec.agent_defaults, *spec.agents.values()):
        yield from (agent.system_prompt_file or "", agent.task_file or "", *(agent.commit_paths or ()))
    for stage in spec.stages:
        if stage.pull_request:
            yield stage.pull_request.title
        yield from (outcome.when_file or "" for outcome in _of_stage(stage))
        for gate in stage.gates:
            yield from _judged(gate)
            yield from (outcome.when_file or "" for outcome in gate.on_failure)
