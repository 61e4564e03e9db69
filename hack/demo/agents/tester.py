"""The tester: runs the tests on the tree as it is and reports what happened."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hack.demo.agents.agent import Task


def work(task: Task) -> None:
    """Write 13-test-report.md with the verdict, the numbers and the output."""
    passed, output = task.make_test()
    ran = re.search(r"Ran (\d+) tests?", output)
    # A run that ran nothing proves nothing.
    verdict = "PASS" if passed and ran and int(ran.group(1)) > 0 else "FAIL"
    task.write(
        task.document("13-test-report.md"),
        f"# Test report: {task.title}\n\nVerdict: {verdict}\n\n"
        f"{ran.group(1) if ran else 'No'} tests ran with `make test`.\n\n```\n{output.strip()}\n```\n",
    )
    task.say(f"verdict: {verdict}")
