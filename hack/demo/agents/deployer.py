"""The deployer: writes the release note from the history of the branch, once the tests have passed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hack.demo.agents.agent import Task


def work(task: Task) -> None:
    """Write 14-deploy.md. Fails without a passed test report."""
    report = task.read(task.document("13-test-report.md"))
    if not re.search(r"(?m)^Verdict: PASS$", report):
        task.fail("13-test-report.md does not say PASS: nothing is released")
    base = task.base()
    commits = task.git("log", "--reverse", "--format=- `%h` %s", f"{base}..HEAD").strip()
    task.say(f"{len(commits.splitlines())} commits since {base[:12]}")
    files = task.git("diff", "--name-only", base, "HEAD", "--", "src", "README.md").split()
    changes = [
        line for line in task.git("diff", base, "HEAD", "--", "README.md").splitlines() if line.startswith("+- ")
    ]
    customers = "\n".join(line[1:] for line in changes) or "- Nothing that the README would mention."
    task.write(
        task.document("14-deploy.md"),
        f"# Release: {task.title}\n\n## For customers\n\n{customers}\n\n## Changed files\n\n"
        + "".join(f"- `{file}`\n" for file in files)
        + f"\n## Commits\n\n{commits}\n\n## Taking it back\n\n"
        f"    git revert --mainline 1 <the merge commit of {task.item}>\n",
    )
