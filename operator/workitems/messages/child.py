"""The process that renders one template of a team's own, within limits that it gives itself before it reads it."""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

from workitems.messages.template import Subject, Unusable, rendered


def main() -> None:
    """Read a task from the standard input, write what came of it to the output."""
    task = json.load(sys.stdin)
    seconds, size = task["processor_seconds"], task["memory_bytes"]
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer: dict[str, Any] = {"text": "", "problem": None}
    try:
        subject = Subject(**task["subject"])
        answer["text"] = rendered(task["template"], task["values"], subject, task["units"], task["most"])
    except Unusable as error:
        answer["problem"] = str(error)
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
