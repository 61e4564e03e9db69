"""The prompt of a run: what the operator knows, in an order that never changes.

The first line is fixed text, because some agents take a prompt that starts with `/` as a command. The person's words
follow byte for byte. The runner appends the files that `RunTask.include` names, as the branch's head has them.
"""

from __future__ import annotations

from workitems.api import CurrentRun, WorkItem, WorkItemStatus


def prompt(item: WorkItem, status: WorkItemStatus, run: CurrentRun, documents: str) -> str:
    """The operator's part of the prompt, Markdown, ending with a newline."""
    spec = item.spec
    parts = [
        f"You are the {run.agent} of work item {item.metadata.name}, in stage {run.stage}.\n",
        (
            f"Repository: {spec.repository}\nBranch: {status.branch}\nStage: {run.stage}\nAttempt: {run.attempt}\n"
            f"Documents: {documents}\n"
        ),
        f"# {spec.title}\n\n{spec.description}",
    ]
    rerun = status.rerun
    if rerun is not None:
        if rerun.findings:
            findings = "\n".join(f"- {finding}" for finding in rerun.findings)
            parts.append(f"# What happened before\n\nThis stage runs again ({rerun.reason}):\n\n{findings}\n")
        parts += [f"# Answer\n\n{answer}\n" for answer in rerun.answers]
    return "\n".join(part if part.endswith("\n") else f"{part}\n" for part in parts)
