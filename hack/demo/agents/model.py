"""The six agents as a model: what each would do next, as tool calls of the CLI that asks. For a demo without a key.

The Messages API has no memory: each request brings the whole conversation. So a role's work is done again from its
beginning at each request, with the results that the conversation has for its steps; the first step without a result is
the answer. The modules are those of the command agents: what they do in a worktree, the CLI's tools do here.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from hack.scriptedmodel.server import Conversation, Move

# By hand: in the cluster the files lie beside each other, and are no package.
sys.path.insert(0, str(Path(__file__).parent))
agent = importlib.import_module("hack.demo.agents.agent" if __package__ else "agent")
TIMEOUT_MS = 120_000


class NextStep(Exception):  # noqa: N818 - no error: how the work is left at the step that must be done now
    """A tool call that has no result yet."""

    def __init__(self, move: Move) -> None:
        super().__init__()
        self.move = move


def reply(conversation: Conversation) -> Move:
    """The next answer of the model."""
    role = _first(r"You are the (\w+) of work item", conversation.prompt)
    if role not in agent.ROLES:
        return {"say": "This prompt names no role of the demo."}
    task = ModelTask(
        role=role,
        prompt=conversation.prompt,
        title=agent.title_of(conversation.prompt),
        item=_first(r"of work item ([^\s,]+),", conversation.prompt),
        attempt=conversation.attempt,
        documents=Path(conversation.documents),
        conversation=conversation,
    )
    try:
        module = importlib.import_module(f"hack.demo.agents.{role}" if __package__ else role)
        module.work(task)
    except NextStep as step:
        return step.move
    except agent.AgentError as error:
        return {"say": f"I cannot go on: {error}"}
    return {"say": "\n".join(task.said) or "Done."}


@dataclasses.dataclass(frozen=True)
class ModelTask(agent.Task):  # type: ignore[misc, name-defined] # imported by hand, see above
    """A role's worktree, through the tools of the CLI."""

    conversation: Conversation
    said: list[str] = dataclasses.field(default_factory=list)
    steps: list[str] = dataclasses.field(default_factory=list)

    def say(self, text: str) -> None:
        """Say it with the next tool call."""
        self.said.append(text)

    def fail(self, reason: str) -> NoReturn:
        """End without the documents: the gates see it. Raises AgentError."""
        raise agent.AgentError(reason)

    def read(self, path: str | Path) -> str:
        """Return a file's text."""
        code, text = self.run("cat", str(path))
        if code != 0:
            raise agent.AgentError(f"{path} is missing, and the {self.role} needs it")
        return text

    def write(self, path: str | Path, text: str) -> None:
        """Write a file. The CLI refuses to write one that it has not read."""
        absolute = f"{{cwd}}/{path}"
        arguments = {"file_path": absolute, "content": text.rstrip("\n") + "\n"}
        failed, _ = self._use("Write", arguments)
        if failed:
            self._use("Read", {"file_path": absolute})
            failed, why = self._use("Write", arguments)
            if failed:
                raise agent.AgentError(f"{path} cannot be written: {why}")

    def exists(self, path: str | Path) -> bool:
        """Whether there is such a file."""
        return self.run("test", "-e", str(path))[0] == 0

    def modules(self, folder: str) -> list[str]:
        """Name the Python modules below a folder, without the empty ones that make packages."""
        return sorted(self.run("find", folder, "-name", "*.py", "-not", "-name", "__init__.py")[1].split())

    def run(self, *command: str, **environment: str) -> tuple[int, str]:
        """Run a program in the worktree; return its exit code and all that it printed."""
        words = [*(f"{name}={value}" for name, value in environment.items()), shlex.join(command)]
        line = f'{" ".join(words)} 2>&1; echo "exit code $?"'
        _, printed = self._use("Bash", {"command": line, "description": command[0], "timeout": TIMEOUT_MS})
        text, _, code = printed.rpartition("exit code ")
        # The CLI takes the space around an output away.
        return int(code) if code.strip().isdigit() else 1, f"{text.rstrip()}\n" if text.strip() else ""

    def _use(self, tool: str, arguments: dict[str, Any]) -> tuple[bool, str]:
        """The result of a tool call: whether it failed, and its text. Raises NextStep where there is none yet."""
        position = len(self.steps)
        if position == len(self.conversation.results):
            words = {"say": "\n".join(self.said)} if self.said else {}
            raise NextStep({**words, "use": tool, "input": arguments})
        self.steps.append(tool)
        self.said.clear()
        result = self.conversation.results[position]
        content = result.get("content")
        if isinstance(content, list):
            content = "\n".join(part.get("text", "") for part in content)
        return result.get("is_error") is True, str(content or "")


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found.group(1) if found else ""
