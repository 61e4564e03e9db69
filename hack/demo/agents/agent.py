"""One program for all six agents: `agent.py ROLE`, prompt on standard input, exit code 0 when the work is done.

It runs in any image with python3, git and make: the standard library only. What a role does is the module of that
name beside this file; what all roles need to see and change the worktree is the `Task` that they are given.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROLES = ("analyst", "architect", "developer", "reviewer", "tester", "deployer")
NO_PROMPT = 2


class AgentError(Exception):
    """The agent cannot do its work; the message says why, in one sentence."""


class PromptError(AgentError):
    """The prompt is missing or is not about a work item."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What an agent was asked, and the worktree it may change. Paths are relative to the worktree's root."""

    role: str
    prompt: str
    title: str
    item: str
    attempt: int
    documents: Path

    def say(self, text: str) -> None:
        """Tell whoever reads the log what the agent is doing."""
        print(f"[{self.role}] {text}", flush=True)

    def fail(self, reason: str) -> NoReturn:
        """End the agent's run as failed. Raises AgentError."""
        raise AgentError(reason)

    def read(self, path: str | Path) -> str:
        """Return a file's text."""
        try:
            text = Path(path).read_text()
        except FileNotFoundError:
            raise AgentError(
                f"{path} is missing, and the {self.role} needs it: an earlier stage should have made it"
            ) from None
        self.say(f"read {path} ({len(text.splitlines())} lines)")
        return text

    def write(self, path: str | Path, text: str) -> None:
        """Write a file, with its folder."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text.rstrip("\n") + "\n")
        self.say(f"wrote {path}")

    def exists(self, path: str | Path) -> bool:
        """Whether there is such a file."""
        return Path(path).exists()

    def modules(self, folder: str) -> list[str]:
        """Name the Python modules below a folder, without the empty ones that make packages."""
        return sorted(str(path) for path in Path(folder).rglob("*.py") if path.name != "__init__.py")

    def run(self, *command: str, **environment: str) -> tuple[int, str]:
        """Run a program in the worktree; return its exit code and all that it printed."""
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env={**os.environ, **environment},
        )
        return done.returncode, done.stdout

    def document(self, name: str) -> Path:
        """Name one of the item's documents."""
        return self.documents / name

    def git(self, *arguments: str) -> str:
        """Ask git something; the agent can read history and change none."""
        code, printed = self.run("git", *arguments)
        if code != 0:
            raise AgentError(f"git {' '.join(arguments)} failed: {printed.strip()}")
        return printed

    def base(self) -> str:
        """Return the commit on which this item's work began: the parent of the first run's commit."""
        own = [
            line.split()[0] for line in self.git("log", "--format=%H %s").splitlines() if f"({self.item}): run" in line
        ]
        if not own:
            raise AgentError(f"the branch has no commit of {self.item}: there is nothing to look at yet")
        return self.git("rev-parse", f"{own[-1]}~1").strip()

    def make_test(self) -> tuple[bool, str]:
        """Run the repository's own tests; return whether they passed, and what they printed."""
        self.say("run `make test`")
        code, printed = self.run("make", "test")
        self.say(f"`make test` ended with exit code {code}")
        return code == 0, printed

    def section(self, heading: str) -> str:
        """Return what stands under the prompt's first-level headings that match a pattern, or nothing."""
        parts = re.split(r"(?m)^# +(.+)$", self.prompt)
        pairs = zip(parts[1::2], parts[2::2], strict=True)
        return "\n\n".join(text.strip() for name, text in pairs if re.search(heading, name, re.IGNORECASE))


def title_of(prompt: str) -> str:
    """Find the work item's title. Raises PromptError with what is missing."""
    if not prompt.strip():
        raise PromptError("the prompt on standard input is empty: the agent does not know what to do")
    found = re.search(r"(?m)^# +(\S.*)$", prompt)
    if not found:
        raise PromptError("the prompt names no title (a heading `# …`): this is not a work item's prompt")
    return found.group(1).strip()


def main(arguments: list[str]) -> int:
    """Do one agent's work."""
    if len(arguments) != 1 or arguments[0] not in ROLES:
        print(f"usage: agent.py {{{','.join(ROLES)}}} < prompt", file=sys.stderr)
        return NO_PROMPT
    role = arguments[0]
    try:
        prompt = sys.stdin.read()
        task = Task(
            role=role,
            prompt=prompt,
            title=title_of(prompt),
            item=os.environ["WORKITEM_NAME"],
            attempt=int(os.environ["WORKITEM_ATTEMPT"]),
            documents=Path(os.environ["WORKITEM_DOCUMENTS"]),
        )
        task.say(f"{task.item}: {task.title} (run {os.environ['WORKITEM_RUN']}, attempt {task.attempt})")
        # By hand, because images that set PYTHONSAFEPATH leave the script's own folder out.
        sys.path.insert(0, str(Path(__file__).parent))
        importlib.import_module(role).work(task)
    except KeyError as error:
        print(f"[{role}] cannot work: {error.args[0]} is not in the environment", file=sys.stderr)
        return NO_PROMPT
    except AgentError as error:
        print(f"[{role}] cannot go on: {error}", file=sys.stderr)
        return NO_PROMPT if isinstance(error, PromptError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
